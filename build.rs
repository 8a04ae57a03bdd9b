//! Links the C++ runtime that chemfiles needs, and GCC's unwinder, from their static archives, so that the binary asks
//! of the machine it runs on only the C library. Tells the program the commit that it is built from.

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if let Some(commit) = commit() {
        println!("cargo:rustc-env=VERLET_COMMIT={commit}");
    }
    println!("cargo:rerun-if-env-changed=CXX");
    let target = |key: &str| env::var(format!("CARGO_CFG_TARGET_{key}")).unwrap_or_default();
    if target("OS") != "linux" || target("ENV") != "gnu" {
        return;
    }
    let compiler = env::var("CXX").unwrap_or_else(|_| "c++".into());
    // The linker takes the first directory that holds a library in either form. In this one lie only the archives,
    // under the names that chemfiles (stdc++) and Rust's own library (gcc_s) ask for.
    let dir = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("static");
    fs::create_dir_all(&dir).expect("OUT_DIR is writable");
    for (archive, name) in [("libstdc++.a", "libstdc++.a"), ("libgcc_eh.a", "libgcc_s.a")] {
        if let Some(path) = find(&compiler, archive) {
            fs::copy(&path, dir.join(name)).unwrap_or_else(|error| panic!("cannot copy {}: {error}", path.display()));
            println!("cargo:rerun-if-changed={}", path.display());
        } else {
            let shared = name.replace(".a", ".so");
            println!("cargo:warning=`{compiler}` has no {archive}: the binary will need {shared} where it runs");
        }
    }
    println!("cargo:rustc-link-search=native={}", dir.display());
}

/// Where the compiler keeps `archive`; a compiler without it answers with the bare name.
fn find(compiler: &str, archive: &str) -> Option<PathBuf> {
    let mut words = compiler.split_whitespace(); // "ccache g++"
    let output = Command::new(words.next()?).args(words).arg(format!("-print-file-name={archive}")).output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    path.is_absolute().then_some(path)
}

/// What decides about the program.
const SOURCES: [&str; 5] = ["src", "kernels", "build.rs", "Cargo.toml", "Cargo.lock"];

/// The commit, with a "+" behind it when the sources differ from it. None where the package is not the top of a
/// repository of git, or git is missing.
fn commit() -> Option<String> {
    let git = |words: &[&str]| {
        let output = Command::new("git").args(words).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
    };
    let top = PathBuf::from(git(&["rev-parse", "--show-toplevel"])?).canonicalize().ok()?;
    if env::current_dir().ok()?.canonicalize().ok()? != top {
        return None;
    }
    // Every change of the commit leaves a line there.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|path| fs::exists(path).unwrap_or(false));
    for path in SOURCES.into_iter().chain(log.as_deref()) {
        println!("cargo:rerun-if-changed={path}");
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&[&["status", "--porcelain", "--"][..], &SOURCES].concat())?;
    Some(if changed.is_empty() { commit } else { commit + "+" })
}
