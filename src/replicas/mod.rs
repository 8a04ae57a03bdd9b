//! Many systems in one run: from the input's `[[replicas]]`, or a checkpoint, to a batch that is ready to move, and the loop
//! that moves it.

mod run;

pub use run::{Observer, Outcome, ReplicaOutcome, run};

use crate::analysis::Limits;
use crate::backend::cpu::{CpuBatch, NetworkPotential, Real};
use crate::backend::cuda::{self, CudaBatch};
use crate::backend::{Batch, Departure, Replica};
use crate::config::{OutsideDomain, Precision, RunConfig};
use crate::error::{Error, Result};
use crate::integrate::Integrator;
use crate::model::Model;
use crate::output::RunInfo;
use crate::output::checkpoint::SetCheckpoint;
use crate::setup;
use crate::simulation::Schedule;
use crate::system::{System, degrees_of_freedom};

/// Atoms of a system, in the mean, up to which the list with the wider skin costs less on a GPU: it reaches over most of a small
/// molecule anyway.
const SMALL: usize = 128;

/// Many systems that are ready to move: everything is loaded, checked, and the first forces are known.
pub struct Prepared {
    /// Owns the states.
    pub batch: Box<dyn Batch>,
    /// Å that the neighbour lists reach beyond the cutoff; see [`setup::Prepared::skin`].
    pub skin: f64,
    /// The force field.
    pub model: Model,
    /// The systems, in the order of the input.
    pub members: Vec<Member>,
    /// When the run ends, and when it tells what.
    pub schedule: Schedule,
    /// What the energies are held against.
    pub limits: Limits,
}

/// One of them.
#[derive(Debug, Clone)]
pub struct Member {
    /// Of its folder in the run's folder.
    pub name: String,
    /// What its trajectory records.
    pub info: RunInfo,
    /// Degrees of freedom that share the kinetic energy.
    pub degrees_of_freedom: usize,
    /// Where it failed and why, if it has: it moves no more.
    pub failure: Option<(u64, String)>,
    /// Where it has left what its model was trained on, the first time in each way, as far as a checkpoint tells.
    pub departures: Vec<Departure>,
}

/// Loads what the input's replicas name and computes the first energies and forces.
///
/// # Errors
/// Every mistake in the input, the structures or the model, in the order in which they are found.
pub fn prepare(config: &RunConfig) -> Result<Prepared> {
    let model = Model::load(&config.model)?;
    let systems = (0..config.replicas.len()).map(|n| setup::start(&config.replica(n), &model));
    let systems = systems.collect::<Result<_>>()?;
    ready(config, model, systems)
}

/// As [`prepare`], for a model and systems that come from code, one for each of the input's replicas: see
/// [`RunConfig::set_copies`] and [`setup::prepare_system`].
///
/// # Errors
/// An element that the model does not know, atoms on top of each other, missing velocities.
pub fn prepare_systems(config: &RunConfig, model: Model, mut systems: Vec<System>) -> Result<Prepared> {
    assert_eq!(systems.len(), config.replicas.len(), "there is a system for each replica");
    for (n, system) in systems.iter_mut().enumerate() {
        setup::begin(&config.replica(n), &model, system)?;
    }
    ready(config, model, systems)
}

/// As [`prepare`], at the step of a checkpoint: the paths go on bit for bit. The structure files are not needed.
///
/// # Errors
/// [`Error::Model`] when the model file is not the one that the run began with, [`Error::Output`] when the checkpoint is not
/// that of the input's replicas.
pub fn resume(config: &RunConfig, checkpoint: &SetCheckpoint) -> Result<Prepared> {
    let model = setup::same_model(config, &checkpoint.run)?;
    let names = checkpoint.members.iter().map(|member| &member.name);
    if !names.eq(config.replicas.iter().map(|replica| &replica.name)) {
        return Err(Error::Output("the checkpoint has other replicas than the input that is kept in it".into()));
    }
    let systems: Vec<System> = checkpoint.members.iter().map(|member| member.system()).collect::<Result<_>>()?;
    systems.iter().try_for_each(|system| model.check_elements(&system.atomic_numbers))?;
    let mut prepared = ready(config, model, systems)?;
    for (member, saved) in prepared.members.iter_mut().zip(&checkpoint.members) {
        member.failure.clone_from(&saved.failure);
        member.departures.clone_from(&saved.departures);
    }
    let (states, moves): (Vec<_>, Vec<_>) =
        checkpoint.members.iter().map(|member| (member.state.clone(), member.failure.is_none())).unzip();
    prepared.batch.restore(&states, &moves)?;
    Ok(prepared)
}

fn ready(config: &RunConfig, mut model: Model, systems: Vec<System>) -> Result<Prepared> {
    if config.outside_domain == OutsideDomain::Ignore {
        model.spec.domain = None;
    }
    let dynamics = &config.dynamics;
    let replica = |(system, own): (&System, &crate::config::ReplicaConfig)| Replica {
        integrator: Integrator::new(dynamics.timestep, &system.masses, own.thermostat),
        degrees_of_freedom: degrees_of_freedom(system.len(), dynamics.remove_centre_of_mass),
        system: system.clone(),
    };
    let replicas: Vec<Replica> = systems.iter().zip(&config.replicas).map(replica).collect();
    let (batch, skin) = setup::choose(
        config,
        &model,
        |device| gpu(config, &model, &replicas, &device),
        |reason| match config.backend.precision {
            Precision::F64 => cpu::<f64>(config, &model, &replicas, reason),
            _ => cpu::<f32>(config, &model, &replicas, reason),
        },
    )?;
    let device = batch.describe();
    let members = replicas.into_iter().enumerate().map(|(n, replica)| Member {
        name: config.replicas[n].name.clone(),
        info: setup::info(&config.replica(n), &model, &device, skin, replica.system),
        degrees_of_freedom: replica.degrees_of_freedom,
        failure: None,
        departures: Vec::new(),
    });
    Ok(Prepared {
        members: members.collect(),
        schedule: setup::schedule(config),
        limits: config.limits,
        batch,
        skin,
        model,
    })
}

/// The skin in Å with which a step of these systems takes the least time on a GPU.
pub fn cheapest_skin(atoms: usize, systems: usize) -> f64 {
    if atoms <= SMALL * systems { 2.0 } else { 1.0 }
}

fn gpu(
    config: &RunConfig,
    model: &Model,
    replicas: &[Replica],
    device: &std::sync::Arc<cuda::Device>,
) -> Result<(Box<dyn Batch>, f64)> {
    let atoms = replicas.iter().map(|replica| replica.system.len()).sum();
    let skin = config.skin.unwrap_or_else(|| cheapest_skin(atoms, replicas.len()));
    let batch = CudaBatch::new(device, model, replicas, skin, config.output.energy_interval, None, None)?;
    Ok((Box::new(batch), skin))
}

fn cpu<T: Real>(
    config: &RunConfig,
    model: &Model,
    replicas: &[Replica],
    reason: Option<String>,
) -> Result<(Box<dyn Batch>, f64)> {
    let skin = config.skin.unwrap_or(setup::CPU_SKIN);
    setup::check_memory::<T>(model, replicas.iter().map(|replica| replica.system.len()).sum())?;
    let mut potentials: Vec<NetworkPotential<T>> = Vec::with_capacity(replicas.len());
    for replica in replicas {
        let numbers = &replica.system.atomic_numbers;
        potentials.push(match potentials.first() {
            None => NetworkPotential::new(model, numbers, skin, setup::filters(config))?,
            Some(first) => first.for_others(model, numbers, skin)?,
        });
    }
    let description = setup::describe_cpu::<T>(reason);
    let batch = CpuBatch::new(potentials, replicas, config.output.energy_interval, description)?;
    Ok((Box::new(batch), skin))
}
