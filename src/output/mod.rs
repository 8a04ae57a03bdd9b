//! Everything a run leaves behind. Outputs see only [`Frame`]s and [`Sample`]s, never a backend.

pub mod checkpoint;
pub mod folder;
pub mod h5md;
pub mod progress;
pub mod record;
pub mod replicas;
pub mod trajectory;
pub mod vmd;
pub mod writer;

use crate::error::{Error, Result, reason};
use crate::simulation::Observer;
use crate::system::System;
use nalgebra::Vector3;
use std::fs::{File, OpenOptions};
use std::path::Path;

/// A file of the run's folder that grows while the run goes on, and on which a resumed run goes on.
///
/// Next to this trait every such file has three functions of its own:
///
/// - `create(path, …) -> Result<Self>` never replaces a file;
/// - `holds(path, &Position) -> Result<bool>` says whether the file, however its run ended, has at least what the position
///   counts (a missing file has nothing);
/// - `append(path, …, &Position) -> Result<Self>` cuts the file to exactly that much and goes on behind it.
///
/// It moves to the thread of a [`writer`].
///
/// `samples` and `frame` may keep what they are given in memory; a kill may take what has not been committed.
pub trait Output: Observer + Send {
    /// The file's name in the run's folder. A checkpoint finds the file's position under it.
    fn name(&self) -> &str;

    /// Makes everything written so far safe from a kill and from a power failure (flush and fsync), and says how much that
    /// is. The checkpoint is written after all outputs have returned from this.
    ///
    /// # Errors
    /// [`Error::Output`] when the file cannot be written.
    fn commit(&mut self) -> Result<Position>;
}

/// How far an output has come: what a checkpoint remembers of it. A format leaves what it does not count at zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    /// Frames of the trajectory.
    pub frames: u64,
    /// Rows of the energy log.
    pub rows: u64,
    /// Length of the file, for formats that are cut at a byte.
    pub bytes: u64,
}

/// One row of the energy log.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sample {
    /// Step number; 0 is the initial state.
    pub step: u64,
    /// Simulated time, fs.
    pub time: f64,
    /// Kinetic energy, eV.
    pub kinetic: f64,
    /// Potential energy with the model's offset, eV.
    pub potential: f64,
    /// The quantity that exact dynamics would keep constant, eV: the total energy in NVE.
    pub conserved: f64,
    /// K.
    pub temperature: f64,
    /// How often the neighbour list had been rebuilt since the run began.
    pub list_rebuilds: u64,
}

impl Sample {
    /// Kinetic plus potential energy, eV.
    pub fn total(&self) -> f64 {
        self.kinetic + self.potential
    }
}

/// The full state at one step.
#[derive(Debug, Clone, Default)]
pub struct Frame {
    /// Energies and temperature at this step.
    pub sample: Sample,
    /// Å, unwrapped.
    pub positions: Vec<Vector3<f64>>,
    /// Å/fs.
    pub velocities: Vec<Vector3<f64>>,
    /// eV/Å.
    pub forces: Vec<Vector3<f64>>,
}

/// What an output records once, about the run as a whole.
#[derive(Debug, Clone)]
pub struct RunInfo {
    /// The system at the start: elements, masses, cell.
    pub system: System,
    /// Free text of the input's `title`.
    pub title: String,
    /// Who ran it: the input's `author`.
    pub author: String,
    /// The TOML text exactly as it was read.
    pub input: String,
    /// The model file's name.
    pub model: String,
    /// SHA-256 of the model file, hexadecimal.
    pub model_hash: String,
    /// Seed of all random numbers.
    pub seed: u64,
    /// One line naming backend and precision.
    pub backend: String,
}

/// Creates a file without ever replacing one. The operating system's reasons are clearer than those of libraries.
pub(crate) fn create_new(path: &Path) -> Result<File> {
    use std::io::ErrorKind;
    OpenOptions::new().write(true).create_new(true).open(path).map_err(|error| {
        let name = path.display();
        let reason = match error.kind() {
            ErrorKind::AlreadyExists => {
                "exists already and is never overwritten; move it away or write somewhere else".to_owned()
            }
            ErrorKind::NotFound => "cannot be created because its folder does not exist; create the folder".to_owned(),
            ErrorKind::PermissionDenied => {
                "cannot be created because its folder is not writable; change its permissions or write somewhere else"
                    .to_owned()
            }
            _ => format!("cannot be created: {}", reason(&error)),
        };
        Error::Output(format!("{name} {reason}"))
    })
}
