//! The CUDA backend: positions, list, network and integrator on one GPU, in kernels of our own.
//!
//! Nothing of CUDA is linked: the driver is loaded when it is asked for, and NVRTC, the compiler, with it. The same
//! binary runs on machines without either. The kernels are in `kernels/`; they are compiled for the device and the
//! network's sizes at first use and kept in a cache on disk.

mod device;
mod engine;
mod few;
mod graph;
mod journal;
mod kernels;
mod launch;
mod layout;
mod many;
mod memory;
mod messages;
mod network;
mod nvrtc;
mod potential;
mod program;
mod radial;
mod replicas;
mod resident;
mod sample;
mod size;
mod skin;
mod state;
mod tiled;
mod tiles;
mod weights;

pub use device::{Arithmetic, Device, Driver};
pub use engine::{CudaBackend, Path};
pub use kernels::{ResidentSizes, Switches, compile_options, source};
pub use nvrtc::{Compiled, Nvrtc};
pub use potential::CudaPotential;
pub use program::cache_folder;
pub use replicas::CudaBatch;
pub use size::{bytes_an_atom, largest_system};
pub use skin::cheapest_skin;

use crate::error::{Error, Result};
use crate::model::Model;

/// Largest number of features, and of layers, that the kernels are made for.
const LARGEST: (usize, usize) = (256, 6);

/// Whether the kernels are made for this network.
///
/// # Errors
/// [`Error::Model`] that names the size that is out of reach.
pub fn check_model(model: &Model) -> Result<()> {
    let (features, layers) = LARGEST;
    let refuse = |what: String| {
        Err(Error::Model(format!("{}: the GPU backend has no kernels for {what}; use --backend cpu", model.name)))
    };
    match () {
        () if model.features() > features => refuse(format!("{} features, more than {features}", model.features())),
        () if model.layers.len() > layers => refuse(format!("{} layers, more than {layers}", model.layers.len())),
        () if model.readout.len() < 2 => refuse("a readout without a hidden layer".into()),
        () => Ok(()),
    }
}
