//! Reading trajectories back.

use super::fault;
use super::layout::AUTHOR_BYTES;
use super::whole::Head;
use crate::error::{Error, Result};
use crate::output::{RunInfo, Sample};
use crate::system::{Cell, System};
use crate::units::{FS_PER_PS, KJ_PER_MOL};
use hdf5::types::{FixedAscii, FixedUnicode, VarLenUnicode};
use hdf5::{Dataset, File, H5Type, Hyperslab, MinorErrorCode, Selection, SliceOrIndex};
use nalgebra::{Matrix3, Vector3};
use std::path::{Path, PathBuf};

const PARTICLES: &str = "particles/trajectory";
const LOG: &str = "parameters/verlet/energy";

/// A finished trajectory of [`H5mdWriter`](super::H5mdWriter), open for reading.
pub struct H5mdReader {
    file: File,
    path: PathBuf,
    periodic: [bool; 3],
}

/// One frame as it was stored, in the program's units.
#[derive(Debug, Clone)]
pub struct StoredFrame {
    /// Step number.
    pub step: u64,
    /// fs.
    pub time: f64,
    /// Å.
    pub positions: Vec<Vector3<f64>>,
    /// Å/fs, where the file has them.
    pub velocities: Option<Vec<Vector3<f64>>>,
    /// eV/Å, where the file has them.
    pub forces: Option<Vec<Vector3<f64>>>,
    /// Edges along directions that do not repeat may be longer than they were in the input.
    pub cell: Cell,
}

impl H5mdReader {
    /// Opens a file.
    ///
    /// # Errors
    /// [`Error::Output`] when it cannot be read, is not one of our trajectories, or has not been closed.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display();
        Head::read(path)?.check(path)?;
        let file = File::open(path).map_err(|error| {
            let message =
                error.stack().map(|stack| stack.iter().map(|frame| frame.desc().to_owned()).collect::<String>());
            // HDF5 has no code of its own for these two.
            let unclosed = |text: String| text.contains("already open for") || text.contains("unable to lock file");
            if message.is_some_and(unclosed) {
                Error::Output(format!(
                    "{name} is being written by a run, or a run that was killed left it behind: wait for that run, \
                     or make the file readable with `verlet repair {name}`"
                ))
            } else if error.contains_minor(MinorErrorCode::NotHdf5) {
                Error::Output(format!("{name} is not an HDF5 file, or a damaged one"))
            } else {
                fault(path, "cannot be read", &error)
            }
        })?;
        let boundary = file
            .group(PARTICLES)
            .and_then(|particles| particles.group("box")?.attr("boundary")?.read_raw::<FixedAscii<8>>())
            .map_err(|_| {
                Error::Output(format!("{name} is not a trajectory that verlet wrote: it has no {PARTICLES}/box"))
            })?;
        let periodic = std::array::from_fn(|k| boundary.get(k).is_some_and(|text| text.as_str() == "periodic"));
        let reader = H5mdReader { file, path: path.to_owned(), periodic };
        let foreign =
            |problem: String| Error::Output(format!("{name} is not a trajectory that verlet wrote: {problem}"));
        reader.check().map_err(foreign)?;
        Ok(reader)
    }

    /// Says what is missing, or has another shape than the writer gives it.
    fn check(&self) -> std::result::Result<(), String> {
        let shape = |name: &str| match self.file.dataset(name) {
            Ok(dataset) => Ok(dataset.shape()),
            Err(_) => Err(format!("it has no {name}")),
        };
        let species = format!("{PARTICLES}/species");
        let [atoms] = shape(&species)?[..] else { return Err(format!("{species} is no list")) };
        let [frames] = shape(&format!("{PARTICLES}/position/step"))?[..] else {
            return Err(format!("{PARTICLES}/position/step is no list"));
        };
        let mut wanted = vec![
            (format!("{PARTICLES}/mass"), vec![atoms]),
            (format!("{PARTICLES}/position/time"), vec![frames]),
            (format!("{PARTICLES}/position/value"), vec![frames, atoms, 3]),
        ];
        for (name, row) in [("velocity", [atoms, 3]), ("force", [atoms, 3]), ("box/edges", [3, 3])] {
            if self.file.link_exists(&format!("{PARTICLES}/{name}")) {
                wanted.push((format!("{PARTICLES}/{name}/value"), vec![frames, row[0], row[1]]));
            }
        }
        for (name, wanted) in wanted {
            let found = shape(&name)?;
            if found != wanted {
                return Err(format!("{name} has the shape {found:?} instead of {wanted:?}"));
            }
        }
        let columns = ["step", "time", "kinetic", "potential", "conserved", "temperature", "list_rebuilds"];
        columns.iter().try_for_each(|name| shape(&format!("{LOG}/{name}")).map(drop))
    }

    /// Number of frames.
    ///
    /// # Errors
    /// [`Error::Output`] when the file is damaged.
    pub fn frames(&self) -> Result<usize> {
        self.read(|| Ok(self.file.dataset(&format!("{PARTICLES}/position/step"))?.size()))
    }

    /// Atomic numbers, one an atom.
    ///
    /// # Errors
    /// [`Error::Output`] when the file is damaged.
    pub fn atomic_numbers(&self) -> Result<Vec<u8>> {
        let numbers: Vec<i64> = self.read(|| self.file.dataset(&format!("{PARTICLES}/species"))?.read_raw())?;
        let known = |z: &i64| u8::try_from(*z).ok().filter(|z| (1..=118).contains(z));
        numbers
            .iter()
            .map(known)
            .collect::<Option<_>>()
            .ok_or_else(|| Error::Output(format!("{} is damaged: an atom in it is of no element", self.path.display())))
    }

    /// Masses, u, one an atom.
    ///
    /// # Errors
    /// [`Error::Output`] when the file is damaged.
    pub fn masses(&self) -> Result<Vec<f64>> {
        self.read(|| self.file.dataset(&format!("{PARTICLES}/mass"))?.read_raw())
    }

    /// What the file says about its run; `system` stands in for the one at the start.
    ///
    /// # Errors
    /// [`Error::Output`] when the file is damaged.
    pub fn about(&self, system: System) -> Result<RunInfo> {
        self.read(|| {
            let group = self.file.group("parameters/verlet")?;
            let text = |name: &str| Ok::<_, hdf5::Error>(group.attr(name)?.read_scalar::<VarLenUnicode>()?.to_string());
            let author = self.file.group("h5md/author")?.attr("name")?;
            Ok(RunInfo {
                system,
                title: text("title")?,
                author: author.read_scalar::<FixedUnicode<AUTHOR_BYTES>>()?.to_string(),
                input: text("input")?,
                model: text("model")?,
                model_hash: text("model_hash")?,
                seed: group.attr("seed")?.read_scalar()?,
                backend: text("backend")?,
            })
        })
    }

    /// Frame `index`, counted from 0.
    ///
    /// # Errors
    /// [`Error::Output`] when there is no such frame or the file is damaged.
    pub fn frame(&self, index: usize) -> Result<StoredFrame> {
        let frames = self.frames()?;
        if index >= frames {
            let name = self.path.display();
            return Err(Error::Output(format!(
                "{name} has {frames} frames, so there is no frame {index} (counted from 0)"
            )));
        }
        let vectors = |name: &str, factor: f64| -> hdf5::Result<Vec<Vector3<f64>>> {
            let values: Vec<f64> = row(&self.file.dataset(&format!("{PARTICLES}/{name}/value"))?, index)?;
            Ok(values.chunks_exact(3).map(|x| Vector3::new(x[0], x[1], x[2]) * factor).collect())
        };
        let optional = |name: &str, factor: f64| {
            let path = format!("{PARTICLES}/{name}");
            self.file.link_exists(&path).then(|| vectors(name, factor)).transpose()
        };
        let cell = || -> hdf5::Result<Cell> {
            if !self.periodic.contains(&true) {
                return Ok(Cell::open());
            }
            let edges = vectors("box/edges", 1.0)?;
            let [a, b, c] = edges[..] else { return Err("the box has not three edges".into()) };
            let rows = Matrix3::from_columns(&[a, b, c]).transpose();
            Cell::new(rows, self.periodic).map_err(|error| error.to_string().into())
        };
        self.read(|| {
            let number = |name: &str| self.file.dataset(&format!("{PARTICLES}/position/{name}"));
            Ok(StoredFrame {
                step: first(&row(&number("step")?, index)?)?,
                time: first::<f64>(&row(&number("time")?, index)?)? * FS_PER_PS,
                positions: vectors("position", 1.0)?,
                velocities: optional("velocity", 1.0 / FS_PER_PS)?,
                forces: optional("force", KJ_PER_MOL)?,
                cell: cell()?,
            })
        })
    }

    /// All rows of the energy log.
    ///
    /// # Errors
    /// [`Error::Output`] when the file is damaged.
    pub fn samples(&self) -> Result<Vec<Sample>> {
        self.read(|| {
            let column = |name: &str| self.file.dataset(&format!("{LOG}/{name}"));
            let number = |name: &str| column(name)?.read_raw::<f64>();
            let count = |name: &str| column(name)?.read_raw::<u64>();
            let (step, list_rebuilds) = (count("step")?, count("list_rebuilds")?);
            let (time, kinetic, potential) = (number("time")?, number("kinetic")?, number("potential")?);
            let (conserved, temperature) = (number("conserved")?, number("temperature")?);
            let numbers = [&time, &kinetic, &potential, &conserved, &temperature];
            let rows = step.len();
            if list_rebuilds.len() != rows || numbers.iter().any(|column| column.len() != rows) {
                return Err("the columns of the energy log have different lengths".into());
            }
            let sample = |row: usize| Sample {
                step: step[row],
                time: time[row] * FS_PER_PS,
                kinetic: kinetic[row],
                potential: potential[row],
                conserved: conserved[row],
                temperature: temperature[row],
                list_rebuilds: list_rebuilds[row],
            };
            Ok((0..rows).map(sample).collect())
        })
    }

    fn read<T>(&self, reading: impl FnOnce() -> hdf5::Result<T>) -> Result<T> {
        reading().map_err(|error| fault(&self.path, "cannot be read", &error))
    }
}

/// Row `index` of a dataset, flat.
fn row<T: H5Type>(dataset: &Dataset, index: usize) -> hdf5::Result<Vec<T>> {
    let shape = dataset.shape();
    if shape.first().is_none_or(|&rows| index >= rows) {
        return Err(format!("{} has no row {index}", dataset.name()).into());
    }
    let mut slices = vec![SliceOrIndex::from(index..index + 1)];
    slices.extend(shape[1..].iter().map(|_| SliceOrIndex::from(..)));
    let values = dataset.read_slice::<T, _, ndarray::IxDyn>(Selection::from(Hyperslab::from(slices)))?;
    Ok(values.into_raw_vec_and_offset().0)
}

fn first<T: Copy>(values: &[T]) -> hdf5::Result<T> {
    values.first().copied().ok_or_else(|| "a dataset has an empty row".into())
}
