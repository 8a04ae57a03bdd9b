//! verlet: molecular dynamics under learned force fields.

pub mod backend;
pub mod elements;
pub mod error;
pub mod model;
pub mod neighbors;
pub mod output;
pub mod system;
pub mod units;

pub use error::{Error, Result};
