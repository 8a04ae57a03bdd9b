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

/// The distance that the network sees: from the end of the switch down it changes by ∫ (1 − t)² (1 + 2 t) dt, of which
/// Simpson's rule is exact, and below the switch no more.
fn seen(a: u8, b: u8, d: f64) -> f64 {
    let (outer, width) = (outer(a, b), (1.0 - ONSET) * outer(a, b));
    let u = ((outer - d) / width).clamp(0.0, 1.0);
    let slope = |t: f64| (1.0 - t) * (1.0 - t) * (1.0 + 2.0 * t);
    d.max(outer) - width * u / 6.0 * (slope(0.0) + 4.0 * slope(0.5 * u) + slope(u))
}

fn two(a: u8, b: u8, d: f64) -> System {
    System::new(vec![a, b], vec![Vector3::zeros(), Vector3::new(0.6 * d, 0.0, 0.8 * d)], Cell::open()).unwrap()
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

/// Of two atoms the energy is that of the network without repulsion at the distance that it sees, and the repulsion, half of
/// which belongs to each of them; in every precision.
#[test]
fn two_atoms_have_the_repulsion_and_what_the_network_sees() {
    let [repulsive, plain] = models();
    for (a, b) in [(1, 1), (1, 6), (1, 8), (6, 6), (6, 8), (8, 8)] {
        for part in [0.1, 0.4, 0.59, 0.65, 0.8, 0.95, 1.0, 1.2] {
            let d = part * outer(a, b);
            let (system, apart) = (two(a, b, d), two(a, b, seen(a, b, d)));
            let expected = repulsion(a, b, d);
            assert!(part >= 1.0 || expected > 0.0);
            let pairs = potentials(&repulsive, &system).into_iter().zip(potentials(&plain, &apart));
            for ((name, mut with, digits), (_, mut without, _)) in pairs {
                let (with, without) = (evaluate(&mut *with, &system), evaluate(&mut *without, &apart));
                // Directions are r / (d + ε), with the distance as it is.
                let scale = 10.0 * (1.0 + expected + without.atom_energies.iter().map(|e| e.abs()).sum::<f64>());
                for (with, without) in with.atom_energies.iter().zip(&without.atom_energies) {
                    let off = with - without - 0.5 * expected;
                    assert!(off.abs() < digits * scale, "{name}, {a} {b} at {part}: {off:e} of {scale}");
                }
            }
        }
    }
}

/// Many atoms at once, images of themselves among them: energies, forces and strain derivative of all backends are those of
/// float64, whose finite differences tests/forces.rs takes.
#[test]
fn all_backends_agree_with_float64() {
    let [repulsive, plain] = models();
    for (n, system) in systems().iter().enumerate() {
        let mut all: Vec<_> = potentials(&repulsive, system)
            .into_iter()
            .map(|(name, mut potential, digits)| (name, evaluate(&mut *potential, system), digits))
            .collect();
        let (_, exact, _) = all.remove(0);
        let (_, mut without, _) = potentials(&plain, system).remove(0);
        assert!((exact.energy - evaluate(&mut *without, system).energy).abs() > 1.0, "the test must see a repulsion");
        let scale = 1.0 + exact.forces.iter().map(Vector3::amax).fold(0.0, f64::max);
        let energies = 1.0 + exact.atom_energies.iter().map(|e| e.abs()).fold(0.0, f64::max);
        for (name, other, digits) in all {
            let close = |what: &str, off: f64, scale: f64| {
                assert!(off < 10.0 * digits * scale, "{name}, system {n}, {what}: {off:e} of {scale}");
            };
            for (a, b) in other.forces.iter().zip(&exact.forces) {
                close("force", (a - b).amax(), scale);
            }
            for (a, b) in other.atom_energies.iter().zip(&exact.atom_energies) {
                close("energy", (a - b).abs(), energies);
            }
            let strain: Matrix3<f64> = other.strain_derivative - exact.strain_derivative;
            close("strain", strain.amax(), scale * system.len() as f64);
        }
    }
}

/// Far below the trained distances the network has nothing more to say along them, and the repulsion only rises, for a network
/// that would attract there as for any other.
#[test]
fn nothing_gets_through_the_wall() {
    for seed in 0..20 {
        let model = ModelFile::random("painn-repulsive", SMALL, seed).load().unwrap();
        let energy = |d: f64| {
            let mut potential = NetworkPotential::<f64>::new(&model, &[6, 8], 0.3, Filters::Direct).unwrap();
            evaluate(&mut potential, &two(6, 8, d)).energy
        };
        let whole = ONSET * outer(6, 8);
        for n in 2..100 {
            let [near, far] = [n - 1, n].map(|n| whole * n as f64 / 100.0);
            let rise = repulsion(6, 8, near) - repulsion(6, 8, far);
            let found = energy(near) - energy(far);
            assert!((found - rise).abs() < 1e-6 * rise, "seed {seed} at {near}: {found} {rise}");
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
            let potential = NetworkPotential::<f64>::new(model, &[6, 8], 0.3, Filters::Direct);
            evaluate(&mut potential.unwrap(), &two(6, 8, d))
        };
        let (d, h) = (part * end, 1e-5);
        let along = |out: &Evaluation| out.forces[1].dot(&Vector3::new(0.6, 0.0, 0.8));
        let numerical = (at(&repulsive, d - h).energy - at(&repulsive, d + h).energy) / (2.0 * h);
        let force = along(&at(&repulsive, d));
        assert!((force - numerical).abs() < 1e-6 * (1.0 + force.abs()), "{part}: {force} {numerical}");
        if part >= 1.0 {
            let (with, without) = (at(&repulsive, d), at(&plain, d));
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
        assert!(swing > 0.5 && worst < 1e-2 * swing, "{kind}: {worst} of {swing}");
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
