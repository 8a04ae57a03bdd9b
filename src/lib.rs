//! Molecular dynamics under learned force fields.
//!
//! The library does everything that the program `verlet` does. Energy and forces of a molecule:
//!
//! ```
//! use verlet::model::Model;
//! use verlet::system::structure::read_structure;
//!
//! # fn main() -> verlet::Result<()> {
//! let model = Model::load("inputs/models/ethanol-water-v2.safetensors")?;
//! let ethanol = read_structure("inputs/structures/ethanol.xyz", 0)?;
//! let result = verlet::backend::evaluate(&model, &ethanol)?;
//! println!("{}: {:.4} eV", ethanol.formula(), result.energy);
//! assert_eq!(result.forces.len(), ethanol.len());
//! # Ok(())
//! # }
//! ```
//!
//! Units inside are Å, fs, u, eV and K. [`config`] reads an input file, [`setup`] turns it into a run,
//! [`simulation`] moves it and tells its observers. The repository's `examples` are whole programs: a run from code, an
//! observer of one's own.

#![warn(missing_docs)]

pub mod analysis;
pub mod backend;
pub mod bench;
pub mod cli;
pub mod config;
pub mod elements;
pub mod error;
pub mod integrate;
mod memory;
pub mod model;
pub mod neighbors;
pub mod output;
pub mod replicas;
pub mod setup;
pub mod simulation;
pub mod system;
pub mod units;

pub use error::{Error, Result};
/// The vectors in this library's types.
pub use nalgebra;

/// The guide's Rust must compile.
#[cfg(doctest)]
#[doc = include_str!("../docs/src/library.md")]
struct Guide;
