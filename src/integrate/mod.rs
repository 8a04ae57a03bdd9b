//! Moving atoms in time.

mod baoab;
pub mod philox;

pub use baoab::{Bath, Integrator, Thermostat};
