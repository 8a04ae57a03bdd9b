//! `verlet bench`: how fast whole steps are on this machine.

mod progress;
mod subjects;

use super::info;
use crate::backend::cuda::{self, Arithmetic, CudaPotential};
use crate::bench::{Device, HEADER, Machine, Measured, Memory, Plan, Repetition, Row, measure};
use crate::config::{self, InitialVelocities, Precision, RunConfig};
use crate::error::{Error, Result, reason};
use crate::model::Model;
use crate::neighbors::NeighborList;
use crate::output::create_new;
use crate::replicas;
use crate::setup;
use progress::Progress;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use subjects::Subject;

/// The model that the repository ships, from its top.
const SHIPPED: &str = "inputs/models/ethanol-water-v2.safetensors";
/// K, of the initial velocities.
const TEMPERATURE: f64 = 300.0;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The force field, a safetensors file; without it the one that comes with the program, where that can be found
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Where to compute
    #[arg(long, value_name = "DEVICE", value_parser = ["auto", "cpu", "cuda"], default_value = "auto")]
    backend: String,
    /// Arithmetic of the network
    #[arg(long, value_parser = ["f32", "f64", "mixed"], default_value = "f32")]
    precision: String,
    /// Threads of the CPU backend, instead of all cores
    #[arg(long, value_name = "N", value_parser = super::number_from_one)]
    threads: Option<u64>,
    /// Atoms of the water to time, such as 192,1023: a droplet below 192 and a periodic box from there on
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', value_parser = super::number_from_one)]
    sizes: Vec<u64>,
    /// Time this structure file instead of water, as often as you like
    #[arg(long, value_name = "FILE", conflicts_with = "sizes")]
    structure: Vec<PathBuf>,
    /// Time so many replicas of each system, which advance together, instead of one
    #[arg(long, value_name = "N", value_parser = super::number_from_one)]
    replicas: Option<u64>,
    /// Skin of the neighbour list, such as 1.5 or 0.15nm, instead of what a run without one takes
    #[arg(long, value_name = "LENGTH", value_parser = skin, allow_negative_numbers = true)]
    skin: Option<f64>,
    /// Repetitions of each measurement; fewer where a step takes longer than a fifth of a second
    #[arg(long, value_name = "N", value_parser = super::number_from_one, default_value_t = 100)]
    repetitions: u64,
    /// Write what was measured, with every repetition, into this JSON file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the systems as they are at the start into this folder, as extended XYZ
    #[arg(long, value_name = "DIR")]
    write_structures: Option<PathBuf>,
}

fn skin(text: &str) -> std::result::Result<f64, String> {
    config::length(text).ok_or_else(|| "give a length of zero or more, in Å or with its unit".into())
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let model = Model::load(model_file(arguments)?)?;
    super::warn_of_defects(&model);
    if let Some(threads) = arguments.threads {
        super::set_threads(usize::try_from(threads).unwrap_or(usize::MAX))?;
    }
    let (device, note) = device(arguments, &model)?;
    let subjects = subjects::subjects(arguments, &device, &model)?;
    // A file that is in the way is better known now than afterwards.
    let file = arguments.json.as_deref().map(create_new).transpose()?;
    let stop = super::stop_flag()?;
    let config = settings(arguments, &device);
    // Made once, before memory is looked at.
    model.filter_table();
    let machine = Machine::look(&device)?;
    let bench = Bench { arguments, model, device, config, stop: &stop };
    let result = bench.all(&subjects, &machine, &note);
    let saved = match (&result, file, &arguments.json) {
        (Ok(rows), Some(mut file), Some(path)) => {
            let text = format!("{:#}\n", bench.json(rows, &machine));
            file.write_all(text.as_bytes())
                .map_err(|error| Error::Output(format!("{} cannot be written: {}", path.display(), reason(&error))))
        }
        (Err(_), Some(_), Some(path)) => {
            let _ = std::fs::remove_file(path);
            Ok(())
        }
        _ => Ok(()),
    };
    let rows = result?;
    saved?;
    match rows.iter().find_map(|row| row.outcome.as_ref().err()) {
        Some(problem) if rows.iter().all(|row| row.outcome.is_err()) => {
            Err(Error::Run(format!("nothing could be timed: {problem}")))
        }
        _ => Ok(()),
    }
}

/// The model asked for, else the shipped one: below the current folder, or below one of the folders that the program is in.
fn model_file(arguments: &Arguments) -> Result<PathBuf> {
    if let Some(path) = &arguments.model {
        return Ok(path.clone());
    }
    let program = std::env::current_exe().unwrap_or_default();
    let folders = std::iter::once(Path::new("")).chain(program.ancestors().skip(1));
    folders.map(|folder| folder.join(SHIPPED)).find(|path| path.is_file()).ok_or_else(|| {
        Error::Input(format!(
            "the model that comes with the program ({SHIPPED}) is not to be found; name one with --model"
        ))
    })
}

/// The device for all systems, and why it is not the GPU where that was left open. It is chosen once: a system that is too
/// large for the GPU shall not be timed on the CPU.
fn device(arguments: &Arguments, model: &Model) -> Result<(Device, String)> {
    let (double, mixed) = (arguments.precision == "f64", arguments.precision == "mixed");
    let open = || {
        let arithmetic = if mixed { Arithmetic::Mixed } else { Arithmetic::Single };
        let device = cuda::Device::open_for(0, arithmetic)?;
        cuda::check_model(model)?;
        // The kernels must compile.
        CudaPotential::new(&device, model, &model.spec.elements[..1], 0.0)?;
        Ok::<_, Error>(Device::Cuda(device))
    };
    match arguments.backend.as_str() {
        "cuda" if double => Err(super::no_double()),
        "cpu" if mixed => Err(super::only_gpu()),
        _ if mixed => Ok((open()?, String::new())),
        "cuda" => Ok((open()?, String::new())),
        "auto" if !double => Ok(match open() {
            Ok(device) => (device, String::new()),
            Err(error) => (Device::Cpu, format!(" ({error})")),
        }),
        _ => Ok((Device::Cpu, String::new())),
    }
}

/// As a run has them, at constant energy.
fn settings(arguments: &Arguments, device: &Device) -> RunConfig {
    let mut config = RunConfig::default();
    config.dynamics.velocities = InitialVelocities::MaxwellBoltzmann(TEMPERATURE);
    config.skin = arguments.skin;
    config.backend.precision = match arguments.precision.as_str() {
        "f64" => Precision::F64,
        "mixed" => Precision::Mixed,
        _ => Precision::F32,
    };
    config.backend.device = match device {
        Device::Cpu => config::Device::Cpu,
        Device::Cuda(_) => config::Device::Cuda,
    };
    config
}

struct Bench<'a> {
    arguments: &'a Arguments,
    model: Model,
    device: Device,
    config: RunConfig,
    stop: &'a AtomicBool,
}

impl Bench<'_> {
    /// Times everything and prints a line for each, until it is stopped.
    fn all(&self, subjects: &[Subject], machine: &Machine, note: &str) -> Result<Vec<Row>> {
        super::say(&format!("{}{note}\n\n{HEADER}", self.describe(machine)))?;
        let memory = Memory::before(&self.device);
        let mut rows = Vec::new();
        for (number, subject) in subjects.iter().enumerate() {
            let row = self.row(subject, &memory, Progress::new(number, subjects.len()))?;
            let Some(row) = row.filter(|_| !self.stop.load(Ordering::Relaxed)) else {
                super::say(&format!("\nstopped after {} of {} systems, as you asked", rows.len(), subjects.len()))?;
                break;
            };
            super::say(&row.line(self.config.dynamics.timestep))?;
            rows.push(row);
        }
        Ok(rows)
    }

    fn describe(&self, machine: &Machine) -> String {
        let Machine { processor, cores, threads, instructions, .. } = machine;
        let backend = match &self.device {
            Device::Cpu => {
                let plural = if *threads == 1 { "" } else { "s" };
                format!("CPU, {threads} thread{plural}, {instructions}, network in {}", self.arguments.precision)
            }
            Device::Cuda(device) => format!("{} (GPU), network in {}", device.name, device.arithmetic.name()),
        };
        format!(
            "model    {}\nmachine  {processor}, {cores} cores\nbackend  {backend}\nsteps    {} fs at constant energy, from \
             {TEMPERATURE} K",
            info::one_line(&self.model),
            self.config.dynamics.timestep,
        )
    }

    /// Times one system; nothing when it was stopped. What goes wrong with this system alone is in its row.
    fn row(&self, subject: &Subject, memory: &Memory, mut progress: Progress) -> Result<Option<Row>> {
        let system = match subject.make() {
            Ok(system) => system,
            Err(error) => return Ok(Some(Row::without_system(subject.atoms(), error.to_string()))),
        };
        if let Some(folder) = &self.arguments.write_structures {
            subjects::write(&system, folder, subject)?;
        }
        let list = NeighborList::build(&system.positions, &system.cell, self.model.cutoff());
        let replicas = self.arguments.replicas.map(|replicas| usize::try_from(replicas).unwrap_or(usize::MAX));
        let pairs = list.ok().map(|list| list.len());
        let mut row = Row::new(subject.name(&system), &system, replicas.unwrap_or(1), pairs);
        memory.forget_peak();
        progress.begin(row.atoms);
        let timed = (|| {
            let plan = Plan { repetitions: usize::try_from(self.arguments.repetitions).unwrap_or(usize::MAX) };
            let tell = &mut |told: Repetition| progress.tell(told.done, told.of);
            // Memory is looked at while the system is there.
            match replicas {
                None => {
                    let mut prepared = setup::prepare_system(&self.config, self.model.clone(), system)?;
                    row.skin = Some(prepared.skin);
                    Ok((measure(prepared.backend.as_mut(), plan, self.stop, tell)?, memory.taken()))
                }
                Some(replicas) => {
                    let mut config = self.config.clone();
                    config.set_copies(replicas)?;
                    let systems = vec![system; replicas];
                    let mut prepared = replicas::prepare_systems(&config, self.model.clone(), systems)?;
                    row.skin = Some(prepared.skin);
                    Ok::<_, Error>((measure(prepared.batch.as_mut(), plan, self.stop, tell)?, memory.taken()))
                }
            }
        })();
        progress.end();
        row.outcome = match timed {
            Ok((Measured::Stopped, _)) => return Ok(None),
            Ok((Measured::Done(timing), memory)) => Ok((timing, memory)),
            Err(error) => Err(error.to_string()),
        };
        Ok(Some(row))
    }

    fn json(&self, rows: &[Row], machine: &Machine) -> Value {
        let model = &self.model;
        let timestep = self.config.dynamics.timestep;
        json!({
            "format": "verlet-bench/2",
            "machine": machine.json(),
            "backend": match self.device { Device::Cpu => "cpu", Device::Cuda(_) => "cuda" },
            "precision": self.arguments.precision,
            // On a GPU the kernels decide.
            "filters": match self.device { Device::Cpu => Some("table"), Device::Cuda(_) => None },
            "model": {
                "name": model.name,
                "sha256": model.hash,
                "architecture": model.spec.architecture.to_string(),
                "features": model.features(),
                "layers": model.layers.len(),
                "radial_functions": model.spec.radial_count,
                "cutoff_angstrom": model.cutoff(),
            },
            "timestep_fs": timestep,
            "temperature_kelvin": TEMPERATURE,
            "stopped": self.stop.load(Ordering::Relaxed),
            "systems": rows.iter().map(|row| row.json(timestep)).collect::<Vec<_>>(),
        })
    }
}
