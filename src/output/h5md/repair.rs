//! Making a file readable for everybody that a killed run left behind.
//!
//! Two things are wrong with such a file. It is marked as being written, so that every program refuses it. And its
//! superblock still says how long the file was when it was created: everything written since lies behind that end. The
//! obvious cure, to clear the mark, cuts the file back to the old end and destroys the trajectory. Hence the order here:
//! open it with the mark cleared *and* without comparing the ends, let HDF5 take over the file's true end, close.

use super::fault;
use super::whole::{self, Head};
use crate::error::{Error, Result, reason};
use hdf5::file::LibraryVersion;
use hdf5::plist::FileAccess;
use hdf5::{Dataset, File, MinorErrorCode};
use hdf5_sys::{h5, h5f, h5i, h5p};
use std::ffi::CString;
use std::path::Path;

// In HDF5 since 1.10, but not among the bindings.
unsafe extern "C" {
    /// Sets the end of allocation to the larger one of the file's two ends, plus the increment.
    fn H5Fincrement_filesize(file: h5i::hid_t, increment: u64) -> h5::herr_t;
}

/// What a trajectory holds after [`repair`], and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repair {
    /// Whole frames.
    pub frames: u64,
    /// Whole rows of the energy log.
    pub rows: u64,
    /// Whether anything had to be done.
    pub changed: bool,
}

/// Makes a file readable that a killed run left behind, and cuts off what the kill had left half-written.
///
/// Nothing that was flushed is lost, and a file that is whole stays as it is. Who calls this must hold the lock of the
/// run's folder: to repair a file that is being written ruins it.
///
/// # Errors
/// [`Error::Output`] when the file is not one of our trajectories, its run was killed before it began, so much of it is
/// missing that no frame can be found, or another program has it open. The file is then as it was.
pub fn repair(path: &Path) -> Result<Repair> {
    let name = path.display();
    let head = Head::read(path)?;
    if head.length == 0 {
        return Err(Error::Output(format!(
            "{name} is empty, so there is nothing to repair; if its run was killed before it began, remove it"
        )));
    }
    let marked = match File::open(path) {
        Ok(_) => false,
        Err(error) if error.contains_minor(MinorErrorCode::NotHdf5) => {
            return Err(Error::Output(format!("{name} is not an HDF5 file, or a damaged one")));
        }
        Err(_) => true,
    };
    if !marked {
        return cut_to_whole_rows(path, &head, false);
    }
    let repaired = clear(path).and_then(|()| cut_to_whole_rows(path, &head, true));
    match repaired {
        Err(error) if !locked(path) => match head.put_back(path) {
            Ok(()) => Err(error),
            Err(other) => Err(Error::Output(format!("{error}; it cannot be left as it was: {}", reason(&other)))),
        },
        result => result,
    }
}

/// Cuts all datasets to the rows that every one of them has, if they differ.
fn cut_to_whole_rows(path: &Path, head: &Head, marked: bool) -> Result<Repair> {
    let name = path.display();
    let failed = |error: hdf5::Error| fault(path, "cannot be repaired", &error);
    let growing = |file: &File| {
        Growing::of(file).map_err(|_| {
            Error::Output(match head.shortage() {
                Some(shortage) => format!("{name} {shortage}, too few to save a frame; copy it again"),
                None if marked => format!("{name} is not whole: its run was killed before the first frame; remove it"),
                None => format!("{name} is not a trajectory that verlet wrote"),
            })
        })
    };
    let file = File::open(path).map_err(failed)?;
    let lengths = growing(&file)?.lengths(head.length).map_err(|error| {
        Error::Output(match head.shortage() {
            Some(shortage) => format!("{name} {shortage}, too few to save a frame; copy it again"),
            None => format!("{name} is damaged, so its frames cannot be found: {error}; copy it again"),
        })
    })?;
    drop(file);
    let [frames, rows] = lengths.each_ref().map(|lengths| lengths.iter().copied().min().unwrap_or(0));
    let ragged = lengths[0].iter().any(|&length| length != frames) || lengths[1].iter().any(|&length| length != rows);
    if ragged {
        let file = open_to_write(path)?;
        growing(&file)?.cut(frames, rows).map_err(failed)?;
        file.close().map_err(failed)?;
    }
    Ok(Repair { frames: frames as u64, rows: rows as u64, changed: marked || ragged })
}

/// Opens a repaired file, with the format that single-writer mode needs.
pub(super) fn open_to_write(path: &Path) -> Result<File> {
    let format = LibraryVersion::V110;
    File::with_options().with_fapl(|access| access.libver_bounds(format, format)).open_rw(path).map_err(|error| {
        let text = error.stack().map(|stack| stack.iter().map(|frame| frame.desc().to_owned()).collect::<String>());
        if text.is_some_and(|text| text.contains("unable to lock file")) {
            in_use(path)
        } else {
            fault(path, "cannot be written", &error)
        }
    })
}

fn in_use(path: &Path) -> Error {
    Error::Output(format!("{} is open in another program; close it there and try again", path.display()))
}

/// Takes the mark of a writer off and makes the file's true end the end of its content.
fn clear(path: &Path) -> Result<()> {
    let failed = |error: hdf5::Error| fault(path, "cannot be repaired", &error);
    let name = path.to_str().and_then(|name| CString::new(name).ok());
    let name = name.ok_or_else(|| Error::Output(format!("{}: HDF5 needs a file name in UTF-8", path.display())))?;
    let access = FileAccess::build().finish().map_err(failed)?;
    let mut yes = true;
    // SAFETY: the identifiers are checked, and the property values and the name outlive the calls that read them. Both
    // properties are booleans that HDF5 keeps for its own tools; `FileBuilder` would drop them.
    let done = hdf5::sync::sync(|| unsafe {
        for property in [c"clear_status_flags", c"skip_eof_check"] {
            if h5p::H5Pset(access.id(), property.as_ptr(), (&raw mut yes).cast()) < 0 {
                return false;
            }
        }
        let file = h5f::H5Fopen(name.as_ptr(), h5f::H5F_ACC_RDWR, access.id());
        if file < 0 {
            return false;
        }
        let kept = H5Fincrement_filesize(file, 0) >= 0;
        h5f::H5Fclose(file) >= 0 && kept
    });
    match (done, locked(path)) {
        (true, _) => Ok(()),
        (false, true) => Err(in_use(path)),
        (false, false) => Err(Error::Output(format!(
            "{} cannot be repaired: it is damaged in a way that no kill of a run leaves behind",
            path.display()
        ))),
    }
}

/// Whether another program has the file open: HDF5 locks what it reads.
fn locked(path: &Path) -> bool {
    std::fs::File::open(path).is_ok_and(|file| matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock)))
}

/// All datasets that grow with a run.
pub(super) struct Growing {
    frames: Vec<Dataset>,
    rows: Vec<Dataset>,
}

impl Growing {
    /// Those of a file of ours.
    pub fn of(file: &File) -> hdf5::Result<Self> {
        let particles = file.group("particles/trajectory")?;
        let mut frames = vec![particles.dataset("position/step")?, particles.dataset("position/time")?];
        for name in ["position", "velocity", "force", "box/edges"] {
            if particles.link_exists(name) {
                frames.push(particles.dataset(&format!("{name}/value"))?);
            }
        }
        for observable in file.group("observables")?.groups()? {
            frames.push(observable.dataset("value")?);
        }
        Ok(Growing { frames, rows: file.group("parameters/verlet/energy")?.datasets()? })
    }

    /// Rows that every dataset has in a file of so many bytes: those with a row a frame, and those with a row a line of
    /// the log.
    fn lengths(&self, bytes: u64) -> hdf5::Result<[Vec<usize>; 2]> {
        let lengths = |datasets: &[Dataset]| -> hdf5::Result<Vec<usize>> {
            datasets.iter().map(|dataset| whole::rows(dataset, bytes)).collect()
        };
        Ok([lengths(&self.frames)?, lengths(&self.rows)?])
    }

    /// Cuts all of them to so many frames and rows, and hands that to the operating system.
    pub fn cut(&self, frames: usize, rows: usize) -> hdf5::Result<()> {
        for (datasets, length) in [(&self.frames, frames), (&self.rows, rows)] {
            for dataset in datasets {
                let mut shape = dataset.shape();
                if shape.first().is_none_or(|&found| found < length) {
                    return Err(format!("{} has fewer than {length} rows", dataset.name()).into());
                }
                shape[0] = length;
                dataset.resize(shape)?;
            }
        }
        self.frames.iter().chain(&self.rows).try_for_each(Dataset::flush)
    }
}
