//! From an input, or a checkpoint, to a system that is ready to move. `run`, `check` and `resume` come through here.

use crate::analysis::{Conservation, Limits};
use crate::backend::Backend;
use crate::backend::cpu::{CpuBackend, Filters, NetworkPotential, Real};
use crate::backend::cuda::{self, Arithmetic, CudaBackend};
use crate::config::{Device, InitialVelocities, MassTarget, OutsideDomain, Precision, RunConfig};
use crate::elements;
use crate::error::{Error, Result, reason, short};
use crate::integrate::Integrator;
use crate::memory;
use crate::model::Model;
use crate::neighbors::{NeighborList, pair_vector};
use crate::output::RunInfo;
use crate::output::checkpoint::{Checkpoint, Provenance};
use crate::simulation::{self, Observer, Outcome, Schedule};
use crate::system::{Cell, FARTHEST, System, degrees_of_freedom, kinetic_energy, structure, temperature, velocities};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Å: an atom within this distance of a hydrogen can be what it is bound to.
const LONGEST_HYDROGEN_BOND: f64 = 1.6;
/// Å: atoms closer than this are a mistake in the structure, whatever the elements.
const CLOSEST_CONTACT: f64 = 0.3;
/// Å: no bond is shorter, so that a thinner cell would put every atom on its own images.
const THINNEST_CELL: f64 = 0.7;
/// Å: the skin on the CPU, where searching the list costs more than making it: with 2 Å, steps of 99 atoms take 1.4 times as long.
pub(crate) const CPU_SKIN: f64 = 1.0;
/// Numbers that the network on the CPU keeps for every feature of an atom in a layer, at the very least.
const NUMBERS_A_FEATURE: f64 = 15.0;
/// So many atoms are not made before it is known that there is room for them.
const LARGE: usize = 100_000;

/// A run that is ready to begin: everything is loaded, checked, and the first forces are known.
pub struct Prepared {
    /// Owns the state.
    pub backend: Box<dyn Backend>,
    /// Å that the neighbour list reaches beyond the cutoff: the input's, or else what costs the backend least. A run keeps it.
    pub skin: f64,
    /// What outputs record.
    pub info: RunInfo,
    /// The force field.
    pub model: Model,
    /// Degrees of freedom that share the kinetic energy.
    pub degrees_of_freedom: usize,
    /// When it ends, and when it tells what.
    pub schedule: Schedule,
    /// What the energy is held against.
    pub limits: Limits,
}

impl Prepared {
    /// Moves the system to the last step of the schedule and tells `observers`, who get a frame at the intervals of all of the
    /// input's trajectories. Writes no files but theirs.
    ///
    /// # Errors
    /// As [`simulation::run`].
    pub fn run(&mut self, observers: &mut [&mut dyn Observer]) -> Result<Outcome> {
        let conservation = Conservation::new(self.info.system.len(), self.degrees_of_freedom);
        let (schedule, never) = (self.schedule.clone(), AtomicBool::new(false));
        simulation::run(self.backend.as_mut(), schedule, conservation, self.limits, observers, &never)
    }
}

/// Loads what the input names and computes the first energy and forces.
///
/// # Errors
/// Every mistake in the input, the structure or the model, in the order in which they are found.
pub fn prepare(config: &RunConfig) -> Result<Prepared> {
    let model = Model::load(&config.model)?;
    let system = start(config, &model)?;
    ready(config, model, system)
}

/// The system at the start of a run: what the input names, checked, with its velocities.
pub(crate) fn start(config: &RunConfig, model: &Model) -> Result<System> {
    let file = config.system.structure.display();
    let in_file = |error: Error| match error {
        Error::Structure(problem) => Error::Structure(format!("{file}: {problem}")),
        other => other,
    };
    let mut system = system(config, model)?;
    check(model, &system).map_err(in_file)?;
    set_velocities(config, &mut system)?;
    Ok(system)
}

/// As [`prepare`], for a model and a system that come from code: `config.model` and `config.system` are not looked at, and
/// velocities from the file are the system's own. Without an input, begin with [`RunConfig::default`].
///
/// # Errors
/// An element that the model does not know, atoms on top of each other, missing velocities.
pub fn prepare_system(config: &RunConfig, model: Model, mut system: System) -> Result<Prepared> {
    begin(config, &model, &mut system)?;
    ready(config, model, system)
}

/// Checks a system that comes from code and gives it its velocities.
pub(crate) fn begin(config: &RunConfig, model: &Model, system: &mut System) -> Result<()> {
    check(model, system)?;
    set_velocities(config, system)
}

/// Elements that the model knows, and atoms that are apart.
fn check(model: &Model, system: &System) -> Result<()> {
    model.check_elements(&system.atomic_numbers)?;
    check_contacts(system)
}

/// The run that a checkpoint describes, as its input has it, with so many steps; `overrides` (`section.key=value`) come on top.
///
/// What decides the path and could have another default in another version is taken from the checkpoint itself.
///
/// # Errors
/// Mistakes in the overrides.
pub fn recall(run: &Provenance, steps: u64, folder: &Path, overrides: &[String]) -> Result<RunConfig> {
    let overrides = [&run.overrides[..], overrides].concat();
    let mut config = RunConfig::parse(&run.input, &run.text, &overrides)?;
    config.skin = Some(run.skin);
    config.backend.precision = run.precision;
    config.backend.direct_filters = run.direct_filters;
    config.dynamics.steps = steps;
    config.output.directory = folder.to_owned();
    Ok(config)
}

/// What a checkpoint keeps of a run for [`recall`].
///
/// # Errors
/// [`Error::Input`] when there is no current folder for the input's path to start at.
pub fn provenance(config: &RunConfig, model: &Model, skin: f64) -> Result<Provenance> {
    let input = std::path::absolute(&config.file).map_err(|error| {
        Error::Input(format!("the place of {} cannot be found out: {}", config.file.display(), reason(&error)))
    })?;
    Ok(Provenance {
        version: env!("CARGO_PKG_VERSION").into(),
        input,
        text: config.text.clone(),
        overrides: config.overrides.clone(),
        model_hash: model.hash.clone(),
        skin,
        precision: config.backend.precision,
        direct_filters: config.backend.direct_filters,
    })
}

/// As [`prepare`], at the step of a checkpoint: the path goes on bit for bit. The structure file is not needed.
///
/// # Errors
/// [`Error::Model`] when the model file is not the one that the run began with.
pub fn resume(config: &RunConfig, checkpoint: &Checkpoint) -> Result<Prepared> {
    let model = same_model(config, &checkpoint.run)?;
    let system = checkpoint.system()?;
    model.check_elements(&system.atomic_numbers)?;
    let mut prepared = ready(config, model, system)?;
    prepared.backend.restore(&checkpoint.state)?;
    Ok(prepared)
}

/// The model that a run began with, or an error that says that it is another one.
pub(crate) fn same_model(config: &RunConfig, run: &Provenance) -> Result<Model> {
    let remedy = "put it back, or say where it lies with --model";
    let model = Model::load(&config.model).map_err(|error| {
        Error::Model(format!("{error}; the run cannot go on without the model it began with: {remedy}"))
    })?;
    if model.hash != run.model_hash {
        return Err(Error::Model(format!(
            "the model file {} is another one than the run began with (SHA-256 {}, then {}); {}",
            config.model.display(),
            model.hash,
            run.model_hash,
            remedy.replacen("it", "the old one", 1)
        )));
    }
    Ok(model)
}

fn ready(config: &RunConfig, mut model: Model, system: System) -> Result<Prepared> {
    let dynamics = &config.dynamics;
    if config.outside_domain == OutsideDomain::Ignore {
        model.spec.domain = None;
    }
    let (backend, skin) = backend(config, &model, &system)?;
    Ok(Prepared {
        info: info(config, &model, &backend.describe(), skin, system.clone()),
        degrees_of_freedom: degrees_of_freedom(system.len(), dynamics.remove_centre_of_mass),
        schedule: schedule(config),
        limits: config.limits,
        backend,
        skin,
        model,
    })
}

/// What outputs record of a run of `system`.
pub(crate) fn info(config: &RunConfig, model: &Model, backend: &str, skin: f64, system: System) -> RunInfo {
    RunInfo {
        title: config.title.clone(),
        author: config.author.clone(),
        input: config.record(),
        model: model.name.clone(),
        model_hash: model.hash.clone(),
        seed: config.dynamics.seed,
        backend: format!("{backend}, list with a skin of {skin} Å"),
        system,
    }
}

/// With frames for every trajectory that the input asks for.
pub(crate) fn schedule(config: &RunConfig) -> Schedule {
    let extra = config.output.extra.iter().map(|output| output.options.interval);
    Schedule {
        steps: config.dynamics.steps,
        frame_intervals: extra.chain([config.output.trajectory_interval]).collect(),
        checkpoint_interval: config.output.checkpoint_interval,
        stop_outside: config.outside_domain == OutsideDomain::Stop,
    }
}

/// The backend that the input asks for. Left to choose, it takes the GPU where there is one that can do what is asked,
/// and says why where it does not.
fn backend(config: &RunConfig, model: &Model, system: &System) -> Result<(Box<dyn Backend>, f64)> {
    choose(
        config,
        model,
        |device| gpu(config, model, system, device),
        |reason| match config.backend.precision {
            Precision::F64 => cpu::<f64>(config, model, system, reason),
            _ => cpu::<f32>(config, model, system, reason),
        },
    )
}

/// Makes what the input asks for on the GPU or on the CPU, which is told why it is not the GPU where that was left open.
pub(crate) fn choose<T>(
    config: &RunConfig,
    model: &Model,
    gpu: impl FnOnce(Arc<cuda::Device>) -> Result<T>,
    cpu: impl FnOnce(Option<String>) -> Result<T>,
) -> Result<T> {
    let wanted = &config.backend;
    let mixed = wanted.precision == Precision::Mixed;
    let plain = wanted.precision != Precision::F64 && !wanted.direct_filters;
    let arithmetic = if mixed { Arithmetic::Mixed } else { Arithmetic::Single };
    let only_gpu = |reason: &str| {
        Error::Input(format!(
            "backend.precision = \"mixed\" needs a GPU, {reason}; begin a run with \"f32\" for the CPU"
        ))
    };
    let reason = match wanted.device {
        Device::Cpu if mixed => return Err(only_gpu("and backend.device is \"cpu\"")),
        Device::Cpu => None,
        Device::Cuda if !plain => {
            return Err(Error::Input(
                "backend.device = \"cuda\" computes the network in f32 or mixed precision with tabulated filters; leave \
                 backend.precision and backend.filters at that, or use the CPU"
                    .into(),
            ));
        }
        Device::Cuda => return gpu(cuda::Device::open_for(0, arithmetic)?),
        Device::Auto if mixed && !plain => return Err(only_gpu("which has no direct filters")),
        Device::Auto if !plain => None,
        Device::Auto => {
            match cuda::Device::open_for(0, arithmetic).and_then(|device| cuda::check_model(model).map(|()| device)) {
                // Without a compiler, for example, the CPU is still there.
                Ok(device) => match gpu(device) {
                    Err(Error::Run(reason)) => Some(reason),
                    done => return done,
                },
                Err(reason) => Some(reason.to_string()),
            }
        }
    };
    match reason {
        Some(reason) if mixed => Err(only_gpu(&format!("but {reason}"))),
        reason => cpu(reason),
    }
}

fn gpu(
    config: &RunConfig,
    model: &Model,
    system: &System,
    device: Arc<cuda::Device>,
) -> Result<(Box<dyn Backend>, f64)> {
    let (masses, timestep) = (&system.masses, config.dynamics.timestep);
    let skin =
        config.skin.unwrap_or_else(|| cuda::cheapest_skin(&device, model, masses, warmest(config, system), timestep));
    let backend = CudaBackend::new(
        &device,
        model,
        system,
        skin,
        &Integrator::new(config.dynamics.timestep, &system.masses, config.dynamics.thermostat),
        config.output.energy_interval,
        degrees_of_freedom(system.len(), config.dynamics.remove_centre_of_mass),
        None,
    )?;
    Ok((Box::new(backend), skin))
}

/// K: the highest temperature that the input asks for or the system begins with.
fn warmest(config: &RunConfig, system: &System) -> f64 {
    let dynamics = &config.dynamics;
    let freedom = degrees_of_freedom(system.len(), dynamics.remove_centre_of_mass);
    let begins = system.velocities.as_ref().map_or(0.0, |v| temperature(kinetic_energy(&system.masses, v), freedom));
    dynamics.thermostat.map_or(begins, |bath| begins.max(bath.temperature).max(bath.final_temperature))
}

/// How radial filters are evaluated on the CPU.
pub(crate) fn filters(config: &RunConfig) -> Filters {
    if config.backend.direct_filters { Filters::Direct } else { Filters::Table }
}

/// Refuses more atoms than there is memory for on the CPU.
pub(crate) fn check_memory<T>(model: &Model, atoms: usize) -> Result<()> {
    let numbers = NUMBERS_A_FEATURE * (model.features() * model.layers.len() * atoms) as f64;
    memory::check(numbers * size_of::<T>() as f64)
        .map_err(|problem| Error::Structure(format!("the system has {atoms} atoms: {problem}; use a smaller one")))
}

/// As [`check_memory`], before there is any of these atoms, for the device that the input asks for.
fn check_room(config: &RunConfig, model: &Model, atoms: usize) -> Result<()> {
    let on_cpu = || match config.backend.precision {
        Precision::F64 => check_memory::<f64>(model, atoms),
        _ => check_memory::<f32>(model, atoms),
    };
    let plain = config.backend.precision != Precision::F64 && !config.backend.direct_filters;
    let device = match config.backend.device {
        Device::Cpu => return on_cpu(),
        Device::Auto if !plain => return on_cpu(),
        Device::Cuda => cuda::Device::open(0)?,
        Device::Auto => match cuda::Device::open(0) {
            Ok(device) => device,
            Err(_) => return on_cpu(),
        },
    };
    // Of pairs nothing is known yet: without any.
    let Some(bytes) = cuda::bytes_an_atom(model, 0.0, 0.0) else { return Ok(()) };
    let largest = cuda::largest_system(device.free_memory()? as f64, bytes);
    match atoms as f64 <= largest {
        true => Ok(()),
        false if config.backend.device == Device::Auto => on_cpu(),
        false => Err(Error::Structure(format!(
            "the system has {atoms} atoms, and the GPU's memory has room for {:.1} million at most; use a smaller one",
            largest * 1e-6
        ))),
    }
}

/// What a user is told of the CPU; `reason`: why it is not the GPU, where that was left open.
pub(crate) fn describe_cpu<T: Real>(reason: Option<String>) -> String {
    let threads = rayon::current_num_threads();
    let reason = reason.map_or(String::new(), |reason| format!(" ({reason})"));
    format!("CPU, {threads} {}, network in {}{reason}", if threads == 1 { "thread" } else { "threads" }, T::NAME)
}

/// `reason`: why it is not the GPU, where that was left open.
fn cpu<T: Real>(
    config: &RunConfig,
    model: &Model,
    system: &System,
    reason: Option<String>,
) -> Result<(Box<dyn Backend>, f64)> {
    let skin = config.skin.unwrap_or(CPU_SKIN);
    check_memory::<T>(model, system.len())?;
    let filters = filters(config);
    let potential = NetworkPotential::<T>::new(model, &system.atomic_numbers, skin, filters)?;
    let description = describe_cpu::<T>(reason);
    let backend = CpuBackend::new(
        potential,
        system.clone(),
        Integrator::new(config.dynamics.timestep, &system.masses, config.dynamics.thermostat),
        config.output.energy_interval,
        degrees_of_freedom(system.len(), config.dynamics.remove_centre_of_mass),
        description,
    )?;
    Ok((Box::new(backend), skin))
}

/// The structure with everything that the input changes about it.
fn system(config: &RunConfig, model: &Model) -> Result<System> {
    let wanted = &config.system;
    let mut system =
        structure::read_structure(&wanted.structure, wanted.frame).map_err(|error| match wanted.frame {
            0 => error,
            _ => Error::Structure(format!("{}: {error}", config.what("system.frame"))),
        })?;
    let file = wanted.structure.display();
    if let Some(atom) = system.positions.iter().position(|r| r.amax() > FARTHEST) {
        let r = &system.positions[atom];
        return Err(Error::Structure(format!(
            "{file}: atom {} ({}) has the coordinate {:e} Å, beyond {FARTHEST:e} Å; check the unit, and move the structure to \
             the origin",
            atom + 1,
            elements::symbol(system.atomic_numbers[atom]),
            r[r.icamax()]
        )));
    }
    let in_file = |error: Error| Error::Structure(format!("{file}: {error}"));
    match (&wanted.cell, wanted.periodic) {
        (Some(cell), periodic) => system.cell = cell.build(periodic.unwrap_or([true; 3]))?,
        (None, Some(periodic)) => {
            if periodic.contains(&true) && !system.cell.is_periodic() && system.cell == Cell::open() {
                return Err(Error::Structure(format!(
                    "{} has nothing to repeat, because {file} has no cell; give system.cell",
                    config.what("system.pbc")
                )));
            }
            system.cell = Cell::new(*system.cell.vectors(), periodic).map_err(in_file)?;
        }
        (None, None) => {}
    }
    check_cell(&system.cell).map_err(|problem| match &wanted.cell {
        Some(_) => Error::Structure(format!("{}: {problem}", config.what("system.cell"))),
        None => Error::Structure(format!("{file}: {problem}")),
    })?;
    for change in &wanted.masses {
        let mut found = false;
        for atom in 0..system.len() {
            if change.target == MassTarget::Atom(atom)
                || change.target == MassTarget::Element(system.atomic_numbers[atom])
            {
                system.masses[atom] = change.mass;
                found = true;
            }
        }
        if !found {
            let there = match change.target {
                MassTarget::Atom(_) => format!("has {} atoms", system.len()),
                MassTarget::Element(_) => format!("is {}", system.formula()),
            };
            return Err(Error::Input(format!("{} is for nothing in {file}, which {there}", change.place)));
        }
    }
    if let Some(mass) = wanted.hydrogen_mass {
        repartition(&mut system, mass).map_err(|problem| {
            Error::Structure(format!("{} {problem} of {file}", config.what("system.hydrogen_mass")))
        })?;
    }
    if let Some(atom) = system.masses.iter().position(|&mass| mass <= 0.0) {
        let symbol = elements::symbol(system.atomic_numbers[atom]);
        return Err(Error::Structure(format!(
            "{file}: atom {} is {symbol}, which has no standard atomic weight; give system.masses.{symbol}",
            atom + 1
        )));
    }
    let replicate = config.what("system.replicate");
    // Copies beyond counting are refused where they would be made.
    let atoms = wanted.replicate.iter().copied().fold(system.len(), usize::saturating_mul);
    let room = if (LARGE..=u32::MAX as usize).contains(&atoms) { check_room(config, model, atoms) } else { Ok(()) };
    room.and_then(|()| system.replicated(wanted.replicate))
        .map_err(|error| Error::Structure(format!("{replicate}: {error}")))
}

/// Refuses a cell so thin that every atom sits on its own image, and a left-handed one.
fn check_cell(cell: &Cell) -> std::result::Result<(), String> {
    if let Some(k) = (0..3).find(|&k| cell.periodic()[k] && cell.heights()[k] < THINNEST_CELL) {
        return Err(format!(
            "the cell is {} Å thick along {}, thinner than any bond ({THINNEST_CELL} Å); check its edges, which are in Å, and \
             its angles",
            short(cell.heights()[k]),
            ["a", "b", "c"][k]
        ));
    }
    if cell.is_left_handed() {
        return Err(
            "the cell's edges form a left-handed system, which trajectory formats cannot hold; exchange two of them"
                .into(),
        );
    }
    Ok(())
}

/// Gives every hydrogen the mass `mass` and takes the difference from the heavy atom nearest to it (Feenstra, Hess &
/// Berendsen, J. Comput. Chem. 20, 786, 1999). The error is the middle of a sentence, up to an atom of a file.
fn repartition(system: &mut System, mass: f64) -> std::result::Result<(), String> {
    let list = NeighborList::build(&system.positions, &system.cell, LONGEST_HYDROGEN_BOND)
        .map_err(|error| format!("finds no bonds, {error}, in the atoms"))?;
    let name = |atom: usize, z: u8| format!("atom {} ({})", atom + 1, elements::symbol(z));
    for atom in 0..system.len() {
        if system.atomic_numbers[atom] != 1 {
            continue;
        }
        let heavy = list
            .row(atom)
            .filter(|&p| system.atomic_numbers[list.neighbors[p] as usize] != 1)
            .map(|p| {
                let neighbor = list.neighbors[p] as usize;
                let vector =
                    system.positions[neighbor] - system.positions[atom] + system.cell.translation(list.shifts[p]);
                (vector.norm(), neighbor)
            })
            .min_by(|a, b| a.0.total_cmp(&b.0));
        let Some((_, heavy)) = heavy else {
            return Err(format!(
                "needs a heavy atom within {LONGEST_HYDROGEN_BOND} Å of every hydrogen to take mass from, which there is not \
                 at {}",
                name(atom, 1)
            ));
        };
        system.masses[heavy] -= mass - system.masses[atom];
        system.masses[atom] = mass;
    }
    match system.masses.iter().position(|&m| m <= 0.0) {
        None => Ok(()),
        Some(atom) => Err(format!(
            "is too large: it leaves {} u for {}",
            short(system.masses[atom]),
            name(atom, system.atomic_numbers[atom])
        )),
    }
}

/// Refuses atoms on top of each other: the usual sign of a wrong cell or of doubled atoms. Names the closest two.
fn check_contacts(system: &System) -> Result<()> {
    let list = NeighborList::build(&system.positions, &system.cell, CLOSEST_CONTACT)?;
    let contacts = (0..system.len()).flat_map(|centre| list.row(centre).map(move |pair| (centre, pair)));
    let closest = contacts
        .map(|(centre, pair)| {
            let neighbor = list.neighbors[pair] as usize;
            (pair_vector(&system.positions, &system.cell, centre, neighbor, list.shifts[pair]).norm(), centre, pair)
        })
        .min_by(|a, b| a.0.total_cmp(&b.0));
    let Some((distance, centre, pair)) = closest else { return Ok(()) };
    let neighbor = list.neighbors[pair] as usize;
    let name = |atom: usize| format!("{} ({})", atom + 1, elements::symbol(system.atomic_numbers[atom]));
    let image = if list.shifts[pair] == [0; 3] { "" } else { ", as a periodic image," };
    Err(Error::Structure(format!(
        "atoms {} and {}{image} are {distance:.3} Å apart, closer than any two atoms can be ({CLOSEST_CONTACT} Å); check the \
         cell and look for doubled atoms",
        name(centre),
        name(neighbor)
    )))
}

fn set_velocities(config: &RunConfig, system: &mut System) -> Result<()> {
    let dynamics = &config.dynamics;
    system.velocities = match dynamics.velocities {
        InitialVelocities::Zero => None,
        InitialVelocities::MaxwellBoltzmann(kelvin) => {
            Some(velocities::maxwell_boltzmann(system, kelvin, dynamics.seed, dynamics.remove_centre_of_mass))
        }
        InitialVelocities::File => {
            let mut found = system.velocities.take().ok_or_else(|| {
                let file = &config.system.structure;
                let source = if file.as_os_str().is_empty() { "the system".into() } else { file.display().to_string() };
                Error::Structure(format!(
                    "{}, but {source} has no velocities; use \"maxwell-boltzmann\" or \"zero\"",
                    config.what("dynamics.velocities")
                ))
            })?;
            if dynamics.remove_centre_of_mass {
                velocities::remove_centre_of_mass(&system.masses, &mut found);
            }
            Some(found)
        }
    };
    Ok(())
}
