//! Extended XYZ, read and written exactly: many frames a file, a cell of any orientation, periodic or not along each
//! edge, and any further numbers per frame and per atom.
//!
//! A frame is a line with the number of atoms, a line of `key=value` pairs, and a line per atom:
//!
//! ```text
//! 3
//! Lattice="9.0 0.0 0.0 0.0 9.0 0.0 0.0 0.0 9.0" Properties=species:S:1:pos:R:3:forces:R:3 pbc="T T T" energy=-2081.1
//! O 0.0 0.0 0.1 0.0 0.0 0.5
//! H 0.0 0.8 -0.5 0.0 0.1 -0.25
//! H 0.0 -0.8 -0.5 0.0 -0.1 -0.25
//! ```
//!
//! What the reader understands itself becomes part of the [`System`]; the rest is kept as [`Frame::info`] and
//! [`Frame::columns`]. The names below may be in any case.
//!
//! | in the file | unit | meaning |
//! |---|---|---|
//! | `Lattice` | Å | the edges a, b, c one after the other |
//! | `pbc` | | which edges repeat; without it all do when there is a `Lattice`, else none |
//! | `species`, `Z`, `numbers` | | element symbol or atomic number |
//! | `pos`, `positions` | Å | |
//! | `vel`, `velo`, `velocities` | Å/fs | as GPUMD and QUIP write them |
//! | `momenta` | √(u eV) | as ASE writes them; used when there are no velocities |
//! | `masses`, `mass` | u | standard atomic weights without it |
//! | `charge`, `total_charge` | e | of the whole frame; kept among [`Frame::info`] too |
//!
//! Without `Properties` the columns are symbol (or atomic number), x, y, z, and whatever follows is ignored: plain XYZ.
//!
//! Real numbers are written with the fewest digits (at most 17) that give the same 64 bits back, so a frame that was
//! written and read again is the same frame. The format has no types of its own: a text that looks like a number
//! (`"12"`) or a logical (`"T"`) is read back as one, and an array of one element as a single value.

mod comment;
mod reader;
mod writer;

pub use reader::Reader;
pub use writer::Writer;

use crate::system::System;
use nalgebra::{Matrix3, Vector3};

/// One frame: a system, and everything else the file says about it.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Elements, positions, velocities, masses and the cell.
    pub system: System,
    /// Values of the whole frame in the order of the file, without `Lattice`, `pbc` and `Properties`.
    pub info: Vec<(String, Value)>,
    /// Values per atom in the order of the file, without those that are part of `system`.
    pub columns: Vec<Column>,
}

impl Frame {
    /// A frame with nothing but the system.
    pub fn new(system: System) -> Self {
        Frame { system, info: Vec::new(), columns: Vec::new() }
    }

    /// The value of a key.
    pub fn info(&self, key: &str) -> Option<&Value> {
        self.info.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// Adds a key, or replaces its value.
    pub fn set_info(&mut self, key: &str, value: impl Into<Value>) {
        match self.info.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = value.into(),
            None => self.info.push((key.to_owned(), value.into())),
        }
    }

    /// The column of a name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Adds a column, or replaces the one of the same name.
    pub fn set_column(&mut self, column: Column) {
        match self.columns.iter_mut().find(|old| old.name == column.name) {
            Some(old) => *old = column,
            None => self.columns.push(column),
        }
    }
}

/// A value of a whole frame.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A real number.
    Real(f64),
    /// An integer.
    Integer(i64),
    /// `T` or `F`; a key without a value is `T`, but where there are no `Properties`, and the line is a plain comment.
    Logical(bool),
    /// Anything else, and ASE's `_JSON …`.
    Text(String),
    /// Real numbers; two-dimensional arrays are flattened.
    Reals(Vec<f64>),
    /// Integers; two-dimensional arrays are flattened.
    Integers(Vec<i64>),
    /// Several `T` or `F`.
    Logicals(Vec<bool>),
}

impl Value {
    /// The value as one real number, if it is a number.
    pub fn as_real(&self) -> Option<f64> {
        match self {
            Value::Real(value) => Some(*value),
            Value::Integer(value) => Some(*value as f64),
            _ => None,
        }
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Value::Real(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Value::Integer(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Value::Logical(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Value::Text(value.to_owned())
    }
}

impl From<Vec<f64>> for Value {
    fn from(values: Vec<f64>) -> Self {
        Value::Reals(values)
    }
}

/// Nine numbers, column by column: the order in which ASE reads `stress` and `virial`.
impl From<Matrix3<f64>> for Value {
    fn from(matrix: Matrix3<f64>) -> Self {
        Value::Reals(matrix.as_slice().to_vec())
    }
}

/// A quantity that every atom has.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Its name in `Properties`.
    pub name: String,
    /// How many values an atom has.
    pub width: usize,
    /// `width` values of the first atom, then of the second, …
    pub data: ColumnData,
}

/// The values of a [`Column`], with the letter of `Properties` that stands for their type.
#[derive(Debug, Clone, PartialEq)]
pub enum ColumnData {
    /// `R`
    Reals(Vec<f64>),
    /// `I`
    Integers(Vec<i64>),
    /// `L`
    Logicals(Vec<bool>),
    /// `S`: words without white space.
    Texts(Vec<String>),
}

impl Column {
    /// One real number per atom, such as `energies`.
    pub fn scalars(name: &str, values: Vec<f64>) -> Self {
        Column { name: name.to_owned(), width: 1, data: ColumnData::Reals(values) }
    }

    /// A vector per atom, such as `forces`.
    pub fn vectors(name: &str, values: &[Vector3<f64>]) -> Self {
        let data = values.iter().flat_map(|v| v.iter().copied()).collect();
        Column { name: name.to_owned(), width: 3, data: ColumnData::Reals(data) }
    }

    /// The column as one vector per atom, if it is three reals wide.
    pub fn as_vectors(&self) -> Option<Vec<Vector3<f64>>> {
        match &self.data {
            ColumnData::Reals(values) if self.width == 3 => {
                Some(values.chunks_exact(3).map(Vector3::from_column_slice).collect())
            }
            _ => None,
        }
    }

    /// Number of values: atoms times width.
    fn len(&self) -> usize {
        match &self.data {
            ColumnData::Reals(values) => values.len(),
            ColumnData::Integers(values) => values.len(),
            ColumnData::Logicals(values) => values.len(),
            ColumnData::Texts(values) => values.len(),
        }
    }
}

/// One velocity unit of ASE, √(eV/u), is this many Å/fs, turned over: momenta in √(u eV) are m v times this.
fn ase_momentum_unit() -> f64 {
    crate::units::MASS_VELOCITY2.sqrt()
}

#[cfg(test)]
mod tests;
