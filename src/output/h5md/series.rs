//! Datasets that grow by rows.

use hdf5::{Dataset, Extent, Group, H5Type, Hyperslab, Selection, SimpleExtents, SliceOrIndex};
use ndarray::ArrayViewD;

/// Chunks of arrays (one row: a frame's vectors) hold as many rows as fit into this many bytes.
const ARRAY_CHUNK: usize = 64 << 10;
/// Rows larger than this are cut: HDF5 moves whole chunks.
const LARGEST_CHUNK: usize = 4 << 20;
/// Rows in a chunk of plain numbers: small, so that a short run with all its columns stays a small file.
const NUMBERS_CHUNK: usize = 1024;

/// What all series can do, whatever their numbers are.
pub(super) trait Column {
    /// Hands the waiting rows to HDF5, which may keep them in memory.
    fn write(&mut self) -> hdf5::Result<()>;
    /// Hands everything to the operating system.
    fn flush(&mut self) -> hdf5::Result<()>;
}

/// A dataset `[rows][…]` in the file and the rows that wait to be written: one HDF5 call for many rows instead of several
/// for each.
pub(super) struct Series<T> {
    dataset: Dataset,
    /// Shape of one row; empty for a plain number.
    row: Vec<usize>,
    /// Rows that HDF5 has.
    written: usize,
    /// Rows that HDF5 has not, flat.
    waiting: Vec<T>,
    /// Whether HDF5 has rows that the operating system may not have.
    dirty: bool,
}

impl<T: H5Type + Copy> Series<T> {
    /// A new dataset without rows; `unit` becomes its attribute when it has one.
    pub fn create(group: &Group, name: &str, row: &[usize], unit: Option<&str>) -> hdf5::Result<Self> {
        let mut extents = vec![Extent::resizable(0)];
        extents.extend(row.iter().map(|&length| Extent::fixed(length)));
        let dataset = group
            .new_dataset::<T>()
            .chunk(chunk_shape(row, size_of::<T>()))
            .shape(SimpleExtents::from_vec(extents))
            .create(name)?;
        if let Some(unit) = unit {
            super::layout::text(&dataset, "unit", unit)?;
        }
        Ok(Series { dataset, row: row.to_vec(), written: 0, waiting: Vec::new(), dirty: false })
    }

    /// Goes on behind the rows of a dataset.
    pub fn open(dataset: Dataset) -> hdf5::Result<Self> {
        let shape = dataset.shape();
        let Some((&written, row)) = shape.split_first() else {
            return Err(format!("{} has no rows", dataset.name()).into());
        };
        if !dataset.dtype()?.is::<T>() {
            return Err(format!("{} holds another kind of numbers", dataset.name()).into());
        }
        Ok(Series { row: row.to_vec(), dataset, written, waiting: Vec::new(), dirty: false })
    }

    /// Shape of one row.
    pub fn row(&self) -> &[usize] {
        &self.row
    }

    /// The first row of numbers, where there is one.
    pub fn first(&self) -> hdf5::Result<Option<T>> {
        match self.written {
            0 => Ok(None),
            _ => Ok(self.dataset.read_slice_1d::<T, _>(0..1)?.first().copied()),
        }
    }

    /// Appends numbers; a row is complete when all of its numbers are there.
    pub fn extend(&mut self, values: impl IntoIterator<Item = T>) {
        self.waiting.extend(values);
    }

    /// Appends a row of one number.
    pub fn push(&mut self, value: T) {
        self.waiting.push(value);
    }

    /// Rows, written and waiting.
    pub fn len(&self) -> usize {
        self.written + self.waiting_rows()
    }

    /// Whether a chunk's worth of rows is waiting.
    pub fn is_full(&self) -> bool {
        let rows = chunk_shape(&self.row, size_of::<T>())[0];
        self.waiting_rows() >= rows
    }

    fn waiting_rows(&self) -> usize {
        self.waiting.len() / self.row.iter().product::<usize>()
    }
}

impl<T: H5Type + Copy> Column for Series<T> {
    fn write(&mut self) -> hdf5::Result<()> {
        let rows = self.waiting_rows();
        if rows == 0 {
            return Ok(());
        }
        let shape = |rows: usize| -> Vec<usize> { std::iter::once(rows).chain(self.row.iter().copied()).collect() };
        let values = ArrayViewD::from_shape(shape(rows), &self.waiting)?;
        let end = self.written + rows;
        let mut slices = vec![SliceOrIndex::from(self.written..end)];
        slices.extend(self.row.iter().map(|_| SliceOrIndex::from(..)));
        self.dirty = true;
        self.dataset.resize(shape(end))?;
        self.dataset.write_slice(values, Selection::from(Hyperslab::from(slices)))?;
        self.written = end;
        self.waiting.clear();
        Ok(())
    }

    fn flush(&mut self) -> hdf5::Result<()> {
        self.write()?;
        if self.dirty {
            self.dataset.flush()?;
            self.dirty = false;
        }
        Ok(())
    }
}

/// A series of vectors, `[rows][N][3]`, in either precision.
pub(super) enum Vectors {
    Single(Series<f32>),
    Double(Series<f64>),
}

impl Vectors {
    /// A new dataset `value` for `atoms` vectors a row.
    pub fn create(group: &Group, atoms: usize, double: bool, unit: &str) -> hdf5::Result<Self> {
        let row = [atoms, 3];
        Ok(match double {
            true => Vectors::Double(Series::create(group, "value", &row, Some(unit))?),
            false => Vectors::Single(Series::create(group, "value", &row, Some(unit))?),
        })
    }

    /// Goes on behind the rows of a dataset, in its precision.
    pub fn open(dataset: Dataset) -> hdf5::Result<Self> {
        Ok(match dataset.dtype()?.is::<f64>() {
            true => Vectors::Double(Series::open(dataset)?),
            false => Vectors::Single(Series::open(dataset)?),
        })
    }

    /// Shape of one row.
    pub fn row(&self) -> &[usize] {
        match self {
            Vectors::Single(series) => series.row(),
            Vectors::Double(series) => series.row(),
        }
    }

    /// Appends one row, given as x, y, z of every atom.
    pub fn extend(&mut self, values: impl Iterator<Item = f64>) {
        match self {
            Vectors::Single(series) => series.extend(values.map(|x| x as f32)),
            Vectors::Double(series) => series.extend(values),
        }
    }

    /// Whether a chunk's worth of rows is waiting.
    pub fn is_full(&self) -> bool {
        match self {
            Vectors::Single(series) => series.is_full(),
            Vectors::Double(series) => series.is_full(),
        }
    }
}

impl Column for Vectors {
    fn write(&mut self) -> hdf5::Result<()> {
        match self {
            Vectors::Single(series) => series.write(),
            Vectors::Double(series) => series.write(),
        }
    }

    fn flush(&mut self) -> hdf5::Result<()> {
        match self {
            Vectors::Single(series) => series.flush(),
            Vectors::Double(series) => series.flush(),
        }
    }
}

/// Shape of a chunk of rows of this shape, with numbers of `size` bytes.
fn chunk_shape(row: &[usize], size: usize) -> Vec<usize> {
    let Some((&length, inner)) = row.split_first() else { return vec![NUMBERS_CHUNK] };
    let bytes = size * inner.iter().product::<usize>();
    let parts = length.div_ceil(LARGEST_CHUNK / bytes);
    let mut shape = vec![(ARRAY_CHUNK / (length * bytes)).max(1), length.div_ceil(parts)];
    shape.extend(inner);
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_neither_tiny_nor_huge() {
        assert_eq!(chunk_shape(&[], 8), [1024]);
        for atoms in [1, 3, 50, 5000, 100_000, 349_525, 349_526, 1_000_000, 10_000_000] {
            for size in [4, 8] {
                let chunk = chunk_shape(&[atoms, 3], size);
                let bytes = size * chunk.iter().product::<usize>();
                assert!((32 << 10..=4 << 20).contains(&bytes), "{atoms} {chunk:?}");
                assert_eq!(chunk[2], 3);
                // The pieces of a cut frame are all of one size, give or take an atom.
                let pieces = atoms.div_ceil(chunk[1]);
                assert!((atoms..atoms + pieces).contains(&(pieces * chunk[1])), "{atoms} {chunk:?}");
            }
        }
    }
}
