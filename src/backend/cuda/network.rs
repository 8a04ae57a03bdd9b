//! The network on the device: its weights, and the way its kernels go.

use super::device::Device;
use super::few::Few;
use super::kernels::Switches;
use super::launch::Sink;
use super::layout::{Parameters, Pointer};
use super::many::Many;
use super::program::Program;
use super::radial;
use super::weights::{SLICE, Weights, padded};
use crate::error::Result;
use crate::model::{Architecture, Model};
use std::sync::Arc;

/// See the module.
pub(super) struct Network {
    weights: Weights,
    way: Way,
}

enum Way {
    Few(Box<Few>),
    Many(Box<Many>),
}

impl Network {
    /// Which constants the kernels need for so many atoms.
    pub fn switches(device: &Device, model: &Model, atoms: usize, langevin: bool) -> Switches {
        // Clusters share features evenly: powers of two.
        let features = model.features().next_power_of_two().max(SLICE);
        let readout = model.readout.iter().rev().skip(1).map(|dense| padded(dense.outputs));
        let few = device.clusters && Few::takes(features, atoms, readout);
        let radial = atoms >= 2048 && radial::takes(&model.filter);
        Switches {
            features: if few { features } else { padded(model.features()) },
            student: model.spec.architecture == Architecture::Student,
            // Filling the shared memory of every multiprocessor pays when many atoms then read from it.
            table_shared: !radial && atoms >= 4096 && table_bytes(model) <= device.shared_memory,
            radial,
            large: atoms >= 2048,
            few,
            split: !few && atoms <= 512,
            langevin,
            conditional: device.has_conditional_nodes(),
            watch: model.spec.domain.is_some(),
            repulsion: model.spec.repulsion.is_some(),
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
        let weights = Weights::new(device, model, switches, atomic_numbers)?;
        let atoms = atomic_numbers.len();
        let way = if switches.few {
            Way::Few(Box::new(Few::new(device, program, &weights, atoms)?))
        } else {
            let table_bytes = if switches.table_shared { table_bytes(model) } else { 0 };
            Way::Many(Box::new(Many::new(device, program, switches, table_bytes, &weights, atoms)?))
        };
        Ok(Network { weights, way })
    }

    /// Each atom's element, `[N]`.
    pub fn species(&self) -> Pointer {
        self.weights.species()
    }

    /// From pairs to energies and the gradients of pairs.
    pub fn record(&self, sink: &mut impl Sink, p: &Parameters) -> Result<()> {
        match &self.way {
            Way::Few(few) => few.record(sink, p, self.weights.student),
            Way::Many(many) => many.record(sink, p, &self.weights),
        }
    }
}

/// Bytes of the filter table of one slice.
fn table_bytes(model: &Model) -> usize {
    (model.filter_table().intervals + 3) * 3 * SLICE * size_of::<f32>()
}
