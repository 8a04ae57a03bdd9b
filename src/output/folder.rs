//! The folder of a run, and the lock that keeps others out of it.

use super::checkpoint::Generations;
use crate::error::{Error, Result, reason};
use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// The trajectory's name in the run's folder.
pub const TRAJECTORY: &str = "trajectory.h5md";
/// The name of the copy of the input.
const INPUT: &str = "input.toml";
/// The name of the lock.
const LOCK: &str = "run.lock";

/// A run's folder, ours as long as this value lives: HDF5's own lock does not protect a trajectory in single-writer mode,
/// and a second process would ruin it without an error.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// The operating system gives the lock back when the process ends, however it ends.
    _lock: File,
}

impl RunFolder {
    /// Refuses a folder that holds anything, a run above all: nothing is ever overwritten. Touches nothing.
    ///
    /// # Errors
    /// [`Error::Output`] that says what is in the folder and what to do.
    pub fn check_free(path: &Path) -> Result<()> {
        if path.join(LOCK).exists() {
            lock(path)?;
        }
        check_empty(path)
    }

    /// Makes the folder of a new run, with a copy of its input.
    ///
    /// # Errors
    /// As [`check_free`](Self::check_free), and when the folder cannot be written.
    pub fn create(path: &Path, input: &str) -> Result<Self> {
        let failed =
            |error| Error::Output(format!("the folder {} cannot be written: {}", path.display(), reason(&error)));
        std::fs::create_dir_all(path).map_err(|error| {
            let reason = reason(&error);
            Error::Output(format!(
                "the folder {} cannot be created: {reason}; choose another with --output",
                path.display()
            ))
        })?;
        let folder = Self::hold(path)?;
        // Two runs may have begun in the same folder at the same moment.
        check_empty(path)?;
        std::fs::write(path.join(INPUT), input).map_err(failed)?;
        Ok(folder)
    }

    /// Opens the folder of a run that was begun before.
    ///
    /// # Errors
    /// [`Error::Output`] when the folder holds no run, or a process is at work in it.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display();
        if !path.is_dir() {
            return Err(Error::Output(format!("{name} is no folder; give the folder of a run")));
        }
        let generations = Generations::of(path);
        if !generations.exist() && !path.join(TRAJECTORY).exists() {
            return Err(Error::Output(format!(
                "the folder {name} holds no run: there is neither {} nor {TRAJECTORY} in it",
                Generations::CURRENT
            )));
        }
        Self::hold(path)
    }

    /// The folder that a file is in, or the one around that, as with the files of replicas, when it is a run's.
    ///
    /// # Errors
    /// [`Error::Output`] when a process is at work in it.
    pub fn around(file: &Path) -> Result<Option<Self>> {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let around = folder.join("..");
        let run = [folder, &around].into_iter().find(|folder| folder.join(LOCK).exists());
        run.map(Self::hold).transpose()
    }

    /// Takes the lock and leaves our number in it for those who are refused.
    fn hold(path: &Path) -> Result<Self> {
        let mut lock = lock(path)?;
        lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(
            |error| Error::Output(format!("the folder {} cannot be written: {}", path.display(), reason(&error))),
        )?;
        Ok(RunFolder { path: path.to_owned(), _lock: lock })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The trajectory in it.
    pub fn trajectory(&self) -> PathBuf {
        self.path.join(TRAJECTORY)
    }

    /// Its checkpoints.
    pub fn checkpoints(&self) -> Generations {
        Generations::of(&self.path)
    }
}

/// Refuses a folder in which there is anything but a lock.
fn check_empty(path: &Path) -> Result<()> {
    let name = path.display();
    let unusable = |error: std::io::Error| {
        Error::Output(match path.is_dir() || !path.exists() {
            true => format!("the folder {name} cannot be used: {}; choose another with --output", reason(&error)),
            false => format!("{name} is no folder; choose another with --output"),
        })
    };
    let mut entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(unusable(error)),
    };
    let found = entries.find(|entry| entry.as_ref().map_or(true, |entry| entry.file_name() != LOCK));
    Err(Error::Output(match found.transpose().map_err(unusable)? {
        None => return Ok(()),
        Some(_) if Generations::of(path).exist() => format!(
            "the folder {name} already holds a run; go on with it by `verlet resume {name}`, or choose another folder \
             with --output"
        ),
        Some(_) if path.join(TRAJECTORY).exists() => {
            format!("the folder {name} already holds a trajectory; choose another with --output, or remove it")
        }
        Some(_) => format!("the folder {name} is not empty; choose another with --output, or empty it"),
    }))
}

/// Takes the lock of a folder, or says who has it.
fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(LOCK);
    let failed =
        |error: std::io::Error| Error::Output(format!("{} cannot be locked: {}", path.display(), reason(&error)));
    let options = File::options().create(true).truncate(false).read(true).write(true).open(&path);
    let mut file = options.map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Who it is only helps the user: without it the message is still right.
            let _ = file.read_to_string(&mut holder);
            let process = match holder.trim() {
                "" => "another process".into(),
                number => format!("process {number}"),
            };
            return Err(Error::Output(format!(
                "the folder {} is in use: {process} runs, resumes or repairs there; wait for it or stop it (Ctrl-C, \
                 kill)",
                folder.display()
            )));
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_for_one_process_and_one_run() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        RunFolder::check_free(&path).unwrap();
        assert!(!path.exists());
        let folder = RunFolder::create(&path, "title = 1").unwrap();
        let expected = format!("b is in use: process {} runs, resumes or repairs there", std::process::id());
        for refused in [RunFolder::check_free(&path), RunFolder::create(&path, "").map(|_| ())] {
            let message = refused.unwrap_err().to_string();
            assert!(message.contains(&expected), "{message}");
        }
        drop(folder);
        let message = RunFolder::create(&path, "").unwrap_err().to_string();
        assert!(message.contains("is not empty"), "{message}");
        let message = RunFolder::open(&path).unwrap_err().to_string();
        assert!(
            message.contains("holds no run: there is neither checkpoint.vlt nor trajectory.h5md in it"),
            "{message}"
        );
        std::fs::write(path.join(TRAJECTORY), "").unwrap();
        let folder = RunFolder::open(&path).unwrap();
        assert!(RunFolder::open(&path).unwrap_err().to_string().contains("is in use"));
        drop(folder);
        std::fs::remove_file(path.join(TRAJECTORY)).unwrap();
        std::fs::remove_file(path.join(INPUT)).unwrap();
        // A lock without an owner is what a killed process leaves.
        RunFolder::create(&path, "").unwrap();
    }
}
