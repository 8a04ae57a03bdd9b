//! Energies and forces alone, for structures that do not move.

use super::device::Device;
use super::layout::{Control, status};
use super::state::State;
use crate::backend::Evaluation;
use crate::backend::cpu::Potential;
use crate::error::Result;
use crate::model::Model;
use crate::neighbors::NeighborList;
use crate::system::Cell;
use nalgebra::{Matrix3, Vector3};
use std::sync::Arc;

/// A network on the GPU, in float32 with tabulated filters.
pub struct CudaPotential {
    state: State,
    cell: Cell,
    offsets: Vec<f64>,
    control: Control,
}

impl CudaPotential {
    /// Prepares a model for atoms of these elements. `skin` in Å.
    ///
    /// # Errors
    /// [`Error::Structure`](crate::Error::Structure) when the model does not know an element,
    /// [`Error::Model`](crate::Error::Model) when the kernels are not made for it, [`Error::Run`](crate::Error::Run) when
    /// they cannot be compiled or there is no memory.
    pub fn new(device: &Arc<Device>, model: &Model, atomic_numbers: &[u8], skin: f64) -> Result<Self> {
        let cell = Cell::open();
        Ok(CudaPotential {
            state: State::new(device, model, atomic_numbers, &cell, skin, None)?,
            cell,
            offsets: atomic_numbers.iter().map(|&z| model.offsets[z as usize]).collect(),
            control: Control::new(),
        })
    }
}

impl CudaPotential {
    /// The neighbour list of the last evaluation.
    ///
    /// # Errors
    /// [`Error::Run`](crate::Error::Run) when the driver fails.
    pub fn list(&self) -> Result<NeighborList> {
        self.state.list()
    }
}

/// Fills `out` with what the device has computed.
pub(super) fn collect(state: &mut State, offsets: &[f64], control: &Control, out: &mut Evaluation) -> Result<()> {
    let unit = state.parameters.energy_unit;
    out.energy = control.network * unit + offsets.iter().sum::<f64>();
    out.outside = state.guard.beyond(control.network * unit).into_iter().collect();
    let energies = state.energies()?;
    out.atom_energies = energies.iter().zip(offsets).map(|(e, offset)| e * unit + offset).collect();
    out.forces = state.forces()?;
    // By atoms in rising order.
    out.strain_derivative = state.strain()?.chunks_exact(9).map(Matrix3::from_row_slice).sum();
    Ok(())
}

impl Potential for CudaPotential {
    fn evaluate(&mut self, positions: &[Vector3<f64>], cell: &Cell, out: &mut Evaluation) -> Result<()> {
        let mut control = Control { status: status::GOOD, atom: i32::MAX, ..self.control };
        if *cell != self.cell {
            self.state.set_cell(cell)?;
            self.cell = cell.clone();
            control.rebuild = 1;
        }
        self.state.write_control(&control)?;
        self.state.set_positions(positions)?;
        self.state.check_moved()?;
        // Until this evaluation has succeeded there is no list.
        self.control.rebuild = 1;
        self.control = self.state.settle()?;
        collect(&mut self.state, &self.offsets, &self.control, out)?;
        let contacts = self.state.take_contacts(&mut self.control)?.into_iter();
        out.outside.splice(0..0, contacts.map(|(_, outside)| outside));
        Ok(())
    }
}
