//! The CPU backend: rayon over blocks of atoms, generic over the precision of the network.

mod aligned;
mod atoms;
mod batch;
mod dense;
mod engine;
mod filters;
mod forces;
mod geometry;
mod message;
mod network;
mod passes;
mod real;
mod simd;
mod update;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use batch::CpuBatch;
pub use engine::CpuBackend;
pub use filters::Filters;
pub use network::NetworkPotential;
pub use real::Real;

/// The vector instructions that the kernels use on this processor.
pub fn instructions() -> &'static str {
    simd::Instructions::best().name()
}

use super::Evaluation;
use crate::error::Result;
use crate::system::Cell;
use nalgebra::Vector3;

/// A potential energy surface: what an integrator on the CPU needs to know of a force field.
pub trait Potential: Send {
    /// Writes energy, forces and strain derivative of these positions (Å, unwrapped) into `out`.
    ///
    /// # Errors
    /// [`Error::Run`](crate::Error::Run) when the positions make no sense, for example when they are not numbers.
    fn evaluate(&mut self, positions: &[Vector3<f64>], cell: &Cell, out: &mut Evaluation) -> Result<()>;

    /// Positions of the last build of its neighbour list, and how often it has been rebuilt; nothing where there is no
    /// list.
    fn list(&self) -> (&[Vector3<f64>], u64) {
        (&[], 0)
    }

    /// Makes the neighbour list again as it was built at these positions.
    ///
    /// # Errors
    /// As [`evaluate`](Self::evaluate).
    fn restore_list(&mut self, positions: &[Vector3<f64>], cell: &Cell, rebuilds: u64) -> Result<()> {
        let _ = (positions, cell, rebuilds);
        Ok(())
    }
}
