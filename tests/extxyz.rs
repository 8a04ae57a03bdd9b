//! Extended XYZ against ASE, the program that most people read and write it with.

mod common;

use nalgebra::{Matrix3, Vector3};
use serde_json::{Map, json};
use verlet::system::extxyz::{Column, ColumnData, Frame, Reader, Value, Writer};
use verlet::system::{Cell, System};

fn real(text: &serde_json::Value) -> f64 {
    text.as_str().expect("numbers travel as text").parse().unwrap()
}

fn reals(list: &serde_json::Value) -> Vec<f64> {
    list.as_array().unwrap().iter().map(real).collect()
}

fn flat(vectors: &[Vector3<f64>]) -> Vec<f64> {
    vectors.iter().flat_map(|v| v.iter().copied()).collect()
}

fn texts(values: &[f64]) -> Vec<String> {
    values.iter().map(|x| format!("{x:?}")).collect()
}

fn assert_close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() <= tolerance * b.abs().max(1.0), "{a} instead of {b}");
    }
}

#[test]
fn what_ase_writes_is_read() {
    if common::python().is_none() {
        return println!("skipped: no Python to run ASE with");
    }
    let folder = tempfile::tempdir().unwrap();
    let (file, expected) = (folder.path().join("ase.xyz"), folder.path().join("ase.json"));
    common::run_python("check_extxyz.py", &["write".into(), (&file).into(), (&expected).into()]);
    let expected: Vec<Map<_, _>> = serde_json::from_slice(&std::fs::read(expected).unwrap()).unwrap();
    let frames: Vec<Frame> = Reader::open(&file).unwrap().collect::<verlet::Result<_>>().unwrap();
    assert_eq!(frames.len(), expected.len());
    for (frame, expected) in frames.iter().zip(&expected) {
        let system = &frame.system;
        assert_eq!(json!(system.atomic_numbers), expected["numbers"]);
        assert_eq!(flat(&system.positions), reals(&expected["positions"]));
        assert_eq!(json!(system.cell.periodic()), expected["pbc"]);
        for (edge, expected) in reals(&expected["cell"]).chunks(3).enumerate() {
            // An edge that is missing is completed by a unit vector.
            if expected.iter().any(|&x| x != 0.0) {
                assert_eq!(system.cell.vector(edge).as_slice(), expected);
            }
        }
        match (&system.velocities, expected.get("velocities")) {
            // Relative to 1e-3 Å/fs; ASE's constants are those of 2014, its atomic weights those of 2016.
            (Some(found), Some(expected)) => assert_close(&flat(found), &reals(expected), 1e-6),
            (None, None) => {}
            _ => panic!("velocities: {:?}", system.velocities),
        }
        if let Some(masses) = expected.get("masses") {
            assert_eq!(system.masses, reals(masses));
        }
        if let Some(energy) = expected.get("energy") {
            assert_eq!(frame.info("energy"), Some(&Value::Real(real(energy))));
            assert_eq!(flat(&frame.column("forces").unwrap().as_vectors().unwrap()), reals(&expected["forces"]));
            assert_eq!(frame.column("energies").unwrap().data, ColumnData::Reals(reals(&expected["energies"])));
            let Some(Value::Reals(stress)) = frame.info("stress") else { panic!("{:?}", frame.info("stress")) };
            // ASE's stress is dE/dstrain ÷ volume, here from finite differences.
            assert_close(stress, &reals(&expected["stress"]), 1e-7);
        }
    }
    let water = &frames[0];
    assert_eq!(water.info("name"), Some(&"a molecule".into()));
    assert_eq!(water.info("quoted"), Some(&"said \"hello\" and 'bye'".into()));
    assert_eq!(water.info("bracket"), Some(&"[not an array".into()));
    assert_eq!(water.info("dictionary"), Some(&r#"_JSON {"basis": "def2 TZVP", "shifts": [1.5, 2]}"#.into()));
    assert_eq!(water.info("matrix"), Some(&"_JSON [[0.0, 1.0], [2.0, 3.0]]".into()));
    assert_eq!(water.info("converged"), Some(&true.into()));
    assert_eq!(water.info("charge"), Some(&Value::Integer(-1)));
    assert_eq!(water.info("level"), Some(&Value::Real(0.25)));
    assert_eq!(water.info("field"), Some(&Value::Reals(vec![0.0, -0.5, 1e-7])));
    assert_eq!(water.info("counts"), Some(&Value::Integers(vec![1, 2, 3])));
    assert_eq!(water.info("flags"), Some(&Value::Logicals(vec![true, false])));
    assert!(frames[2].system.cell.is_left_handed());
    let slab = &frames[3];
    assert_eq!(
        slab.column("site").unwrap().data,
        ColumnData::Texts(["top", "fcc"].repeat(4).into_iter().map(String::from).collect())
    );
    assert_eq!(slab.column("pair").unwrap().data, ColumnData::Integers((0..16).collect()));
    assert_eq!(slab.column("active").unwrap().data, ColumnData::Logicals([true, false].repeat(4)));
    assert_eq!(slab.column("tensor").unwrap().width, 9);
    assert_eq!(slab.column("move_mask").unwrap().width, 1);
}

/// Numbers that need all their digits.
fn awkward(n: usize) -> Vec<f64> {
    let special = [-4_210.123_456_789_012, 0.1 + 0.2, 1e-300, -0.0, 1.0, 6.02e23, f64::MIN_POSITIVE, 1.0 / 3.0];
    (0..n).map(|i| special[i % special.len()] * (1.0 + (i / special.len()) as f64)).collect()
}

#[test]
fn ase_reads_the_same_numbers() {
    if common::python().is_none() {
        return println!("skipped: no Python to run ASE with");
    }
    let rotated = Matrix3::new(3.1, 0.2, -0.4, 0.1, 4.7, 1.0 / 3.0, -0.3, 0.9, 5.5);
    let left_handed = Matrix3::new(0.0, 4.0, 0.1, 5.0, 0.0, 0.0, 0.0, 0.0, 6.0);
    let cells =
        [Cell::open(), Cell::new(rotated, [true; 3]).unwrap(), Cell::new(left_handed, [true, false, true]).unwrap()];
    let folder = tempfile::tempdir().unwrap();
    let (file, expected_file) = (folder.path().join("verlet.xyz"), folder.path().join("verlet.json"));
    let mut writer = Writer::create(&file).unwrap();
    let mut expected = Vec::new();
    for (index, cell) in cells.into_iter().enumerate() {
        let vectors: Vec<_> = awkward(12).chunks(3).map(Vector3::from_column_slice).collect();
        let mut system = System::new(vec![8, 1, 1, 17], vectors.clone(), cell).unwrap();
        let text = ["plain", "two words, \"quoted\" [and] {more}", "_JSON"][index];
        let mut values = json!({
            "numbers": system.atomic_numbers,
            "positions": texts(&flat(&vectors)),
            "pbc": system.cell.periodic(),
            "cell": texts(&if index == 0 { vec![0.0; 9] } else { flat(&[0, 1, 2].map(|k| system.cell.vector(k))) }),
            "energy": texts(&awkward(1))[0],
            "forces": texts(&flat(&vectors)),
            "energies": texts(&awkward(4)),
            "pair": [1, 2, 3, 4, 5, 6, 7, -8],
            "active": [true, false, false, true],
            "text": text,
            "steps": 12,
        });
        let stress = Matrix3::new(0.1, 1.0 / 3.0, -0.3, 1.0 / 3.0, 2e-9, 0.7, -0.3, 0.7, -1.1);
        if system.cell.is_periodic() {
            values["stress"] = json!(texts(stress.as_slice()));
            let velocities = vectors.iter().map(|v| v.map(|x| x.clamp(-1.0, 1.0) * 1e-3)).collect::<Vec<_>>();
            values["velocities"] = json!(texts(&flat(&velocities)));
            system.velocities = Some(velocities);
            system.masses[1] = 2.014_101_778;
            values["masses"] = json!(texts(&system.masses));
        }
        let periodic = system.cell.is_periodic();
        let mut frame = Frame::new(system);
        frame.set_info("energy", awkward(1)[0]);
        frame.set_info("text", text);
        frame.set_info("steps", Value::Integer(12));
        frame.set_info("converged", true);
        if periodic {
            frame.set_info("stress", stress);
        }
        frame.set_column(Column::vectors("forces", &vectors));
        frame.set_column(Column::scalars("energies", awkward(4)));
        let pair = ColumnData::Integers(vec![1, 2, 3, 4, 5, 6, 7, -8]);
        frame.set_column(Column { name: "pair".into(), width: 2, data: pair });
        let active = ColumnData::Logicals(vec![true, false, false, true]);
        frame.set_column(Column { name: "active".into(), width: 1, data: active });
        writer.write(&frame).unwrap();
        expected.push(values);
    }
    writer.finish().unwrap();
    std::fs::write(&expected_file, serde_json::to_vec(&expected).unwrap()).unwrap();
    common::run_python("check_extxyz.py", &["read".into(), file.into(), expected_file.into()]);
}
