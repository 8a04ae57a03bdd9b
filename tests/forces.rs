//! Properties that energy and forces must have whatever the weights: derivatives, symmetries, reproducibility.

mod common;

use common::models::{ModelFile, NETWORKS, SMALL, Sizes, random_system};
use nalgebra::{Matrix3, Rotation3, Vector3};
use verlet::backend::Evaluation;
use verlet::backend::cpu::{Filters, NetworkPotential, Potential, Real};
use verlet::model::Model;
use verlet::system::{Cell, System};

fn evaluate_as<T: Real>(model: &Model, system: &System, filters: Filters) -> Evaluation {
    let mut potential = NetworkPotential::<T>::new(model, &system.atomic_numbers, 0.3, filters).unwrap();
    let mut out = Evaluation::default();
    potential.evaluate(&system.positions, &system.cell, &mut out).unwrap();
    out
}

fn evaluate(model: &Model, system: &System) -> Evaluation {
    evaluate_as::<f64>(model, system, Filters::Direct)
}

fn cell(lengths: [f64; 3], angles: [f64; 3], periodic: [bool; 3]) -> Cell {
    Cell::from_parameters(lengths, angles, periodic).unwrap()
}

/// A molecule, a slab, a triclinic box larger than the cutoff, and a cell much smaller than it.
fn systems() -> Vec<System> {
    vec![
        random_system(9, Cell::open(), 1),
        random_system(8, cell([6.0, 7.0, 9.0], [90.0; 3], [true, true, false]), 2),
        random_system(20, cell([9.0, 10.0, 11.0], [80.0, 105.0, 65.0], [true; 3]), 3),
        random_system(4, cell([3.1, 3.6, 4.2], [70.0, 85.0, 100.0], [true; 3]), 4),
    ]
}

/// The networks whose energy is smooth at the cutoff and does not depend on the orientation.
fn painns() -> impl Iterator<Item = Model> {
    NETWORKS.into_iter().filter(|network| network.starts_with("painn")).map(model)
}

fn model(network: &str) -> Model {
    ModelFile::random(network, SMALL, 11).load().unwrap()
}

fn largest(a: &[Vector3<f64>], b: &[Vector3<f64>]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).amax()).fold(0.0, f64::max)
}

#[test]
fn forces_are_minus_the_gradient() {
    for network in NETWORKS {
        let model = model(network);
        for system in systems() {
            let forces = evaluate(&model, &system).forces;
            for atom in 0..system.len() {
                for c in 0..3 {
                    let h = 1e-4;
                    let energy = |sign: f64| {
                        let mut moved = system.clone();
                        moved.positions[atom][c] += sign * h;
                        evaluate(&model, &moved).energy
                    };
                    let numeric = -(energy(1.0) - energy(-1.0)) / (2.0 * h);
                    let scale = 1.0 + numeric.abs();
                    assert!(
                        (numeric - forces[atom][c]).abs() < 1e-6 * scale,
                        "{network} {} atom {atom}: {numeric} {}",
                        system.formula(),
                        forces[atom][c]
                    );
                }
            }
        }
    }
}

/// Every one of the nine elements: also those that rotate, for which a student network is not invariant.
#[test]
fn the_strain_derivative_is_the_derivative_with_strain() {
    for network in NETWORKS {
        let model = model(network);
        for system in systems() {
            let analytic = evaluate(&model, &system).strain_derivative;
            for a in 0..3 {
                for b in 0..3 {
                    let h = 1e-5;
                    let energy = |sign: f64| {
                        let mut strain = Matrix3::zeros();
                        strain[(a, b)] = sign * h;
                        let mut strained = system.clone();
                        if system.cell.is_periodic() {
                            strained.cell = system.cell.strained(&strain).unwrap();
                        }
                        for r in &mut strained.positions {
                            *r = (Matrix3::identity() + strain).tr_mul(r);
                        }
                        evaluate(&model, &strained).energy
                    };
                    let numeric = (energy(1.0) - energy(-1.0)) / (2.0 * h);
                    let scale = 1.0 + numeric.abs();
                    assert!(
                        (numeric - analytic[(a, b)]).abs() < 1e-6 * scale,
                        "{network} {} ({a}, {b}): {numeric} {}",
                        system.formula(),
                        analytic[(a, b)]
                    );
                }
            }
        }
    }
}

#[test]
fn translation_changes_nothing() {
    for network in NETWORKS {
        let model = model(network);
        for system in systems() {
            let before = evaluate(&model, &system);
            let mut far = system.clone();
            for r in &mut far.positions {
                *r += Vector3::new(1000.0, -1000.0, 500.0);
            }
            // Coordinates of 1000 Å have lost three digits.
            let after = evaluate(&model, &far);
            assert!((before.energy - after.energy).abs() < 1e-9 * system.len() as f64);
            assert!(largest(&before.forces, &after.forces) < 1e-9);
            if system.cell.is_periodic() {
                let mut shifted = system.clone();
                for (n, r) in shifted.positions.iter_mut().enumerate() {
                    let shift = std::array::from_fn(|k| {
                        if system.cell.periodic()[k] { (n as i32 * 7 + k as i32 * 3) % 5 - 2 } else { 0 }
                    });
                    *r += system.cell.translation(shift);
                }
                let after = evaluate(&model, &shifted);
                assert!((before.energy - after.energy).abs() < 1e-10 * system.len() as f64);
                assert!(largest(&before.forces, &after.forces) < 1e-10);
                assert!((before.strain_derivative - after.strain_derivative).amax() < 1e-9);
            }
        }
    }
}

#[test]
fn the_order_of_atoms_does_not_matter() {
    for network in NETWORKS {
        let model = model(network);
        for system in systems() {
            let order: Vec<usize> = (0..system.len()).map(|n| (n * 7 + 3) % system.len()).collect();
            let mut distinct = order.clone();
            distinct.sort_unstable();
            assert_eq!(distinct, (0..system.len()).collect::<Vec<_>>(), "7 divides the number of atoms");
            let permuted = System::new(
                order.iter().map(|&n| system.atomic_numbers[n]).collect(),
                order.iter().map(|&n| system.positions[n]).collect(),
                system.cell.clone(),
            )
            .unwrap();
            let (before, after) = (evaluate(&model, &system), evaluate(&model, &permuted));
            assert!((before.energy - after.energy).abs() < 1e-11 * system.len() as f64);
            let forces: Vec<_> = order.iter().map(|&n| before.forces[n]).collect();
            assert!(largest(&forces, &after.forces) < 1e-11);
        }
    }
}

#[test]
fn a_supercell_is_so_many_cells() {
    for network in NETWORKS {
        let model = model(network);
        for system in systems().into_iter().filter(|system| system.cell.is_periodic()) {
            let copies = system.cell.periodic().map(|periodic| if periodic { 2 } else { 1 });
            let count = copies.iter().product::<usize>();
            let one = evaluate(&model, &system);
            let many = evaluate(&model, &system.replicated(copies).unwrap());
            assert!((one.energy * count as f64 - many.energy).abs() < 1e-10 * (count * system.len()) as f64);
            for copy in many.forces.chunks(system.len()) {
                assert!(largest(&one.forces, copy) < 1e-10);
            }
            assert!((one.strain_derivative * count as f64 - many.strain_derivative).amax() < 1e-8);
        }
    }
}

/// The CPU works on chunks of at most 256 atoms, and on pairs of two of them in another way than on pairs inside one.
#[test]
fn atoms_of_different_chunks_feel_each_other() {
    let one = random_system(75, cell([9.0, 10.0, 11.0], [90.0, 80.0, 95.0], [true; 3]), 4);
    let many = one.replicated([2; 3]).unwrap();
    for network in NETWORKS {
        let model = model(network);
        let (one, many) = (evaluate(&model, &one), evaluate(&model, &many));
        assert!((one.energy * 8.0 - many.energy).abs() < 1e-10 * 600.0);
        for copy in many.forces.chunks(75) {
            assert!(largest(&one.forces, copy) < 1e-10);
        }
        assert!((one.strain_derivative * 8.0 - many.strain_derivative).amax() < 1e-8);
    }
}

#[test]
fn painn_turns_with_the_molecule() {
    for (model, system) in painns().flat_map(|model| systems().into_iter().map(move |system| (model.clone(), system))) {
        let rotation = Rotation3::from_euler_angles(0.3, 1.1, -2.0);
        let mut turned = system.clone();
        turned.positions = system.positions.iter().map(|r| rotation * r).collect();
        if system.cell.is_periodic() {
            turned.cell =
                Cell::new(system.cell.vectors() * rotation.matrix().transpose(), system.cell.periodic()).unwrap();
        }
        let (before, after) = (evaluate(&model, &system), evaluate(&model, &turned));
        assert!((before.energy - after.energy).abs() < 1e-10);
        let forces: Vec<_> = before.forces.iter().map(|f| rotation * f).collect();
        assert!(largest(&forces, &after.forces) < 1e-10);
        let r = rotation.matrix();
        assert!((r * before.strain_derivative * r.transpose() - after.strain_derivative).amax() < 1e-9);
    }
}

/// Energy and force of a pair go to those of two single atoms, with no jump at the cutoff.
#[test]
fn painn_is_smooth_at_the_cutoff() {
    for model in painns() {
        let pair = |d: f64| {
            let positions = vec![Vector3::zeros(), Vector3::new(d, 0.0, 0.0), Vector3::new(-0.9, 0.6, 0.3)];
            evaluate(&model, &System::new(vec![8, 6, 1], positions, Cell::open()).unwrap())
        };
        let outside = pair(5.3);
        let mut last = f64::INFINITY;
        for gap in [1e-2, 1e-3, 1e-4] {
            let inside = pair(5.0 - gap);
            let jump = (inside.energy - outside.energy).abs();
            // f_c and its slope vanish at the cutoff: the energy goes with the square of the distance to it.
            assert!(jump < 10.0 * gap * gap, "{gap}: {jump}");
            assert!(largest(&inside.forces, &outside.forces) < 10.0 * gap);
            assert!(jump < last);
            last = jump;
        }
        assert_eq!(pair(5.0f64.next_up()).energy, outside.energy);
    }
}

#[test]
fn a_student_network_confesses_its_defects() {
    let model = model("student");
    let defects = model.defects().unwrap();
    // Its energy jumps at the cutoff and changes under rotation: the numbers are not zero for nothing.
    let pair = |d: f64| {
        let positions = vec![Vector3::zeros(), Vector3::new(d, 0.0, 0.0)];
        evaluate(&model, &System::new(vec![8, 6], positions, Cell::open()).unwrap()).energy
    };
    assert!((pair(5.0f64.next_down()) - pair(5.0)).abs() > 1e-6);
    assert!(defects.filter_at_cutoff.iter().all(|&x| x > 1e-3));
    assert!(defects.anisotropy[0] > 1e-3 && defects.anisotropy.len() == SMALL.layers - 1);
    assert!(self::model("painn").defects().is_none());
}

/// Bit for bit, for both precisions, in and out of the periodic world.
#[test]
fn the_number_of_threads_changes_no_bit() {
    fn bits<T: Real>(threads: usize, model: &Model, system: &System, filters: Filters) -> Vec<u64> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let out = pool.install(|| evaluate_as::<T>(model, system, filters));
        let numbers = out.forces.iter().flat_map(|f| f.iter().copied()).chain(out.atom_energies.iter().copied());
        let strain: Vec<f64> = out.strain_derivative.iter().copied().collect();
        numbers.chain(strain).chain([out.energy]).map(f64::to_bits).collect()
    }
    let large = random_system(303, cell([16.0, 17.0, 18.0], [90.0, 80.0, 95.0], [true; 3]), 8);
    for network in NETWORKS {
        let model = model(network);
        for system in systems().iter().chain([&large]) {
            let one = bits::<f32>(1, &model, system, Filters::Table);
            let one_wide = bits::<f64>(1, &model, system, Filters::Direct);
            for threads in [2, 4] {
                assert_eq!(one, bits::<f32>(threads, &model, system, Filters::Table));
                assert_eq!(one_wide, bits::<f64>(threads, &model, system, Filters::Direct));
            }
        }
    }
}

#[test]
fn sizes_that_are_no_multiple_of_anything_work() {
    for network in NETWORKS {
        for (features, layers) in [(2, 1), (6, 3), (33, 2), (64, 1)] {
            let sizes = Sizes { features, layers, radial: 5 };
            let model = ModelFile::random(network, sizes, 5).load().unwrap();
            let system = random_system(11, Cell::open(), 6);
            let (single, double) = (evaluate_as::<f32>(&model, &system, Filters::Table), evaluate(&model, &system));
            assert!((single.energy - double.energy).abs() < 2e-5 * system.len() as f64);
            let scale = 1.0 + double.forces.iter().map(|f| f.amax()).fold(0.0, f64::max);
            let error = largest(&single.forces, &double.forces);
            assert!(error < 2e-5 * scale, "{network} {features} {layers}: {error:.1e} of {scale}");
            let sum: Vector3<f64> = double.forces.iter().sum();
            assert!(sum.norm() < 1e-12 * system.len() as f64);
        }
    }
}

#[test]
fn a_lone_atom_has_an_energy_and_no_force() {
    for network in NETWORKS {
        let model = model(network);
        let lone = System::new(vec![8], vec![Vector3::new(3.0, 2.0, 1.0)], Cell::open()).unwrap();
        let out = evaluate(&model, &lone);
        assert!(out.energy.is_finite() && out.energy != 0.0);
        assert_eq!(out.forces, vec![Vector3::zeros()]);
        let far = System::new(vec![8, 8], vec![Vector3::zeros(), Vector3::new(100.0, 0.0, 0.0)], Cell::open()).unwrap();
        assert!((evaluate(&model, &far).energy - 2.0 * out.energy).abs() < 1e-12);
    }
}
