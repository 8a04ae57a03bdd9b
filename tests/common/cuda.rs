//! A GPU to test on: the real one where there is one, else an emulation of the driver and of its compiler on the CPU.
//!
//! The emulation (tests/emulator) takes the place of `libcuda.so` and `libnvrtc.so`, so that the program's own code runs
//! unchanged, kernels included. `VERLET_TEST_EMULATOR=1` asks for it where there is a GPU.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};
use verlet::backend::cuda::{Device, Driver};

const SOURCES: [&str; 2] = [include_str!("../emulator/driver.cpp"), include_str!("../emulator/device.hpp")];

/// The device that all tests of a program share; nothing where the emulation cannot be built either.
static DEVICE: LazyLock<Option<Arc<Device>>> = LazyLock::new(|| {
    if real() {
        return Some(Device::open(0).expect("the GPU can be opened"));
    }
    let folder = emulator()?;
    let library = folder.join("libcuda.so");
    // SAFETY: our own library; it is never unloaded, and answers to the driver's name from now on. No other thread of
    // this program reads the environment before the device is there.
    unsafe {
        std::mem::forget(libloading::Library::new(&library).expect("the emulated driver loads"));
        std::env::set_var("VERLET_NVRTC", &library);
        std::env::set_var("XDG_CACHE_HOME", &folder);
    }
    Some(Device::open(0).expect("the emulated GPU can be opened"))
});

/// Whether there is a GPU to test on.
fn real() -> bool {
    std::env::var_os("VERLET_TEST_EMULATOR").is_none() && Driver::start().is_ok()
}

/// Whether a device is the emulated one, for tests that would take too long on it.
pub fn emulated(device: &Device) -> bool {
    device.name == "emulator"
}

/// Gives a command of its own process a GPU, the real or the emulated one; says whether there is either.
pub fn give_device(command: &mut Command) -> bool {
    if real() {
        return true;
    }
    let Some(folder) = emulator() else { return false };
    command
        .env("LD_LIBRARY_PATH", &folder)
        .env("VERLET_NVRTC", folder.join("libcuda.so"))
        .env("XDG_CACHE_HOME", folder);
    true
}

/// The device, or nothing and a line that says so.
pub fn device() -> Option<Arc<Device>> {
    let device = DEVICE.clone();
    if device.is_none() {
        println!("skipped: no GPU, and its emulation needs x86-64 with AVX2, Linux and a C++ compiler");
    }
    device
}

/// The emulation's folder: it is built once for each version of its sources.
fn emulator() -> Option<PathBuf> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) || !is_x86_feature_detected!("avx2") {
        return None;
    }
    let mut hash = DefaultHasher::new();
    SOURCES.hash(&mut hash);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("emulator-{:016x}", hash.finish()));
    let library = folder.join("libcuda.so");
    if library.exists() {
        return Some(folder);
    }
    std::fs::create_dir_all(&folder).unwrap();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/emulator");
    let unfinished = folder.join(format!("{}.so", std::process::id()));
    let mut header = std::ffi::OsString::from("-DEMULATOR_HEADER=\"");
    header.push(sources.join("device.hpp"));
    header.push("\"");
    let built = super::output(
        Command::new(std::env::var_os("CXX").unwrap_or("c++".into()))
            .args(["-std=c++17", "-O2", "-shared", "-fPIC", "-Wl,-soname,libcuda.so"])
            .arg(header)
            .arg("-o")
            .arg(&unfinished)
            .arg(sources.join("driver.cpp"))
            .arg("-ldl"),
    )
    .ok()?;
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    std::fs::rename(unfinished, library).unwrap();
    Some(folder)
}
