//! `verlet repair`: a trajectory that a killed run left behind, readable for every program again.

use crate::error::{Error, Result};
use crate::output::folder::{RunFolder, TRAJECTORY};
use crate::output::h5md;
use std::path::PathBuf;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The run's folder, or a trajectory
    path: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let path = &arguments.path;
    // Held until the end. A trajectory that has left its folder has no run that could write it.
    let folder = if path.is_dir() { Some(RunFolder::open(path)?) } else { RunFolder::around(path)? };
    let file = if path.is_dir() { path.join(TRAJECTORY) } else { path.clone() };
    if !file.exists() {
        return Err(Error::Output(format!(
            "{} does not exist; give the folder of a run, or a trajectory",
            file.display()
        )));
    }
    let found = h5md::repair(&file)?;
    drop(folder);
    let word = if found.changed { "repaired" } else { "needs no repair" };
    super::say(&format!("{} {word}: {} frames, {} rows of the energy log", file.display(), found.frames, found.rows))
}
