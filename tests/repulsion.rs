//! The repulsion of nuclei below the trained distances, which a model file can ask for, on every backend.

mod common;

use common::backends::{Kind, advance, bath, evaluate, kinds, potentials, repulsive};
use common::models::{ModelFile, ONSET, OUTER, SMALL, random_system};
use nalgebra::{Matrix3, Vector3};
use verlet::backend::cpu::{Filters, NetworkPotential};
use verlet::backend::cuda::{CudaBackend, Path};
use verlet::backend::{Backend, Evaluation, State};
use verlet::integrate::Integrator;
use verlet::model::Model;
use verlet::system::{Cell, System};

fn outer(a: u8, b: u8) -> f64 {
    let name = |z| [(1, "H"), (6, "C"), (8, "O")].into_iter().find(|(number, _)| *number == z).unwrap().1;
    let [forth, back] = [(a, b), (b, a)].map(|(a, b)| format!("{}-{}", name(a), name(b)));
    OUTER.into_iter().find(|(pair, _)| *pair == forth || *pair == back).unwrap().1
}

/// The repulsion, with e²/4πε₀ as α ħ c and the switch as the regularised incomplete beta function I_t(3, 3), which is
/// what the quintic is: Σ_{k=3}^5 C(5, k) t^k (1 − t)^(5 − k).
fn repulsion(a: u8, b: u8, d: f64) -> f64 {
    let (z, outer) = ([a, b].map(f64::from), outer(a, b));
    let x = d * (z[0].powf(0.23) + z[1].powf(0.23)) / 0.46850;
    let phi = 0.18175 * (-3.19980 * x).exp()
        + 0.50986 * (-0.94229 * x).exp()
        + 0.28022 * (-0.40290 * x).exp()
        + 0.02817 * (-0.20162 * x).exp();
    let t = ((outer - d) / (outer - ONSET * outer)).clamp(0.0, 1.0);
    let switch: f64 =
        [(10.0, 3), (5.0, 4), (1.0, 5)].into_iter().map(|(c, k)| c * t.powi(k) * (1.0 - t).powi(5 - k)).sum();
    1_973.269_804_59 / 137.035_999_084 * z[0] * z[1] / d * phi * switch
}

/// The repulsion of a whole system by brute force over all images: its energy by atoms, and its sum.
fn repulsion_by_atoms(system: &System) -> Vec<f64> {
    let reach = system.cell.periodic().map(|periodic| if periodic { 2i32 } else { 0 });
    let range = |k: usize| -reach[k]..=reach[k];
    let mut energies = vec![0.0; system.len()];
    for i in 0..system.len() {
        for j in 0..system.len() {
            for shift in range(0).flat_map(|a| range(1).flat_map(move |b| range(2).map(move |c| [a, b, c]))) {
                let d = (system.positions[j] - system.positions[i] + system.cell.translation(shift)).norm();
                if d > 0.0 {
                    energies[i] += 0.5 * repulsion(system.atomic_numbers[i], system.atomic_numbers[j], d);
                }
            }
        }
    }
    energies
}

/// The model with the repulsion, and the same network without.
fn models() -> [Model; 2] {
    let file = ModelFile::random("painn-repulsive", SMALL, 11);
    let mut plain = file.clone();
    for key in ["domain", "repulsion"] {
        plain.config.as_object_mut().unwrap().remove(key);
    }
    [file, plain].map(|file| file.load().unwrap())
}

fn systems() -> Vec<System> {
    let cell = |lengths, periodic| Cell::from_parameters(lengths, [70.0, 85.0, 100.0], periodic).unwrap();
    vec![
        random_system(9, Cell::open(), 1),
        random_system(4, cell([3.1, 3.6, 4.2], [true; 3]), 4),
        random_system(11, cell([5.0, 6.0, 7.0], [true, false, true]), 5),
        random_system(300, cell([16.0, 17.0, 18.0], [true; 3]), 6),
    ]
}

/// The same network with and without it differs by nothing but the repulsion, in every precision: half of a pair's energy
/// belongs to each of its atoms.
#[test]
fn the_repulsion_comes_on_top_of_the_network() {
    let [repulsive, plain] = models();
    for (n, system) in systems().iter().enumerate() {
        let expected = repulsion_by_atoms(system);
        let total: f64 = expected.iter().sum();
        assert!(total > 1.0, "the test must see a repulsion: {total}");
        let pairs = potentials(&repulsive, system).into_iter().zip(potentials(&plain, system));
        for ((name, mut with, digits), (_, mut without, _)) in pairs {
            let (with, without) = (evaluate(&mut *with, system), evaluate(&mut *without, system));
            let scale = 1.0 + without.atom_energies.iter().fold(total, |sum, e| sum + e.abs());
            let difference = with.energy - without.energy;
            assert!((difference - total).abs() < digits * scale, "{name}, system {n}: {difference} {total}");
            for ((a, b), expected) in with.atom_energies.iter().zip(&without.atom_energies).zip(&expected) {
                assert!((a - b - expected).abs() < digits * scale, "{name}, system {n}: {} {expected}", a - b);
            }
        }
    }
}

/// Forces and strain derivative of all backends are those of float64, whose finite differences tests/forces.rs takes.
#[test]
fn forces_and_strain_of_the_repulsion_agree() {
    let [repulsive, plain] = models();
    for (n, system) in systems().iter().enumerate() {
        let parts: Vec<_> = potentials(&repulsive, system)
            .into_iter()
            .zip(potentials(&plain, system))
            .map(|((name, mut with, _), (_, mut without, _))| {
                let (with, without) = (evaluate(&mut *with, system), evaluate(&mut *without, system));
                let forces: Vec<Vector3<f64>> = with.forces.iter().zip(&without.forces).map(|(a, b)| a - b).collect();
                (name, forces, with.strain_derivative - without.strain_derivative)
            })
            .collect();
        let (_, exact, strain) = &parts[0];
        let scale = exact.iter().map(Vector3::amax).fold(0.0, f64::max);
        assert!(scale > 1.0, "the test must see a repulsion: {scale}");
        for (name, forces, other) in &parts[1..] {
            // The pairs are float64 everywhere: only what is subtracted here rounds.
            let largest = forces.iter().zip(exact).map(|(a, b)| (a - b).amax()).fold(0.0, f64::max);
            assert!(largest < 1e-10 * scale, "{name}, system {n}: {largest:e} of {scale}");
            let difference: Matrix3<f64> = other - strain;
            assert!(difference.amax() < 1e-10 * scale * system.len() as f64, "{name}, system {n}: {difference}");
        }
    }
}

/// Forces of two atoms at distances below, between and above both ends of the switch, against finite differences.
#[test]
fn two_atoms_at_every_distance() {
    let [repulsive, plain] = models();
    let end = outer(6, 8);
    for part in [0.3, 0.59, ONSET, 0.61, 0.8, 0.99, 1.0, 1.01] {
        let at = |model: &Model, d: f64| {
            let positions = vec![Vector3::zeros(), Vector3::new(0.6 * d, 0.0, 0.8 * d)];
            let system = System::new(vec![6, 8], positions, Cell::open()).unwrap();
            let potential = NetworkPotential::<f64>::new(model, &[6, 8], 0.3, Filters::Direct);
            evaluate(&mut potential.unwrap(), &system)
        };
        let (d, h) = (part * end, 1e-5);
        let along = |out: &Evaluation| out.forces[1].dot(&Vector3::new(0.6, 0.0, 0.8));
        let numerical = (at(&repulsive, d - h).energy - at(&repulsive, d + h).energy) / (2.0 * h);
        let force = along(&at(&repulsive, d));
        assert!((force - numerical).abs() < 1e-6 * (1.0 + force.abs()), "{part}: {force} {numerical}");
        let (with, without) = (at(&repulsive, d), at(&plain, d));
        if part < 1.0 {
            assert!(with.energy > without.energy && along(&with) > along(&without), "{part}");
        } else {
            assert_eq!((with.energy, with.forces), (without.energy, without.forces), "{part}");
        }
    }
}

/// What the sums of energies keep, and what every way to launch kernels and every restart repeats to the last bit.
#[test]
fn a_run_with_repulsion_conserves_its_energy_and_repeats() {
    let mut ends: Vec<(String, State)> = Vec::new();
    for kind in kinds() {
        let setup = repulsive(None);
        let mut backend = setup.start(&kind);
        let samples = advance(&mut *backend, 60);
        let first = samples[0].conserved;
        let worst = samples.iter().map(|sample| (sample.conserved - first).abs()).fold(0.0, f64::max);
        let swing = samples.iter().map(|sample| (sample.potential - samples[0].potential).abs()).fold(0.0, f64::max);
        assert!(swing > 1.0 && worst < 2e-2 * swing, "{kind}: {worst} of {swing}");
        let state = backend.state().unwrap();
        assert!(state.list_rebuilds > 1, "{kind}: the test must see the list made");
        if let Some((name, exact)) = ends.first() {
            for (a, b) in state.positions.iter().zip(&exact.positions) {
                assert!((a - b).norm() < 1e-4, "{kind} and {name}: {:e}", (a - b).norm());
            }
        }
        ends.push((kind.to_string(), state));

        let setup = repulsive(Some(bath()));
        let mut whole = setup.start(&kind);
        let reference = advance(&mut *whole, 40);
        let (mut first, mut second) = (setup.start(&kind), setup.start(&kind));
        advance(&mut *first, 17);
        second.restore(&first.state().unwrap()).unwrap();
        assert_eq!(advance(&mut *second, 23), reference[17..], "{kind}");
        assert_eq!(second.state().unwrap(), whole.state().unwrap(), "{kind}");
        if let Kind::Cuda(device) = &kind {
            for path in [Path::Plain, Path::Steps] {
                let integrator = Integrator::new(setup.timestep, &setup.system.masses, setup.thermostat);
                let (model, system) = (&setup.model, &setup.system);
                let mut other =
                    CudaBackend::new(device, model, system, setup.skin, &integrator, 1, 30, Some(path)).unwrap();
                assert_eq!(advance(&mut other, 40), reference, "{path:?}");
                assert_eq!(other.state().unwrap(), whole.state().unwrap(), "{path:?}");
            }
        }
    }
}
