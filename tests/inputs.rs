//! The inputs that we ship run, and every line of them is explained.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

fn inputs() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("inputs");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut inputs: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect();
    inputs.sort();
    inputs
}

fn succeed(arguments: &[&str]) -> String {
    let output = common::output(Command::new(env!("CARGO_BIN_EXE_verlet")).args(arguments)).unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", common::bench::stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_input_runs() {
    let inputs = inputs();
    assert!(inputs.len() >= 3, "{inputs:?}");
    let folder = tempfile::tempdir().unwrap();
    for input in inputs {
        let input = input.to_str().unwrap();
        assert!(succeed(&["check", input]).contains("nothing written"));
        let output = folder.path().join(Path::new(input).file_stem().unwrap());
        let text = succeed(&["run", input, "--steps", "3", "--output", output.to_str().unwrap()]);
        assert!(text.contains("finished 3 steps"), "{input}: {text}");
    }
}

#[test]
fn every_line_has_a_comment() {
    for input in inputs() {
        let text = std::fs::read_to_string(&input).unwrap();
        // Tables have the names that the keys' documentation has; what is in them is explained.
        let mute = text.lines().find(|line| line.contains(" = ") && !line.contains('#'));
        assert_eq!(mute, None, "{}", input.display());
    }
}
