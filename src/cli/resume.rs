//! `verlet resume`: on from the last checkpoint, as if nothing had happened.

use super::{Ending, execute, outputs, replicas};
use crate::analysis::Conservation;
use crate::config::{KEYS, Kind, RunConfig};
use crate::error::{Error, Result};
use crate::output::checkpoint::{Checkpoint, Generations, Provenance};
use crate::output::folder::{RunFolder, TRAJECTORY};
use crate::output::h5md::{self, H5mdOutput, H5mdReader};
use crate::output::record::Record;
use crate::output::trajectory::TrajectoryWriter;
use crate::output::{Output, Position};
use crate::setup::{self, Prepared};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The run's folder
    folder: PathBuf,
    /// A new total number of steps, counted from the start of the run: extends a run that is finished
    #[arg(long, value_name = "N", value_parser = super::whole_number, allow_negative_numbers = true)]
    steps: Option<u64>,
    /// Where to compute, instead of the run's choice; only the same device repeats every bit
    #[arg(long, value_name = "DEVICE", value_parser = ["auto", "cpu", "cuda"])]
    backend: Option<String>,
    /// Where the model file lies now, if not where the run began with it; it must be the same file
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Threads of the CPU backend, instead of the run's choice; results do not depend on them
    #[arg(long, value_name = "N", value_parser = number_of_threads)]
    threads: Option<i64>,
    /// What to do where the run leaves what its model was trained on, instead of the run's choice; a run that was stopped there
    /// goes on with warn
    #[arg(long, value_name = "WHAT", value_parser = ["warn", "stop", "ignore"])]
    outside_domain: Option<String>,
}

/// As many as `backend.threads` may be.
fn number_of_threads(text: &str) -> std::result::Result<i64, String> {
    let most = KEYS.iter().find_map(|key| match (key.section, key.name, key.kind) {
        ("backend", "threads", Kind::Integer(_, most)) => Some(most),
        _ => None,
    });
    let most = most.expect("backend.threads is a whole number");
    text.parse()
        .ok()
        .filter(|number| (1..=most).contains(number))
        .ok_or_else(|| format!("give a whole number from 1 to {most}"))
}

impl Arguments {
    /// Changes to the run's input, `section.key=value` each.
    fn overrides(&self) -> Result<Vec<String>> {
        let mut overrides = Vec::new();
        overrides.extend(self.backend.iter().map(|device| format!("backend.device={device}")));
        overrides.extend(self.threads.iter().map(|threads| format!("backend.threads={threads}")));
        overrides.extend(self.outside_domain.iter().map(|what| format!("model.outside_domain={what}")));
        if let Some(file) = &self.model {
            // A relative path in an input starts at that input; this one was given here.
            let file = std::path::absolute(file).map_err(|error| {
                Error::Input(format!("--model {}: its place cannot be found out: {error}", file.display()))
            })?;
            overrides.push(format!("model.file={}", toml::Value::String(file.display().to_string())));
        }
        Ok(overrides)
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<Ending> {
    let folder = RunFolder::open(&arguments.folder)?;
    let overrides = arguments.overrides()?;
    if folder.checkpoints().are_of_a_set() {
        return replicas::resume(&folder, arguments.steps, &overrides);
    }
    let (mut checkpoint, is_last) = last_usable(&folder)?;
    let step = checkpoint.state.step;
    let scheduled = checkpoint.steps;
    checkpoint.steps = arguments.steps.unwrap_or(scheduled);
    if checkpoint.steps <= step {
        return finished(folder.path(), step, arguments.steps);
    }
    let config = setup::recall(&checkpoint.run, checkpoint.steps, folder.path(), &overrides)?;
    accept(&config, &checkpoint.run)?;
    let mut prepared = setup::resume(&config, &checkpoint)?;
    super::say(&format!(
        "{}\noutput   {}, from step {step} on",
        super::describe(&config, &prepared),
        folder.path().display()
    ))?;

    let (outputs, conservation) = reopen(&folder, &config, &prepared, &checkpoint)?;
    let run = setup::provenance(&config, &prepared.model, prepared.skin)?;
    if !is_last || checkpoint.steps != scheduled {
        // A kill before the next checkpoint must not forget the new end, and the next checkpoint must not push this one out
        // of its place to keep a bad one.
        folder.checkpoints().replace(&checkpoint)?;
    }
    let record = Record::new(outputs, folder.checkpoints(), run, checkpoint.steps, &prepared.info.system).behind(step);
    execute::execute(&config, &mut prepared, &folder, record, conservation)
}

/// Takes the threads that a run asks for, and warns where another version began it.
pub(super) fn accept(config: &RunConfig, run: &Provenance) -> Result<()> {
    if let Some(threads) = config.backend.threads {
        super::set_threads(threads)?;
    }
    if run.version != env!("CARGO_PKG_VERSION") {
        super::warn(&format!(
            "the run was at work with verlet {}; this is {}, which may compute other last bits",
            run.version,
            env!("CARGO_PKG_VERSION")
        ));
    }
    Ok(())
}

/// Says that there is nothing to do, or why what was asked for cannot be done.
pub(super) fn finished(folder: &Path, step: u64, asked: Option<u64>) -> Result<Ending> {
    match asked {
        Some(steps) if steps < step => Err(Error::Input(format!(
            "--steps {steps} is the total number of steps, and the run in {} has taken {step} already; give more than that",
            folder.display()
        ))),
        _ => super::say(&format!(
            "the run in {} is finished: it has taken all of its {step} steps; extend it with --steps N, the new total",
            folder.display()
        ))
        .map(|()| Ending::Done),
    }
}

/// The last checkpoint that is whole and whose outputs are there, with its outputs repaired, and whether it is the very
/// last one; warns when it is not.
fn last_usable(folder: &RunFolder) -> Result<(Checkpoint, bool)> {
    let checkpoints = folder.checkpoints();
    let name = folder.path().display();
    if !checkpoints.exist() {
        return Err(Error::Output(format!(
            "the folder {name} has no checkpoint, so its run cannot go on; if it was killed before its first step, remove \
             the folder and start again"
        )));
    }
    let refused = |reason: String| Error::Output(format!("the run in {name} cannot be resumed: {reason}"));
    let trajectory = folder.trajectory();
    if std::fs::metadata(&trajectory).map_or(0, |metadata| metadata.len()) == 0 {
        return Err(refused(format!("{} is missing, or empty; put it back", trajectory.display())));
    }
    // A trajectory that cannot be repaired now, because somebody reads it, is no reason to go further back.
    h5md::repair(&trajectory)?;
    let unusable = match usable(folder, &checkpoints.current()) {
        Ok(checkpoint) => return Ok((checkpoint, true)),
        Err(error) => error,
    };
    if !checkpoints.previous().exists() {
        return Err(refused(unusable.to_string()));
    }
    let checkpoint =
        usable(folder, &checkpoints.previous()).map_err(|error| refused(format!("{unusable}, and {error}")))?;
    super::warn(&format!(
        "{unusable}; going on from the checkpoint before it, {} at step {}",
        Generations::PREVIOUS,
        checkpoint.state.step
    ));
    Ok((checkpoint, false))
}

fn usable(folder: &RunFolder, path: &Path) -> Result<Checkpoint> {
    let checkpoint: Checkpoint = Generations::read(path)?;
    let position = position(&checkpoint);
    if !H5mdOutput::holds(&folder.trajectory(), &position)? {
        return Err(Error::Output(format!(
            "{} has less than the {} frames and {} rows of the energy log that {} counts",
            folder.trajectory().display(),
            position.frames,
            position.rows,
            path.display()
        )));
    }
    // The other outputs are counted in bytes: what they are is of no interest here.
    for (name, position) in checkpoint.outputs.iter().filter(|(name, _)| *name != TRAJECTORY) {
        let file = folder.path().join(name);
        if !file.exists() {
            return Err(Error::Output(format!("{} is missing; put it back", file.display())));
        }
        if !TrajectoryWriter::holds(&file, position)? {
            return Err(Error::Output(format!(
                "{} has less than the {} frames that {} counts",
                file.display(),
                position.frames,
                path.display()
            )));
        }
    }
    Ok(checkpoint)
}

fn position(checkpoint: &Checkpoint) -> Position {
    checkpoint.outputs.get(TRAJECTORY).copied().unwrap_or_default()
}

/// The outputs, cut to the checkpoint, and the verdict as far as the energy log then leads.
fn reopen(
    folder: &RunFolder,
    config: &RunConfig,
    prepared: &Prepared,
    checkpoint: &Checkpoint,
) -> Result<(Vec<Box<dyn Output>>, Conservation)> {
    let path = folder.trajectory();
    let position = position(checkpoint);
    let mut conservation = Conservation::new(prepared.info.system.len(), prepared.degrees_of_freedom);
    for mut sample in H5mdReader::open(&path)?.samples()?.into_iter().take(position.rows as usize) {
        // The file has picoseconds, rounded; the product is what the run computed.
        sample.time = sample.step as f64 * config.dynamics.timestep;
        conservation.add(&sample);
    }
    Ok((outputs::append(folder, config, &prepared.info.system, checkpoint)?, conservation))
}
