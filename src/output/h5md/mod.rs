//! H5MD 1.1 trajectories (de Buyl, Colberg & Höfling, Comput. Phys. Commun. 185, 1546, 2014), written so that
//! MDAnalysis, VMD and h5py read them as they are, and so that a killed run loses nothing that was flushed.
//!
//! ```text
//! /h5md                          version 1.1, author, creator
//! /particles/trajectory          one group: MDAnalysis reads only the first, VMD joins them all; MDAnalysis
//!                                needs no topology when it has this name
//!     position, velocity, force  value [frames][N][3], step [frames], time [frames]
//!     box                        dimension, boundary; edges like position, value [frames][3][3], rows are edges
//!     species, mass, id          atomic numbers, u, 1…N
//! /observables                   potential_energy, kinetic_energy, total_energy, temperature: value, step, time
//! /parameters/vmd_structure      names and radii by species: VMD draws bonds and colours with them
//! /parameters/verlet             attributes: input, title, model, model_hash, seed, backend, version
//!     energy                     the energy log, one dataset a column
//! ```
//!
//! Positions are in Angstrom, times in ps, velocities in Angstrom ps-1, forces in kJ mol-1 Angstrom-1 and the energies
//! of `/observables` in kJ mol-1: MDAnalysis knows no other pair of force and energy units that fit each other.
//! The energy log is our own and keeps eV; its times are in ps too. Every `step` and `time` of a frame is one
//! dataset under several names (hard links).
//!
//! MDAnalysis and VMD keep lengths and angles of a cell and turn it so that a lies along x and b in the xy plane. The
//! positions stay: a cell that is not oriented like that has its periodic images elsewhere there, not in this file.

mod append;
mod columns;
mod layout;
mod output;
mod reader;
mod repair;
mod series;
mod whole;

pub(crate) use columns::edge_vectors;
pub use output::H5mdOutput;
pub use reader::{H5mdReader, StoredFrame};
pub use repair::{Repair, repair};

use crate::error::{Error, Result, advice, reason};
use crate::output::{Frame, Position, RunInfo, Sample, create_new};
use crate::system::System;
use columns::{FrameColumns, LogColumns};
use hdf5::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Bytes before the first frame are fewer than this, and this many more an atom.
const HEAD: u64 = 256 << 10;
const HEAD_AN_ATOM: u64 = 32;

/// What a trajectory holds, and how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct H5mdOptions {
    /// Write velocities.
    pub velocities: bool,
    /// Write forces.
    pub forces: bool,
    /// Positions, velocities and forces as 64-bit numbers instead of 32-bit ones.
    pub double: bool,
    /// Move every atom into the cell along its periodic directions; else positions are continuous in time.
    pub wrap: bool,
}

/// Writes one trajectory with its energy log.
///
/// While the file is open, HDF5's single-writer mode keeps it consistent: after a kill everything up to the last
/// [`flush`](Self::flush) can be recovered, and programs refuse the file until that has been done. After
/// [`finish`](Self::finish), or when the writer is dropped, every HDF5 program opens it.
pub struct H5mdWriter {
    // Field order is drop order: an open dataset would keep the file open, and marked as being written.
    frames: FrameColumns,
    log: LogColumns,
    file: File,
    path: PathBuf,
}

impl H5mdWriter {
    /// Creates the file with everything but its frames and log rows.
    ///
    /// # Errors
    /// [`Error::Output`] when the file exists already or cannot be created.
    pub fn create(path: &Path, info: &RunInfo, options: &H5mdOptions) -> Result<Self> {
        reserve(path, info.system.len())?;
        match layout::create(path, info, options) {
            Ok((file, frames, log)) => Ok(H5mdWriter { frames, log, file, path: path.to_owned() }),
            Err(error) => {
                // Nobody can use a file without its layout; if it cannot be removed, the first error still says why.
                let _ = std::fs::remove_file(path);
                Err(fault(path, "could not be created", &error))
            }
        }
    }

    /// Goes on with a file: cuts it to the frames and rows of `position` and appends behind them. What the file holds a
    /// frame is as it was begun; of the options only `wrap` is looked at.
    ///
    /// # Errors
    /// [`Error::Output`] when the file needs a [`repair`](fn@repair), has less than `position`, belongs to another system,
    /// or is open in another program.
    pub fn append(path: &Path, system: &System, options: &H5mdOptions, position: &Position) -> Result<Self> {
        let file = repair::open_to_write(path)?;
        let opened = append::open(&file, system, options, position.frames as usize, position.rows as usize);
        let (frames, log) = opened.map_err(|error| fault(path, "cannot be continued", &error))?;
        Ok(H5mdWriter { frames, log, file, path: path.to_owned() })
    }

    /// Appends one frame. It reaches the disk with the next [`flush`](Self::flush), or earlier when much is waiting.
    ///
    /// # Errors
    /// [`Error::Output`] when the frame has not one position (velocity, force, where they are written) an atom, or
    /// when the file cannot be written.
    pub fn write_frame(&mut self, frame: &Frame) -> Result<()> {
        self.frames.push(frame).map_err(|problem| Error::Output(format!("{}: {problem}", self.path.display())))?;
        self.frames.write_if_many().map_err(|error| fault(&self.path, "could not be written", &error))
    }

    /// Appends rows to the energy log. They reach the disk with the next [`flush`](Self::flush), or earlier when many
    /// are waiting.
    ///
    /// # Errors
    /// [`Error::Output`] when the file cannot be written.
    pub fn write_samples(&mut self, samples: &[Sample]) -> Result<()> {
        for sample in samples {
            self.log.push(sample);
            self.log.write_if_many().map_err(|error| fault(&self.path, "could not be written", &error))?;
        }
        Ok(())
    }

    /// Frames written so far, flushed or not.
    pub fn frames(&self) -> usize {
        self.frames.len()
    }

    /// Rows of the energy log written so far, flushed or not.
    pub fn rows(&self) -> usize {
        self.log.len()
    }

    /// Hands everything to the operating system: a killed process loses none of it. Only an fsync of the file protects
    /// it from a power failure too.
    ///
    /// # Errors
    /// [`Error::Output`] when the file cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        let flushed = self.log.flush().and_then(|()| self.frames.flush());
        flushed.map_err(|error| fault(&self.path, "could not be written", &error))
    }

    /// Writes what is left and closes the file.
    ///
    /// # Errors
    /// [`Error::Output`] when the file cannot be written.
    pub fn finish(mut self) -> Result<()> {
        let flushed = self.flush();
        let H5mdWriter { frames, log, file, path } = self;
        drop((frames, log));
        let closed = file.close().map_err(|error| fault(&path, "could not be closed", &error));
        flushed.and(closed)
    }
}

/// Takes the file name without ever replacing a file, and makes sure that there is room for all that comes before the first
/// frame: where that does not fit, HDF5 ends the program (SIGSEGV).
fn reserve(path: &Path, atoms: usize) -> Result<()> {
    let name = path.display();
    if path.to_str().is_none() {
        return Err(Error::Output(format!("{name}: HDF5 needs a file name in UTF-8; choose another name")));
    }
    let mut file = create_new(path)?;
    let head = HEAD + HEAD_AN_ATOM * atoms as u64;
    let tried = io::copy(&mut io::repeat(0).take(head), &mut file).and_then(|_| file.set_len(0));
    tried.map_err(|error| {
        // An empty file helps nobody; if it cannot be removed, the first error still says why.
        let _ = std::fs::remove_file(path);
        Error::Output(format!("{name} could not be created: {}", reason(&error)))
    })
}

/// One sentence from HDF5's stack of errors: the innermost one that quotes the operating system, else HDF5's summary.
fn fault(path: &Path, what: &str, error: &hdf5::Error) -> Error {
    const QUOTE: &str = "error message = '";
    let stack = error.stack();
    let system = stack.iter().flat_map(|stack| stack.iter()).find_map(|frame| {
        let (_, message) = frame.desc().split_once(QUOTE)?;
        message.split('\'').next().map(str::to_owned)
    });
    let kind = match system.as_deref() {
        Some("No space left on device") => ErrorKind::StorageFull,
        Some("Disk quota exceeded") => ErrorKind::QuotaExceeded,
        Some("File too large") => ErrorKind::FileTooLarge,
        _ => ErrorKind::Other,
    };
    let advice = advice(kind).map_or(String::new(), |advice| format!("; {advice}"));
    let reason = system.unwrap_or_else(|| error.to_string());
    Error::Output(format!("{} {what}: {reason}{advice}", path.display()))
}
