//! Checkpoints: the truth about a run, in a file of our own.
//!
//! A trajectory holds what people want to see; a checkpoint holds what the run needs to go on bit for bit.
//!
//! It is written to a temporary file, synced, and renamed, so that a reader finds an old one or a new one and never a part.
//! The one before is kept: [`Generations`].

mod codec;
mod set;

pub use set::{Member, SetCheckpoint};

use super::Position;
use crate::backend::State;
use crate::config::Precision;
use crate::error::{Error, Result, reason};
use crate::system::{Cell, System};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// A run at one step: with the model file, all that it takes to go on.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// What the run is.
    pub run: Provenance,
    /// The step at which the run is to end.
    pub steps: u64,
    /// Atoms and cell: with a checkpoint nobody needs the structure file again.
    pub atomic_numbers: Vec<u8>,
    /// u.
    pub masses: Vec<f64>,
    /// Edges and periodic directions.
    pub cell: Cell,
    /// Positions, velocities and everything else that moves.
    pub state: State,
    /// How far every output has come, by its name.
    pub outputs: BTreeMap<String, Position>,
}

/// What a run is: the part of a checkpoint that stays the same all the time.
#[derive(Debug, Clone, PartialEq)]
pub struct Provenance {
    /// The program's version.
    pub version: String,
    /// The input file, with its folder from the root on: relative paths in the input start there.
    pub input: PathBuf,
    /// The input's text.
    pub text: String,
    /// The command line's changes to it, `section.key=value` each.
    pub overrides: Vec<String>,
    /// SHA-256 of the model file, hexadecimal.
    pub model_hash: String,
    /// Skin of the neighbour list, Å.
    pub skin: f64,
    /// In what the network computes.
    pub precision: Precision,
    /// Whether radial filters are evaluated directly instead of from a table.
    pub direct_filters: bool,
}

impl Checkpoint {
    /// The system as it was, without its motion from before the run.
    ///
    /// # Errors
    /// As [`System::new`].
    pub fn system(&self) -> Result<System> {
        system(&self.atomic_numbers, &self.masses, &self.cell, &self.state)
    }
}

fn system(atomic_numbers: &[u8], masses: &[f64], cell: &Cell, state: &State) -> Result<System> {
    let mut system = System::new(atomic_numbers.to_vec(), state.positions.clone(), cell.clone())?;
    system.masses = masses.to_vec();
    system.velocities = Some(state.velocities.clone());
    Ok(system)
}

/// What stands in a checkpoint's file: that of one system, or of many.
pub trait Stored: Sized {
    /// The file's bytes.
    fn encode(&self) -> Vec<u8>;

    /// A checkpoint from a file's bytes.
    ///
    /// # Errors
    /// The end of a sentence that begins with the file's name.
    fn decode(file: &[u8]) -> std::result::Result<Self, String>;
}

/// The two checkpoints of a run's folder: the last one and the one before it.
#[derive(Debug, Clone)]
pub struct Generations {
    folder: PathBuf,
}

impl Generations {
    /// The last checkpoint's name in the run's folder.
    pub const CURRENT: &str = "checkpoint.vlt";
    /// The name of the one before it.
    pub const PREVIOUS: &str = "checkpoint.previous.vlt";
    /// Where a checkpoint is written before it gets its name.
    const UNFINISHED: &str = "checkpoint.unfinished.vlt";

    /// Those of a run's folder.
    pub fn of(folder: &Path) -> Self {
        Generations { folder: folder.to_owned() }
    }

    /// The last checkpoint's path.
    pub fn current(&self) -> PathBuf {
        self.folder.join(Self::CURRENT)
    }

    /// The path of the one before it.
    pub fn previous(&self) -> PathBuf {
        self.folder.join(Self::PREVIOUS)
    }

    /// Whether the folder has any checkpoint.
    pub fn exist(&self) -> bool {
        self.current().exists() || self.previous().exists()
    }

    /// Whether they are those of many systems.
    pub fn are_of_a_set(&self) -> bool {
        let begins = |path: PathBuf| {
            let mut magic = [0; codec::SET.magic.len()];
            File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok_and(|()| magic == *codec::SET.magic)
        };
        begins(self.current()) || begins(self.previous())
    }

    /// Reads one of the two.
    ///
    /// # Errors
    /// [`Error::Output`] in one sentence when it cannot be read or is no undamaged checkpoint.
    pub fn read<C: Stored>(path: &Path) -> Result<C> {
        let fault = |reason: String| Error::Output(format!("{} {reason}", path.display()));
        let bytes = std::fs::read(path).map_err(|error| fault(format!("cannot be read: {}", reason(&error))))?;
        C::decode(&bytes).map_err(fault)
    }

    /// Adds a checkpoint: the last one becomes the one before it.
    ///
    /// # Errors
    /// [`Error::Output`] when the folder cannot be written; there is still a checkpoint then.
    pub fn add(&self, checkpoint: &impl Stored) -> Result<()> {
        let failed = |error| self.fault(error);
        self.write(checkpoint)?;
        if self.current().exists() {
            std::fs::rename(self.current(), self.previous()).map_err(failed)?;
        }
        self.name_written()
    }

    /// Puts a checkpoint in the last one's place.
    ///
    /// # Errors
    /// [`Error::Output`] when the folder cannot be written; the checkpoints are untouched then.
    pub fn replace(&self, checkpoint: &impl Stored) -> Result<()> {
        self.write(checkpoint)?;
        self.name_written()
    }

    fn write(&self, checkpoint: &impl Stored) -> Result<()> {
        let written = File::create(self.folder.join(Self::UNFINISHED)).and_then(|mut file| {
            file.write_all(&checkpoint.encode())?;
            file.sync_all()
        });
        written.map_err(|error| self.fault(error))
    }

    fn name_written(&self) -> Result<()> {
        std::fs::rename(self.folder.join(Self::UNFINISHED), self.current())
            // The names must survive a power failure too.
            .and_then(|()| File::open(&self.folder)?.sync_all())
            .map_err(|error| self.fault(error))
    }

    fn fault(&self, error: std::io::Error) -> Error {
        Error::Output(format!("the checkpoint {} cannot be written: {}", self.current().display(), reason(&error)))
    }
}

#[cfg(test)]
mod tests;
