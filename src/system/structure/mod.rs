//! Structure files of any format.
//!
//! `.xyz` and `.extxyz` go to our own [`extxyz`] reader, everything else to chemfiles. From chemfiles come elements
//! (see below), positions, velocities (from LAMMPS files only where they say that their units are `metal` or `real`), masses,
//! and the cell, which is periodic in all three directions. A cell of 1 Å × 1 Å × 1 Å is how PDB files say that there is none.
//!
//! Elements are taken from the file where it has them, else from atom names, where the residue decides what `CA` is. A
//! name that could mean two elements is an error, never a guess; so are disordered structures (alternate locations,
//! partial occupancy), in which several atoms sit on one place.

mod names;
mod quiet;

pub(crate) use quiet::quietly;

use super::extxyz::{self, Frame};
use super::{Cell, System};
use crate::error::{Error, Result, reason};
use crate::units::{AKMA, FS_PER_PS};
use nalgebra::{Matrix3, Vector3};
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::Path;
use std::str::FromStr;

/// Reads one frame of a structure file; frame 0 is the first.
///
/// ```no_run
/// # fn main() -> verlet::Result<()> {
/// let ice = verlet::system::structure::read_structure("ice.cif", 0)?;
/// println!("{} in {:.1} Å³", ice.formula(), ice.cell.volume());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Structure`] when the file cannot be read, its format is unknown, an atom has no element, or it has fewer
/// frames.
pub fn read_structure(path: impl AsRef<Path>, frame: usize) -> Result<System> {
    let path = path.as_ref();
    let mut count = 0;
    for read in read_frames(path)? {
        let read = read?;
        if count == frame {
            return Ok(read.system);
        }
        count += 1;
    }
    let frames = if count == 1 { "frame" } else { "frames" };
    Err(Error::Structure(format!("{} has {count} {frames}, so there is no frame {}", path.display(), frame + 1)))
}

/// Reads the frames of a structure file or trajectory one after the other.
///
/// Frames of formats other than extended XYZ have no `columns`, and in `info` at most `step` and `time` (fs). After an error the iteration ends; a file
/// without any frame is an error.
///
/// # Errors
/// [`Error::Structure`] when the file cannot be opened or its format is unknown.
pub fn read_frames(path: &Path) -> Result<Frames> {
    read_frames_with(path, None)
}

/// As [`read_frames`], for formats that do not know their elements, such as DCD: `topology` has the same atoms in the same
/// order, and gives elements and masses.
///
/// # Errors
/// As [`read_frames`]; and when the file knows its elements itself.
pub fn read_frames_with(path: &Path, topology: Option<&System>) -> Result<Frames> {
    let problem = |problem: String| Error::Structure(format!("{} {problem}", path.display()));
    let metadata = fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => problem("does not exist".into()),
        _ => problem(format!("cannot be opened: {}", reason(&error))),
    })?;
    if metadata.is_dir() {
        return Err(problem("is a folder, not a structure file".into()));
    }
    if metadata.is_file() && metadata.len() == 0 {
        return Err(problem("is empty; give a file with a structure in it".into()));
    }
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    if ["xyz", "extxyz"].contains(&extension.as_str()) {
        if topology.is_some() {
            return Err(problem("knows its elements itself; leave the topology out".into()));
        }
        return Ok(Frames(Source::ExtendedXyz(extxyz::Reader::open(path)?)));
    }
    Ok(Frames(Source::Chemfiles(Box::new(Foreign::open(path, &extension, topology)?))))
}

/// The frames of a file; made by [`read_frames`].
pub struct Frames(Source);

enum Source {
    ExtendedXyz(extxyz::Reader<BufReader<File>>),
    Chemfiles(Box<Foreign>),
}

impl Iterator for Frames {
    type Item = Result<Frame>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Source::ExtendedXyz(reader) => reader.next(),
            Source::Chemfiles(reader) => reader.next(),
        }
    }
}

/// A file that chemfiles reads.
struct Foreign {
    trajectory: chemfiles::Trajectory,
    name: String,
    /// chemfiles' name of the format, without the compression.
    format: String,
    next: usize,
    count: usize,
    /// How many frames the file's head says there are, where it says it.
    announced: Option<usize>,
    /// The cell of the frame before.
    cell: Cell,
    /// Where elements and masses are from when the file has none.
    topology: Option<System>,
    /// Total charges of the molecules of an SDF file, of which chemfiles reads only a part.
    charges: Vec<Option<i64>>,
}

impl Foreign {
    fn open(path: &Path, extension: &str, topology: Option<&System>) -> Result<Self> {
        let name = path.display().to_string();
        let problem = |problem: String| Error::Structure(format!("{name} {problem}"));
        if ["h5md", "h5"].contains(&extension) {
            return Err(problem(
                "is H5MD, which `verlet convert` reads: give the extended XYZ file that it makes of this one".into(),
            ));
        }
        if path.to_str().is_none() {
            return Err(problem("has a name that is not UTF-8; rename it".into()));
        }
        // chemfiles knows extensions in lower case only.
        let full = quietly(|| {
            chemfiles::guess_format(path).or_else(|_| chemfiles::guess_format(format!("structure.{extension}")))
        })
        .map_err(|_| problem(format!("has a format that is not known; known are {}", known_formats())))?;
        let format = full.split(" / ").next().unwrap_or_default().to_owned();
        let holds = chemfiles::formats_list().into_iter().find(|known| known.name == format);
        let (positions, elements) = holds.map_or((true, true), |holds| (holds.read && holds.positions, holds.atoms));
        if !positions {
            return Err(problem(format!(
                "has the format {format}, which holds no positions that can be read; use another format"
            )));
        }
        match (elements, topology) {
            (false, None) => {
                return Err(problem(format!(
                    "has the format {format}, which holds no elements; `verlet convert` takes them from another file with \
                     --topology"
                )));
            }
            (true, Some(_)) => return Err(problem("knows its elements itself; leave the topology out".into())),
            _ => {}
        }
        let opened = quietly(|| {
            let mut trajectory = chemfiles::Trajectory::open_with_format(path, 'r', full.as_str())?;
            let count = trajectory.nsteps();
            Ok::<_, chemfiles::Error>((trajectory, count))
        });
        let (trajectory, count) =
            opened.map_err(|message| problem(format!("cannot be read in the format {format}: {message}")))?;
        if count == 0 {
            return Err(problem(format!("holds no structure (read in the format {format})")));
        }
        let topology = topology.cloned();
        let announced = if format == "DCD" { dcd_frames(path) } else { None };
        let charges = if format == "SDF" { sdf_charges(path) } else { Vec::new() };
        Ok(Foreign { trajectory, name, format, next: 0, count, announced, cell: Cell::open(), topology, charges })
    }

    /// Reads and converts the next frame; the error is the end of a sentence that begins with the file.
    fn read(&mut self) -> std::result::Result<Frame, String> {
        let mut frame = chemfiles::Frame::new();
        quietly(|| self.trajectory.read(&mut frame))
            .map_err(|message| format!("it cannot be read in the format {}: {message}", self.format))?;
        // Every text in a frame can be one that is not UTF-8.
        quietly(|| self.convert(&frame))
    }

    fn convert(&mut self, frame: &chemfiles::Frame) -> std::result::Result<Frame, String> {
        // chemfiles makes a slice of a null pointer of the positions of no atoms.
        if frame.size() == 0 {
            return Err("the structure has no atoms".into());
        }
        if frame.get("has_positions") == Some(chemfiles::Property::Bool(false)) {
            return Err("the frame has no positions".into());
        }
        let (atomic_numbers, masses) = self.atoms(frame)?;
        let mut cell = cell(frame, &self.format)?;
        // A PDB file gives its cell once, before the first model.
        if self.format == "PDB" && !cell.is_periodic() {
            cell = self.cell.clone();
        }
        self.cell = cell.clone();
        let positions = frame.positions().iter().map(|&r| Vector3::from(r)).collect();
        let mut system = System::new(atomic_numbers, positions, cell).map_err(|error| error.to_string())?;
        for (mass, &own) in system.masses.iter_mut().zip(&masses) {
            if own > 0.0 && own.is_finite() {
                *mass = own;
            }
        }
        system.velocities = self.velocities(frame);
        if system.velocities.iter().flatten().any(|v| v.iter().any(|x| !x.is_finite())) {
            return Err("a velocity is not a finite number".into());
        }
        system.charge = self.charge(frame);
        let mut read = Frame::new(system);
        match self.format.as_str() {
            "XTC" | "TRR" | "LAMMPS" => read.set_info("step", frame.step() as i64),
            "GRO" => {
                if let Some(step) = titled::<i64>(frame, "step=") {
                    read.set_info("step", step);
                }
            }
            _ => {}
        }
        if let Some(time) = self.time(frame) {
            read.set_info("time", time);
        }
        Ok(read)
    }

    /// Atomic numbers and masses (u; zero where the file has none).
    fn atoms(&self, frame: &chemfiles::Frame) -> std::result::Result<(Vec<u8>, Vec<f64>), String> {
        let Some(topology) = &self.topology else {
            let atoms = names::atoms(frame)?;
            return Ok(atoms.iter().map(|atom| (atom.atomic_number, atom.mass)).unzip());
        };
        if topology.len() != frame.size() {
            return Err(format!("it has {} atoms, but its topology has {}", frame.size(), topology.len()));
        }
        Ok((topology.atomic_numbers.clone(), topology.masses.clone()))
    }

    /// The total charge in elementary charges, as far as the file says: partial charges add up to a whole number, nearly.
    fn charge(&self, frame: &chemfiles::Frame) -> f64 {
        let stated = self.charges.get(self.next).copied().flatten();
        stated.map_or_else(|| frame.iter_atoms().map(|atom| atom.charge()).sum::<f64>().round(), |charge| charge as f64)
    }

    /// fs, if the file says it in a unit that is known.
    fn time(&self, frame: &chemfiles::Frame) -> Option<f64> {
        let unit = match self.format.as_str() {
            "XTC" | "TRR" => FS_PER_PS,
            "DCD" => AKMA,
            "LAMMPS" => lammps_time_unit(frame)?,
            "GRO" => return titled::<f64>(frame, "t=").filter(|time| time.is_finite()).map(|time| time * FS_PER_PS),
            _ => return None,
        };
        match frame.get("time") {
            Some(chemfiles::Property::Double(time)) if time.is_finite() => Some(time * unit),
            _ => None,
        }
    }

    /// Å/fs, if the file has them.
    fn velocities(&self, frame: &chemfiles::Frame) -> Option<Vec<Vector3<f64>>> {
        // chemfiles hands a LAMMPS file's numbers on as they are.
        let unit = match self.format.as_str() {
            "LAMMPS" => lammps_time_unit(frame)?,
            "LAMMPS Data" => return None,
            _ => FS_PER_PS,
        };
        let found = frame.velocities()?;
        // chemfiles fills a GRO file without velocities up with zeros.
        if self.format == "GRO" && found.iter().flatten().all(|&x| x == 0.0) {
            return None;
        }
        Some(found.iter().map(|&v| Vector3::from(v) / unit).collect())
    }
}

impl Iterator for Foreign {
    type Item = Result<Frame>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.count {
            // chemfiles counts the frames that are there; that some are not must not stay unsaid.
            let announced = self.announced.take().filter(|&announced| announced > self.count)?;
            return Some(Err(Error::Structure(format!(
                "{} is cut short: its head announces {announced} frames, and it holds {}; copy it again, or read those frames \
                 only",
                self.name, self.count
            ))));
        }
        let frame = self.read();
        self.next += 1;
        Some(frame.map_err(|message| {
            let of = if self.count > 1 { format!(", frame {}", self.next) } else { String::new() };
            self.next = self.count;
            Error::Structure(format!("{}{of}: {message}", self.name))
        }))
    }
}

/// A number in the title of a frame, where GROMACS finds it: behind a word such as `t=`.
fn titled<T: FromStr>(frame: &chemfiles::Frame, word: &str) -> Option<T> {
    let Some(chemfiles::Property::String(title)) = frame.get("name") else { return None };
    let at = title
        .match_indices(word)
        .map(|(at, _)| at)
        .find(|&at| at == 0 || title[..at].ends_with(char::is_whitespace))?;
    title[at + word.len()..].split_whitespace().next()?.parse().ok()
}

/// The unit of time of a LAMMPS file in fs, if it says so and is one with Å as its length.
fn lammps_time_unit(frame: &chemfiles::Frame) -> Option<f64> {
    match frame.get("lammps_units") {
        Some(chemfiles::Property::String(units)) if units == "metal" => Some(FS_PER_PS),
        Some(chemfiles::Property::String(units)) if units == "real" => Some(1.0),
        _ => None,
    }
}

/// The cell of a frame: periodic along every edge that has a length.
fn cell(frame: &chemfiles::Frame, format: &str) -> std::result::Result<Cell, String> {
    let matrix = frame.cell().matrix();
    if matrix.iter().flatten().any(|x| !x.is_finite()) {
        return Err("the lengths and angles of its cell close no cell; correct them".into());
    }
    // The edges are chemfiles' columns.
    let mut edges = Matrix3::from_fn(|edge, axis| matrix[axis][edge]);
    for mut edge in edges.row_iter_mut() {
        // chemfiles takes cos(90°) for 6e-17.
        let noise = 1e-15 * edge.norm();
        edge.iter_mut().filter(|x| x.abs() < noise).for_each(|x| *x = 0.0);
    }
    if format == "LAMMPS" {
        // To LAMMPS the bounds of a tilted box are those of the box around it, to chemfiles those of the box upright.
        let [low_x, high_x] = tilt_range(&[edges[(1, 0)], edges[(2, 0)], edges[(1, 0)] + edges[(2, 0)]]);
        let [low_y, high_y] = tilt_range(&[edges[(2, 1)]]);
        edges[(0, 0)] -= high_x - low_x;
        edges[(1, 1)] -= high_y - low_y;
    }
    let periodic = std::array::from_fn(|k| edges.row(k).norm() > 0.0);
    if periodic == [false; 3] || edges == Matrix3::identity() {
        return Ok(Cell::open());
    }
    Cell::new(edges, periodic).map_err(|error| error.to_string())
}

/// How far tilts reach beyond the upright box, to both sides.
pub(crate) fn tilt_range(tilts: &[f64]) -> [f64; 2] {
    [tilts.iter().copied().fold(0.0, f64::min), tilts.iter().copied().fold(0.0, f64::max)]
}

/// The number of frames in the head of a DCD file, in whichever byte order it was written: behind the length of the first
/// record (84) and "CORD".
fn dcd_frames(path: &Path) -> Option<usize> {
    let mut head = [0; 12];
    File::open(path).and_then(|mut file| file.read_exact(&mut head)).ok()?;
    let number = |at: usize| std::array::from_fn(|k| head[at + k]);
    let frames = match (u32::from_le_bytes(number(0)), u32::from_be_bytes(number(0))) {
        (84, _) => u32::from_le_bytes(number(8)),
        (_, 84) => u32::from_be_bytes(number(8)),
        _ => return None,
    };
    usize::try_from(frames).ok()
}

/// The total charge of each molecule of an SDF file that has `M  CHG` lines: the number of atoms, then the number and the
/// charge of each.
fn sdf_charges(path: &Path) -> Vec<Option<i64>> {
    // What cannot be read as text, because it is compressed, says nothing.
    let text = fs::read_to_string(path).unwrap_or_default();
    let charge = |molecule: &str| {
        let lines = molecule.lines().filter_map(|line| line.strip_prefix("M  CHG"));
        let charges =
            lines.flat_map(|line| line.split_whitespace().skip(2).step_by(2)).map(|word| word.parse::<i64>().ok());
        charges.fold(None, |sum, charge| Some(sum.unwrap_or(0) + charge?))
    };
    text.split("$$$$").map(charge).collect()
}

/// Extensions of the formats that can be read, for a message.
fn known_formats() -> String {
    let formats = chemfiles::formats_list();
    let usable =
        formats.iter().filter(|format| format.read && format.positions && format.atoms && format.name != "XYZ");
    let extensions = usable.filter_map(|format| format.extension);
    [".xyz", ".extxyz"].into_iter().chain(extensions).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
