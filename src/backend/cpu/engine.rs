//! The loop on the CPU: integrator, forces, samples.

use super::Potential;
use crate::backend::departure::Watch;
use crate::backend::due::Due;
use crate::backend::{Backend, Departure, Evaluation, Event, Outside, State, explosion};
use crate::error::{Result, short};
use crate::integrate::Integrator;
use crate::output::{Frame, Sample};
use crate::system::{System, kinetic_energy, temperature};
use nalgebra::Vector3;
use std::time::{Duration, Instant};

/// Time between two looks at what there is to tell.
const LOOK: Duration = Duration::from_millis(100);

/// A system moving under a [`Potential`].
pub struct CpuBackend<P> {
    potential: P,
    system: System,
    velocities: Vec<Vector3<f64>>,
    integrator: Integrator,
    evaluation: Evaluation,
    heat: f64,
    kinetic: f64,
    degrees_of_freedom: usize,
    log_interval: u64,
    frames: Due,
    step: u64,
    watch: Watch,
    stop_outside: bool,
    description: String,
}

impl<P: Potential> CpuBackend<P> {
    /// Starts at step 0 with the system's velocities (at rest without any) and computes the first forces.
    ///
    /// A sample is taken at every multiple of `log_interval` steps; `degrees_of_freedom` share the kinetic energy.
    ///
    /// # Errors
    /// What the first evaluation of the potential refuses.
    pub fn new(
        potential: P,
        system: System,
        integrator: Integrator,
        log_interval: u64,
        degrees_of_freedom: usize,
        description: String,
    ) -> Result<Self> {
        let velocities = system.velocities.clone().unwrap_or_else(|| vec![Vector3::zeros(); system.len()]);
        let mut backend = CpuBackend {
            potential,
            kinetic: kinetic_energy(&system.masses, &velocities),
            velocities,
            integrator,
            evaluation: Evaluation::default(),
            heat: 0.0,
            degrees_of_freedom,
            log_interval: log_interval.max(1),
            frames: Due::default(),
            step: 0,
            watch: Watch::default(),
            stop_outside: false,
            description,
            system,
        };
        backend.evaluate()?;
        Ok(backend)
    }

    /// Energy, forces and strain derivative of the current positions.
    pub fn evaluation(&self) -> &Evaluation {
        &self.evaluation
    }

    /// The potential itself.
    pub fn potential(&self) -> &P {
        &self.potential
    }

    fn evaluate(&mut self) -> Result<()> {
        let before = self.evaluation.energy;
        self.potential.evaluate(&self.system.positions, &self.system.cell, &mut self.evaluation).map_err(|error| {
            if self.step == 0 {
                return error;
            }
            explosion::exploded(self.step, &format!("the energy before was {} eV, and now {error}", short(before)))
        })?;
        if self.evaluation.energy.is_finite() {
            let due = self.step.is_multiple_of(self.log_interval);
            let outside = self.evaluation.outside.iter().cloned();
            self.watch.note(self.step, outside.filter(|what| due || !matches!(what, Outside::Energy { .. })));
            return Ok(());
        }
        let energy = self.evaluation.energy;
        let name = explosion::lost(&self.evaluation.forces, &self.system.atomic_numbers);
        Err(explosion::no_energy(self.step, energy, &name))
    }

    fn take_step(&mut self) -> Result<()> {
        self.integrator.kick(&mut self.velocities, &self.evaluation.forces);
        self.integrator.drift(&mut self.system.positions, &self.velocities);
        self.step += 1;
        let bath = self.integrator.thermalise(&mut self.velocities, self.step);
        self.integrator.drift(&mut self.system.positions, &self.velocities);
        // Before the forces: positions that are far off cost a neighbour list its time and its memory.
        self.check_speeds("was")?;
        self.evaluate()?;
        self.integrator.kick(&mut self.velocities, &self.evaluation.forces);
        self.kinetic = match bath {
            Some(bath) => {
                self.heat += bath.heat;
                bath.kinetic
            }
            None => kinetic_energy(&self.system.masses, &self.velocities),
        };
        self.check_speeds("is")
    }

    /// Long before an energy overflows, atoms fly: apart from each other they would do so for ever at finite energies. The
    /// last energy `was` that of the step before, or `is` that of this one.
    fn check_speeds(&self, tense: &str) -> Result<()> {
        let limit = (explosion::LARGEST_MOVE / self.integrator.timestep()).powi(2);
        let Some(atom) = self.velocities.iter().position(|v| v.norm_squared() > limit || v.norm_squared().is_nan())
        else {
            return Ok(());
        };
        let distance = self.velocities[atom].norm() * self.integrator.timestep();
        let how = explosion::too_fast(tense, self.evaluation.energy, &self.name(atom), distance);
        Err(explosion::exploded(self.step, &how))
    }

    /// Takes steps towards `goal` until something is to be told, and says whether others may follow.
    ///
    /// On one of the pool's threads: from outside, every parallel pass would wait for one of them to wake.
    fn stretch(&mut self, goal: u64, pause: &(dyn Fn() -> bool + Sync), samples: &mut Vec<Sample>) -> Result<bool> {
        let begun = Instant::now();
        rayon::scope(|_| {
            while self.step < goal && !pause() {
                self.take_step()?;
                if self.step.is_multiple_of(self.log_interval) {
                    samples.push(self.current_sample());
                }
                if self.stop_outside && self.watch.has_found() {
                    return Ok(false);
                }
                if self.frames.at(self.step) || begun.elapsed() >= LOOK {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }

    /// An atom for a message, counted from 1.
    fn name(&self, atom: usize) -> String {
        explosion::name(atom, &self.system.atomic_numbers)
    }

    fn current_sample(&self) -> Sample {
        // The bath acts in the middle of a step; energy is compared where a step ends.
        let full_step = kinetic_energy(&self.system.masses, &self.velocities);
        Sample {
            step: self.step,
            time: self.step as f64 * self.integrator.timestep(),
            kinetic: self.kinetic,
            potential: self.evaluation.energy,
            conserved: full_step + self.evaluation.energy - self.heat,
            temperature: temperature(self.kinetic, self.degrees_of_freedom),
            list_rebuilds: self.potential.list().1,
        }
    }
}

impl<P: Potential> Backend for CpuBackend<P> {
    fn describe(&self) -> String {
        self.description.clone()
    }

    fn step(&self) -> u64 {
        self.step
    }

    fn advance(
        &mut self,
        steps: u64,
        pause: &(dyn Fn() -> bool + Sync),
        tell: &mut dyn FnMut(Event) -> Result<()>,
    ) -> Result<()> {
        let goal = self.step + steps;
        let (mut samples, mut frame) = (Vec::new(), Frame::default());
        loop {
            let before = self.step;
            samples.clear();
            let more = self.stretch(goal, pause, &mut samples);
            if !samples.is_empty() {
                tell(Event::Samples(&samples))?;
            }
            self.watch.take().into_iter().try_for_each(|departure| tell(Event::Departure(departure)))?;
            let more = more?;
            if self.step != before && self.frames.at(self.step) {
                self.read_frame(&mut frame)?;
                tell(Event::Frame(&frame))?;
            }
            if !more {
                return Ok(());
            }
        }
    }

    fn tell_frames(&mut self, intervals: &[u64]) -> Result<()> {
        self.frames = Due::new(intervals.iter().copied());
        Ok(())
    }

    fn departures(&mut self) -> Vec<Departure> {
        self.watch.take()
    }

    fn stop_outside(&mut self) {
        self.stop_outside = true;
    }

    fn sample(&mut self) -> Result<Sample> {
        Ok(self.current_sample())
    }

    fn read_frame(&mut self, frame: &mut Frame) -> Result<()> {
        frame.sample = self.current_sample();
        frame.positions.clone_from(&self.system.positions);
        frame.velocities.clone_from(&self.velocities);
        frame.forces.clone_from(&self.evaluation.forces);
        Ok(())
    }

    fn state(&mut self) -> Result<State> {
        let (list_positions, list_rebuilds) = self.potential.list();
        Ok(State {
            step: self.step,
            positions: self.system.positions.clone(),
            velocities: self.velocities.clone(),
            heat: self.heat,
            kinetic: self.kinetic,
            list_positions: list_positions.to_vec(),
            list_rebuilds,
        })
    }

    fn restore(&mut self, state: &State) -> Result<()> {
        explosion::check_state(state, self.system.len())?;
        self.step = state.step;
        // What was found on the way here belongs to another path.
        self.watch = Watch::default();
        self.system.positions.clone_from(&state.positions);
        self.velocities.clone_from(&state.velocities);
        self.heat = state.heat;
        self.kinetic = state.kinetic;
        if !state.list_positions.is_empty() {
            self.potential.restore_list(&state.list_positions, &self.system.cell, state.list_rebuilds)?;
        }
        self.evaluate()
    }

    fn time_list(&mut self) -> Result<Duration> {
        let (positions, rebuilds) = self.potential.list();
        let positions = positions.to_vec();
        let begun = Instant::now();
        self.potential.restore_list(&positions, &self.system.cell, rebuilds)?;
        Ok(begun.elapsed())
    }
}
