//! verlet: molecular dynamics under learned force fields.

pub mod elements;
pub mod error;
pub mod output;
pub mod system;
pub mod units;

pub use error::{Error, Result};
