//! Structure files of any format.
//!
//! `.xyz` and `.extxyz` go to our own [`extxyz`] reader, everything else to chemfiles. From chemfiles come elements
//! (see below), positions, velocities (not from LAMMPS files, which do not say their units), masses, and the cell, which
//! is periodic in all three directions. A cell of 1 Å × 1 Å × 1 Å is how PDB files say that there is none.
//!
//! Elements are taken from the file where it has them, else from atom names, where the residue decides what `CA` is. A
//! name that could mean two elements is an error, never a guess; so are disordered structures (alternate locations,
//! partial occupancy), in which several atoms sit on one place.

mod names;
mod quiet;

pub(crate) use quiet::quietly;

use super::extxyz::{self, Frame};
use super::{Cell, System};
use crate::error::{Error, Result};
use nalgebra::{Matrix3, Vector3};
use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;

/// Reads one frame of a structure file; frame 0 is the first.
///
/// ```no_run
/// # fn main() -> verlet::Result<()> {
/// let ice = verlet::system::structure::read_structure("ice.cif".as_ref(), 0)?;
/// println!("{} in {:.1} Å³", ice.formula(), ice.cell.volume());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Structure`] when the file cannot be read, its format is unknown, an atom has no element, or it has fewer
/// frames.
pub fn read_structure(path: &Path, frame: usize) -> Result<System> {
    let mut count = 0;
    for read in read_frames(path)? {
        let read = read?;
        if count == frame {
            return Ok(read.system);
        }
        count += 1;
    }
    Err(Error::Structure(format!("{} has no frame {frame}: it holds {count}, counted from 0", path.display())))
}

/// Reads the frames of a structure file or trajectory one after the other.
///
/// Frames of formats other than extended XYZ have no `info` and no `columns`. After an error the iteration ends; a file
/// without any frame is an error.
///
/// # Errors
/// [`Error::Structure`] when the file cannot be opened or its format is unknown.
pub fn read_frames(path: &Path) -> Result<Frames> {
    let problem = |problem: String| Error::Structure(format!("{} {problem}", path.display()));
    let metadata = fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => problem("does not exist".into()),
        _ => problem(format!("cannot be opened: {error}")),
    })?;
    if metadata.is_dir() {
        return Err(problem("is a folder, not a structure file".into()));
    }
    if metadata.is_file() && metadata.len() == 0 {
        return Err(problem("is empty".into()));
    }
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    if ["xyz", "extxyz"].contains(&extension.as_str()) {
        return Ok(Frames(Source::ExtendedXyz(extxyz::Reader::open(path)?)));
    }
    Ok(Frames(Source::Chemfiles(Foreign::open(path, &extension)?)))
}

/// The frames of a file; made by [`read_frames`].
pub struct Frames(Source);

enum Source {
    ExtendedXyz(extxyz::Reader<BufReader<File>>),
    Chemfiles(Foreign),
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
    /// The cell of the frame before.
    cell: Cell,
}

impl Foreign {
    fn open(path: &Path, extension: &str) -> Result<Self> {
        let name = path.display().to_string();
        let problem = |problem: String| Error::Structure(format!("{name} {problem}"));
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
        if let Some(missing) = holds.and_then(|holds| match (holds.read && holds.positions, holds.atoms) {
            (false, _) => Some("positions that can be read"),
            (true, false) => Some("elements"),
            (true, true) => None,
        }) {
            return Err(problem(format!(
                "is a {format} file, which holds no {missing}; convert it together with its topology to extended XYZ"
            )));
        }
        let opened = quietly(|| {
            let mut trajectory = chemfiles::Trajectory::open_with_format(path, 'r', full.as_str())?;
            let count = trajectory.nsteps();
            Ok::<_, chemfiles::Error>((trajectory, count))
        });
        let (trajectory, count) =
            opened.map_err(|message| problem(format!("cannot be read as a {format} file: {message}")))?;
        if count == 0 {
            return Err(problem(format!("holds no structure (read as a {format} file)")));
        }
        Ok(Foreign { trajectory, name, format, next: 0, count, cell: Cell::open() })
    }

    /// Reads and converts the next frame; the error is the end of a sentence that begins with the file.
    fn read(&mut self) -> std::result::Result<System, String> {
        let mut frame = chemfiles::Frame::new();
        quietly(|| self.trajectory.read(&mut frame))?;
        // chemfiles makes a slice of a null pointer of the positions of no atoms.
        if frame.size() == 0 {
            return Err("the structure has no atoms".into());
        }
        let atoms = quietly(|| names::atoms(&frame))?;
        let mut cell = cell(&frame, &self.format)?;
        // A PDB file gives its cell once, before the first model.
        if self.format == "PDB" && !cell.is_periodic() {
            cell = self.cell.clone();
        }
        self.cell = cell.clone();
        let positions = frame.positions().iter().map(|&r| Vector3::from(r)).collect();
        let mut system = System::new(atoms.iter().map(|atom| atom.atomic_number).collect(), positions, cell)
            .map_err(|error| error.to_string())?;
        for (mass, atom) in system.masses.iter_mut().zip(&atoms) {
            if atom.mass > 0.0 && atom.mass.is_finite() {
                *mass = atom.mass;
            }
        }
        system.velocities = self.velocities(&frame);
        if system.velocities.iter().flatten().any(|v| v.iter().any(|x| !x.is_finite())) {
            return Err("a velocity is not a finite number".into());
        }
        Ok(system)
    }

    /// Å/fs, if the file has them.
    fn velocities(&self, frame: &chemfiles::Frame) -> Option<Vec<Vector3<f64>>> {
        if self.format.starts_with("LAMMPS") {
            return None;
        }
        let per_ps = frame.velocities()?;
        // chemfiles fills a GRO file without velocities up with zeros.
        if self.format == "GRO" && per_ps.iter().flatten().all(|&x| x == 0.0) {
            return None;
        }
        Some(per_ps.iter().map(|&v| Vector3::from(v) / 1000.0).collect())
    }
}

impl Iterator for Foreign {
    type Item = Result<Frame>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.count {
            return None;
        }
        let frame = self.read();
        self.next += 1;
        Some(frame.map(Frame::new).map_err(|message| {
            let of = if self.count > 1 { format!(", frame {}", self.next - 1) } else { String::new() };
            self.next = self.count;
            Error::Structure(format!("{}{of}: {message}", self.name))
        }))
    }
}

/// The cell of a frame: periodic along every edge that has a length.
fn cell(frame: &chemfiles::Frame, format: &str) -> std::result::Result<Cell, String> {
    let matrix = frame.cell().matrix();
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
