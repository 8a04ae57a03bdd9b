//! `verlet run`: from an input file to a folder with its results.

use super::InputArguments;
use crate::analysis::Conservation;
use crate::config::{ExtraOutput, RunConfig};
use crate::error::{Error, Result};
use crate::output::h5md::{H5mdOptions, H5mdWriter};
use crate::output::progress::Progress;
use crate::output::trajectory::TrajectoryWriter;
use crate::output::{Frame, RunInfo, Sample, vmd};
use crate::setup;
use crate::simulation::{self, Observer, Outcome, Schedule};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// The trajectory's name in the run's folder.
const TRAJECTORY: &str = "trajectory.h5md";
/// The name of the copy of the input.
const INPUT: &str = "input.toml";
/// What was written becomes safe from a kill at least this often.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// Steps between two looks at the samples; progress is shown and the stop flag seen at least this often.
const CHUNK: u64 = 100;

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    input: InputArguments,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let config = arguments.input.load()?;
    let directory = config.output.directory.clone();
    check_free(&directory)?;
    let mut prepared = setup::prepare(&config)?;
    super::warn_of_defects(&prepared.model);
    println!("{}", super::describe(&config, &prepared));
    println!("output   {}", directory.display());

    super::check_outputs(&config, &prepared)?;
    let mut trajectory = Trajectory::create(&directory, &config, &prepared.info)?;
    let atoms = prepared.info.system.len();
    let mut progress = Progress::new(config.dynamics.steps, config.dynamics.timestep, atoms);
    let mut extra = extra_outputs(&directory, &config, &prepared.info)?;
    let intervals = config.output.extra.iter().map(|output| output.options.interval);
    let frame_intervals = intervals.chain([config.output.trajectory_interval]).collect();
    let schedule = Schedule { steps: config.dynamics.steps, frame_intervals, chunk: CHUNK };
    let conservation = Conservation::new(atoms, prepared.degrees_of_freedom);
    let stop = stop_flag()?;
    let begun = Instant::now();
    let mut observers: Vec<&mut dyn Observer> = vec![&mut trajectory, &mut progress];
    observers.extend(extra.iter_mut().map(|writer| writer as &mut dyn Observer));
    let outcome =
        simulation::run(prepared.backend.as_mut(), schedule, conservation, config.limits, &mut observers, &stop)?;
    print!("{}", summary(&config, &outcome, begun.elapsed()));
    println!("{}", how_to_look(&trajectory));
    Ok(())
}

/// The trajectories beside H5MD, and a script for VMD beside each of them all.
fn extra_outputs(directory: &Path, config: &RunConfig, info: &RunInfo) -> Result<Vec<TrajectoryWriter>> {
    vmd::accompany_h5md(&directory.join(TRAJECTORY), &info.system, config.output.wrap)?;
    let create = |output: &ExtraOutput| {
        let path = directory.join(&output.file);
        vmd::accompany(&path, &info.system, &output.options)?;
        TrajectoryWriter::create(&path, &info.system, output.options.clone())
    };
    config.output.extra.iter().map(create).collect()
}

/// Refuses a folder that holds anything: nothing is ever overwritten.
pub(super) fn check_free(directory: &Path) -> Result<()> {
    match std::fs::read_dir(directory) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) if directory.join(TRAJECTORY).exists() => Err(Error::Output(format!(
                "the folder {} already holds a run; choose another with --output, or remove it",
                directory.display()
            ))),
            Some(_) => Err(Error::Output(format!(
                "the folder {} is not empty; choose another with --output, or empty it",
                directory.display()
            ))),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::Output(format!("the folder {} cannot be used: {error}", directory.display()))),
    }
}

/// A flag that SIGINT and SIGTERM raise; a second one ends the program at once.
fn stop_flag() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag still down and only raises it.
        signal_hook::flag::register_conditional_shutdown(signal, 1, stop.clone())
            .and_then(|_| signal_hook::flag::register(signal, stop.clone()))
            .map_err(|error| Error::Run(format!("the program cannot listen to signals: {error}")))?;
    }
    Ok(stop)
}

/// The H5MD file of a run.
struct Trajectory {
    writer: Option<H5mdWriter>,
    path: PathBuf,
    interval: u64,
    frames: usize,
    flushed: Instant,
}

impl Trajectory {
    fn create(directory: &Path, config: &RunConfig, info: &RunInfo) -> Result<Self> {
        let failed = |error: std::io::Error| {
            Error::Output(format!("the folder {} cannot be written: {error}", directory.display()))
        };
        std::fs::create_dir_all(directory).map_err(failed)?;
        std::fs::write(directory.join(INPUT), &config.text).map_err(failed)?;
        let path = directory.join(TRAJECTORY);
        let options = H5mdOptions {
            velocities: config.output.velocities,
            forces: config.output.forces,
            double: config.output.double,
            wrap: config.output.wrap,
        };
        let writer = Some(H5mdWriter::create(&path, info, &options)?);
        Ok(Trajectory { writer, path, interval: config.output.trajectory_interval, frames: 0, flushed: Instant::now() })
    }

    fn flush_in_time(&mut self) -> Result<()> {
        if self.flushed.elapsed() < FLUSH_INTERVAL {
            return Ok(());
        }
        self.flushed = Instant::now();
        self.writer.as_mut().map_or(Ok(()), H5mdWriter::flush)
    }
}

impl Observer for Trajectory {
    fn samples(&mut self, samples: &[Sample]) -> Result<()> {
        if let Some(writer) = &mut self.writer {
            writer.write_samples(samples)?;
        }
        self.flush_in_time()
    }

    fn frame(&mut self, frame: &Frame) -> Result<()> {
        if let Some(writer) = &mut self.writer
            && frame.sample.step.is_multiple_of(self.interval)
        {
            writer.write_frame(frame)?;
            self.frames += 1;
        }
        self.flush_in_time()
    }

    fn finish(&mut self) -> Result<()> {
        self.writer.take().map_or(Ok(()), H5mdWriter::finish)
    }
}

fn summary(config: &RunConfig, outcome: &Outcome, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    let nanoseconds = outcome.step as f64 * config.dynamics.timestep * 1e-6;
    let ended = if outcome.interrupted {
        format!("stopped at step {} of {}, as you asked", outcome.step, config.dynamics.steps)
    } else {
        format!("finished {} steps", outcome.step)
    };
    format!(
        "\n{ended} in {seconds:.1} s: {:.2} ms a step, {:.3} ns/day\nlist rebuilds      {}\n{}\n",
        1e3 * seconds / outcome.step.max(1) as f64,
        nanoseconds / seconds * 86_400.0,
        outcome.last.list_rebuilds,
        outcome.verdict
    )
}

fn how_to_look(trajectory: &Trajectory) -> String {
    let path = trajectory.path.display();
    format!(
        "\ntrajectory         {path}, {} frames\nlook at it         python: MDAnalysis.Universe(\"{path}\")\n                   VMD: vmd -h5md {path}\n                   h5dump -H {path}",
        trajectory.frames
    )
}
