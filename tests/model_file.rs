//! A model file is taken whole or not at all, and the message names what is wrong.

mod common;

use common::models::{ModelFile, SMALL};
use verlet::model::Model;

const CONTEXT: &str = "representation.interactions.1.interatomic_context_net.0.weight";

fn painn() -> ModelFile {
    ModelFile::random("painn", SMALL, 1)
}

/// The complaint about a changed file, without the path.
fn complaint(file: &ModelFile) -> String {
    let error = file.load().expect_err("this file should be refused").to_string();
    error.split_once(": ").expect("a message begins with the file").1.to_string()
}

fn config(key: &str, value: serde_json::Value) -> String {
    let mut file = painn();
    let (outer, inner) = key.split_once('.').map_or((key, None), |(a, b)| (a, Some(b)));
    match inner {
        Some(inner) => file.config[outer][inner] = value,
        None => file.config[outer] = value,
    }
    complaint(&file)
}

#[test]
fn good_files_load() {
    for architecture in ["painn", "student"] {
        let model = ModelFile::random(architecture, SMALL, 1).load().unwrap();
        assert_eq!((model.features(), model.layers.len(), model.cutoff()), (16, 2, 5.0));
        assert_eq!(model.hash.len(), 64);
    }
}

#[test]
fn tensors_must_be_complete_right_and_finite() {
    let mut file = painn();
    file.tensors.remove(CONTEXT);
    assert_eq!(complaint(&file), format!("the tensor {CONTEXT} is missing; its shape should be [16, 16]"));

    let mut file = painn();
    file.tensors.get_mut(CONTEXT).unwrap().0 = vec![8, 32];
    assert_eq!(
        complaint(&file),
        format!("the tensor {CONTEXT} has the shape [8, 32], but the file's config asks for [16, 16]")
    );

    let mut file = painn();
    file.tensors.get_mut(CONTEXT).unwrap().1[5] = f32::NAN;
    assert_eq!(complaint(&file), format!("element 5 (from 0) of the tensor {CONTEXT} is NaN, not a finite number"));

    let mut file = painn();
    file.tensors.insert("spare".into(), (vec![1], vec![0.0]));
    assert_eq!(
        complaint(&file),
        "the tensor spare has no place in the architecture that the file's config names (1 such tensor)"
    );

    let mut file = painn();
    file.config["elements"] = serde_json::json!([1, 6, 20]);
    assert_eq!(
        complaint(&file),
        "the embedding has 20 rows, too few for Ca, which the file's config lists among its elements"
    );
}

#[test]
fn the_config_must_be_one_this_program_knows() {
    for (key, value, words) in [
        ("format", serde_json::json!("verlet-model/9"), "knows only \"verlet-model/1\""),
        ("architecture", serde_json::json!("schnet"), "unknown variant `schnet`, expected `painn` or `student`"),
        ("cutoff", serde_json::json!(-1.0), "cutoff = -1; it must be positive"),
        ("cutoff_function", serde_json::json!("tanh"), "knows only \"cosine\""),
        ("radial_basis.kind", serde_json::json!("bessel"), "knows only \"gaussian\""),
        ("activation", serde_json::json!("relu"), "knows only \"silu\""),
        ("features", serde_json::json!(0), "it must lie between 1 and 1024"),
        ("interactions", serde_json::json!(3), "has the shape [96, 8], but the file's config asks for [144, 8]"),
        ("readout_layers", serde_json::json!([16, 8]), "they must lead from 16 to 1"),
        ("units.energy", serde_json::json!("fortnight"), "eV, kcal/mol, kJ/mol and hartree are read"),
        ("units.length", serde_json::json!("mile"), "angstrom, nm and bohr are read"),
        ("elements", serde_json::json!([]), "they must be atomic numbers from 1 to 118"),
        ("shared_filters", serde_json::json!(true), "shared filters or interactions"),
        ("energy_offset", serde_json::json!({"per_element": {"H": 1.0}}), "no energy_offset for C"),
    ] {
        let message = config(key, value);
        assert!(message.contains(words), "{key}: {message}");
    }
}

#[test]
fn files_that_are_no_model_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read(painn().write(folder.path(), "a.safetensors")).unwrap();
    let check = |bytes: &[u8], words: &str| {
        let path = folder.path().join("b.safetensors");
        std::fs::write(&path, bytes).unwrap();
        let message = Model::load(&path).unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    };
    check(&whole[..whole.len() / 2], "b.safetensors is cut short: its header claims ");
    check(&whole[..100], "is cut short, or its head is wrong: it claims a header of ");
    check(b"", "is cut short: it holds 0 bytes");
    check(b"PK\x03\x04 something else entirely", "is a file of PyTorch (a zip archive), not a model");
    let mut huge = whole.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    check(&huge, "it claims a header of 18446744073709551615 bytes");
    let missing = Model::load(folder.path().join("none.safetensors")).unwrap_err().to_string();
    assert!(missing.contains("cannot be read: No such file"), "{missing}");

    let plain = folder.path().join("plain.safetensors");
    let data = [0u8; 4];
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1], &data).unwrap();
    safetensors::serialize_to_file([("x", view)], None, &plain).unwrap();
    assert!(Model::load(&plain).unwrap_err().to_string().contains("has no \"config\" entry in its metadata"));
}

/// Energies and lengths in other units are the same physics: a model in kcal/mol and nm whose lengths were converted
/// gives what the original gives.
#[test]
fn units_of_the_file_do_not_matter() {
    use common::models::random_system;
    use verlet::backend::Evaluation;
    use verlet::backend::cpu::{Filters, NetworkPotential, Potential};
    use verlet::system::Cell;
    let system = random_system(9, Cell::open(), 3);
    let evaluate = |file: &ModelFile| {
        let model = file.load().unwrap();
        let mut out = Evaluation::default();
        let mut potential = NetworkPotential::<f64>::new(&model, &system.atomic_numbers, 0.0, Filters::Direct).unwrap();
        potential.evaluate(&system.positions, &system.cell, &mut out).unwrap();
        out
    };
    let original = painn();
    let mut other = painn();
    let energy = 0.043_364_103_900_593_22;
    other.config["units"] = serde_json::json!({"energy": "kcal/mol", "length": "nm"});
    other.config["cutoff"] = serde_json::json!(0.5);
    other.config["energy_offset"] = serde_json::json!({"per_atom": -3.0 / energy});
    for name in ["representation.radial_basis.offsets", "representation.radial_basis.widths"] {
        other.tensors.get_mut(name).unwrap().1.iter_mut().for_each(|x| *x /= 10.0);
    }
    let (a, b) = (evaluate(&original), evaluate(&other));
    let network = |e: &Evaluation| e.energy + 3.0 * 9.0;
    assert!((network(&a) * energy - network(&b)).abs() < 1e-5 * network(&a).abs());
    for (f, g) in a.forces.iter().zip(&b.forces) {
        assert!((f * energy - g).amax() < 1e-5 * (1.0 + f.amax()));
    }
}
