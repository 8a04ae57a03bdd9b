//! Every broken input of `inputs/bad` gets the message that stands beside it, and nothing is overwritten. What the files
//! mean, and how to add one, is in the README there.

mod common;

use rayon::prelude::*;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// A command that has not ended by then hangs.
const PATIENCE: Duration = Duration::from_secs(120);
/// What every case may use besides the files of its own folder.
const GOOD: &str = "good";

#[test]
fn every_mistake_gets_its_message() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("inputs/bad");
    let cases = cases(&root);
    assert!(cases.len() >= 60, "only {} cases in {}", cases.len(), root.display());
    let write = std::env::var_os("VERLET_WRITE_MESSAGES").is_some();
    let failures: Vec<String> = cases
        .par_iter()
        .filter_map(|path| {
            let expected = fs::read_to_string(path).unwrap();
            let result = replay(&root, path, &expected);
            match result {
                Ok(found) if found == expected => None,
                Ok(found) if write => fs::write(path, found).err().map(|error| error.to_string()),
                Ok(found) => Some(format!("it should be\n\n{expected}\nbut is\n\n{found}")),
                Err(problem) => Some(problem),
            }
            .map(|problem| format!("---- {}: {problem}\n", path.strip_prefix(&root).unwrap().display()))
        })
        .collect();
    assert!(failures.is_empty(), "{} of {} cases\n{}", failures.len(), cases.len(), failures.concat());
}

/// The texts that say what a case is, in every folder but that of the good files.
fn cases(root: &Path) -> Vec<PathBuf> {
    let entries = |folder: &Path| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let kinds = entries(root).filter(|path| path.is_dir() && !path.ends_with(GOOD));
    let mut cases: Vec<_> = kinds.flat_map(|kind| entries(&kind)).filter(|path| has_extension(path, "txt")).collect();
    cases.sort();
    cases
}

fn has_extension(path: &Path, wanted: &str) -> bool {
    path.extension().is_some_and(|extension| extension == wanted)
}

/// One command of a case and what is said about it.
struct Step<'a> {
    command: &'a str,
    /// What a command that fails may write all the same.
    writes: &'a str,
}

/// Lines up to the first `$` are for people. A `$` begins a command, a `[` says how it ended.
fn parse(text: &str) -> (&str, Vec<Step<'_>>) {
    let begin = if text.starts_with("$ ") { 0 } else { text.find("\n$ ").map_or(text.len(), |at| at + 1) };
    let mut steps: Vec<Step> = Vec::new();
    for line in text[begin..].lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step { command, writes: "" });
        } else if let (Some(step), Some((_, writes))) = (steps.last_mut(), line.split_once(", writes ")) {
            step.writes = if line.starts_with('[') { writes.trim_end_matches(']') } else { step.writes };
        }
    }
    (&text[..begin], steps)
}

/// Runs a case in a folder of its own and gives its text as it would have to be.
fn replay(root: &Path, path: &Path, text: &str) -> Result<String, String> {
    let (prose, steps) = parse(text);
    let kind = path.parent().unwrap().file_name().unwrap();
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let sandbox = tempfile::tempdir_in(parent).map_err(|error| error.to_string())?;
    for name in [Path::new(GOOD), Path::new(kind)] {
        copy(&root.join(name), &sandbox.path().join("bad").join(name));
    }
    let mut found = prose.to_owned();
    let mut refused = 0;
    for step in &steps {
        let before = contents(&sandbox.path().join("bad"));
        let (status, printed) = run(step.command, sandbox.path(), Path::new(kind))?;
        let code = status.code().ok_or_else(|| format!("`{}` was ended by {status}\n{printed}", step.command))?;
        found.push_str(&format!("$ {}\n{printed}", step.command));
        if printed.contains("panicked") || ![0, 1, 2].contains(&code) {
            return Err(format!("`{}` ended with status {code}\n{printed}", step.command));
        }
        if code == 0 {
            continue;
        }
        refused += 1;
        let touched = touched(&before, &contents(&sandbox.path().join("bad")));
        let touched: Vec<_> = touched.iter().map(|path| path.strip_prefix(kind).unwrap_or(path)).collect();
        let unnamed = touched.iter().find(|path| step.writes.is_empty() || !path.starts_with(step.writes));
        match unnamed {
            // By the name in the case's folder, be it a file or a folder.
            Some(path) => found.push_str(&format!("[{code}, writes {}]\n", path.iter().next().unwrap().display())),
            None if touched.is_empty() => found.push_str(&format!("[{code}]\n")),
            None => found.push_str(&format!("[{code}, writes {}]\n", step.writes)),
        }
    }
    if refused == 0 {
        return Err("no command was refused".into());
    }
    Ok(found)
}

/// Runs a command in a shell; its status, and what it printed: standard output, then standard error.
fn run(command: &str, sandbox: &Path, kind: &Path) -> Result<(ExitStatus, String), String> {
    let program = Path::new(env!("CARGO_BIN_EXE_verlet")).parent().unwrap();
    let path = std::env::join_paths(
        std::iter::once(program.to_owned()).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    )
    .unwrap();
    let printed = [sandbox.join("stdout"), sandbox.join("stderr")];
    let [stdout, stderr] = printed.each_ref().map(|path| File::create(path).unwrap());
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).current_dir(sandbox.join("bad").join(kind)).stdout(stdout).stderr(stderr);
    shell.env("PATH", path).env("LC_ALL", "C").env_remove("RUST_BACKTRACE").process_group(0);
    let child = common::spawn(&mut shell).map_err(|error| format!("sh does not start: {error}"))?;
    let status = wait(child).ok_or_else(|| format!("`{command}` hangs"))?;
    let printed = printed.map(|path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned());
    let printed = printed.concat().replace(&*sandbox.to_string_lossy(), "FOLDER");
    // Progress comes by the clock.
    Ok((status, printed.split_inclusive('\n').filter(|line| !line.contains(" ns/day  ")).collect()))
}

/// The status of a process, or `None` when it had to be killed with all its children.
fn wait(mut child: Child) -> Option<ExitStatus> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if begun.elapsed() > PATIENCE {
            let group = rustix::process::Pid::from_child(&child);
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        // What a case is to say is not among its files.
        if !has_extension(&path, "txt") {
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

/// Every file, link and folder, with what is in it. Locks hold the number of whoever had them last.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().to_owned();
            let kind = fs::symlink_metadata(&path).unwrap().file_type();
            if kind.is_dir() {
                found.insert(name, b"a folder".to_vec());
                folders.push(path);
            } else if kind.is_symlink() {
                found.insert(name, fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes());
            } else if !name.ends_with("run.lock") {
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// What has come, gone or changed.
fn touched(before: &BTreeMap<PathBuf, Vec<u8>>, after: &BTreeMap<PathBuf, Vec<u8>>) -> Vec<PathBuf> {
    let names = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
    names.filter(|name| before.get(*name) != after.get(*name)).cloned().collect()
}
