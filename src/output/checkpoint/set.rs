//! The checkpoint of many systems that move together: one file for all, so that they always go on from one step.

use super::Provenance;
use crate::backend::{Departure, State};
use crate::error::Result;
use crate::output::Position;
use crate::system::{Cell, System};

/// A run of many systems at one step: with the model file, all that it takes to go on.
#[derive(Debug, Clone, PartialEq)]
pub struct SetCheckpoint {
    /// What the run is.
    pub run: Provenance,
    /// The step at which the run is to end.
    pub steps: u64,
    /// The step that all systems have come to which still move.
    pub step: u64,
    /// The systems, in the order of the input.
    pub members: Vec<Member>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Of its folder in the run's folder.
    pub name: String,
    /// Its atoms.
    pub atomic_numbers: Vec<u8>,
    /// u.
    pub masses: Vec<f64>,
    /// Edges and periodic directions.
    pub cell: Cell,
    /// Everything that moves; where it has failed, that of the last checkpoint before.
    pub state: State,
    /// How far its trajectory has come.
    pub output: Position,
    /// The step at which it failed, and why, if it has.
    pub failure: Option<(u64, String)>,
    /// Where it left what its model was trained on, the first time in each way.
    pub departures: Vec<Departure>,
}

impl Member {
    /// The system as it was, without its motion from before the run.
    ///
    /// # Errors
    /// As [`System::new`].
    pub fn system(&self) -> Result<System> {
        super::system(&self.atomic_numbers, &self.masses, &self.cell, &self.state)
    }
}
