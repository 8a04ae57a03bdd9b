//! The real binary in a folder of its own.

use super::models::{ModelFile, SMALL};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use verlet::system::{System, extxyz};

/// A folder with a model, a structure and an input.
pub struct Bench {
    pub folder: tempfile::TempDir,
}

impl Bench {
    pub fn new(architecture: &str, system: &System, input: &str) -> Self {
        Self::inside(&std::env::temp_dir(), architecture, system, input)
    }

    /// In the memory of the machine, where it has a file system there: for tests that would wait for the disk most of
    /// the time, because every checkpoint is synced.
    pub fn in_memory(architecture: &str, system: &System, input: &str) -> Self {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        Self::inside(&parent, architecture, system, input)
    }

    fn inside(parent: &Path, architecture: &str, system: &System, input: &str) -> Self {
        let folder = tempfile::tempdir_in(parent).unwrap();
        ModelFile::random(architecture, SMALL, 31).write(folder.path(), "model.safetensors");
        let mut writer = extxyz::Writer::create(&folder.path().join("start.xyz")).unwrap();
        writer.write(&extxyz::Frame::new(system.clone())).unwrap();
        writer.finish().unwrap();
        std::fs::write(folder.path().join("input.toml"), input).unwrap();
        Bench { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The program with these arguments, in this folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_verlet"));
        command.args(arguments).current_dir(&self.folder);
        command
    }

    pub fn verlet(&self, arguments: &[&str]) -> Output {
        super::output(&mut self.command(arguments)).unwrap()
    }

    pub fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.verlet(arguments);
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn fail(&self, arguments: &[&str], status: i32) -> String {
        let output = self.verlet(arguments);
        assert_eq!(output.status.code(), Some(status), "{}", stderr(&output));
        stderr(&output)
    }

    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

/// What the program complained about.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
