//! Whether a file is all there.
//!
//! HDF5 takes what the file's head says for granted: where a file was cut short, a repair would put zeros in the place of
//! what is missing, and damage in the index of a dataset makes single-writer mode wait for ever.

use crate::error::{Error, Result, reason};
use hdf5::Dataset;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of the superblock of HDF5's versions 2 and 3, in which our files are written: signature (8), version, sizes of
/// offsets and lengths, flags, base, extension, end of the file, root group (8 each), checksum (4).
const SUPERBLOCK: usize = 48;
const SIGNATURE: &[u8] = b"\x89HDF\r\n\x1a\n";

/// The head of a file as it was found.
pub(super) struct Head {
    bytes: Vec<u8>,
    /// Length of the file.
    pub length: u64,
}

impl Head {
    /// Reads it.
    ///
    /// # Errors
    /// [`Error::Output`] when the file cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let read = || {
            let file = File::open(path)?;
            let length = file.metadata()?.len();
            let mut bytes = Vec::new();
            file.take(SUPERBLOCK as u64).read_to_end(&mut bytes)?;
            Ok(Head { bytes, length })
        };
        read().map_err(|error| Error::Output(format!("{} cannot be read: {}", path.display(), reason(&error))))
    }

    /// Refuses a file that is shorter than its head says, to those who only read it.
    ///
    /// # Errors
    /// [`Error::Output`] that says how much is there.
    pub fn check(&self, path: &Path) -> Result<()> {
        match self.shortage() {
            None => Ok(()),
            Some(shortage) => Err(Error::Output(format!(
                "{name} {shortage}; copy it again from where it was written, or save what is there with `verlet repair {name}`",
                name = path.display()
            ))),
        }
    }

    /// The end of a sentence about a file that has been cut short, or could not be closed on a full disk. A file that is
    /// being written is longer than its head says.
    pub fn shortage(&self) -> Option<String> {
        let end = self.end().filter(|&end| self.length < end)?;
        Some(format!("is cut short: it holds {} of its {end} bytes", self.length))
    }

    /// Where the file ends according to its head.
    fn end(&self) -> Option<u64> {
        let known = self.bytes.len() == SUPERBLOCK
            && self.bytes.starts_with(SIGNATURE)
            && matches!(self.bytes[8], 2 | 3)
            && self.bytes[9] == 8;
        known.then(|| u64::from_le_bytes(std::array::from_fn(|k| self.bytes[28 + k])))
    }

    /// Puts the head and the length back: all that an attempt to repair a file changes about it.
    pub fn put_back(&self, path: &Path) -> std::io::Result<()> {
        let file = OpenOptions::new().write(true).open(path)?;
        file.write_all_at(&self.bytes, 0)?;
        file.set_len(self.length)
    }
}

/// Rows of a dataset that lie inside a file of so many bytes. Reads all of the dataset's index.
pub(super) fn rows(dataset: &Dataset, length: u64) -> hdf5::Result<usize> {
    let mut rows = dataset.shape().first().copied().unwrap_or(0);
    let Some(chunk) = dataset.chunk() else { return Ok(rows) };
    let rows_a_chunk = chunk.first().copied().unwrap_or(1).max(1) as u64;
    dataset.chunks_visit(|chunk| {
        // What was never written to its end lies in the file as far as it was.
        let there = length.saturating_sub(chunk.addr) / (chunk.size / rows_a_chunk).max(1);
        if there < rows_a_chunk {
            let first = chunk.offset.first().copied().unwrap_or(0);
            rows = rows.min((first + there) as usize);
        }
        0
    })?;
    Ok(rows)
}
