//! The commands of the program, a file each.

mod bench;
mod check;
mod convert;
mod evaluate;
mod execute;
mod info;
mod outputs;
mod repair;
mod replicas;
mod resume;
mod run;
mod summary;

use crate::config::RunConfig;
use crate::error::{Error, Result, reason};
use crate::model::Model;
use crate::setup::Prepared;
use crate::system::System;
use clap::{CommandFactory, Parser, Subcommand};
use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Molecular dynamics under learned force fields.
#[derive(Parser)]
#[command(version, about, propagate_version = true, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the molecular dynamics that an input file describes
    Run(run::Arguments),
    /// Continue a run exactly where it stopped, however it stopped
    Resume(resume::Arguments),
    /// Make a trajectory that a killed run left behind readable for every program
    Repair(repair::Arguments),
    /// Read an input, load everything, compute one energy, say what would run; write nothing
    Check(check::Arguments),
    /// Energies, forces and stresses of structures, as extended XYZ
    Evaluate(evaluate::Arguments),
    /// Turn a trajectory into another format
    Convert(convert::Arguments),
    /// How fast whole steps are on this machine: water from ten atoms to a million, or a system of your own
    Bench(bench::Arguments),
    /// What a model file is, the keys of an input file, or what this machine can compute on
    Info(info::Arguments),
}

/// What `run` and `check` understand in the same way.
#[derive(clap::Args)]
struct InputArguments {
    /// The input file (TOML)
    input: PathBuf,
    /// Where to compute, instead of the input's choice
    #[arg(long, value_name = "DEVICE", value_parser = ["auto", "cpu", "cuda"])]
    backend: Option<String>,
    /// The run's folder, instead of the input's choice
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Number of steps, instead of the input's choice
    #[arg(long, value_name = "N", value_parser = whole_number, allow_negative_numbers = true)]
    steps: Option<u64>,
    /// Change any key of the input, for example --set dynamics.timestep=1fs
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl InputArguments {
    /// The input with the command line's changes, and the threads it asks for.
    fn load(&self) -> Result<RunConfig> {
        let mut overrides = self.set.clone();
        overrides.extend(self.backend.iter().map(|device| format!("backend.device={device}")));
        overrides.extend(self.steps.iter().map(|steps| format!("dynamics.steps={steps}")));
        let mut config = RunConfig::load(&self.input, &overrides)?;
        if let Some(directory) = &self.output {
            config.output.directory.clone_from(directory);
        }
        if let Some(threads) = config.backend.threads {
            set_threads(threads)?;
        }
        Ok(config)
    }
}

/// The command line, as clap describes it: for documents and completions.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// How a command ended that met no error. The exit status tells: whoever runs many must not read what each has printed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// It has done all that was asked.
    Done = 0,
    /// The run went to its end, or to where it was stopped, and its verdict is FAIL.
    NotConserved = 3,
    /// A signal stopped the run before its end, at a checkpoint.
    Stopped = 4,
}

impl Ending {
    fn of_run(not_conserved: bool, interrupted: bool) -> Self {
        // It would be of no use to go on with energy that is not conserved.
        match (not_conserved, interrupted) {
            (true, _) => Ending::NotConserved,
            (false, true) => Ending::Stopped,
            (false, false) => Ending::Done,
        }
    }
}

/// Runs the program; the error chain is printed here and nowhere else.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Where it fails, the operating system ends the program at a limit of file sizes, as it would without this.
    let _ = flag::register(SIGXFSZ, Arc::default());
    let done = |result: Result<()>| result.map(|()| Ending::Done);
    let result = match arguments.command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Resume(arguments) => resume::run(&arguments),
        Command::Repair(arguments) => done(repair::run(&arguments)),
        Command::Check(arguments) => done(check::run(&arguments)),
        Command::Evaluate(arguments) => done(evaluate::run(&arguments)),
        Command::Convert(arguments) => done(convert::run(&arguments)),
        Command::Bench(arguments) => done(bench::run(&arguments)),
        Command::Info(arguments) => done(info::run(&arguments)),
    };
    match result {
        Ok(ending) => ExitCode::from(ending as u8),
        Err(error) => {
            complain(&format!("error: {error}"));
            ExitCode::from(error.exit_status())
        }
    }
}

fn whole_number(text: &str) -> std::result::Result<u64, String> {
    text.parse().map_err(|_| "give a whole number from 0 on".into())
}

fn number_from_one(text: &str) -> std::result::Result<u64, String> {
    text.parse().ok().filter(|&number| number > 0).ok_or_else(|| "give a whole number from 1 on".into())
}

/// A number and what it counts, in the plural unless it is one.
fn counted(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Prints a line, or several. Who stops reading early, as `head` does, has seen enough.
///
/// # Errors
/// [`Error::Output`] when standard output takes no more.
fn say(text: &str) -> Result<()> {
    let mut output = std::io::stdout().lock();
    match writeln!(output, "{text}").and_then(|()| output.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Error::Output(format!("standard output cannot be written: {}", reason(&error))))
        }
        _ => Ok(()),
    }
}

fn warn(text: &str) {
    complain(&format!("warning: {text}"));
}

/// A closed stderr is no reason to lose anything.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A flag that SIGINT and SIGTERM raise; a second one ends the program at once.
fn stop_flag() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag still down and only raises it.
        signal_hook::flag::register_conditional_shutdown(signal, 1, stop.clone())
            .and_then(|_| signal_hook::flag::register(signal, stop.clone()))
            .map_err(|error| Error::Run(format!("the program cannot listen to signals: {}", reason(&error))))?;
    }
    Ok(stop)
}

/// What is said where float64 is asked for on a GPU.
fn no_double() -> Error {
    let advice = "leave --precision at that, or use --backend cpu";
    Error::Input(format!("--backend cuda computes the network in f32 or mixed precision; {advice}"))
}

/// What is said where mixed precision is asked for without a GPU.
fn only_gpu() -> Error {
    Error::Input("--precision mixed needs a GPU; leave it at f32 for the CPU".into())
}

fn set_threads(threads: usize) -> Result<()> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .map_err(|error| Error::Input(format!("{threads} threads cannot be started: {error}")))
}

/// Says once what a user must know of a model.
fn warn_of_defects(model: &Model) {
    if let Some(defects) = model.defects() {
        warn(&format!("{}: {defects}", model.name));
    }
}

/// Says what a network makes of a charge: nothing. `what` states it.
fn warn_of_charge(what: &str, system: &System) {
    if system.charge != 0.0 {
        warn(&format!(
            "{what} states a total charge of {:+}, which no network here knows: energy and forces are those of elements and \
             positions alone",
            system.charge
        ));
    }
}

/// Tells what is about to run.
fn describe(config: &RunConfig, prepared: &Prepared) -> String {
    let system = &prepared.info.system;
    let cell = if system.cell.is_periodic() {
        let directions: String =
            ["a", "b", "c"].iter().zip(system.cell.periodic()).filter(|(_, on)| *on).map(|(name, _)| *name).collect();
        format!("periodic along {directions}, {:.1} Å³", system.cell.volume())
    } else {
        "not periodic".into()
    };
    let ensemble = match &config.dynamics.thermostat {
        None => "constant energy (NVE)".to_string(),
        Some(bath) if bath.ramp_steps > 0 => format!(
            "Langevin from {} to {} K, friction {} 1/ps",
            bath.temperature,
            bath.final_temperature,
            bath.friction * 1e3
        ),
        Some(bath) => format!("Langevin at {} K, friction {} 1/ps", bath.temperature, bath.friction * 1e3),
    };
    let what = format!("{}, {}, {cell}", system.formula(), counted(system.len() as u64, "atom"));
    let ensemble = format!("{ensemble}, {} degrees of freedom", prepared.degrees_of_freedom);
    describe_run(config, &what, &prepared.model, &prepared.info.backend, &ensemble)
}

fn describe_run(config: &RunConfig, system: &str, model: &Model, backend: &str, ensemble: &str) -> String {
    let dynamics = &config.dynamics;
    let time = dynamics.steps as f64 * dynamics.timestep * 1e-3;
    format!(
        "system   {system}\nmodel    {}\nbackend  {backend}\nrun      {} of {} fs = {} ps, {ensemble}",
        info::one_line(model),
        counted(dynamics.steps, "step"),
        dynamics.timestep,
        // Binary fractions of a time step must not show.
        (time * 1e9).round() / 1e9,
    )
}
