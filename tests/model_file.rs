//! A model file is taken whole or not at all, and the message names what is wrong.

mod common;

use common::models::{ModelFile, NETWORKS, SMALL, random_system};
use verlet::backend::Evaluation;
use verlet::backend::cpu::{Filters, NetworkPotential, Potential};
use verlet::model::Model;
use verlet::system::Cell;

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
    for network in NETWORKS {
        let model = ModelFile::random(network, SMALL, 1).load().unwrap();
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
        ("radial_basis.kind", serde_json::json!("morlet"), "knows \"gaussian\", and for painn \"bessel\""),
        ("radial_basis.kind", serde_json::json!("bessel"), "the tensor representation.radial_basis.freqs is missing"),
        ("activation", serde_json::json!("relu"), "knows only \"silu\""),
        ("features", serde_json::json!(0), "it must lie between 1 and 1024"),
        ("interactions", serde_json::json!(3), "has the shape [96, 8], but the file's config asks for [144, 8]"),
        ("readout_layers", serde_json::json!([16, 8]), "they must lead from 16 to 1"),
        ("units.energy", serde_json::json!("fortnight"), "eV, meV, kcal/mol, kJ/mol, hartree and rydberg are read"),
        ("units.length", serde_json::json!("mile"), "angstrom, nm, pm and bohr are read"),
        ("elements", serde_json::json!([]), "they must be atomic numbers from 1 to 118"),
        ("shared_filters", serde_json::json!(true), "has the shape [96, 8], but the file's config asks for [48, 8]"),
        (
            "shared_interactions",
            serde_json::json!(true),
            "the tensor representation.interactions.1.interatomic_context",
        ),
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

#[test]
fn what_only_painn_has_is_refused_in_a_student() {
    for (key, value, words) in [
        ("shared_filters", serde_json::json!(true), "shared_filters = true, which only painn networks can have"),
        (
            "shared_interactions",
            serde_json::json!(true),
            "shared_interactions = true, which only painn networks can have",
        ),
        (
            "radial_basis",
            serde_json::json!({"kind": "bessel", "count": 8}),
            "radial_basis.kind = \"bessel\"; this program",
        ),
    ] {
        let mut file = ModelFile::random("student", SMALL, 1);
        file.config[key] = value;
        let message = complaint(&file);
        assert!(message.contains(words), "{key}: {message}");
    }
}

fn evaluate(file: &ModelFile) -> Evaluation {
    let model = file.load().unwrap();
    let system = random_system(9, Cell::open(), 3);
    let mut out = Evaluation::default();
    let mut potential = NetworkPotential::<f64>::new(&model, &system.atomic_numbers, 0.0, Filters::Direct).unwrap();
    potential.evaluate(&system.positions, &system.cell, &mut out).unwrap();
    out
}

/// Weights that layers share are the same weights written out for every layer.
#[test]
fn shared_weights_are_copies_that_count_once() {
    let shared = ModelFile::random("painn-shared", SMALL, 1);
    let mut copies = shared.clone();
    copies.config["shared_filters"] = serde_json::json!(false);
    copies.config["shared_interactions"] = serde_json::json!(false);
    for (name, (shape, values)) in &shared.tensors {
        if name.contains("filter_net") {
            let mut shape = shape.clone();
            shape[0] *= 2;
            copies.tensors.insert(name.clone(), (shape, [&values[..], values].concat()));
        } else if name.contains(".0.inter") || name.contains("mixing.0") {
            let second = name.replace("interactions.0", "interactions.1").replace("mixing.0", "mixing.1");
            copies.tensors.insert(second, (shape.clone(), values.clone()));
        }
    }
    let (a, b) = (evaluate(&shared), evaluate(&copies));
    assert_eq!(a.energy, b.energy);
    assert_eq!(a.forces, b.forces);
    let weights = |file: &ModelFile| file.load().unwrap().parameters();
    let stored = |file: &ModelFile| {
        let radial = |name: &str| name.contains("radial_basis");
        file.tensors.iter().filter(|(name, _)| !radial(name)).map(|(_, (_, values))| values.len()).sum::<usize>()
    };
    assert_eq!(weights(&shared), stored(&shared));
    assert_eq!(weights(&copies), stored(&copies));
    let table = shared.load().unwrap().filter_table().clone();
    assert_eq!(table.coefficients, copies.load().unwrap().filter_table().coefficients);
}

/// Energies and lengths in other units are the same physics: a model in kcal/mol and nm whose lengths were converted
/// gives what the original gives.
#[test]
fn units_of_the_file_do_not_matter() {
    const KCAL_PER_MOL: f64 = 0.043_364_103_900_593_22;
    for network in ["painn", "painn-bessel"] {
        let original = ModelFile::random(network, SMALL, 1);
        let mut other = original.clone();
        other.config["units"] = serde_json::json!({"energy": "kcal/mol", "length": "nm"});
        other.config["cutoff"] = serde_json::json!(0.5);
        other.config["energy_offset"] = serde_json::json!({"per_atom": -3.0 / KCAL_PER_MOL});
        for (name, (_, values)) in &mut other.tensors {
            let factor = match name.rsplit('.').next().unwrap() {
                "offsets" | "widths" => 0.1,
                "freqs" => 10.0,
                // Bessel functions, sin(ω d)/d, are ten times larger where lengths are in nm.
                "weight" if network == "painn-bessel" && name.contains("filter_net") => 0.1,
                _ => 1.0,
            };
            values.iter_mut().for_each(|x| *x *= factor);
        }
        let (a, b) = (evaluate(&original), evaluate(&other));
        let network = |e: &Evaluation| e.energy + 3.0 * 9.0;
        assert!((network(&a) * KCAL_PER_MOL - network(&b)).abs() < 1e-5 * network(&a).abs());
        for (f, g) in a.forces.iter().zip(&b.forces) {
            assert!((f * KCAL_PER_MOL - g).amax() < 1e-5 * (1.0 + f.amax()));
        }
    }
}

/// What a file may say of its domain, and what it may not.
#[test]
fn domain_and_repulsion_are_checked() {
    use serde_json::json;
    let mut file = painn();
    let distances = json!({"H-H": 1.0, "C-H": 0.9, "H-O": 0.8, "C-C": 1.2, "O-C": 1.1});
    file.config["domain"] = json!({"shortest_distance": distances, "energy_per_atom": [-2.0, 1], "frames": 12});
    file.config["repulsion"] = json!({"kind": "zbl", "onset": 0.5, "outer": {"O-O": 2.0}});
    let spec = file.load().unwrap().spec;
    let (domain, repulsion) = (spec.domain.unwrap(), spec.repulsion.unwrap());
    assert_eq!((domain.shortest(1, 6), domain.shortest(6, 8), domain.shortest(8, 8)), (Some(0.9), Some(1.1), None));
    assert_eq!(domain.energy_per_atom(), Some([-2.0, 1.0]));
    assert_eq!((repulsion.range(6, 1), repulsion.range(8, 8)), (Some([0.45, 0.9]), Some([1.0, 2.0])));

    let good = file.clone();
    file.config["units"] = json!({"energy": "meV", "length": "nm"});
    for key in ["cutoff", "energy_offset"] {
        file.config[key] = json!({"cutoff": 50.0, "energy_offset": {"per_atom": 0.0}})[key].clone();
    }
    let spec = file.load().unwrap().spec;
    let (domain, repulsion) = (spec.domain.unwrap(), spec.repulsion.unwrap());
    assert_eq!((domain.shortest(1, 6), domain.energy_per_atom()), (Some(9.0), Some([-0.002, 0.001])));
    assert_eq!(repulsion.range(8, 8), Some([10.0, 20.0]));

    let bad = |path: &str, value: serde_json::Value, words: &str| {
        let mut file = good.clone();
        *file.config.pointer_mut(path).unwrap() = value;
        let message = complaint(&file);
        assert!(message.contains(words), "{path}: {message}");
    };
    let distance = "/domain/shortest_distance";
    bad("/domain", json!("everything"), "no usable domain: invalid type: string");
    bad(distance, json!({"C-H": 0.9, "C-Qq": 1.0}), "the entry \"C-Qq\" in domain.shortest_distance, which is no pair");
    bad(distance, json!({"CH": 0.9}), "the entry \"CH\" in domain.shortest_distance, which is no pair of elements");
    bad(distance, json!({"C-H": 0.9, "H-C": 0.8}), "the pair H-C in domain.shortest_distance twice");
    bad(distance, json!({"C-H": -0.9}), "domain.shortest_distance.C-H = -0.9; it must be above zero");
    bad(
        distance,
        json!({"C-H": 5.1}),
        "domain.shortest_distance.C-H = 5.1; it must be above zero, and at most the cutoff",
    );
    bad(distance, json!({"C-H": "near"}), "no usable domain.shortest_distance.C-H: invalid type: string");
    bad(
        "/domain/energy_per_atom",
        json!([1.0, 1.0]),
        "domain.energy_per_atom = [1, 1]; it must be a lower and a higher",
    );
    bad("/domain/energy_per_atom", json!([1.0]), "no usable domain.energy_per_atom: invalid length 1");
    bad("/repulsion/kind", json!("born-mayer"), "repulsion.kind = \"born-mayer\"; this program knows only \"zbl\"");
    bad("/repulsion/onset", json!(1.0), "repulsion.onset = 1; it must lie between 0 and 1");
    bad("/repulsion", json!({"kind": "zbl"}), "no usable repulsion: missing field `onset`");
    bad("/repulsion", json!({"kind": "zbl", "onset": 0.5, "scale": 2}), "unknown field `scale`");
    bad("/repulsion/outer", json!({"O-O": 2.0, "C-H": 0.9}), "repulsion.outer for H-C, whose repulsion ends at its");
    bad("/repulsion/outer", json!({}), "a repulsion, but neither domain.shortest_distance nor repulsion.outer for O-O");
    bad(distance, json!({}), "a repulsion, but neither domain.shortest_distance nor repulsion.outer for H-H");
}
