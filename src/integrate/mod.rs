//! Moving atoms in time.

pub mod philox;
mod velocity_verlet;

pub use velocity_verlet::VelocityVerlet;
