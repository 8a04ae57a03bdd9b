//! Backends: who owns the state of a running system and moves it.
//!
//! A backend owns positions, velocities, forces, the neighbour list and the integrator. The rest of the program sees
//! it through [`Backend`], which is coarse on purpose: many steps a call is what lets a GPU stay inside one graph.

mod batch;
pub mod cpu;
pub mod cuda;
mod departure;
pub(crate) mod due;
mod explosion;
mod guard;
mod padding;
mod zbl;

pub use batch::{Batch, Failure, Replica};
pub use departure::{Departure, Outside};

use crate::error::Result;
use crate::model::Model;
use crate::output::{Frame, Sample};
use crate::system::System;
use cpu::{Filters, NetworkPotential, Potential};
use nalgebra::{Matrix3, Vector3};
use std::time::Duration;

/// Energy of a configuration and its derivatives.
#[derive(Debug, Clone, Default)]
pub struct Evaluation {
    /// Total energy with the model's offset, eV.
    pub energy: f64,
    /// Its parts by atom, offset included, eV.
    pub atom_energies: Vec<f64>,
    /// −∂E/∂x, eV/Å.
    pub forces: Vec<Vector3<f64>>,
    /// ∂E/∂ε under r → r (1 + ε) of positions and cell, eV: element (a, b) is Σ r_a ∂E/∂r_b over all pair vectors.
    /// Divided by the volume it is the stress.
    pub strain_derivative: Matrix3<f64>,
    /// How the configuration lies outside of what the model was trained on: at most one entry for each pair of elements,
    /// that of the lowest atoms, and one for the energy. Empty where the model file says nothing about it.
    pub outside: Vec<Outside>,
}

/// Energy and forces of a system as a run computes them: the network in float32 on the CPU, filters from the table.
///
/// For many evaluations of the same atoms keep a [`NetworkPotential`], for a reference take one in
/// float64 with direct filters.
///
/// # Errors
/// [`Error::Structure`](crate::Error::Structure) when the model does not know an element.
pub fn evaluate(model: &Model, system: &System) -> Result<Evaluation> {
    model.check_elements(&system.atomic_numbers)?;
    let mut potential = NetworkPotential::<f32>::new(model, &system.atomic_numbers, 0.0, Filters::Table)?;
    let mut evaluation = Evaluation::default();
    potential.evaluate(&system.positions, &system.cell, &mut evaluation)?;
    Ok(evaluation)
}

/// Everything that decides how a trajectory goes on: what a checkpoint holds, and the same on every backend.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// Steps taken.
    pub step: u64,
    /// Å, unwrapped.
    pub positions: Vec<Vector3<f64>>,
    /// Å/fs.
    pub velocities: Vec<Vector3<f64>>,
    /// Energy that the heat bath has put in so far, eV.
    pub heat: f64,
    /// Kinetic energy right after the heat bath of the last step, eV; the full-step one without a bath.
    pub kinetic: f64,
    /// Positions at the last build of the neighbour list, Å: with them the next rebuild falls on the same step and the
    /// list has the same order of pairs.
    pub list_positions: Vec<Vector3<f64>>,
    /// Rebuilds of the list so far.
    pub list_rebuilds: u64,
}

/// What a backend tells of the steps that it takes.
#[derive(Debug)]
pub enum Event<'a> {
    /// New rows of the energy log, in order: one for every step that is a multiple of the log interval.
    Samples(&'a [Sample]),
    /// Where the system has left what its model was trained on, for the first time for each pair of elements and for the
    /// energy, which is looked at where samples are due. Looking changes no bit of the path.
    Departure(Departure),
    /// The full state, at every step of [`Backend::tell_frames`].
    Frame(&'a Frame),
}

/// Something that holds a system and can move it.
pub trait Backend {
    /// One line for the user: device, precision, threads.
    fn describe(&self) -> String;

    /// The step that the state belongs to.
    fn step(&self) -> u64;

    /// Takes `steps` steps, fewer when `pause`, which is asked now and then, says yes: the state is then that of the last
    /// whole step.
    ///
    /// `tell` hears of all steps, in order, from time to time: of several at once first the samples, then departures, then
    /// frames. A device takes the next steps meanwhile, so whoever listens costs it nothing before it is through with them.
    ///
    /// # Errors
    /// [`Error::Run`](crate::Error::Run) when the simulation leaves the numbers, with step and atom: what came before is
    /// told. The first error of `tell`: the state is then that of a later step.
    fn advance(
        &mut self,
        steps: u64,
        pause: &(dyn Fn() -> bool + Sync),
        tell: &mut dyn FnMut(Event) -> Result<()>,
    ) -> Result<()>;

    /// From now on [`advance`](Self::advance) tells a frame at every multiple of one of these intervals, and at no other step.
    ///
    /// # Errors
    /// [`Error::Run`](crate::Error::Run) when there is no room to keep them.
    fn tell_frames(&mut self, intervals: &[u64]) -> Result<()>;

    /// Departures that nobody has been told of: those of the state that the backend was made with or restored to.
    fn departures(&mut self) -> Vec<Departure> {
        Vec::new()
    }

    /// From now on [`advance`](Self::advance) takes no step beyond one with a departure.
    fn stop_outside(&mut self) {}

    /// Energies and temperature of the current state.
    fn sample(&mut self) -> Result<Sample>;

    /// The current state in full, into a frame whose memory is used again.
    fn read_frame(&mut self, frame: &mut Frame) -> Result<()>;

    /// The current state in full.
    fn frame(&mut self) -> Result<Frame> {
        let mut frame = Frame::default();
        self.read_frame(&mut frame)?;
        Ok(frame)
    }

    /// What is needed to go on from here, exactly.
    fn state(&mut self) -> Result<State>;

    /// Goes on from a state of the same system: the path is that of the run the state was taken from, bit for bit.
    ///
    /// # Errors
    /// [`Error::Run`](crate::Error::Run) when the state has another number of atoms or is no state at all.
    fn restore(&mut self, state: &State) -> Result<()>;

    /// How long it takes to make the neighbour list. It is made once more to find out, and the path stays as it is.
    ///
    /// # Errors
    /// [`Error::Run`](crate::Error::Run) when there is no room for it.
    fn time_list(&mut self) -> Result<Duration>;
}
