//! Many systems that move together, step by step, each for itself.

use super::{Departure, State};
use crate::error::Result;
use crate::integrate::Integrator;
use crate::output::{Frame, Sample};
use crate::system::System;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// One of the systems that are to move together.
#[derive(Debug, Clone)]
pub struct Replica {
    /// Its atoms, and their velocities at the start.
    pub system: System,
    /// How it moves; what differs between replicas are temperatures and seed.
    pub integrator: Integrator,
    /// Degrees of freedom that share the kinetic energy.
    pub degrees_of_freedom: usize,
}

/// A system of a [`Batch`] that can go no further.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// Which, counted from 0.
    pub replica: usize,
    /// The step that it did not reach, or after which it was stopped.
    pub step: u64,
    /// Why, in a sentence.
    pub reason: String,
}

/// Something that holds many systems of one model and moves them side by side: all of them take the same steps, and none
/// changes a bit of another's path. One that fails is left where it is, and the others go on.
pub trait Batch {
    /// One line for the user: device, precision, threads.
    fn describe(&self) -> String;

    /// Number of systems.
    fn len(&self) -> usize;

    /// Never true: there is at least one system.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The step that all systems have come to which still move.
    fn step(&self) -> u64;

    /// Takes `steps` steps, fewer when `stop` is raised or no system moves any more.
    ///
    /// Appends one sample to a system's `samples` for every step that is a multiple of the log interval.
    ///
    /// # Errors
    /// [`Error::Run`](crate::Error::Run) when the device fails; a system that leaves the numbers is a [`Failure`].
    fn advance(&mut self, steps: u64, stop: &AtomicBool, samples: &mut [Vec<Sample>]) -> Result<()>;

    /// The systems that have failed since this was last asked, by steps.
    fn failures(&mut self) -> Vec<Failure>;

    /// Where systems have left what the model was trained on, since this was last asked: as
    /// [`Backend::departures`](super::Backend::departures).
    fn departures(&mut self) -> Vec<(usize, Departure)>;

    /// From now on no system takes a step beyond one with a departure.
    fn stop_outside(&mut self);

    /// A system moves no more from now on.
    ///
    /// # Errors
    /// [`Error::Run`](crate::Error::Run) when the device fails.
    fn halt(&mut self, replica: usize) -> Result<()>;

    /// Energies and temperatures of the current states; nothing of systems that move no more.
    fn samples(&mut self) -> Result<Vec<Option<Sample>>>;

    /// The current states in full, into frames whose memory is used again; a system for which there is no frame is left out.
    fn read_frames(&mut self, frames: &mut [Option<Frame>]) -> Result<()>;

    /// What is needed to go on from here, exactly; nothing of systems that move no more.
    fn states(&mut self) -> Result<Vec<Option<State>>>;

    /// Goes on from states of the same systems, all of one step but those of systems that are to move no more: `moves` says
    /// which do.
    ///
    /// # Errors
    /// [`Error::Run`](crate::Error::Run) when a state has another number of atoms or is no state at all.
    fn restore(&mut self, states: &[State], moves: &[bool]) -> Result<()>;

    /// How long it takes to make all neighbour lists. They are made once more to find out, and the paths stay as they are.
    ///
    /// # Errors
    /// [`Error::Run`](crate::Error::Run) when there is no room for them.
    fn time_lists(&mut self) -> Result<Duration>;
}
