//! Every GPU kernel compiles, for every architecture that counts, without a GPU: NVIDIA's compiler comes with the Python
//! packages of the tests.

mod common;

use std::path::{Path, PathBuf};
use verlet::backend::cuda::{Nvrtc, ResidentSizes, Switches, compile_options, source};

/// The compiler in the tests' Python environment.
fn packaged() -> Option<PathBuf> {
    let python = common::python()?;
    let entries = |folder: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    };
    let libraries = entries(&python.parent()?.parent()?.join("lib"))
        .into_iter()
        .flat_map(|version| entries(&version.join("site-packages/nvidia")))
        .flat_map(|package| entries(&package.join("lib")));
    let is_nvrtc =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libnvrtc.so"));
    let found = libraries.into_iter().find(is_nvrtc);
    assert!(found.is_some(), "{} has no NVRTC beside it: run scripts/setup --tests", python.display());
    found
}

fn compiler() -> Option<Nvrtc> {
    let found = match packaged() {
        Some(path) => Ok(Nvrtc::open(&path).unwrap()),
        None => Nvrtc::find(None),
    };
    found.map_err(|error| println!("skipped: {error}")).ok()
}

const SWITCHES: Switches = Switches {
    features: 128,
    student: false,
    table_shared: false,
    radial: true,
    sliced: false,
    tiled: true,
    large: true,
    few: false,
    resident: None,
    split: false,
    langevin: true,
    conditional: true,
    watch: true,
    repulsion: true,
    tile: 16,
    tile_warps: 8,
    reduced: false,
    replicas: false,
};

/// For a thousand atoms.
const MIDDLE: Switches = Switches { sliced: true, tile_warps: 16, large: false, ..SWITCHES };

fn compile(compiler: &Nvrtc, architecture: &str, switches: &Switches) {
    let mut options = compile_options(architecture, switches);
    options.push("--ptxas-options=-v".into());
    let compiled = compiler.compile(&source(switches), &options).unwrap();
    assert!(compiled.code.starts_with(b"\x7fELF"));
    // A kernel of whole steps whose blocks have 512 threads puts some numbers aside from one phase to another.
    let allowed = if switches.resident.is_some() { 360 } else { 0 };
    let spilled = |line: &str| {
        let (before, _) = line.split_once(" bytes spill stores")?;
        before.rsplit(' ').next()?.parse::<u32>().ok()
    };
    let lines: Vec<_> =
        compiled.log.lines().filter(|line| spilled(line).is_some_and(|bytes| bytes > allowed)).collect();
    assert!(lines.is_empty(), "{architecture} {switches:?}: registers are spilled to memory: {lines:?}");
    assert!(compiled.log.contains("row_reverse"), "the compiler says nothing of its work: {}", compiled.log);
}

#[test]
fn kernels_compile_for_every_architecture_without_spills() {
    let Some(compiler) = compiler() else { return };
    let known = compiler.architectures();
    let newest = *known.last().expect("the compiler names its architectures");
    for architecture in [80, 90, 100, newest] {
        assert!(known.contains(&architecture), "{} has no sm_{architecture}", compiler.path.display());
        for switches in [SWITCHES, MIDDLE] {
            compile(&compiler, &format!("sm_{architecture}"), &switches);
        }
    }
}

#[test]
fn kernels_compile_for_every_size_and_switch() {
    let Some(compiler) = compiler() else { return };
    let few = Switches { radial: false, tiled: false, large: false, few: true, ..SWITCHES };
    let resident = |atoms, clusters, layers, hidden| {
        let sizes = ResidentSizes { atoms, clusters, pairs: (atoms * (atoms - 1) / clusters).min(500), layers, hidden };
        Switches { resident: Some(sizes), radial: true, ..few }
    };
    for switches in [
        few,
        resident(9, 1, 3, 64),
        resident(21, 4, 3, 64),
        resident(101, 8, 3, 64),
        resident(2, 1, 1, 128),
        Switches { langevin: false, watch: false, repulsion: false, ..resident(12, 2, 6, 8) },
        Switches { watch: false, repulsion: false, ..few },
        Switches { features: 32, langevin: false, repulsion: false, ..few },
        Switches { features: 64, student: true, conditional: false, ..few },
        Switches { features: 256, ..few },
        Switches { few: false, ..few },
        Switches { features: 96, student: true, few: false, split: true, ..few },
        Switches { features: 256, langevin: false, watch: false, ..SWITCHES },
        Switches { features: 96, radial: false, ..SWITCHES },
        Switches { radial: false, large: false, ..SWITCHES },
        Switches { radial: false, large: false, split: true, ..SWITCHES },
        Switches { radial: false, large: false, replicas: true, ..SWITCHES },
        Switches { features: 32, ..SWITCHES },
        Switches { radial: false, tile_warps: 16, large: false, split: true, replicas: true, ..SWITCHES },
        Switches { watch: false, repulsion: false, ..SWITCHES },
        Switches { features: 256, student: true, radial: false, tiled: false, ..SWITCHES },
        Switches { radial: false, tiled: false, ..SWITCHES },
        Switches { radial: false, tiled: false, table_shared: true, ..SWITCHES },
        Switches { replicas: true, ..SWITCHES },
        Switches { reduced: true, tile: 32, ..SWITCHES },
        Switches { reduced: true, ..SWITCHES },
        Switches { reduced: true, tile: 32, features: 64, langevin: false, watch: false, ..SWITCHES },
        Switches { reduced: true, tile: 32, features: 256, ..SWITCHES },
        Switches { reduced: true, tile: 32, replicas: true, ..SWITCHES },
        Switches { replicas: true, langevin: false, watch: false, repulsion: false, ..SWITCHES },
    ] {
        compile(&compiler, "sm_90", &switches);
    }
}

/// A mistake is reported with the file and the line as they are in `kernels/`.
#[test]
fn a_compiler_error_names_the_kernels_file() {
    let Some(compiler) = compiler() else { return };
    let broken = source(&SWITCHES).replace("extern \"C\" __global__ void moved", "extern \"C\" __global__ vooid moved");
    let error = compiler.compile(&broken, &compile_options("sm_90", &SWITCHES)).map(drop).unwrap_err().to_string();
    assert!(error.contains("integrate.cu("), "{error}");
}
