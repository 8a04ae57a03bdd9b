//! Every backend that computes forces with a network, for tests that hold for all of them.

use super::cuda;
use super::models::{ModelFile, SMALL, random_system};
use std::sync::Arc;
use verlet::backend::cpu::{CpuBackend, Filters, NetworkPotential, Potential, Real};
use verlet::backend::cuda::{CudaBackend, CudaPotential, Device};
use verlet::backend::{Backend, Departure, Evaluation, Event};
use verlet::integrate::{Integrator, Thermostat};
use verlet::model::Model;
use verlet::output::{Frame, Sample};
use verlet::system::{Cell, System, degrees_of_freedom, velocities};

/// A way to run a simulation.
#[derive(Clone)]
pub enum Kind {
    CpuF64,
    CpuF32,
    /// The GPU with its network for few atoms, or, without clusters, with that for many.
    Cuda(Arc<Device>),
}

/// What is simulated, and how.
#[derive(Clone)]
pub struct Setup {
    pub model: Arc<Model>,
    pub system: System,
    /// fs.
    pub timestep: f64,
    /// Å.
    pub skin: f64,
    pub thermostat: Option<Thermostat>,
}

/// All that there are here.
pub fn kinds() -> Vec<Kind> {
    let mut kinds = vec![Kind::CpuF64, Kind::CpuF32];
    kinds.extend(devices().into_iter().map(Kind::Cuda));
    kinds
}

/// The GPU, and the same one as if it had no clusters: few atoms then take the way of many.
pub fn devices() -> Vec<Arc<Device>> {
    let Some(device) = cuda::device() else { return Vec::new() };
    let mut plain = Device::open(0).unwrap();
    Arc::get_mut(&mut plain).expect("nobody else has it").clusters = false;
    vec![device, plain]
}

impl Kind {
    /// Whether it is a GPU that a CPU passes for: a step of a network with 128 features takes it half a second.
    pub fn is_emulated(&self) -> bool {
        matches!(self, Kind::Cuda(device) if cuda::emulated(device))
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Kind::CpuF64 => write!(f, "cpu-f64"),
            Kind::CpuF32 => write!(f, "cpu-f32"),
            Kind::Cuda(device) => write!(f, "cuda, clusters {}", device.clusters),
        }
    }
}

impl Setup {
    /// A backend that logs every step.
    pub fn start(&self, kind: &Kind) -> Box<dyn Backend> {
        let removed = self.thermostat.is_none_or(|bath| bath.remove_centre_of_mass);
        let freedom = degrees_of_freedom(self.system.len(), removed);
        let integrator = Integrator::new(self.timestep, &self.system.masses, self.thermostat);
        match kind {
            Kind::CpuF64 => self.on_cpu::<f64>(integrator, freedom),
            Kind::CpuF32 => self.on_cpu::<f32>(integrator, freedom),
            Kind::Cuda(device) => Box::new(
                CudaBackend::new(device, &self.model, &self.system, self.skin, &integrator, 1, freedom, None).unwrap(),
            ),
        }
    }

    fn on_cpu<T: Real>(&self, integrator: Integrator, freedom: usize) -> Box<dyn Backend> {
        let numbers = &self.system.atomic_numbers;
        let potential = NetworkPotential::<T>::new(&self.model, numbers, self.skin, Filters::Table).unwrap();
        let system = self.system.clone();
        Box::new(CpuBackend::new(potential, system, integrator, 1, freedom, "test".into()).unwrap())
    }
}

/// What a backend tells.
#[derive(Default)]
pub struct Heard {
    pub samples: Vec<Sample>,
    pub departures: Vec<Departure>,
    pub frames: Vec<Frame>,
}

impl Heard {
    pub fn hear(&mut self, event: Event) -> verlet::Result<()> {
        match event {
            Event::Samples(samples) => self.samples.extend(samples),
            Event::Departure(departure) => self.departures.push(departure),
            Event::Frame(frame) => self.frames.push(frame.clone()),
        }
        Ok(())
    }
}

/// Steps, and what is told of them.
pub fn listen(backend: &mut dyn Backend, steps: u64) -> Heard {
    let mut heard = Heard::default();
    backend.advance(steps, &|| false, &mut |event| heard.hear(event)).unwrap();
    heard
}

/// Steps, and their samples.
pub fn advance(backend: &mut dyn Backend, steps: u64) -> Vec<Sample> {
    listen(backend, steps).samples
}

/// Potentials of every kind, and to what part of it they know an energy: in float64 as far as the published digits of α and
/// of ħ c go together with those of the hartree and of the Bohr radius.
pub fn potentials(model: &Model, system: &System) -> Vec<(String, Box<dyn Potential>, f64)> {
    let numbers = &system.atomic_numbers;
    let exact = NetworkPotential::<f64>::new(model, numbers, 0.3, Filters::Direct).unwrap();
    let single = NetworkPotential::<f32>::new(model, numbers, 0.3, Filters::Table).unwrap();
    let mut all: Vec<(String, Box<dyn Potential>, f64)> =
        vec![("cpu-f64".into(), Box::new(exact), 1e-10), ("cpu-f32".into(), Box::new(single), 1e-6)];
    for device in devices() {
        let name = format!("cuda, clusters {}", device.clusters);
        all.push((name, Box::new(CudaPotential::new(&device, model, numbers, 0.3).unwrap()), 1e-6));
    }
    all
}

/// Energy and forces of a system.
pub fn evaluate(potential: &mut dyn Potential, system: &System) -> Evaluation {
    let mut out = Evaluation::default();
    potential.evaluate(&system.positions, &system.cell, &mut out).unwrap();
    out
}

/// Random atoms in a small cell, many of them so close that they repel each other.
pub fn repulsive(thermostat: Option<Thermostat>) -> Setup {
    let model = Arc::new(ModelFile::random("painn-repulsive", SMALL, 3).load().unwrap());
    let cell = Cell::from_parameters([6.0, 7.0, 8.0], [90.0, 75.0, 100.0], [true; 3]).unwrap();
    let mut system = random_system(11, cell, 9);
    system.velocities = Some(velocities::maxwell_boltzmann(&system, 200.0, 1, false));
    Setup { model, system, timestep: 0.1, skin: 0.1, thermostat }
}

/// A bath that warms up.
pub fn bath() -> Thermostat {
    Thermostat {
        friction: 0.02,
        temperature: 200.0,
        final_temperature: 600.0,
        ramp_steps: 40,
        seed: 3,
        remove_centre_of_mass: true,
    }
}
