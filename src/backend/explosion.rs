//! What every backend says when a simulation leaves the numbers.

use super::State;
use crate::elements;
use crate::error::{Error, Result, short};
use nalgebra::Vector3;

/// Å that no atom moves in one step of a simulation that is worth anything: hydrogen at 300 K moves 0.01 Å in 0.5 fs.
pub(super) const LARGEST_MOVE: f64 = 1.0;

/// An atom for a message, counted from 1.
pub(super) fn name(atom: usize, atomic_numbers: &[u8]) -> String {
    format!("{} ({})", atom + 1, elements::symbol(atomic_numbers[atom]))
}

/// The first atom whose force is no finite number, for a message; the very first where all are.
pub(super) fn lost(forces: &[Vector3<f64>], atomic_numbers: &[u8]) -> String {
    let atom = forces.iter().position(|f| !f.iter().all(|x| x.is_finite())).unwrap_or(0);
    name(atom, atomic_numbers)
}

/// The simulation ends in the step that led to `step`.
pub(super) fn exploded(step: u64, how: &str) -> Error {
    Error::Run(format!(
        "the simulation exploded at step {step}: {how}; use a shorter time step or a better starting structure"
    ))
}

/// An atom that would move so many Å in a step. The last energy (eV) `was` that of the step before, or `is` that of this
/// one.
pub(super) fn too_fast(tense: &str, energy: f64, atom: &str, distance: f64) -> String {
    format!("the energy {tense} {} eV, and atom {atom} would move {} Å in one step", short(energy), short(distance))
}

/// A step after which an atom is too fast, or the energy (eV) is no number.
pub(super) fn ended(step: u64, energy: f64, atom: &str, distance: f64) -> Error {
    if energy.is_finite() && distance.is_finite() {
        return exploded(step, &too_fast("is", energy, atom, distance));
    }
    no_energy(step, energy, atom)
}

/// An energy that is no number.
pub(super) fn no_energy(step: u64, energy: f64, atom: &str) -> Error {
    if step == 0 {
        return Error::Run(format!(
            "the energy of the starting structure is {energy}, first seen at atom {atom}; check the structure and the model, \
             and whether backend.precision = \"f64\" helps"
        ));
    }
    exploded(step, &format!("the energy is {energy}, first seen at atom {atom}"))
}

/// Refuses the state of another system.
pub(super) fn check_state(state: &State, atoms: usize) -> Result<()> {
    if state.positions.len() == atoms && state.velocities.len() == atoms {
        return Ok(());
    }
    Err(Error::Run(format!(
        "the state has {} atoms, but the system has {atoms}; it belongs to another run",
        state.positions.len()
    )))
}
