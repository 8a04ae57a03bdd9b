//! `verlet repair`: a trajectory that a killed run left behind, readable for every program again.

use crate::error::{Error, Result, reason};
use crate::output::checkpoint::Generations;
use crate::output::folder::{RunFolder, TRAJECTORY};
use crate::output::h5md;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The run's folder, or a trajectory
    path: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let path = &arguments.path;
    let file = if path.is_dir() { path.join(TRAJECTORY) } else { path.clone() };
    // Held until the end. A trajectory that has left its folder has no run that could write it.
    let around = RunFolder::around(&file)?;
    let folder = if around.is_none() && path.is_dir() { Some(RunFolder::open(path)?) } else { around };
    if path.is_dir() && !file.exists() && Generations::of(path).are_of_a_set() {
        return repair_all(path);
    }
    if !file.exists() {
        return Err(Error::Output(format!(
            "{} does not exist; give the folder of a run, or a trajectory",
            file.display()
        )));
    }
    repair(&file)?;
    drop(folder);
    Ok(())
}

/// The trajectories of all replicas, in the order of their names.
fn repair_all(path: &Path) -> Result<()> {
    let failed = |error| Error::Output(format!("the folder {} cannot be read: {}", path.display(), reason(&error)));
    let entries = std::fs::read_dir(path).map_err(failed)?;
    let files = entries.map(|entry| entry.map(|entry| entry.path().join(TRAJECTORY)));
    let mut files = files.collect::<std::io::Result<Vec<_>>>().map_err(failed)?;
    files.retain(|file| file.exists());
    files.sort();
    files.iter().try_for_each(|file| repair(file))
}

fn repair(file: &Path) -> Result<()> {
    let found = h5md::repair(file)?;
    let word = if found.changed { "repaired" } else { "needs no repair" };
    super::say(&format!("{} {word}: {} frames, {} rows of the energy log", file.display(), found.frames, found.rows))
}
