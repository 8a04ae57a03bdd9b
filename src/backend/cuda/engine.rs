//! The loop on the GPU: many steps a launch, the host only where it must look.

use super::device::Device;
use super::graph::Graph;
use super::journal::Journal;
use super::layout::{Control, DeviceSample, status};
use super::memory::Staging;
use super::potential::collect;
use super::sample::Scale;
use super::state::{Motion, SAMPLES, State};
use crate::backend::departure::Watch;
use crate::backend::{self, Backend, Departure, Evaluation, Event, explosion};
use crate::error::{Error, Result};
use crate::integrate::Integrator;
use crate::model::Model;
use crate::output::{Frame, Sample};
use crate::system::{System, kinetic_energy};
use nalgebra::Vector3;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Atoms times steps of one launch: well under a second, so that a run can be stopped.
const WORK: u64 = 200_000;

/// How the kernels of many steps are launched. All ways run the same kernels: they give the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// One graph that repeats a step on the device, and makes the list only where it is due; needs a driver of CUDA 12.4.
    Loop,
    /// A graph of one step, launched once a step.
    Steps,
    /// One kernel after the other.
    Plain,
}

impl Path {
    /// The wanted one where the driver knows it, else its best.
    pub(super) fn choose(device: &Device, wanted: Option<Path>) -> Path {
        let best = if device.has_conditional_nodes() { Path::Loop } else { Path::Steps };
        wanted.filter(|path| *path != Path::Loop || device.has_conditional_nodes()).unwrap_or(best)
    }

    /// What a user is told of it.
    pub(super) fn words(self) -> &'static str {
        match self {
            Path::Loop => "all steps in one graph",
            Path::Steps => "a graph a step, since its driver is older than CUDA 12.4",
            Path::Plain => "kernel by kernel",
        }
    }
}

/// A system moving on the GPU under a network.
pub struct CudaBackend {
    state: State,
    path: Path,
    graph: Option<Graph>,
    control: Control,
    journal: Journal,
    atomic_numbers: Vec<u8>,
    offsets: Vec<f64>,
    scale: Scale,
    bath: bool,
    watch: Watch,
    description: String,
}

impl CudaBackend {
    /// Starts at step 0 with the system's velocities (at rest without any) and computes the first forces.
    ///
    /// A sample is taken at every multiple of `log_interval` steps; `degrees_of_freedom` share the kinetic energy. Without
    /// a `path` the driver decides.
    ///
    /// # Errors
    /// As [`CudaPotential::new`](super::CudaPotential::new), and what the first forces bring.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        device: &Arc<Device>,
        model: &Model,
        system: &System,
        skin: f64,
        integrator: &Integrator,
        log_interval: u64,
        degrees_of_freedom: usize,
        path: Option<Path>,
    ) -> Result<Self> {
        let motion = Motion { masses: &system.masses, integrator, log_interval, replicas: None };
        let state = State::new(device, model, &system.atomic_numbers, &system.cell, skin, Some(motion))?;
        let path = Path::choose(device, path);
        let offsets: Vec<f64> = system.atomic_numbers.iter().map(|&z| model.offsets[z as usize]).collect();
        let velocities = system.velocities.clone().unwrap_or_else(|| vec![Vector3::zeros(); system.len()]);
        let mut backend = CudaBackend {
            description: format!("{} (GPU), network in {}, {}", device.name, device.arithmetic.name(), path.words()),
            state,
            path,
            graph: None,
            journal: Journal::default(),
            control: Control { kinetic: kinetic_energy(&system.masses, &velocities), ..Control::new() },
            atomic_numbers: system.atomic_numbers.clone(),
            scale: Scale {
                energy_unit: model.energy_unit,
                offset: offsets.iter().sum(),
                timestep: integrator.timestep(),
                degrees_of_freedom,
            },
            offsets,
            bath: integrator.thermostat().is_some_and(|bath| bath.friction > 0.0),
            watch: Watch::default(),
        };
        backend.state.set_positions(&system.positions)?;
        backend.state.set_velocities(&velocities)?;
        backend.state.write_control(&backend.control)?;
        backend.settle()?;
        Ok(backend)
    }

    /// Energy, forces and strain derivative of the current positions. What lies outside of the model's domain are its
    /// [`departures`](Backend::departures); here only the energy is looked at.
    ///
    /// # Errors
    /// [`Error::Run`] when the driver fails.
    pub fn evaluation(&mut self) -> Result<Evaluation> {
        // Steps of few atoms leave their pairs where only their kernel finds them: an evaluation brings them back.
        self.settle()?;
        let mut out = Evaluation::default();
        collect(&mut self.state, &self.offsets, &self.control, &mut out)?;
        Ok(out)
    }

    /// How kernels are launched.
    pub fn path(&self) -> Path {
        self.path
    }

    /// Forces and sums for the state as the host has set it.
    fn settle(&mut self) -> Result<()> {
        let capacity = self.state.parameters.capacity;
        let step = self.control.step;
        self.control = self.state.settle().map_err(|error| Error::Run(format!("step {step}: {error}")))?;
        if capacity != self.state.parameters.capacity {
            self.graph = None;
        }
        self.check_energy(self.control.network)?;
        self.look_outside()?;
        if self.control.step % self.state.parameters.log_interval == 0 {
            self.look_beyond(self.control.step, self.control.network);
        }
        Ok(())
    }

    /// Notes the atoms that were too close since the host looked.
    fn look_outside(&mut self) -> Result<()> {
        for (step, outside) in self.state.take_contacts(&mut self.control)? {
            self.watch.note(step, [outside]);
        }
        Ok(())
    }

    /// Notes an energy, in the network's unit, that is beyond those of training.
    fn look_beyond(&mut self, step: i64, network: f64) {
        let outside = self.state.guard.beyond(network * self.state.parameters.energy_unit);
        self.watch.note(step as u64, outside);
    }

    fn check_energy(&self, network: f64) -> Result<()> {
        if network.is_finite() {
            return Ok(());
        }
        let forces = self.state.forces()?;
        let name = explosion::lost(&forces, &self.atomic_numbers);
        Err(explosion::no_energy(self.step(), self.scale.potential(network), &name))
    }

    /// Some atom is too fast: says which, and how bad it is.
    fn exploded(&self) -> Result<()> {
        let atom = self.control.atom as usize;
        let network: f64 = self.state.energies()?.iter().sum();
        let distance = self.state.velocities()?[atom].norm() * self.scale.timestep;
        let name = explosion::name(atom, &self.atomic_numbers);
        Err(explosion::ended(self.step() + 1, self.scale.potential(network), &name, distance))
    }

    /// The graph of this path, built when it is first needed and again when addresses have changed.
    fn graph(&mut self) -> Result<&Graph> {
        if self.graph.is_none() {
            let state = &self.state;
            let graph = Graph::build(&state.device, |top| {
                if self.path == Path::Steps { state.record_step(top) } else { state.record_steps(top) }
            })?;
            self.graph = Some(graph);
        }
        Ok(self.graph.as_ref().expect("built above"))
    }

    /// Sends the device on its way to `goal`, as far as it goes in one launch.
    fn launch(&mut self, goal: u64) -> Result<()> {
        let goal = goal.min(self.step() + self.most_steps());
        let goal = self.journal.open(&mut self.control, goal);
        let steps = goal - self.step();
        self.control.target = goal as i64;
        self.state.write_control(&self.control)?;
        match self.path {
            Path::Loop => self.graph()?.launch()?,
            Path::Steps => {
                for _ in 0..steps {
                    self.graph()?.launch()?;
                }
            }
            Path::Plain => {
                let mut sink = &*self.state.device;
                for _ in 0..steps {
                    self.state.record_step(&mut sink)?;
                }
            }
        }
        Ok(())
    }

    /// Steps of a launch.
    fn most_steps(&self) -> u64 {
        (WORK / self.atomic_numbers.len() as u64).clamp(1, SAMPLES as u64)
    }

    /// Waits for what was launched, takes down what there is to tell of it, and says whether other steps may follow.
    fn arrive(&mut self) -> Result<bool> {
        self.journal.turn();
        self.control = self.state.read_control()?;
        self.finish_step()?;
        self.look_outside()?;
        for sample in self.state.read_samples(self.control.samples as usize)? {
            let told = self.scale.sample(&sample);
            if sample.logged == 1 {
                self.check_energy(sample.network)?;
                self.look_beyond(sample.step, sample.network);
                self.journal.log(told);
            }
            if sample.framed == 1 {
                self.journal.frame(told);
            }
        }
        match self.control.status {
            status::GOOD => {}
            status::OUTSIDE => {
                self.control.status = status::GOOD;
                self.state.write_control(&self.control)?;
                // What it was stopped for may be known already.
                return Ok(!self.watch.has_found());
            }
            status::FAST | status::STOPPED => self.exploded()?,
            _ => self.control.blame(self.control.step + 1)?,
        }
        Ok(true)
    }

    /// Tells what was taken down.
    fn tell(&mut self, tell: &mut dyn FnMut(Event) -> Result<()>) -> Result<()> {
        if !self.journal.samples().is_empty() {
            tell(Event::Samples(self.journal.samples()))?;
        }
        self.watch.take().into_iter().try_for_each(|departure| tell(Event::Departure(departure)))?;
        self.journal.tell_frames(tell)
    }

    /// Finishes a step whose list did not fit: the atoms have moved, nothing after that has happened.
    fn finish_step(&mut self) -> Result<()> {
        while self.control.status == status::CAPACITY {
            self.state.make_room(self.control)?;
            self.graph = None;
            let device = self.state.device.clone();
            let mut sink = &*device;
            self.state.record_rebuild(&mut sink)?;
            self.state.record_rest(&mut sink)?;
            self.control = self.state.read_control()?;
        }
        Ok(())
    }
}

impl Backend for CudaBackend {
    fn describe(&self) -> String {
        self.description.clone()
    }

    fn step(&self) -> u64 {
        self.control.step as u64
    }

    fn advance(
        &mut self,
        steps: u64,
        pause: &(dyn Fn() -> bool + Sync),
        tell: &mut dyn FnMut(Event) -> Result<()>,
    ) -> Result<()> {
        let goal = self.step() + steps;
        self.journal.turn();
        let mut arrived = Ok(true);
        loop {
            let more = matches!(arrived, Ok(true)) && self.step() < goal && !pause();
            // The device goes on while the host tells what it has left.
            let launched = if more { self.launch(goal) } else { Ok(()) };
            let told = self.tell(tell);
            launched?;
            if !more {
                return arrived.and(told);
            }
            arrived = self.arrive();
            told?;
        }
    }

    fn tell_frames(&mut self, intervals: &[u64]) -> Result<()> {
        let most = self.most_steps() as usize;
        self.journal = Journal::new(&self.state.device, intervals, self.atomic_numbers.len(), most)?;
        self.journal.point(&mut self.state.parameters);
        self.graph = None;
        Ok(())
    }

    fn departures(&mut self) -> Vec<Departure> {
        self.watch.take()
    }

    fn stop_outside(&mut self) {
        self.state.parameters.stop_outside = 1;
        self.graph = None;
    }

    fn sample(&mut self) -> Result<Sample> {
        self.observe()?;
        Ok(self.scale.sample(&DeviceSample::from(&self.control)))
    }

    fn read_frame(&mut self, frame: &mut Frame) -> Result<()> {
        frame.sample = self.sample()?;
        let mut staging = Staging::new(&self.state.device, 9 * self.atomic_numbers.len())?;
        self.state.read_frame(&mut staging, [&mut frame.positions, &mut frame.velocities, &mut frame.forces])
    }

    fn state(&mut self) -> Result<backend::State> {
        self.observe()?;
        Ok(backend::State {
            step: self.step(),
            positions: self.state.positions()?,
            velocities: self.state.velocities()?,
            heat: self.control.heat,
            kinetic: self.control.kinetic,
            list_positions: self.state.list_positions()?,
            list_rebuilds: self.control.rebuilds as u64,
        })
    }

    fn restore(&mut self, state: &backend::State) -> Result<()> {
        let atoms = self.atomic_numbers.len();
        explosion::check_state(state, atoms)?;
        self.control = Control {
            heat: state.heat,
            kinetic: state.kinetic,
            step: state.step as i64,
            rebuilds: state.list_rebuilds as i64 - 1,
            ..Control::new()
        };
        self.state.set_velocities(&state.velocities)?;
        if state.list_positions.len() == atoms {
            // The list as it was, then the atoms where they are.
            self.state.write_control(&self.control)?;
            self.state.set_positions(&state.list_positions)?;
            self.settle()?;
        }
        // What was found on the way here belongs to another path.
        self.watch = Watch::default();
        self.state.set_positions(&state.positions)?;
        self.state.write_control(&self.control)?;
        self.state.check_moved()?;
        self.settle()
    }

    fn time_list(&mut self) -> Result<Duration> {
        let state = Backend::state(self)?;
        self.state.write_control(&Control { rebuild: 1, ..self.control })?;
        let begun = Instant::now();
        self.state.record_rebuild(&mut &*self.state.device)?;
        self.state.device.wait()?;
        let took = begun.elapsed();
        // The list as it was; where this one had no room, that is forgotten with it.
        let watch = std::mem::take(&mut self.watch);
        self.restore(&state)?;
        self.watch = watch;
        Ok(took)
    }
}

impl CudaBackend {
    /// Brings the sums of the current state into the control block.
    fn observe(&mut self) -> Result<()> {
        self.control = self.state.observe()?;
        if !self.bath {
            self.control.kinetic = self.control.full_step;
        }
        Ok(())
    }
}
