//! verlet: molecular dynamics under learned force fields.

pub mod analysis;
pub mod backend;
pub mod cli;
pub mod config;
pub mod elements;
pub mod error;
pub mod integrate;
pub mod model;
pub mod neighbors;
pub mod output;
pub mod setup;
pub mod simulation;
pub mod system;
pub mod units;

pub use error::{Error, Result};
