//! Energies, forces and strain derivatives against float64 answers of the networks' own source projects.
//!
//! `tests/data` holds small networks of SchNetPack with random weights, made by `training/tests/schnetpack_networks.py`.
//! References of trained networks lie beside the repository; where they are missing the tests say that they were skipped.

mod common;

use nalgebra::{Matrix3, Vector3};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use verlet::backend::Evaluation;
use verlet::backend::cpu::{Filters, NetworkPotential, Potential, Real};
use verlet::backend::cuda::CudaPotential;
use verlet::model::Model;
use verlet::system::Cell;

#[derive(Deserialize)]
struct Reference {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    atomic_numbers: Vec<u8>,
    positions_angstrom: Vec<[f64; 3]>,
    cell_angstrom: Option<[[f64; 3]; 3]>,
    pbc: [bool; 3],
    directed_pairs: usize,
    total_energy_ev: f64,
    network_energy_ev: f64,
    atomic_network_energies_ev: Option<Vec<f64>>,
    forces_ev_per_angstrom: Vec<[f64; 3]>,
    strain_derivative_ev: Option<[[f64; 3]; 3]>,
}

impl Case {
    fn cell(&self) -> Cell {
        match self.cell_angstrom {
            None => Cell::open(),
            Some(rows) => Cell::new(Matrix3::from_fn(|i, j| rows[i][j]), self.pbc).unwrap(),
        }
    }
}

/// Every model with its cases: our own, and those beside the repository.
fn references() -> Vec<(Model, Vec<Case>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shared = root.join("../shared");
    let mut files: Vec<(PathBuf, PathBuf)> = Vec::new();
    for name in ["ethanol-water-v2", "organic-v2"] {
        let model = root.join(format!("inputs/models/{name}.safetensors"));
        files.push((model.clone(), model.with_extension("parity.json")));
    }
    for name in ["painn-bessel", "painn-bohr"] {
        let model = root.join(format!("tests/data/{name}.safetensors"));
        files.push((model.clone(), model.with_extension("parity.json")));
    }
    for name in ["painn-ethanol_1", "painn-md_ethanol", "student-427k"] {
        let model = shared.join(format!("models/{name}.safetensors"));
        if model.exists() {
            files.push((model, shared.join(format!("reference/{name}.json"))));
        } else {
            println!("skipped: {name}, because {} is not there", model.display());
        }
    }
    files
        .into_iter()
        .map(|(model, cases)| {
            let text = std::fs::read_to_string(&cases).unwrap();
            (Model::load(model).unwrap(), serde_json::from_str::<Reference>(&text).unwrap().cases)
        })
        .collect()
}

/// Deviations of one case, forces relative to 1 + max|F|.
struct Deviation {
    energy: f64,
    atom_energy: f64,
    force: f64,
    strain: f64,
}

/// In single precision forces are compared relative to the largest.
fn deviation(potential: &mut dyn Potential, model: &Model, case: &Case, single: bool) -> Deviation {
    let positions: Vec<_> = case.positions_angstrom.iter().map(|&r| Vector3::from(r)).collect();
    let mut out = Evaluation::default();
    potential.evaluate(&positions, &case.cell(), &mut out).unwrap();
    let n = positions.len() as f64;
    let largest = case.forces_ev_per_angstrom.iter().flatten().fold(0.0f64, |a, b| a.max(b.abs()));
    let force = out
        .forces
        .iter()
        .zip(&case.forces_ev_per_angstrom)
        .map(|(ours, theirs)| (ours - Vector3::from(*theirs)).amax())
        .fold(0.0, f64::max);
    let offset = (case.total_energy_ev - case.network_energy_ev) / n;
    let atom_energy = case.atomic_network_energies_ev.as_ref().map_or(0.0, |energies| {
        // Only a model with one offset an atom lets the network's part be compared atom by atom.
        if model.offsets.windows(2).any(|w| w[0] != w[1]) {
            return (out.atom_energies.iter().sum::<f64>() - case.total_energy_ev).abs() / n;
        }
        out.atom_energies.iter().zip(energies).map(|(a, b)| (a - offset - b).abs()).fold(0.0, f64::max)
    });
    let strain = case
        .strain_derivative_ev
        .map_or(0.0, |rows| (out.strain_derivative - Matrix3::from_fn(|i, j| rows[i][j])).amax() / n);
    Deviation {
        energy: (out.energy - case.total_energy_ev).abs() / n,
        atom_energy,
        force: force / (1.0 + if single { largest } else { 0.0 }),
        strain: strain / (1.0 + if single { largest } else { 0.0 }),
    }
}

/// Compares every case of every model; `evaluate` gives a case's deviation.
fn compare(what: &str, bounds: (f64, f64), evaluate: impl Fn(&Model, &Case) -> Deviation) {
    let (energy_bound, force_bound) = bounds;
    for (model, cases) in references() {
        let mut all: Vec<Deviation> = Vec::new();
        for case in &cases {
            let d = evaluate(&model, case);
            let what = format!("{} {what}: {}", model.name, case.name);
            assert!(d.energy <= energy_bound, "{what}: energy off by {:.2e} eV per atom", d.energy);
            assert!(d.atom_energy <= 10.0 * energy_bound, "{what}: an atom's energy off by {:.2e} eV", d.atom_energy);
            assert!(d.force <= force_bound, "{what}: a force off by {:.2e}", d.force);
            assert!(d.strain <= force_bound, "{what}: strain derivative off by {:.2e} an atom", d.strain);
            all.push(d);
        }
        assert!(!all.is_empty());
        let summary = |pick: fn(&Deviation) -> f64| {
            let mut values: Vec<f64> = all.iter().map(pick).collect();
            values.sort_by(f64::total_cmp);
            format!("{:.1e} (median {:.1e})", values[values.len() - 1], values[values.len() / 2])
        };
        println!(
            "{:28} {what}: {} cases, largest |ΔE|/N {}, max|ΔF| {}, strain/N {}",
            model.name,
            all.len(),
            summary(|d| d.energy),
            summary(|d| d.force),
            summary(|d| d.strain),
        );
    }
}

fn compare_cpu<T: Real>(filters: Filters, energy_bound: f64, force_bound: f64) {
    compare(&format!("{} {filters:?}", T::NAME), (energy_bound, force_bound), |model, case| {
        let mut potential = NetworkPotential::<T>::new(model, &case.atomic_numbers, 0.5, filters).unwrap();
        let deviation = deviation(&mut potential, model, case, T::NAME == "f32");
        assert_eq!(potential.pairs(), case.directed_pairs, "{}: pairs", case.name);
        deviation
    });
}

#[test]
fn float64_with_direct_filters_agrees_to_rounding() {
    compare_cpu::<f64>(Filters::Direct, 1e-9, 1e-8);
}

#[test]
fn float32_with_tabulated_filters_stays_within_single_precision() {
    compare_cpu::<f32>(Filters::Table, 2e-6, 2e-5);
}

#[test]
fn float32_with_direct_filters_stays_within_single_precision() {
    compare_cpu::<f32>(Filters::Direct, 2e-6, 2e-5);
}

/// The table's own error, apart from float32.
#[test]
fn float64_with_tabulated_filters_is_close_to_direct() {
    compare_cpu::<f64>(Filters::Table, 5e-7, 5e-6);
}

#[test]
fn the_gpu_stays_within_single_precision() {
    let Some(device) = common::cuda::device() else { return };
    compare(&format!("on {}", device.name), (2e-6, 2e-5), |model, case| {
        let mut potential = CudaPotential::new(&device, model, &case.atomic_numbers, 0.5).unwrap();
        deviation(&mut potential, model, case, true)
    });
}
