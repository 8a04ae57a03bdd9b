//! Trajectories, read back by us, by h5py and by MDAnalysis.

mod common;

use hdf5::types::VarLenUnicode;
use nalgebra::Vector3;
use serde_json::{Value, json};
use std::path::Path;
use tempfile::TempDir;
use verlet::elements;
use verlet::output::h5md::{H5mdOptions, H5mdReader, H5mdWriter};
use verlet::output::{Frame, RunInfo, Sample};
use verlet::system::{Cell, System};

/// kJ/mol per eV, from the printed values of NIST: 1.602 176 634e-19 J × 6.022 140 76e23 /mol.
const KJ_PER_EV: f64 = 96.485_332_123_310_02;

const EVERYTHING: H5mdOptions = H5mdOptions { velocities: true, forces: true, double: true, wrap: false };

fn triclinic() -> Cell {
    Cell::from_parameters([9.0, 10.0, 11.0], [80.0, 95.0, 105.0], [true; 3]).unwrap()
}

fn slab() -> Cell {
    Cell::new(nalgebra::Matrix3::new(5.0, 0.0, 0.0, 1.0, 6.0, 0.0, 0.0, 0.0, 0.0), [true, true, false]).unwrap()
}

fn run(atoms: usize, cell: Cell) -> RunInfo {
    let numbers = (0..atoms).map(|atom| [8, 1, 1, 6][atom % 4]).collect();
    RunInfo {
        system: System::new(numbers, positions(atoms, 0), cell).unwrap(),
        title: "Wasser, 300 K – grün".into(),
        author: "Jürgen Müller".into(),
        input: "title = \"Wasser\"\n[output]\n".into(),
        model: "painn.safetensors".into(),
        model_hash: "0123abcd".into(),
        seed: u64::MAX,
        backend: "CPU, float32".into(),
    }
}

/// A number between -1 and 1 that looks like any other.
fn noise(frame: usize, atom: usize, axis: usize) -> f64 {
    ((1 + frame) as f64 * 12.9898 + atom as f64 * 78.233 + axis as f64 * 37.719).sin()
}

fn positions(atoms: usize, frame: usize) -> Vec<Vector3<f64>> {
    vectors(atoms, frame, 20.0)
}

fn vectors(atoms: usize, frame: usize, scale: f64) -> Vec<Vector3<f64>> {
    (0..atoms).map(|atom| Vector3::from_fn(|axis, _| scale * noise(frame, atom, axis))).collect()
}

fn sample(row: usize, interval: u64) -> Sample {
    Sample {
        step: row as u64 * interval,
        time: row as f64 * interval as f64 * 0.5,
        kinetic: 1.0 + 0.1 * noise(row, 0, 0),
        potential: -4210.0 + 0.1 * noise(row, 1, 0),
        conserved: -4209.0 + 1e-6 * row as f64,
        temperature: 300.0 + noise(row, 2, 0),
        list_rebuilds: row as u64 / 3,
    }
}

fn frame(atoms: usize, index: usize) -> Frame {
    Frame {
        sample: sample(index, 10),
        positions: positions(atoms, index),
        velocities: vectors(atoms, index + 1000, 0.01),
        forces: vectors(atoms, index + 2000, 3.0),
    }
}

/// Writes frames, each after its share of the log, and closes the file.
fn write(path: &Path, info: &RunInfo, options: &H5mdOptions, frames: usize, rows: usize) {
    let mut writer = H5mdWriter::create(path, info, options).unwrap();
    let log: Vec<Sample> = (0..rows).map(|row| sample(row, 1)).collect();
    for index in 0..frames {
        writer.write_samples(&log[rows * index / frames..rows * (index + 1) / frames]).unwrap();
        writer.write_frame(&frame(info.system.len(), index)).unwrap();
        if index % 7 == 3 {
            writer.flush().unwrap();
        }
    }
    if frames == 0 {
        writer.write_samples(&log).unwrap();
    }
    assert_eq!((writer.frames(), writer.rows()), (frames, rows));
    writer.finish().unwrap();
}

fn assert_close(found: &[Vector3<f64>], expected: &[Vector3<f64>], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).amax() <= tolerance * expected.amax().max(1.0), "{found} {expected}");
    }
}

#[test]
fn what_was_written_comes_back() {
    let folder = TempDir::new().unwrap();
    for (name, atoms, frames, rows, cell, double) in [
        ("triclinic", 5, 4, 9, triclinic(), true),
        ("single-precision", 5, 4, 9, triclinic(), false),
        ("slab", 4, 2, 2, slab(), true),
        ("open", 3, 2, 0, Cell::open(), true),
        ("one-atom", 1, 3, 3, triclinic(), false),
        ("no-frames", 3, 0, 2, triclinic(), false),
        // More than a chunk of everything.
        ("long", 3, 6000, 9000, triclinic(), false),
        // A frame is more than a chunk.
        ("large", 400_000, 2, 1, triclinic(), true),
    ] {
        let path = folder.path().join(format!("{name}.h5md"));
        let info = run(atoms, cell);
        write(&path, &info, &H5mdOptions { double, ..EVERYTHING }, frames, rows);
        let file = H5mdReader::open(&path).unwrap();
        let tolerance = if double { 1e-14 } else { 1e-7 };
        assert_eq!(file.frames().unwrap(), frames, "{name}");
        assert_eq!(file.atomic_numbers().unwrap(), info.system.atomic_numbers);
        for index in (0..frames).step_by(1 + frames / 50) {
            let (stored, expected) = (file.frame(index).unwrap(), frame(atoms, index));
            assert_eq!(stored.step, expected.sample.step);
            assert!((stored.time - expected.sample.time).abs() <= 1e-12 * expected.sample.time);
            assert_close(&stored.positions, &expected.positions, tolerance);
            assert_close(&stored.velocities.unwrap(), &expected.velocities, tolerance);
            assert_close(&stored.forces.unwrap(), &expected.forces, tolerance);
            assert_eq!(stored.cell.periodic(), info.system.cell.periodic());
            if name != "slab" {
                assert_eq!(stored.cell, info.system.cell);
            }
        }
        let samples = file.samples().unwrap();
        assert_eq!(samples.len(), rows);
        for (row, stored) in samples.iter().enumerate() {
            let expected = sample(row, 1);
            assert!((stored.time - expected.time).abs() <= 1e-12 * expected.time);
            assert_eq!(Sample { time: expected.time, ..*stored }, expected);
        }
        let error = file.frame(frames).unwrap_err().to_string();
        assert!(error.contains(&format!("{frames} frames")), "{error}");
    }
}

/// Numbers and units as another program finds them.
#[test]
fn the_file_has_the_units_that_it_names() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("units.h5md");
    write(&path, &run(3, triclinic()), &EVERYTHING, 2, 3);
    let file = hdf5::File::open(&path).unwrap();
    let check = |dataset: &str, unit: &str, row: usize, expected: f64| {
        let dataset = file.dataset(dataset).unwrap();
        let value = dataset.read_raw::<f64>().unwrap()[row];
        assert!((value / expected - 1.0).abs() < 1e-12, "{value} {expected}");
        assert_eq!(dataset.attr("unit").unwrap().read_scalar::<VarLenUnicode>().unwrap().as_str(), unit);
    };
    let last = frame(3, 1);
    let (particles, log) = ("particles/trajectory", "parameters/verlet/energy");
    // Atom 2 of frame 1, its z.
    check(&format!("{particles}/position/value"), "Angstrom", 17, last.positions[2].z);
    check(&format!("{particles}/velocity/value"), "Angstrom ps-1", 17, last.velocities[2].z * 1000.0);
    check(&format!("{particles}/force/value"), "kJ mol-1 Angstrom-1", 17, last.forces[2].z * KJ_PER_EV);
    check(&format!("{particles}/position/time"), "ps", 1, 0.005);
    // Row b of the cell, its y.
    check(&format!("{particles}/box/edges/value"), "Angstrom", 4, triclinic().vector(1).y);
    check("observables/kinetic_energy/value", "kJ mol-1", 1, last.sample.kinetic * KJ_PER_EV);
    check("observables/potential_energy/value", "kJ mol-1", 1, last.sample.potential * KJ_PER_EV);
    check("observables/total_energy/value", "kJ mol-1", 1, last.sample.total() * KJ_PER_EV);
    check("observables/temperature/value", "K", 1, last.sample.temperature);
    let row = sample(2, 1);
    check(&format!("{log}/time"), "ps", 2, 0.001);
    check(&format!("{log}/total"), "eV", 2, row.total());
    check(&format!("{log}/conserved"), "eV", 2, row.conserved);
    check(&format!("{log}/drift"), "eV", 2, (row.conserved - sample(0, 1).conserved) / 3.0);
    check(&format!("{particles}/mass"), "u", 0, elements::mass(8));

    // One step and one time dataset for all that belongs to a frame.
    let token = |dataset: String| file.loc_info_by_name(&dataset).unwrap().token;
    for name in ["step", "time"] {
        let own = token(format!("{particles}/position/{name}"));
        for group in ["velocity", "force", "box/edges"] {
            assert_eq!(token(format!("{particles}/{group}/{name}")), own);
        }
        assert_eq!(token(format!("observables/total_energy/{name}")), own);
    }
}

#[test]
fn velocities_and_forces_are_optional() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("positions.h5md");
    write(&path, &run(3, triclinic()), &H5mdOptions::default(), 2, 0);
    let stored = H5mdReader::open(&path).unwrap().frame(1).unwrap();
    assert!(stored.velocities.is_none() && stored.forces.is_none());
    assert_close(&stored.positions, &positions(3, 1), 1e-7);
}

#[test]
fn wrapping_moves_atoms_into_the_cell_where_it_repeats() {
    let folder = TempDir::new().unwrap();
    for (name, cell) in [("triclinic", triclinic()), ("slab", slab()), ("open", Cell::open())] {
        let path = folder.path().join(format!("{name}.h5md"));
        write(&path, &run(40, cell.clone()), &H5mdOptions { wrap: true, ..EVERYTHING }, 1, 0);
        let stored = H5mdReader::open(&path).unwrap().frame(0).unwrap();
        let mut moved = 0;
        for (wrapped, unwrapped) in stored.positions.iter().zip(positions(40, 0)) {
            let shift = cell.fractional(&unwrapped) - cell.fractional(wrapped);
            for k in 0..3 {
                if cell.periodic()[k] {
                    assert!((0.0..1.0).contains(&cell.fractional(wrapped)[k]));
                    assert!((shift[k] - shift[k].round()).abs() < 1e-12);
                    moved += (shift[k].round() != 0.0) as usize;
                } else {
                    assert!(shift[k].abs() < 1e-12);
                }
            }
        }
        assert_eq!(moved > 0, cell.is_periodic());
    }
}

/// MDAnalysis and VMD fold distances in all directions of a cell. In a layer they must not fold across it.
#[test]
fn an_edge_that_does_not_repeat_is_longer_than_the_atoms_are_apart() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("slab.h5md");
    write(&path, &run(40, slab()), &EVERYTHING, 3, 0);
    let file = H5mdReader::open(&path).unwrap();
    for index in 0..3 {
        let stored = file.frame(index).unwrap();
        let z: Vec<f64> = stored.positions.iter().map(|r| r.z).collect();
        let thickness = z.iter().copied().fold(f64::MIN, f64::max) - z.iter().copied().fold(f64::MAX, f64::min);
        let edge = stored.cell.vector(2);
        assert_eq!(edge.xy().norm(), 0.0);
        assert!(edge.z >= 2.0 * thickness && edge.z >= thickness + 20.0, "{} {thickness}", edge.z);
        assert_eq!((stored.cell.vector(0), stored.cell.vector(1)), (slab().vector(0), slab().vector(1)));
    }
    // A vacuum that is wide enough stays as it was given.
    let tall = Cell::from_parameters([5.0, 6.0, 200.0], [90.0; 3], [true, true, false]).unwrap();
    let path = folder.path().join("tall.h5md");
    write(&path, &run(40, tall.clone()), &EVERYTHING, 1, 0);
    assert_eq!(H5mdReader::open(&path).unwrap().frame(0).unwrap().cell, tall);
}

#[test]
fn what_cannot_be_written_is_refused_in_a_sentence() {
    let folder = TempDir::new().unwrap();
    let refused = |path: &Path| match H5mdWriter::create(path, &run(3, triclinic()), &EVERYTHING) {
        Ok(_) => panic!("{} was created", path.display()),
        Err(error) => error.to_string(),
    };
    let existing = folder.path().join("existing.h5md");
    std::fs::write(&existing, "mine").unwrap();
    assert!(
        refused(&existing)
            .ends_with("existing.h5md exists already and is never overwritten; move it away or write somewhere else")
    );
    assert_eq!(std::fs::read(&existing).unwrap(), b"mine");
    assert!(refused(&folder.path().join("none/a.h5md")).contains("its folder does not exist"));
    assert!(refused(&existing.join("a.h5md")).contains("cannot be created"));

    let path = folder.path().join("counts.h5md");
    let mut writer = H5mdWriter::create(&path, &run(3, triclinic()), &EVERYTHING).unwrap();
    let mut wrong = frame(3, 0);
    wrong.forces.pop();
    let error = writer.write_frame(&wrong).unwrap_err().to_string();
    assert!(error.ends_with("counts.h5md: step 0 has 2 forces, but the run began with 3 atoms"), "{error}");
    // Nothing of it is in the file.
    writer.write_frame(&frame(3, 1)).unwrap();
    writer.finish().unwrap();
    assert_close(&H5mdReader::open(&path).unwrap().frame(0).unwrap().positions, &positions(3, 1), 1e-14);

    let mut info = run(3, triclinic());
    info.title = "a\0b".into();
    let path = folder.path().join("nul.h5md");
    assert!(H5mdWriter::create(&path, &info, &EVERYTHING).is_err());
    assert!(!path.exists());
}

#[test]
fn what_cannot_be_read_is_refused_in_a_sentence() {
    let folder = TempDir::new().unwrap();
    let refused = |path: &Path| match H5mdReader::open(path) {
        Ok(_) => panic!("{} was opened", path.display()),
        Err(error) => error.to_string(),
    };
    assert!(refused(&folder.path().join("none.h5md")).contains("none.h5md cannot be read: No such file"));
    let text = folder.path().join("text.h5md");
    std::fs::write(&text, "not HDF5").unwrap();
    assert!(refused(&text).ends_with("text.h5md is not an HDF5 file, or a damaged one"));
    let foreign = folder.path().join("foreign.h5");
    hdf5::File::create(&foreign).unwrap().close().unwrap();
    assert!(refused(&foreign).contains("is not a trajectory that verlet wrote"));

    // What a killed run leaves behind: a copy, because this process has the original open.
    let (path, killed) = (folder.path().join("live.h5md"), folder.path().join("killed.h5md"));
    let mut writer = H5mdWriter::create(&path, &run(3, triclinic()), &EVERYTHING).unwrap();
    writer.write_frame(&frame(3, 0)).unwrap();
    writer.flush().unwrap();
    std::fs::copy(&path, &killed).unwrap();
    assert!(refused(&killed).contains("make the file readable with `verlet repair"), "{}", refused(&killed));
}

#[test]
fn a_dropped_writer_leaves_a_whole_file() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("dropped.h5md");
    let mut writer = H5mdWriter::create(&path, &run(3, triclinic()), &EVERYTHING).unwrap();
    writer.write_frame(&frame(3, 0)).unwrap();
    writer.write_samples(&[sample(0, 1), sample(1, 1)]).unwrap();
    // In the thread that writes, not in the one that simulates.
    std::thread::spawn(move || drop(writer)).join().unwrap();
    let file = H5mdReader::open(&path).unwrap();
    assert_eq!((file.frames().unwrap(), file.samples().unwrap().len()), (1, 2));
}

#[test]
fn h5py_and_mdanalysis_read_it() {
    let folder = TempDir::new().unwrap();
    let plain = H5mdOptions::default();
    let orthorhombic = Cell::from_parameters([9.0, 10.0, 11.0], [90.0; 3], [true; 3]).unwrap();
    let layer = Cell::from_parameters([5.0, 6.0, 200.0], [90.0, 90.0, 100.0], [true, true, false]).unwrap();
    let mut arguments = Vec::new();
    for (name, atoms, frames, cell, options) in [
        ("triclinic", 5, 4, triclinic(), H5mdOptions { double: false, ..EVERYTHING }),
        ("orthorhombic", 5, 4, orthorhombic, EVERYTHING),
        ("wrapped", 5, 2, triclinic(), H5mdOptions { wrap: true, ..plain }),
        ("positions", 5, 2, triclinic(), plain),
        ("velocities", 5, 2, triclinic(), H5mdOptions { velocities: true, ..plain }),
        ("layer", 5, 2, layer, plain),
        ("open", 5, 2, Cell::open(), plain),
        ("one", 1, 2, Cell::open(), EVERYTHING),
        ("empty", 3, 0, triclinic(), plain),
        ("long", 3, 7000, triclinic(), EVERYTHING),
    ] {
        let path = folder.path().join(format!("{name}.h5md"));
        let info = run(atoms, cell);
        write(&path, &info, &options, frames, 2 * frames);
        let expected = folder.path().join(format!("{name}.json"));
        std::fs::write(&expected, expectation(&info, &options, frames).to_string()).unwrap();
        arguments.extend([path.into_os_string(), expected.into_os_string()]);
    }
    common::run_python("check_h5md.py", &arguments);
}

/// What check_h5md.py must find, in the file's units.
fn expectation(info: &RunInfo, options: &H5mdOptions, frames: usize) -> Value {
    let system = &info.system;
    let cell = &system.cell;
    let all: Vec<Frame> = (0..frames).map(|index| frame(system.len(), index)).collect();
    let wrapped = |r: &Vector3<f64>| if options.wrap { r - cell.translation(cell.image(r)) } else { *r };
    let list = |vectors: &[Vector3<f64>], convert: &dyn Fn(&Vector3<f64>) -> Vector3<f64>| -> Vec<[f64; 3]> {
        vectors.iter().map(|v| convert(v).into()).collect()
    };
    let collect = |quantity: &dyn Fn(&Frame) -> Vec<[f64; 3]>| all.iter().map(quantity).collect::<Vec<_>>();
    let numbers = |quantity: &dyn Fn(&Sample) -> f64| all.iter().map(|f| quantity(&f.sample)).collect::<Vec<_>>();
    let rows: Vec<Sample> = (0..2 * frames).map(|row| sample(row, 1)).collect();
    let column = |quantity: &dyn Fn(&Sample) -> f64| rows.iter().map(quantity).collect::<Vec<_>>();
    let edges = [0, 1, 2].map(|k| <[f64; 3]>::from(cell.vector(k)));
    json!({
        "positions": collect(&|f| list(&f.positions, &wrapped)),
        "velocities": options.velocities.then(|| collect(&|f| list(&f.velocities, &|v| v * 1000.0))),
        "forces": options.forces.then(|| collect(&|f| list(&f.forces, &|v| v * KJ_PER_EV))),
        "edges": cell.is_periodic().then(|| vec![edges; frames]),
        "boundary": cell.periodic().map(|periodic| if periodic { "periodic" } else { "none" }),
        "time": numbers(&|s| s.time / 1000.0),
        "step": all.iter().map(|f| f.sample.step).collect::<Vec<_>>(),
        "observables": {
            "potential_energy": numbers(&|s| s.potential * KJ_PER_EV),
            "kinetic_energy": numbers(&|s| s.kinetic * KJ_PER_EV),
            "total_energy": numbers(&|s| s.total() * KJ_PER_EV),
            "temperature": numbers(&|s| s.temperature),
        },
        "numbers": system.atomic_numbers,
        "masses": system.masses,
        "double": options.double,
        "about": {
            "input": info.input, "title": info.title, "model": info.model, "model_hash": info.model_hash,
            "seed": info.seed, "backend": info.backend, "version": env!("CARGO_PKG_VERSION"),
        },
        "log": {
            "step": column(&|s| s.step as f64),
            "time": column(&|s| s.time / 1000.0),
            "kinetic": column(&|s| s.kinetic),
            "potential": column(&|s| s.potential),
            "total": column(&|s| s.total()),
            "conserved": column(&|s| s.conserved),
            "temperature": column(&|s| s.temperature),
            "drift": column(&|s| (s.conserved - rows[0].conserved) / system.len() as f64),
            "list_rebuilds": column(&|s| s.list_rebuilds as f64),
        },
    })
}
