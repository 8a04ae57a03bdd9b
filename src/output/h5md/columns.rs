//! The growing part of a file: frames with what was measured in them, and the energy log.

use super::series::{Column, Series, Vectors};
use crate::output::{Frame, Sample};
use crate::system::Cell;
use crate::units::{FS_PER_PS, KJ_PER_MOL};
use hdf5::Group;
use nalgebra::Vector3;

/// Everything written once a frame.
pub(super) struct FrameColumns {
    pub position: Vectors,
    pub velocity: Option<Vectors>,
    pub force: Option<Vectors>,
    /// `None` when no direction repeats.
    pub edges: Option<Series<f64>>,
    pub time: Series<f64>,
    pub observables: Observables,
    pub step: Series<i64>,
    /// Cell of all frames.
    pub cell: Cell,
    /// Whether positions are moved into the cell.
    pub wrap: bool,
    pub atoms: usize,
}

/// `/observables`, kJ/mol and K.
pub(super) struct Observables {
    pub potential_energy: Series<f64>,
    pub kinetic_energy: Series<f64>,
    pub total_energy: Series<f64>,
    pub temperature: Series<f64>,
}

impl FrameColumns {
    /// Frames, written and waiting.
    pub fn len(&self) -> usize {
        self.step.len()
    }

    /// Adds a frame to those that wait, or says what is wrong with it.
    pub fn push(&mut self, frame: &Frame) -> Result<(), String> {
        for (name, vectors, written) in [
            ("positions", &frame.positions, true),
            ("velocities", &frame.velocities, self.velocity.is_some()),
            ("forces", &frame.forces, self.force.is_some()),
        ] {
            if written && vectors.len() != self.atoms {
                let (step, found) = (frame.sample.step, vectors.len());
                return Err(format!("step {step} has {found} {name}, but the run began with {} atoms", self.atoms));
            }
        }
        if self.wrap {
            let cell = &self.cell;
            self.position.extend(components(&frame.positions, |r| r - cell.translation(cell.image(r))));
        } else {
            self.position.extend(components(&frame.positions, |r| *r));
        }
        if let Some(velocity) = &mut self.velocity {
            velocity.extend(components(&frame.velocities, |v| v * FS_PER_PS));
        }
        if let Some(force) = &mut self.force {
            force.extend(components(&frame.forces, |f| f / KJ_PER_MOL));
        }
        if let Some(edges) = &mut self.edges {
            edges.extend(edge_vectors(&self.cell, &frame.positions));
        }
        let sample = &frame.sample;
        self.time.push(sample.time / FS_PER_PS);
        self.observables.potential_energy.push(sample.potential / KJ_PER_MOL);
        self.observables.kinetic_energy.push(sample.kinetic / KJ_PER_MOL);
        self.observables.total_energy.push(sample.total() / KJ_PER_MOL);
        self.observables.temperature.push(sample.temperature);
        self.step.push(sample.step as i64);
        Ok(())
    }

    /// Writes the waiting frames when they fill a chunk.
    pub fn write_if_many(&mut self) -> hdf5::Result<()> {
        if self.position.is_full() {
            for column in self.columns() {
                column.write()?;
            }
        }
        Ok(())
    }

    /// Hands all frames to the operating system.
    pub fn flush(&mut self) -> hdf5::Result<()> {
        for column in self.columns() {
            column.flush()?;
        }
        Ok(())
    }

    /// `step` comes last: who finds a step in the file finds the whole frame.
    fn columns(&mut self) -> Vec<&mut dyn Column> {
        let mut columns: Vec<&mut dyn Column> = vec![&mut self.position];
        for vectors in [&mut self.velocity, &mut self.force].into_iter().flatten() {
            columns.push(vectors);
        }
        if let Some(edges) = &mut self.edges {
            columns.push(edges);
        }
        let Observables { potential_energy, kinetic_energy, total_energy, temperature } = &mut self.observables;
        for column in [potential_energy, kinetic_energy, total_energy, temperature, &mut self.time] {
            columns.push(column);
        }
        columns.push(&mut self.step);
        columns
    }
}

impl Drop for FrameColumns {
    /// A writer that was given up still leaves a file with all its frames; `finish` reports errors.
    fn drop(&mut self) {
        let _ = self.flush();
    }
}

/// The energy log `/parameters/verlet/energy`: ps, eV, K.
pub(super) struct LogColumns {
    step: Series<i64>,
    time: Series<f64>,
    kinetic: Series<f64>,
    potential: Series<f64>,
    total: Series<f64>,
    conserved: Series<f64>,
    temperature: Series<f64>,
    drift: Series<f64>,
    list_rebuilds: Series<i64>,
    /// The conserved quantity in the first row, eV.
    reference: Option<f64>,
    atoms: usize,
}

impl LogColumns {
    /// Creates the columns.
    pub fn create(group: &Group, atoms: usize) -> hdf5::Result<Self> {
        let count = |name: &str| Series::create(group, name, &[], None);
        let number = |name: &str, unit: &str| Series::create(group, name, &[], Some(unit));
        Ok(LogColumns {
            step: count("step")?,
            time: number("time", "ps")?,
            kinetic: number("kinetic", "eV")?,
            potential: number("potential", "eV")?,
            total: number("total", "eV")?,
            conserved: number("conserved", "eV")?,
            temperature: number("temperature", "K")?,
            drift: number("drift", "eV")?,
            list_rebuilds: count("list_rebuilds")?,
            reference: None,
            atoms,
        })
    }

    /// Goes on behind the columns' rows.
    pub fn open(group: &Group, atoms: usize) -> hdf5::Result<Self> {
        let count = |name: &str| Series::open(group.dataset(name)?);
        let number = |name: &str| Series::open(group.dataset(name)?);
        let conserved: Series<f64> = number("conserved")?;
        Ok(LogColumns {
            step: count("step")?,
            time: number("time")?,
            kinetic: number("kinetic")?,
            potential: number("potential")?,
            total: number("total")?,
            reference: conserved.first()?,
            conserved,
            temperature: number("temperature")?,
            drift: number("drift")?,
            list_rebuilds: count("list_rebuilds")?,
            atoms,
        })
    }

    /// Rows, written and waiting.
    pub fn len(&self) -> usize {
        self.step.len()
    }

    /// Adds a row to those that wait.
    pub fn push(&mut self, sample: &Sample) {
        let reference = *self.reference.get_or_insert(sample.conserved);
        self.time.push(sample.time / FS_PER_PS);
        self.kinetic.push(sample.kinetic);
        self.potential.push(sample.potential);
        self.total.push(sample.total());
        self.conserved.push(sample.conserved);
        self.temperature.push(sample.temperature);
        self.drift.push((sample.conserved - reference) / self.atoms as f64);
        self.list_rebuilds.push(sample.list_rebuilds as i64);
        self.step.push(sample.step as i64);
    }

    /// Writes the waiting rows when they fill a chunk.
    pub fn write_if_many(&mut self) -> hdf5::Result<()> {
        if self.step.is_full() {
            for column in self.columns() {
                column.write()?;
            }
        }
        Ok(())
    }

    /// Hands all rows to the operating system.
    pub fn flush(&mut self) -> hdf5::Result<()> {
        for column in self.columns() {
            column.flush()?;
        }
        Ok(())
    }

    /// `step` comes last: who finds a step in the file finds the whole row.
    fn columns(&mut self) -> [&mut dyn Column; 9] {
        [
            &mut self.time,
            &mut self.kinetic,
            &mut self.potential,
            &mut self.total,
            &mut self.conserved,
            &mut self.temperature,
            &mut self.drift,
            &mut self.list_rebuilds,
            &mut self.step,
        ]
    }
}

impl Drop for LogColumns {
    /// A writer that was given up still leaves a file with all its rows; `finish` reports errors.
    fn drop(&mut self) {
        let _ = self.flush();
    }
}

/// x, y, z of every vector after `convert`.
fn components(vectors: &[Vector3<f64>], convert: impl Fn(&Vector3<f64>) -> Vector3<f64>) -> impl Iterator<Item = f64> {
    vectors.iter().flat_map(move |vector| <[f64; 3]>::from(convert(vector)))
}

/// The cell's edge vectors as rows, Å.
///
/// H5MD says in `boundary` which edges repeat, but MDAnalysis and VMD take every cell to repeat in all directions. An
/// edge that does not repeat has no length of its own, so it is written long enough that they find no false
/// neighbours: the layer between two images of the atoms is at least [`VACUUM`] thick and no thinner than the atoms'
/// own layer.
pub(crate) fn edge_vectors(cell: &Cell, positions: &[Vector3<f64>]) -> [f64; 9] {
    let heights = cell.heights();
    let mut rows = *cell.vectors();
    for k in (0..3).filter(|&k| !cell.periodic()[k]) {
        let (low, high) = positions.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), r| {
            let fraction = cell.fractional(r)[k];
            (low.min(fraction), high.max(fraction))
        });
        let thickness = (high - low) * heights[k];
        // In steps, so that the edge does not change with every vibration.
        let needed = ((thickness + thickness.max(VACUUM)) / VACUUM).ceil() * VACUUM;
        rows.row_mut(k).scale_mut((needed / heights[k]).max(1.0));
    }
    std::array::from_fn(|i| rows[(i / 3, i % 3)])
}

/// Å; twice the usual cutoffs of an analysis.
const VACUUM: f64 = 20.0;
