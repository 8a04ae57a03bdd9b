//! Trajectories in the formats of other programs, beside H5MD.
//!
//! | extension | format | positions | cell | velocities | time |
//! |---|---|---|---|---|---|
//! | `.dcd` | CHARMM and NAMD | float32, Å | lengths, angles | no | of the first frame and between frames |
//! | `.xtc` | GROMACS | rounded to 0.01 Å (float32 nm up to 9 atoms) | yes | no | float32, ps |
//! | `.trr` | GROMACS | float32, nm | yes | nm/ps | float32, ps |
//! | `.pdb` | PDB models | 0.001 Å | lengths (0.001 Å), angles (0.01°) | no | no |
//! | `.gro` | GROMACS text | 0.01 Å | yes | 0.0001 nm/ps | in the title, ps |
//! | `.lammpstrj` | LAMMPS dump, units metal | six digits, Å | yes | six digits, Å/ps | ps |
//! | `.arc` | Tinker | six decimals or more, Å | lengths, angles | no | no |
//! | `.mol2` | Tripos | 0.000001 Å | lengths, angles | no | no |
//! | `.xyz`, `.extxyz` | extended XYZ | every digit | yes, with periodic directions | Å/fs, every digit | fs |
//!
//! XTC and TRR cannot leave out a time that is not known: they say 0. Forces (eV/Å) only extended XYZ holds. All but
//! extended XYZ are written by chemfiles, which knows no cell that repeats along some directions only: there, edges that
//! do not repeat are made so long that nobody finds false neighbours across them. Without any periodic direction no cell
//! is written.
//!
//! chemfiles writes binary formats through a memory map, where a full disk would end the program (SIGBUS) instead of being
//! reported: room for every frame is reserved before, on all file systems that can do that.

mod binary;
mod exact;
mod foreign;
mod format;
mod text;

pub use format::{FORMATS, Format};

use super::{Frame, Output, Position};
use crate::error::{Error, Result, reason};
use crate::simulation::Observer;
use crate::system::{Cell, Selection, System};
use format::Writer;
use nalgebra::Vector3;
use std::path::{Path, PathBuf};

/// What a trajectory holds, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct TrajectoryOptions {
    /// Which atoms.
    pub atoms: Selection,
    /// Move every atom into the cell along its periodic directions; else positions are continuous in time.
    pub wrap: bool,
    /// Write velocities.
    pub velocities: bool,
    /// Write forces.
    pub forces: bool,
    /// Steps between frames.
    pub interval: u64,
    /// Time step, fs: DCD has it once for all frames.
    pub timestep: f64,
}

/// One frame, as it is given to a writer: of all atoms of the system.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot<'a> {
    /// Step number.
    pub step: u64,
    /// fs; `None` where nobody knows it, and then in all frames of a file.
    pub time: Option<f64>,
    /// eV, of the whole system; written to extended XYZ with all atoms.
    pub energy: Option<f64>,
    /// Å.
    pub positions: &'a [Vector3<f64>],
    /// Å/fs.
    pub velocities: Option<&'a [Vector3<f64>]>,
    /// eV/Å.
    pub forces: Option<&'a [Vector3<f64>]>,
    /// The cell of this frame.
    pub cell: &'a Cell,
}

/// One frame as the file has it: the selected atoms, in the cell if they are to be.
struct Record<'a> {
    step: u64,
    /// fs.
    time: Option<f64>,
    energy: Option<f64>,
    positions: Vec<Vector3<f64>>,
    velocities: Option<Vec<Vector3<f64>>>,
    forces: Option<Vec<Vector3<f64>>>,
    cell: &'a Cell,
}

/// The file of one format. Errors are the ends of sentences that begin with its name.
trait Sink: Send {
    fn write(&mut self, record: &Record) -> std::result::Result<(), String>;
    /// Makes the file safe and whole, and gives its length. Writing may go on.
    fn commit(&mut self) -> std::result::Result<u64, String>;
    /// As `commit`, with what stands at the end of a whole file; nothing is written afterwards.
    fn finish(&mut self) -> std::result::Result<(), String>;
}

/// Writes one trajectory.
pub struct TrajectoryWriter {
    sink: Box<dyn Sink>,
    path: PathBuf,
    name: String,
    options: TrajectoryOptions,
    /// Indices of the atoms in the file.
    atoms: Vec<usize>,
    /// Atoms in a snapshot.
    system_atoms: usize,
    cell: Cell,
    format: &'static Format,
    frames: u64,
}

impl TrajectoryWriter {
    /// Says whether such a file could be written of this system, without touching anything.
    ///
    /// # Errors
    /// The end of a sentence that begins with the file's name.
    pub fn check(path: &Path, system: &System, options: &TrajectoryOptions) -> std::result::Result<(), String> {
        plan(path, system, options).map(drop)
    }

    /// Creates the file; its extension says the format.
    ///
    /// # Errors
    /// [`Error::Input`] when the format is unknown or does not hold what is wanted: velocities, forces, this cell; or when
    /// the selection does not fit the system. [`Error::Output`] when the file exists already or cannot be created.
    pub fn create(path: &Path, system: &System, options: TrajectoryOptions) -> Result<Self> {
        let plan = Self::planned(path, system, &options)?;
        let file = super::create_new(path)?;
        Self::new(path, system, options, plan, |format, subset, options| {
            Ok(match format.writer {
                Writer::Own => Box::new(exact::ExtendedXyz::new(file, subset)) as Box<dyn Sink>,
                Writer::Text => Box::new(text::Text::new(file, format, subset, options, 0)),
                Writer::Binary => Box::new(binary::Binary::create(path, format, subset, options)?),
            })
        })
    }

    /// Whether the file, however its run ended, has at least what the position counts.
    ///
    /// # Errors
    /// [`Error::Output`] when the file cannot be looked at.
    pub fn holds(path: &Path, position: &Position) -> Result<bool> {
        match std::fs::metadata(path) {
            Ok(metadata) => Ok(metadata.len() >= position.bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::Output(format!("{} cannot be read: {}", path.display(), reason(&error)))),
        }
    }

    /// Cuts the file to the position, which a [`commit`](Output::commit) of the same output gave, and goes on behind it.
    ///
    /// # Errors
    /// As [`create`](Self::create), and [`Error::Output`] when the file is shorter than the position.
    pub fn append(path: &Path, system: &System, options: TrajectoryOptions, position: &Position) -> Result<Self> {
        let plan = Self::planned(path, system, &options)?;
        let failed = |problem: String| Error::Output(format!("{} {problem}", path.display()));
        if !Self::holds(path, position)? {
            return Err(failed(format!("has less than the {} frames that the run has written", position.frames)));
        }
        let file = std::fs::OpenOptions::new().read(true).write(true).open(path);
        let file = file.and_then(|file| file.set_len(position.bytes).map(|()| file));
        let mut file = file.map_err(|error| failed(format!("cannot be continued: {}", reason(&error))))?;
        std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0))
            .map_err(|error| failed(format!("cannot be continued: {}", reason(&error))))?;
        let mut writer = Self::new(path, system, options, plan, |format, subset, options| {
            Ok(match format.writer {
                Writer::Own => Box::new(exact::ExtendedXyz::new(file, subset)) as Box<dyn Sink>,
                Writer::Text => Box::new(text::Text::new(file, format, subset, options, position.frames)),
                Writer::Binary => Box::new(binary::Binary::append(path, format, subset, options, position.frames)?),
            })
        })?;
        writer.frames = position.frames;
        Ok(writer)
    }

    fn planned(path: &Path, system: &System, options: &TrajectoryOptions) -> Result<Plan> {
        plan(path, system, options).map_err(|problem| Error::Input(format!("{} {problem}", path.display())))
    }

    fn new(
        path: &Path,
        system: &System,
        options: TrajectoryOptions,
        plan: Plan,
        sink: impl FnOnce(&'static Format, System, &TrajectoryOptions) -> std::result::Result<Box<dyn Sink>, String>,
    ) -> Result<Self> {
        let sink = sink(plan.format, system.subset(&plan.atoms), &options)
            .map_err(|problem| Error::Output(format!("{} {problem}", path.display())))?;
        Ok(TrajectoryWriter {
            sink,
            path: path.to_owned(),
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            options,
            atoms: plan.atoms,
            system_atoms: system.len(),
            cell: system.cell.clone(),
            format: plan.format,
            frames: 0,
        })
    }

    /// Appends one frame.
    ///
    /// # Errors
    /// [`Error::Output`] when something wanted is missing or has not one value an atom, when a coordinate or the cell does
    /// not fit the format, or when the file cannot be written.
    pub fn write(&mut self, snapshot: &Snapshot) -> Result<()> {
        let record = self.record(snapshot);
        let written = record.and_then(|record| self.sink.write(&record));
        self.frames += 1;
        written.map_err(|problem| Error::Output(format!("{}, step {}: {problem}", self.path.display(), snapshot.step)))
    }

    /// Writes what is left and closes the file.
    ///
    /// # Errors
    /// [`Error::Output`] when the file cannot be written.
    pub fn close(mut self) -> Result<()> {
        self.finish()
    }

    fn record<'a>(&self, snapshot: &Snapshot<'a>) -> std::result::Result<Record<'a>, String> {
        let select = |name: &str, all: &[Vector3<f64>]| -> std::result::Result<Vec<Vector3<f64>>, String> {
            if all.len() != self.system_atoms {
                return Err(format!("there are {} {name} for {} atoms", all.len(), self.system_atoms));
            }
            Ok(self.atoms.iter().map(|&atom| all[atom]).collect())
        };
        let optional = |name: &str, wanted: bool, all: Option<&[Vector3<f64>]>| match (wanted, all) {
            (false, _) => Ok(None),
            (true, None) => Err(format!("there are no {name} to write")),
            (true, Some(all)) => select(name, all).map(Some),
        };
        let cell = snapshot.cell;
        self.format.check_cell(cell).map_err(|problem| format!("it {problem}"))?;
        let mut positions = select("positions", snapshot.positions)?;
        if self.options.wrap {
            positions.iter_mut().for_each(|r| *r -= cell.translation(cell.image(r)));
        }
        if let Some((low, high)) = self.format.range {
            let outside = |r: &Vector3<f64>| r.iter().any(|x| !(low..=high).contains(x));
            if let Some(atom) = positions.iter().position(outside) {
                return Err(format!(
                    "atom {} has a coordinate outside {low} to {high} Å, which the columns of the format cannot hold; \
                     write with wrap = true or another format",
                    self.atoms[atom] + 1
                ));
            }
        }
        let everything = self.atoms.len() == self.system_atoms;
        Ok(Record {
            step: snapshot.step,
            time: snapshot.time,
            energy: snapshot.energy.filter(|_| everything),
            positions,
            velocities: optional("velocities", self.options.velocities, snapshot.velocities)?,
            forces: optional("forces", self.options.forces, snapshot.forces)?,
            cell,
        })
    }
}

impl Observer for TrajectoryWriter {
    fn frame(&mut self, frame: &Frame) -> Result<()> {
        if !frame.sample.step.is_multiple_of(self.options.interval) {
            return Ok(());
        }
        let cell = self.cell.clone();
        self.write(&Snapshot {
            step: frame.sample.step,
            time: Some(frame.sample.time),
            energy: Some(frame.sample.potential),
            positions: &frame.positions,
            velocities: Some(&frame.velocities),
            forces: Some(&frame.forces),
            cell: &cell,
        })
    }

    fn finish(&mut self) -> Result<()> {
        self.sink.finish().map_err(|problem| Error::Output(format!("{} {problem}", self.path.display())))
    }
}

impl Output for TrajectoryWriter {
    fn name(&self) -> &str {
        &self.name
    }

    fn commit(&mut self) -> Result<Position> {
        let bytes =
            self.sink.commit().map_err(|problem| Error::Output(format!("{} {problem}", self.path.display())))?;
        Ok(Position { frames: self.frames, rows: 0, bytes })
    }
}

/// What is known before there is a file.
struct Plan {
    format: &'static Format,
    atoms: Vec<usize>,
}

/// The error is the end of a sentence that begins with the file's name.
fn plan(path: &Path, system: &System, options: &TrajectoryOptions) -> std::result::Result<Plan, String> {
    if path.to_str().is_none() {
        return Err("has a name that is not UTF-8; choose another name".into());
    }
    let format = Format::of(path)?;
    let holding = |holds: fn(&Format) -> bool| {
        let able = FORMATS.iter().filter(|format| holds(format)).map(|format| format!(".{}", format.extensions[0]));
        able.collect::<Vec<_>>().join(", ")
    };
    if options.velocities && !format.velocities {
        let able = holding(|format| format.velocities);
        return Err(format!("cannot hold velocities: {} has none; H5MD has, and {able}", format.name));
    }
    if options.forces && !format.forces {
        let able = holding(|format| format.forces);
        return Err(format!("cannot hold forces: {} has none here; H5MD has, and {able}", format.name));
    }
    format.check_cell(&system.cell)?;
    let atoms = options.atoms.atoms(system);
    let atoms = atoms.map_err(|problem| format!("cannot be written: atoms = \"{}\" {problem}", options.atoms))?;
    Ok(Plan { format, atoms })
}
