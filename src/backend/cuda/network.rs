//! The network on the device: its weights, and the way its kernels go.

use super::device::{Arithmetic, Device};
use super::few::{Few, What};
use super::graph::Handle;
use super::kernels::Switches;
use super::launch::Sink;
use super::layout::{Parameters, Pointer};
use super::many::Many;
use super::messages;
use super::program::Program;
use super::radial;
use super::resident::Resident;
use super::tiled::{self, Tiled};
use super::weights::{REDUCED_SLICE, SLICE, Weights, padded};
use crate::error::{Error, Result};
use crate::model::{Architecture, Model};
use std::sync::Arc;

/// See the module.
pub(super) struct Network {
    weights: Weights,
    way: Way,
}

enum Way {
    Resident(Box<Resident>),
    Few(Box<Few>),
    Tiled(Box<Tiled>),
    Many(Box<Many>),
}

impl Network {
    /// The kernels for so many atoms, of one system or of many, and what they are compiled for. `open`: no atom ever has images.
    pub fn program(
        device: &Arc<Device>,
        model: &Model,
        atoms: usize,
        langevin: bool,
        replicas: bool,
        open: bool,
    ) -> Result<(Switches, Program)> {
        if replicas {
            let switches = Self::switches(device, model, atoms, langevin, false, true);
            return Ok((switches, Program::load(device, &switches)?));
        }
        let switches = Self::switches(device, model, atoms, langevin, true, false);
        if let Some(sizes) = Resident::takes(device, model, atoms).filter(|_| switches.few && open) {
            let compiled_for = |sizes| Switches { resident: Some(sizes), radial: true, ..switches };
            let mut program = Program::load(device, &compiled_for(sizes))?;
            let fitting = Resident::fitting(device, &mut program, model, sizes)?;
            if let Some(fitting) = fitting.filter(|fitting| *fitting != sizes) {
                program = Program::load(device, &compiled_for(fitting))?;
            }
            if let Some(fitting) = fitting {
                return Ok((compiled_for(fitting), program));
            }
        }
        let mut program = Program::load(device, &switches)?;
        if switches.few && !Few::fits(device, &mut program, switches.features, model.layers.len(), atoms)? {
            let switches = Self::switches(device, model, atoms, langevin, false, false);
            return Ok((switches, Program::load(device, &switches)?));
        }
        Ok((switches, program))
    }

    /// Which constants the kernels need for so many atoms; they are few only if they may be.
    fn switches(
        device: &Device,
        model: &Model,
        atoms: usize,
        langevin: bool,
        may_be_few: bool,
        replicas: bool,
    ) -> Switches {
        let reduced = device.arithmetic == Arithmetic::Mixed;
        // Clusters share features evenly: powers of two.
        let features = model.features().next_power_of_two().max(SLICE);
        let readout: Vec<_> = model.readout.iter().rev().skip(1).map(|dense| padded(dense.outputs)).collect();
        let few = !reduced && may_be_few && Few::takes(device, features, model.layers.len(), atoms, &readout);
        // A warp works on 16 pairs at a time: in few small molecules it has hardly more, and the table is faster.
        let pays = reduced || atoms >= if replicas { 512 } else { 128 };
        let radial = !few && pays && device.capability >= (8, 0) && radial::takes(&model.filter);
        let sliced = radial && !reduced && messages::sliced(device, atoms);
        let student = model.spec.architecture == Architecture::Student;
        let features = match () {
            () if few => features,
            () if reduced => reduced_features(model),
            () => padded(model.features()),
        };
        Switches {
            features,
            student,
            // Filling the shared memory of every multiprocessor pays when many atoms then read from it.
            table_shared: !radial && atoms >= 4096 && table_bytes(model) <= device.shared_memory,
            radial,
            sliced,
            tiled: !few && !student && tiled::takes(device, features, &readout),
            tile: if reduced { tiled::reduced_tile(device, features) } else { tiled::TILE },
            tile_warps: if reduced { tiled::WARPS } else { tiled::warps(device, features, atoms) },
            large: atoms >= 2048,
            few,
            resident: None,
            split: !few && atoms <= 512,
            langevin,
            conditional: device.has_conditional_nodes(),
            watch: model.spec.domain.is_some(),
            repulsion: model.spec.repulsion.is_some(),
            reduced,
            replicas,
        }
    }

    /// Whether a step of so many atoms is one kernel.
    pub fn is_few(device: &Device, model: &Model, atoms: usize) -> bool {
        Self::switches(device, model, atoms, false, true, false).few
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
        let way = if let Some(sizes) = &switches.resident {
            Way::Resident(Box::new(Resident::new(device, program, model, &weights, sizes)?))
        } else if switches.few {
            Way::Few(Box::new(Few::new(device, program, &weights, atoms)?))
        } else {
            let table_bytes = if switches.table_shared { table_bytes(model) } else { 0 };
            if switches.tiled {
                Way::Tiled(Box::new(Tiled::new(device, program, switches, table_bytes, &weights, atoms)?))
            } else {
                Way::Many(Box::new(Many::new(device, program, switches, table_bytes, &weights, atoms)?))
            }
        };
        Ok(Network { weights, way })
    }

    /// Each atom's element, `[N]`.
    pub fn species(&self) -> Pointer {
        self.weights.species()
    }

    /// From pairs to energies and the gradients of pairs; of few atoms `what` is asked for.
    pub fn record(&self, sink: &mut impl Sink, p: &Parameters, what: What, again: Handle) -> Result<()> {
        match &self.way {
            Way::Resident(resident) => resident.record(sink, p, what, again),
            Way::Few(few) => few.record(sink, p, what, again),
            Way::Tiled(tiled) => tiled.record(sink, p, &self.weights),
            Way::Many(many) => many.record(sink, p, &self.weights),
        }
    }
}

/// Channels in reduced precision, with padding.
fn reduced_features(model: &Model) -> usize {
    model.features().next_multiple_of(REDUCED_SLICE)
}

/// Refuses a network that has no kernels in the device's arithmetic.
pub(super) fn check_arithmetic(device: &Device, model: &Model) -> Result<()> {
    let readout: Vec<_> = model.readout.iter().rev().skip(1).map(|dense| padded(dense.outputs)).collect();
    let takes = model.spec.architecture == Architecture::Painn
        && radial::takes(&model.filter)
        && tiled::takes(device, reduced_features(model), &readout);
    if device.arithmetic == Arithmetic::Single || takes {
        return Ok(());
    }
    Err(Error::Model(format!(
        "{}: mixed precision is for networks of the architecture painn whose filters are made of at most 20 Gaussians, on GPUs \
         of compute capability 8.0 and newer; use precision \"f32\"",
        model.name
    )))
}

/// Bytes of the filter table of one slice.
fn table_bytes(model: &Model) -> usize {
    (model.filter_table().intervals + 3) * 3 * SLICE * size_of::<f32>()
}
