//! Trajectories in other programs' formats: read back by chemfiles, MDAnalysis and ASE; cut and continued; converted.

mod common;

use common::models::{ModelFile, SMALL, random_system};
use common::run_python;
use nalgebra::{Matrix3, Vector3};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::Path;
use std::str::FromStr;
use tempfile::TempDir;
use verlet::output::h5md::{H5mdOptions, H5mdReader, H5mdWriter};
use verlet::output::trajectory::{FORMATS, Snapshot, TrajectoryOptions, TrajectoryWriter};
use verlet::output::{Frame, Output, Position, RunInfo, Sample};
use verlet::system::{Cell, Selection, System, extxyz};

/// fs, and steps between frames.
const TIMESTEP: f64 = 0.5;
const INTERVAL: u64 = 20;
const ATOMS: usize = 12;

fn triclinic() -> Cell {
    Cell::from_parameters([9.0, 10.0, 11.0], [80.0, 95.0, 105.0], [true; 3]).unwrap()
}

fn system(cell: Cell) -> System {
    let numbers = (0..ATOMS).map(|atom| [8, 1, 1, 6][atom % 4]).collect();
    System::new(numbers, vectors(0, 20.0), cell).unwrap()
}

/// Numbers between -scale and scale that look like any other.
fn vectors(frame: usize, scale: f64) -> Vec<Vector3<f64>> {
    let noise = |atom: usize, axis: usize| {
        ((1 + frame) as f64 * 12.9898 + atom as f64 * 78.233 + axis as f64 * 37.719).sin() * scale
    };
    (0..ATOMS).map(|atom| Vector3::from_fn(|axis, _| noise(atom, axis))).collect()
}

fn plain() -> TrajectoryOptions {
    TrajectoryOptions {
        atoms: Selection::default(),
        wrap: false,
        velocities: false,
        forces: false,
        interval: INTERVAL,
        timestep: TIMESTEP,
    }
}

fn write(writer: &mut TrajectoryWriter, cell: &Cell, frames: std::ops::Range<usize>) {
    for frame in frames {
        writer
            .write(&Snapshot {
                step: frame as u64 * INTERVAL,
                time: Some(frame as f64 * INTERVAL as f64 * TIMESTEP),
                energy: Some(-1.5),
                positions: &vectors(frame, 20.0),
                velocities: Some(&vectors(frame + 1000, 0.01)),
                forces: Some(&vectors(frame + 2000, 3.0)),
                cell,
            })
            .unwrap();
    }
}

/// A whole file.
fn write_file(path: &Path, system: &System, options: &TrajectoryOptions, frames: usize) {
    let mut writer = TrajectoryWriter::create(path, system, options.clone()).unwrap();
    write(&mut writer, &system.cell, 0..frames);
    writer.close().unwrap();
}

/// What another program must find: Å, ps, Å/ps, degrees.
fn expectation(system: &System, options: &TrajectoryOptions, frames: usize) -> Value {
    let atoms = options.atoms.atoms(system).unwrap();
    let cell = &system.cell;
    let pick = |all: Vec<Vector3<f64>>, convert: &dyn Fn(&Vector3<f64>) -> Vector3<f64>| -> Vec<[f64; 3]> {
        atoms.iter().map(|&atom| convert(&all[atom]).into()).collect()
    };
    let wrapped = |r: &Vector3<f64>| if options.wrap { r - cell.translation(cell.image(r)) } else { *r };
    let range = 0..frames;
    json!({
        "positions": range.clone().map(|frame| pick(vectors(frame, 20.0), &wrapped)).collect::<Vec<_>>(),
        "velocities": options.velocities.then(|| range.clone().map(|frame| pick(vectors(frame + 1000, 0.01), &|v| v * 1000.0)).collect::<Vec<_>>()),
        "forces": options.forces.then(|| range.clone().map(|frame| pick(vectors(frame + 2000, 3.0), &|f| *f)).collect::<Vec<_>>()),
        "edges": cell.is_periodic().then(|| [0, 1, 2].map(|k| <[f64; 3]>::from(cell.vector(k)))),
        "time": range.map(|frame| frame as f64 * INTERVAL as f64 * TIMESTEP / 1000.0).collect::<Vec<_>>(),
        "step": INTERVAL,
        "numbers": atoms.iter().map(|&atom| system.atomic_numbers[atom]).collect::<Vec<_>>(),
    })
}

/// Largest error of a coordinate that the format makes, Å.
fn precision(extension: &str) -> f64 {
    match extension {
        "xtc" | "gro" => 0.00501,
        "pdb" => 0.000501,
        "lammpstrj" => 0.0000501,
        "xyz" | "extxyz" => 0.0,
        _ => 2e-6,
    }
}

#[test]
fn chemfiles_reads_every_format_back() {
    let folder = TempDir::new().unwrap();
    for cell in [triclinic(), Cell::open()] {
        for format in FORMATS.iter().filter(|format| !format.forces) {
            let extension = format.extensions[0];
            let path = folder.path().join(format!("{}.{extension}", cell.is_periodic()));
            let options = TrajectoryOptions { velocities: format.velocities, ..plain() };
            write_file(&path, &system(cell.clone()), &options, 4);
            let mut trajectory = chemfiles::Trajectory::open_with_format(&path, 'r', format.name).unwrap();
            assert_eq!(trajectory.nsteps(), 4, "{extension}");
            let mut frame = chemfiles::Frame::new();
            for index in 0..4 {
                trajectory.read(&mut frame).unwrap();
                for (found, expected) in frame.positions().iter().zip(&vectors(index, 20.0)) {
                    let error = (Vector3::from(*found) - expected).amax();
                    assert!(error <= precision(extension), "{extension}: {error}");
                }
                assert_eq!(frame.velocities().is_some(), format.velocities, "{extension}");
                for (found, expected) in frame.velocities().unwrap_or_default().iter().zip(&vectors(index + 1000, 0.01))
                {
                    // Å/ps; GRO has four decimals of nm/ps.
                    let error = (Vector3::from(*found) - expected * 1000.0).amax();
                    assert!(error <= if extension == "gro" { 0.000501 } else { 5e-5 }, "{extension}: {error}");
                }
                let matrix = frame.cell().matrix();
                let mut edges = Matrix3::from_fn(|edge, axis| matrix[axis][edge]);
                if extension == "lammpstrj" {
                    // LAMMPS gives the bounds around a tilted box, which chemfiles takes for its edges; both tilts of
                    // this one are negative, the third is positive.
                    edges[(0, 0)] += edges[(1, 0)] + edges[(2, 0)];
                    edges[(1, 1)] -= edges[(2, 1)];
                }
                let expected = if cell.is_periodic() { *cell.vectors() } else { Matrix3::zeros() };
                let tolerance = if extension == "pdb" { 2e-3 } else { 1e-4 };
                assert!((edges - expected).amax() < tolerance, "{extension}: {edges}");
            }
        }
    }
}

/// Positions, cells, times, velocities and forces as other programs see them.
#[test]
fn mdanalysis_and_ase_read_every_format() {
    let folder = TempDir::new().unwrap();
    let mut arguments: Vec<OsString> = Vec::new();
    let some = Selection::from_str("O,2-3").unwrap();
    for (name, cell, atoms, wrap) in [
        ("triclinic", triclinic(), Selection::default(), false),
        ("wrapped", triclinic(), Selection::default(), true),
        ("some", triclinic(), some, true),
        ("open", Cell::open(), Selection::default(), false),
    ] {
        let system = system(cell.clone());
        let topology = folder.path().join(format!("{name}-topology.xyz"));
        write_file(&topology, &system, &TrajectoryOptions { atoms: atoms.clone(), ..plain() }, 1);
        for format in FORMATS {
            let extension = format.extensions[0];
            let path = folder.path().join(format!("{name}.{extension}"));
            let options = TrajectoryOptions {
                atoms: atoms.clone(),
                wrap,
                velocities: format.velocities,
                forces: format.forces,
                ..plain()
            };
            write_file(&path, &system, &options, 4);
            let expected = folder.path().join(format!("{name}-{extension}.json"));
            std::fs::write(&expected, expectation(&system, &options, 4).to_string()).unwrap();
            let tolerance = precision(extension).to_string();
            arguments.extend([path.into(), topology.clone().into(), expected.into(), tolerance.into()]);
        }
    }
    run_python("check_formats.py", &arguments);
}

/// A run is killed after its file has grown beyond the last checkpoint, in the middle of a frame and with rubbish behind it;
/// then it goes on from the checkpoint.
#[test]
fn a_continued_file_has_every_frame_once() {
    let folder = TempDir::new().unwrap();
    for cell in [triclinic(), Cell::open()] {
        for format in FORMATS {
            let extension = format.extensions[0];
            let system = system(cell.clone());
            let options = TrajectoryOptions { velocities: format.velocities, forces: format.forces, ..plain() };
            let name = |what: &str| folder.path().join(format!("{}-{what}.{extension}", cell.is_periodic()));
            let (whole, live, killed) = (name("whole"), name("live"), name("killed"));
            write_file(&whole, &system, &options, 6);
            for safe in [0, 1, 3] {
                let mut writer = TrajectoryWriter::create(&live, &system, options.clone()).unwrap();
                write(&mut writer, &cell, 0..safe);
                let position = writer.commit().unwrap();
                assert_eq!((position.frames, position.rows), (safe as u64, 0));
                write(&mut writer, &cell, safe..safe + 2);
                let mut left = std::fs::read(&live).unwrap();
                assert!(left.len() as u64 > position.bytes);
                left.extend(b"rubbish\n\0\0\0");
                std::fs::write(&killed, left).unwrap();
                drop(writer);
                assert!(TrajectoryWriter::holds(&killed, &position).unwrap());
                let mut writer = TrajectoryWriter::append(&killed, &system, options.clone(), &position).unwrap();
                write(&mut writer, &cell, safe..5);
                assert_eq!(writer.commit().unwrap().frames, 5);
                write(&mut writer, &cell, 5..6);
                writer.close().unwrap();
                // Not a bit differs from a file that was written in one go.
                assert!(
                    std::fs::read(&killed).unwrap() == std::fs::read(&whole).unwrap(),
                    "{extension} continued after {safe} frames"
                );
                // Cut back without going on: the head must not count what is gone.
                let writer = TrajectoryWriter::append(&live, &system, options.clone(), &position).unwrap();
                writer.close().unwrap();
                if safe > 0 && format.name != "extended XYZ" {
                    let mut cut = chemfiles::Trajectory::open_with_format(&live, 'r', format.name).unwrap();
                    assert_eq!(cut.nsteps(), safe, "{extension}");
                }
                std::fs::remove_file(&live).unwrap();
            }
            let position = Position { frames: 9, rows: 0, bytes: 1 << 30 };
            assert!(!TrajectoryWriter::holds(&whole, &position).unwrap());
            let error = TrajectoryWriter::append(&whole, &system, options, &position).err().unwrap().to_string();
            assert!(error.ends_with("has less than the 9 frames that the run has written"), "{error}");
        }
    }
    assert!(!TrajectoryWriter::holds(&folder.path().join("none.dcd"), &Position::default()).unwrap());
}

#[test]
fn what_a_format_cannot_hold_is_refused_in_a_sentence() {
    let folder = TempDir::new().unwrap();
    let create = |name: &str, cell: Cell, options: TrajectoryOptions| {
        let path = folder.path().join(name);
        let created = TrajectoryWriter::create(&path, &system(cell), options);
        let error = created.err().unwrap_or_else(|| panic!("{name} was created")).to_string();
        assert!(!path.exists() && !error.contains('\n'), "{error}");
        error
    };
    let turned = Cell::new(Matrix3::new(0.0, 9.0, 0.0, 10.0, 0.0, 0.0, 0.0, 0.0, -11.0), [true; 3]).unwrap();
    for (error, expected) in [
        (
            create("a.tng", triclinic(), plain()),
            "a.tng has a format that cannot be written; choose one of .dcd, .xtc, ",
        ),
        (
            create("a.nc", triclinic(), plain()),
            "a.nc cannot be written: chemfiles, which would write it, knows no times in Amber NetCDF, and no system without a cell; \
             choose .dcd, .xtc or .trr",
        ),
        (
            create("a.dcd", triclinic(), TrajectoryOptions { velocities: true, ..plain() }),
            "a.dcd cannot hold velocities: DCD has none; H5MD has, and .trr, .gro, .lammpstrj, .xyz",
        ),
        (
            create("a.trr", triclinic(), TrajectoryOptions { forces: true, ..plain() }),
            "a.trr cannot hold forces: TRR has none here; H5MD has, and .xyz",
        ),
        (
            create("a.gro", turned, plain()),
            "a.gro cannot hold this cell: GRO wants edge a along x and b in the xy plane; ",
        ),
        (
            create("a.xtc", triclinic(), TrajectoryOptions { atoms: Selection::from_str("N").unwrap(), ..plain() }),
            "a.xtc cannot be written: atoms = \"N\" names N, but the system is C3H6O3",
        ),
    ] {
        assert!(error.contains(expected), "{error}");
    }
    let path = folder.path().join("far.pdb");
    let mut writer = TrajectoryWriter::create(&path, &system(triclinic()), plain()).unwrap();
    let far = vec![Vector3::new(0.0, 0.0, -1000.0); ATOMS];
    let snapshot = Snapshot {
        step: 7,
        time: None,
        energy: None,
        positions: &far,
        velocities: None,
        forces: None,
        cell: &triclinic(),
    };
    let error = writer.write(&snapshot).unwrap_err().to_string();
    assert!(error.contains("far.pdb, step 7: atom 1 has a coordinate outside -999.999 to 9999.999 Å"), "{error}");
    writer.close().unwrap();
    let error = TrajectoryWriter::create(&path, &system(triclinic()), plain()).err().unwrap().to_string();
    assert!(error.ends_with("far.pdb exists already and is never overwritten; move it away or write somewhere else"));
}

/// Edges that do not repeat are so long that nobody finds neighbours across them; the others stay.
#[test]
fn a_layer_gets_a_cell_with_a_vacuum() {
    let folder = TempDir::new().unwrap();
    let layer = Cell::new(Matrix3::new(5.0, 0.0, 0.0, 1.0, 6.0, 0.0, 0.0, 0.0, 0.0), [true, true, false]).unwrap();
    for extension in ["dcd", "xtc", "gro"] {
        let path = folder.path().join(format!("layer.{extension}"));
        write_file(&path, &system(layer.clone()), &plain(), 2);
        let mut frame = chemfiles::Frame::new();
        chemfiles::Trajectory::open(&path, 'r').unwrap().read(&mut frame).unwrap();
        let matrix = frame.cell().matrix();
        assert!((matrix[0][0] - 5.0).abs() < 1e-4 && (matrix[0][1] - 1.0).abs() < 1e-4, "{matrix:?}");
        assert!(matrix[2][2] >= 60.0 && matrix[0][2].abs() < 1e-4, "{matrix:?}");
    }
}

/// A run with several outputs: each with its own interval, atoms and settings, and a script for VMD beside it.
#[test]
fn a_run_writes_several_trajectories_at_once() {
    let folder = TempDir::new().unwrap();
    ModelFile::random("painn", SMALL, 31).write(folder.path(), "model.safetensors");
    let cell = Cell::from_parameters([6.0, 7.0, 8.0], [90.0, 80.0, 70.0], [true; 3]).unwrap();
    let system = random_system(12, cell, 5);
    let mut writer = extxyz::Writer::create(&folder.path().join("start.xyz")).unwrap();
    writer.write(&extxyz::Frame::new(system.clone())).unwrap();
    writer.finish().unwrap();
    let input = "[system]\nstructure = \"start.xyz\"\n[model]\nfile = \"model.safetensors\"\n[dynamics]\n\
                 timestep = \"0.2 fs\"\nsteps = 24\ntemperature = 50\n[verdict]\nmax_excursion = 1.0\nmax_drift = 1e9\n\
                 [output.trajectory]\ninterval = 8\nforces = true\nprecision = \"f64\"\n\
                 [[output.extra]]\nfile = \"all.dcd\"\ninterval = 12\n\
                 [[output.extra]]\nfile = \"some.xyz\"\ninterval = 6\natoms = \"1-3, 12\"\nwrap = true\nvelocities = true\nforces = true\n\
                 [[output.extra]]\nfile = \"exact.extxyz\"\ninterval = 8\nvelocities = true\nforces = true\n";
    std::fs::write(folder.path().join("input.toml"), input).unwrap();
    let verlet = |arguments: &[&str]| {
        std::process::Command::new(env!("CARGO_BIN_EXE_verlet")).args(arguments).current_dir(&folder).output().unwrap()
    };
    let output = verlet(&["run", "input.toml", "--output", "out"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let out = folder.path().join("out");

    let exact: Vec<_> = extxyz::Reader::open(&out.join("exact.extxyz")).unwrap().map(Result::unwrap).collect();
    let stored = H5mdReader::open(&out.join("trajectory.h5md")).unwrap();
    assert_eq!((exact.len(), stored.frames().unwrap()), (4, 4));
    for (index, frame) in exact.iter().enumerate() {
        let same = stored.frame(index).unwrap();
        assert_eq!(frame.system.positions, same.positions);
        assert_eq!(frame.info("step").unwrap().as_real(), Some(same.step as f64));
        let forces = frame.column("forces").unwrap().as_vectors().unwrap();
        assert!((forces[3] - same.forces.unwrap()[3]).amax() < 1e-12);
        assert!(frame.info("energy").is_some() && frame.system.velocities.is_some());
    }
    let some: Vec<_> = extxyz::Reader::open(&out.join("some.xyz")).unwrap().map(Result::unwrap).collect();
    assert_eq!(some.len(), 5);
    assert!(some.iter().all(|frame| frame.system.len() == 4 && frame.info("energy").is_none()));
    assert!(some.iter().flat_map(|frame| &frame.system.positions).all(|r| system.cell.image(r) == [0; 3]));
    let mut dcd = chemfiles::Trajectory::open(out.join("all.dcd"), 'r').unwrap();
    assert_eq!(dcd.nsteps(), 3);
    let topology = extxyz::Reader::open(&out.join("all-topology.xyz")).unwrap().next().unwrap().unwrap();
    assert_eq!(topology.system.atomic_numbers, system.atomic_numbers);

    for script in ["trajectory.vmd", "all.vmd", "some.vmd", "exact.vmd"] {
        check_script(&out.join(script));
    }
    let refused = |set: &str| {
        let output = verlet(&["check", "input.toml", "--set", set]);
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    let message = refused("output.extra=[{file = \"a.xtc\", velocities = true}]");
    assert!(message.contains("output.extra.file = \"a.xtc\" cannot hold velocities: XTC has none"), "{message}");
    let message = refused("output.extra=[{file = \"a.xtc\", atoms = \"13\"}]");
    assert!(message.contains("atoms = \"13\" names atom 13, but there are 12 atoms"), "{message}");
}

/// Runs a script in tclsh with VMD's commands replaced by some that check what they are given.
fn check_script(script: &Path) {
    let stubs = "
        proc mol {command args} {
            if {$command in {new addfile} && ![file exists [lindex $args 0]]} { error \"no file [lindex $args 0]\" }
            lappend ::done $command
            return 0
        }
        proc animate {args} { if {$args ne {delete all 0}} { error $args } }
        proc pbc {command args} { lappend ::done $command }
        package provide pbctools 3.0
        source [lindex $argv 0]
        puts $::done
    ";
    let stub = script.with_extension("tcl");
    std::fs::write(&stub, stubs).unwrap();
    let Ok(output) = std::process::Command::new("tclsh").arg(&stub).arg(script).output() else {
        println!("skipped: {} needs tclsh", script.display());
        return;
    };
    let done = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(done.starts_with("new ") && done.contains("addrep") && done.trim_end().ends_with("box"), "{done}");
}

fn convert(arguments: &[&Path]) -> std::process::Output {
    std::process::Command::new(env!("CARGO_BIN_EXE_verlet")).arg("convert").args(arguments).output().unwrap()
}

fn converted(arguments: &[&Path]) {
    let output = convert(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn refused(arguments: &[&Path], status: i32) -> String {
    let output = convert(arguments);
    assert_eq!(output.status.code(), Some(status));
    String::from_utf8(output.stderr).unwrap()
}

fn sample(step: u64) -> Sample {
    let (kinetic, potential) = (1.0 + step as f64, -4210.25 - step as f64);
    Sample {
        step,
        time: step as f64 * TIMESTEP,
        kinetic,
        potential,
        conserved: kinetic + potential,
        temperature: 300.0,
        list_rebuilds: step / 7,
    }
}

/// An H5MD trajectory of five frames in every digit, with a denser log.
fn h5md(path: &Path, system: &System) -> RunInfo {
    let info = RunInfo {
        system: system.clone(),
        title: "Wasser".into(),
        author: "Jürgen".into(),
        input: "title = 1".into(),
        model: "m.safetensors".into(),
        model_hash: "abc".into(),
        seed: u64::MAX,
        backend: "CPU".into(),
    };
    let options = H5mdOptions { velocities: true, forces: true, double: true, wrap: false };
    let mut writer = H5mdWriter::create(path, &info, &options).unwrap();
    for index in 0..5 {
        let step = index as u64 * INTERVAL;
        let log: Vec<Sample> = [step.saturating_sub(10), step].map(sample).into();
        writer.write_samples(if index == 0 { &log[1..] } else { &log }).unwrap();
        let (positions, velocities) = (vectors(index, 20.0), vectors(index + 1000, 0.01));
        let forces = vectors(index + 2000, 3.0);
        writer.write_frame(&Frame { sample: sample(step), positions, velocities, forces }).unwrap();
    }
    writer.finish().unwrap();
    info
}

fn read_xyz(path: &Path) -> Vec<extxyz::Frame> {
    extxyz::Reader::open(path).unwrap().map(Result::unwrap).collect()
}

/// From H5MD to each format and back to extended XYZ: nothing is lost but what the format rounds.
#[test]
fn conversion_there_and_back_keeps_what_the_format_holds() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    for cell in [triclinic(), Cell::open()] {
        let system = system(cell.clone());
        let stem = if cell.is_periodic() { "periodic" } else { "open" };
        let (source, topology) = (at(&format!("{stem}.h5md")), at(&format!("{stem}-topology.xyz")));
        h5md(&source, &system);
        write_file(&topology, &system, &plain(), 1);
        for format in FORMATS {
            let extension = format.extensions[0];
            let there = at(&format!("{stem}-there.{extension}"));
            let back = at(&format!("{stem}-back-{extension}.xyz"));
            converted(&[&source, &there]);
            match format.elements {
                true => converted(&[&there, &back]),
                false => converted(&[&there, &back, Path::new("--topology"), &topology]),
            }
            let frames = read_xyz(&back);
            assert_eq!(frames.len(), 5, "{extension}");
            for (index, frame) in frames.iter().enumerate() {
                let error = |found: &[Vector3<f64>], expected: Vec<Vector3<f64>>| {
                    found.iter().zip(&expected).map(|(a, b)| (a - b).amax()).fold(0.0, f64::max)
                };
                assert_eq!(frame.system.atomic_numbers, system.atomic_numbers, "{extension}");
                assert!(error(&frame.system.positions, vectors(index, 20.0)) <= precision(extension), "{extension}");
                assert_eq!(frame.system.velocities.is_some(), format.velocities, "{extension}");
                if let Some(velocities) = &frame.system.velocities {
                    // Å/fs; GRO has four decimals of nm/ps, which are 1e-6 Å/fs.
                    let tolerance = if extension == "gro" { 0.501e-6 } else { 5e-8 };
                    assert!(error(velocities, vectors(index + 1000, 0.01)) <= tolerance, "{extension}");
                }
                let difference = (frame.system.cell.vectors() - cell.vectors()).amax();
                assert!(difference < if extension == "pdb" { 2e-3 } else { 1e-4 }, "{extension}: {difference}");
                assert_eq!(frame.system.cell.periodic(), cell.periodic(), "{extension}");
                if ["dcd", "xtc", "trr", "gro", "lammpstrj", "xyz"].contains(&extension) {
                    let time = frame.info("time").unwrap().as_real().unwrap();
                    assert!((time - index as f64 * 10.0).abs() < 1e-4, "{extension}: {time}");
                }
                if extension == "xyz" {
                    assert!(
                        error(&frame.column("forces").unwrap().as_vectors().unwrap(), vectors(index + 2000, 3.0))
                            < 1e-14
                    );
                    assert_eq!(
                        frame.info("energy").unwrap().as_real(),
                        Some(sample(index as u64 * INTERVAL).potential)
                    );
                }
            }
        }
    }
}

#[test]
fn a_part_of_a_trajectory_becomes_h5md_with_its_log_and_provenance() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let system = system(triclinic());
    let info = h5md(&at("a.h5md"), &system);
    let option = |text: &'static str| Path::new(text);
    converted(&[
        &at("a.h5md"),
        &at("b.h5md"),
        option("--from=2"),
        option("--to=4"),
        option("--every=2"),
        option("--atoms=O,2"),
        option("--wrap"),
        option("--precision=f64"),
    ]);
    let reader = H5mdReader::open(&at("b.h5md")).unwrap();
    assert_eq!((reader.frames().unwrap(), reader.atomic_numbers().unwrap()), (2, vec![8, 1, 8, 8]));
    let frame = reader.frame(1).unwrap();
    assert_eq!((frame.step, frame.cell.clone()), (60, system.cell.clone()));
    for (position, atom) in frame.positions.iter().zip([0, 1, 4, 8]) {
        let expected = vectors(3, 20.0)[atom];
        let expected = expected - system.cell.translation(system.cell.image(&expected));
        assert!((position - expected).amax() < 1e-12);
    }
    assert!((frame.forces.unwrap()[2] - vectors(2003, 3.0)[4]).amax() < 1e-12);
    let steps: Vec<u64> = reader.samples().unwrap().iter().map(|sample| sample.step).collect();
    assert_eq!(steps, [20, 30, 40, 50, 60]);
    let about = reader.about(system.clone()).unwrap();
    assert_eq!((about.title, about.author, about.seed), (info.title, info.author, info.seed));

    // Extended XYZ knows enough for H5MD, positions and elements alone do not.
    converted(&[&at("a.h5md"), &at("a.xyz")]);
    converted(&[&at("a.xyz"), &at("c.h5md")]);
    let reader = H5mdReader::open(&at("c.h5md")).unwrap();
    assert!((reader.frame(4).unwrap().time - 40.0).abs() < 1e-12 && reader.samples().unwrap().is_empty());
    converted(&[&at("a.h5md"), &at("a.pdb")]);
    let message = refused(&[&at("a.pdb"), &at("d.h5md")], 2);
    assert!(message.contains("d.h5md needs the time of every frame, and "), "{message}");
}

/// A PDB file does not say when its frames are: nothing that is made of it may.
#[test]
fn an_unknown_time_stays_unknown() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (system, source, topology) = (system(triclinic()), at("a.pdb"), at("topology.xyz"));
    write_file(&source, &system, &plain(), 3);
    write_file(&topology, &system, &plain(), 1);
    for format in FORMATS {
        let extension = format.extensions[0];
        let (there, back) = (at(&format!("b.{extension}")), at(&format!("back-{extension}.xyz")));
        let output = convert(&[&source, &there]);
        let said = String::from_utf8(output.stderr).unwrap();
        let needs_times = ["xtc", "trr"].contains(&extension);
        assert_eq!(said.contains("does not say when its frames are"), needs_times, "{said}");
        match format.elements {
            true => converted(&[&there, &back]),
            false => converted(&[&there, &back, Path::new("--topology"), &topology]),
        }
        let frames = read_xyz(&back);
        assert_eq!(frames.len(), 3, "{extension}");
        if !needs_times {
            assert!(frames.iter().all(|frame| frame.info("time").is_none()), "{extension}");
            let message = refused(&[&back, &at("c.h5md")], 2);
            assert!(message.contains("c.h5md needs the time of every frame, and "), "{message}");
        }
    }
}

#[test]
fn what_cannot_be_converted_is_refused_in_a_sentence() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    h5md(&at("a.h5md"), &system(triclinic()));
    converted(&[&at("a.h5md"), &at("a.dcd")]);
    std::fs::write(at("small.xyz"), "1\n\nO 0 0 0\n").unwrap();
    for (arguments, status, words) in [
        (vec![at("a.h5md"), at("a.dcd")], 1, "a.dcd exists already and is never overwritten"),
        (
            vec![at("a.dcd"), at("b.xyz")],
            2,
            "a.dcd has the format DCD, which holds no elements; `verlet convert` takes them",
        ),
        (
            vec![at("a.dcd"), at("b.xyz"), "--topology".into(), at("small.xyz")],
            2,
            "it has 12 atoms, but its topology has 1",
        ),
        (vec![at("a.h5md"), at("b.xyz"), "--topology".into(), at("small.xyz")], 2, "knows its elements itself"),
        (vec![at("small.xyz"), at("b.xyz"), "--topology".into(), at("small.xyz")], 2, "knows its elements itself"),
        (vec![at("a.h5md"), at("b.xyz"), "--from=6".into()], 2, "has no frame 6 (frames count from 1)"),
        (vec![at("a.h5md"), at("b.tng")], 2, "has a format that cannot be written; choose one of .h5md, .dcd"),
        (vec![at("a.h5md"), at("b.h5md"), "--atoms=N".into()], 2, "\"N\" names N, but the system is"),
        (vec![at("none.dcd"), at("b.xyz")], 2, "none.dcd does not exist"),
    ] {
        let arguments: Vec<&Path> = arguments.iter().map(|path: &std::path::PathBuf| path.as_path()).collect();
        let message = refused(&arguments, status);
        assert!(message.contains(words) && message.lines().count() == 1, "{message}");
    }
    assert!(!at("b.xyz").exists() && !at("b.h5md").exists());
    // What fails on the way leaves nothing.
    std::fs::write(at("changing.xyz"), "1\n\nO 0 0 0\n1\n\nH 0 0 0\n").unwrap();
    let message = refused(&[&at("changing.xyz"), &at("b.pdb")], 2);
    assert!(message.contains("changing.xyz, frame 2: has other atoms than the first frame"), "{message}");
    assert!(!at("b.pdb").exists());
}

const RESUMED: &str = "[system]\nstructure = \"start.xyz\"\n[model]\nfile = \"model.safetensors\"\n[dynamics]\n\
                       timestep = \"0.2 fs\"\nsteps = 24\ntemperature = 50\n[verdict]\nmax_excursion = 1e9\n\
                       max_drift = 1e9\n[output.checkpoint]\ninterval = 5\n[output.trajectory]\ninterval = 8\n\
                       [[output.extra]]\nfile = \"a.dcd\"\ninterval = 3\n[[output.extra]]\nfile = \"b.xyz\"\ninterval = 2\n\
                       [[output.extra]]\nfile = \"c.pdb\"\ninterval = 4\natoms = \"1-4\"\nwrap = true\n\
                       [[output.extra]]\nfile = \"d.xtc\"\ninterval = 5\n[[output.extra]]\nfile = \"e.trr\"\ninterval = 3\n\
                       velocities = true\n";

/// A run that was extended, and one that was killed, have the frames of a run in one go in all of their outputs.
#[test]
fn a_resumed_run_goes_on_in_every_output() {
    let folder = TempDir::new().unwrap();
    ModelFile::random("painn", SMALL, 31).write(folder.path(), "model.safetensors");
    let cell = Cell::from_parameters([6.0, 7.0, 8.0], [90.0, 80.0, 70.0], [true; 3]).unwrap();
    let mut writer = extxyz::Writer::create(&folder.path().join("start.xyz")).unwrap();
    writer.write(&extxyz::Frame::new(random_system(12, cell, 5))).unwrap();
    writer.finish().unwrap();
    std::fs::write(folder.path().join("input.toml"), RESUMED).unwrap();
    let command = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_verlet"));
        command.args(arguments).current_dir(&folder);
        command
    };
    let verlet = |arguments: &[&str]| {
        let output = command(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let files = ["a.dcd", "b.xyz", "c.pdb", "d.xtc", "e.trr"];
    let same = |one: &str, other: &str| {
        for file in files {
            let read = |run: &str| std::fs::read(folder.path().join(run).join(file)).unwrap();
            assert!(read(one) == read(other), "{file} of {one} and {other}");
        }
    };
    verlet(&["run", "input.toml", "--output", "whole"]);
    verlet(&["run", "input.toml", "--output", "extended", "--steps", "11"]);
    verlet(&["resume", "extended", "--steps", "24"]);
    same("whole", "extended");

    let mut child = command(&["run", "input.toml", "--output", "killed", "--steps", "100000000"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let steps = || -> Vec<u64> {
        let file = folder.path().join("killed/b.xyz");
        let frames = extxyz::Reader::open(&file).into_iter().flatten().map_while(Result::ok);
        frames.filter_map(|frame| frame.info("step")?.as_real()).map(|step| step as u64).collect()
    };
    while steps().last().is_none_or(|&step| step < 40) {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let end = (steps().last().unwrap() + 40).to_string();
    verlet(&["resume", "killed", "--steps", &end]);
    verlet(&["run", "input.toml", "--output", "straight", "--steps", &end]);
    same("killed", "straight");
}
