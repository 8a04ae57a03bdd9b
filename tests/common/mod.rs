//! Help for tests: random networks and systems, and other programs to ask.

// Every test file is a program of its own and uses a part of this.
#![allow(dead_code)]

pub mod backends;
pub mod bench;
pub mod cuda;
pub mod models;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{PoisonError, RwLock};

/// Held for writing while a process is started, for reading while a test has an HDF5 file open: HDF5 opens files without
/// close-on-exec, so a process started meanwhile would inherit the file, and with it the lock on it.
pub static FORK: RwLock<()> = RwLock::new(());

/// Starts a process that inherits no file from a test beside this one.
pub fn spawn(command: &mut Command) -> std::io::Result<Child> {
    let _alone = FORK.write().unwrap_or_else(PoisonError::into_inner);
    command.spawn()
}

/// Runs a process to its end and collects what it writes.
pub fn output(command: &mut Command) -> std::io::Result<Output> {
    spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?.wait_with_output()
}

/// The Python interpreter with the packages of tests/python: `VERLET_TEST_PYTHON`, else the one in `.tools/test-venv`.
pub fn python() -> Option<PathBuf> {
    if let Some(python) = std::env::var_os("VERLET_TEST_PYTHON") {
        return Some(python.into());
    }
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/test-venv/bin/python");
    python.exists().then_some(python)
}

/// Runs a script of tests/python and fails unless it succeeds. Without an interpreter it says so and does nothing.
pub fn run_python(script: &str, arguments: &[OsString]) {
    let Some(python) = python() else {
        println!("skipped: {script} needs VERLET_TEST_PYTHON or .tools/test-venv");
        return;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(script);
    let output = output(Command::new(&python).arg(&script).args(arguments));
    let output = output.unwrap_or_else(|error| panic!("{} does not run: {error}", python.display()));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{} failed: {}\n{out}\n{err}", script.display(), output.status);
    print!("{out}");
}
