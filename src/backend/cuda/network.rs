//! The network on the device: its weights, and the way its kernels go.

use super::device::Device;
use super::kernels::Switches;
use super::launch::Sink;
use super::layout::{Parameters, Pointer};
use super::many::Many;
use super::program::Program;
use super::weights::{SLICE, Weights, padded};
use crate::error::Result;
use crate::model::{Architecture, Model};
use std::sync::Arc;

/// See the module.
pub(super) struct Network {
    weights: Weights,
    many: Many,
}

impl Network {
    /// Which constants the kernels need for so many atoms.
    pub fn switches(device: &Device, model: &Model, atoms: usize, langevin: bool) -> Switches {
        Switches {
            features: padded(model.features()),
            student: model.spec.architecture == Architecture::Student,
            // Filling the shared memory of every multiprocessor pays when many atoms then read from it.
            table_shared: table_bytes(model) <= device.shared_memory && atoms >= 4096,
            large: atoms >= 2048,
            few: atoms <= 512,
            langevin,
            conditional: device.has_conditional_nodes(),
        }
    }

    /// Copies the weights and reserves memory.
    pub fn new(
        device: &Arc<Device>,
        program: &mut Program,
        switches: &Switches,
        model: &Model,
        atomic_numbers: &[u8],
    ) -> Result<Self> {
        let weights = Weights::new(device, model, switches.features, atomic_numbers)?;
        let many = Many::new(device, program, switches, table_bytes(model), &weights, atomic_numbers.len())?;
        Ok(Network { weights, many })
    }

    /// Each atom's element, `[N]`.
    pub fn species(&self) -> Pointer {
        self.weights.species()
    }

    /// From pairs to energies and the gradients of pairs.
    pub fn record(&self, sink: &mut impl Sink, p: &Parameters) -> Result<()> {
        self.many.record(sink, p, &self.weights)
    }
}

/// Bytes of the filter table of one slice.
fn table_bytes(model: &Model) -> usize {
    (model.filter_table().intervals + 3) * 3 * SLICE * size_of::<f32>()
}
