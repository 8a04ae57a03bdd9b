//! Every backend that computes forces with a network, for tests that hold for all of them.

use super::cuda;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use verlet::backend::Backend;
use verlet::backend::cpu::{CpuBackend, Filters, NetworkPotential, Real};
use verlet::backend::cuda::{CudaBackend, Device};
use verlet::integrate::{Integrator, Thermostat};
use verlet::model::Model;
use verlet::output::Sample;
use verlet::system::{System, degrees_of_freedom};

static GO: AtomicBool = AtomicBool::new(false);

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

/// Steps, and their samples.
pub fn advance(backend: &mut dyn Backend, steps: u64) -> Vec<Sample> {
    let mut samples = Vec::new();
    backend.advance(steps, &GO, &mut samples).unwrap();
    samples
}
