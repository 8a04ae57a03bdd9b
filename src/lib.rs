//! Molecular dynamics under learned force fields.
//!
//! The library does everything that the program `verlet` does. Energy and forces of a molecule:
//!
//! ```
//! use verlet::backend::Evaluation;
//! use verlet::backend::cpu::{Filters, NetworkPotential, Potential};
//! use verlet::model::Model;
//! use verlet::system::structure::read_structure;
//!
//! # fn main() -> verlet::Result<()> {
//! let model = Model::load("inputs/models/ethanol-water-v1.safetensors".as_ref())?;
//! let ethanol = read_structure("inputs/structures/ethanol.xyz".as_ref(), 0)?;
//! let mut potential = NetworkPotential::<f32>::new(&model, &ethanol.atomic_numbers, 0.0, Filters::Table)?;
//! let mut result = Evaluation::default();
//! potential.evaluate(&ethanol.positions, &ethanol.cell, &mut result)?;
//! println!("{}: {:.4} eV", ethanol.formula(), result.energy);
//! assert_eq!(result.forces.len(), ethanol.len());
//! # Ok(())
//! # }
//! ```
//!
//! Units inside are Å, fs, u, eV and K. [`config`] reads an input file, [`setup`] turns it into a [`backend::Backend`],
//! [`simulation`] moves it and tells its observers.

#![warn(missing_docs)]

pub mod analysis;
pub mod backend;
pub mod cli;
pub mod config;
pub mod elements;
pub mod error;
pub mod integrate;
mod memory;
pub mod model;
pub mod neighbors;
pub mod output;
pub mod setup;
pub mod simulation;
pub mod system;
pub mod units;

pub use error::{Error, Result};
