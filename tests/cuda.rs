//! The GPU backend against the CPU in float64, and against itself: launched in other ways, stopped, restored.

mod common;

use common::backends::{Heard, advance, devices, listen};
use common::cuda::{device, emulated};

use common::models::{ModelFile, NETWORKS, SMALL, Sizes, random_system};
use half::f16;
use nalgebra::Vector3;
use std::sync::Arc;
use verlet::backend::cpu::{CpuBackend, Filters, NetworkPotential, Potential};
use verlet::backend::cuda::{Arithmetic, CudaBackend, CudaPotential, Device, Path, cheapest_skin, check_model};
use verlet::backend::{Backend, Evaluation};
use verlet::integrate::{Integrator, Thermostat};
use verlet::model::Model;
use verlet::neighbors::NeighborList;
use verlet::system::{Cell, System, velocities};

const ARCHITECTURES: [&str; 2] = ["painn", "student"];

fn cell(lengths: [f64; 3], angles: [f64; 3], periodic: [bool; 3]) -> Cell {
    Cell::from_parameters(lengths, angles, periodic).unwrap()
}

/// A molecule, all eight ways to repeat a triclinic cell, a cell much smaller than the cutoff.
fn systems() -> Vec<System> {
    let mut systems = vec![
        random_system(9, Cell::open(), 1),
        random_system(37, cell([9.0, 10.0, 11.0], [80.0, 105.0, 65.0], [true; 3]), 3),
        random_system(4, cell([3.1, 3.6, 4.2], [70.0, 85.0, 100.0], [true; 3]), 4),
    ];
    for directions in 0..8 {
        let periodic = [0, 1, 2].map(|k| directions >> k & 1 == 1);
        systems.push(random_system(11, cell([6.0, 7.0, 9.0], [75.0, 95.0, 110.0], periodic), 5 + directions));
    }
    systems
}

fn largest(a: &[Vector3<f64>], b: &[Vector3<f64>]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).amax()).fold(0.0, f64::max)
}

/// The list that the GPU makes is the one that the CPU makes.
fn same_list(device: &Arc<Device>, system: &System, range: f64, what: &str) {
    let model = ModelFile::random("student", SMALL, 11).load().unwrap();
    let numbers = vec![8; system.len()];
    let skin = range - model.cutoff();
    let range = model.cutoff() + skin;
    let mut potential = CudaPotential::new(device, &model, &numbers, skin).unwrap();
    potential.evaluate(&system.positions, &system.cell, &mut Evaluation::default()).unwrap();
    let (ours, theirs) =
        (potential.list().unwrap(), NeighborList::build(&system.positions, &system.cell, range).unwrap());
    assert!(ours == theirs, "{what}: {} pairs, {} on the CPU", ours.len(), theirs.len());
}

fn evaluate(potential: &mut dyn Potential, system: &System) -> Evaluation {
    let mut out = Evaluation::default();
    potential.evaluate(&system.positions, &system.cell, &mut out).unwrap();
    out
}

fn compare(device: &Arc<Device>, model: &Model, system: &System, what: &str) {
    let numbers = &system.atomic_numbers;
    agree(model, system, &evaluate(&mut CudaPotential::new(device, model, numbers, 0.3).unwrap(), system), what);
}

fn agree(model: &Model, system: &System, ours: &Evaluation, what: &str) {
    let numbers = &system.atomic_numbers;
    let exact = evaluate(&mut NetworkPotential::<f64>::new(model, numbers, 0.3, Filters::Direct).unwrap(), system);
    let n = system.len() as f64;
    let scale = 1.0 + exact.forces.iter().map(|f| f.amax()).fold(0.0, f64::max);
    // Random networks have energies of any size: bounds are relative to the largest.
    let depth = 1.0 + exact.atom_energies.iter().fold(0.0f64, |a, e| a.max(e.abs()));
    assert!((ours.energy - exact.energy).abs() < 2e-6 * n * depth, "{what}: {} {}", ours.energy, exact.energy);
    let parts = ours.atom_energies.iter().zip(&exact.atom_energies).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(parts < 1e-5 * depth, "{what}: an atom's energy is off by {parts:.1e}");
    let force = largest(&ours.forces, &exact.forces);
    assert!(force < 2e-5 * scale, "{what}: a force is off by {force:.1e} of {scale}");
    let strain = (ours.strain_derivative - exact.strain_derivative).amax();
    assert!(strain < 2e-5 * scale * n, "{what}: the strain derivative is off by {strain:.1e}");
    let sum: Vector3<f64> = ours.forces.iter().sum();
    assert!(sum.norm() < 1e-12 * n * scale, "{what}: forces do not cancel: {:.1e}", sum.norm());
}

#[test]
fn energies_forces_and_strain_are_those_of_the_cpu() {
    for device in devices() {
        for network in NETWORKS {
            let model = ModelFile::random(network, SMALL, 11).load().unwrap();
            for (n, system) in systems().iter().enumerate() {
                compare(&device, &model, system, &format!("{network}, system {n}, clusters {}", device.clusters));
            }
        }
    }
}

/// What moves without images has a kernel of its own, of one cluster or of several: as few atoms as there can be, and as many.
#[test]
fn energies_forces_and_strain_of_few_in_vacuum_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let networks =
        [("painn", 3, 9), ("painn", 1, 16), ("painn-repulsive", 2, 31), ("painn-shared", 2, 2), ("painn", 2, 100)];
    for (network, layers, atoms) in networks {
        let model = ModelFile::random(network, Sizes { features: 128, layers, radial: 8 }, 7).load().unwrap();
        let mut system = random_system(atoms, Cell::open(), 4);
        // Some pairs are beyond the cutoff.
        system.positions[0].x += if atoms > 2 { 2.0 } else { 0.0 };
        let integrator = Integrator::new(0.5, &system.masses, None);
        let mut backend = CudaBackend::new(&device, &model, &system, 0.3, &integrator, 1, 3 * atoms, None).unwrap();
        agree(&model, &system, &backend.evaluation().unwrap(), &format!("{network}, {atoms} atoms"));
    }
}

/// Mixed precision rounds every factor of a product to 11 bits. How much that is to these forces and energies is what becomes of them, in
/// float64, when the weights alone are rounded so: the other factors, and what atoms send, add errors of that size, in a network and its
/// adjoint some ten together.
fn compare_mixed(device: &Arc<Device>, file: &ModelFile, system: &System, what: &str) -> Evaluation {
    let numbers = &system.atomic_numbers;
    let exactly = |file: &ModelFile| {
        let model = file.load().unwrap();
        evaluate(&mut NetworkPotential::<f64>::new(&model, numbers, 0.3, Filters::Direct).unwrap(), system)
    };
    let mut rounded = ModelFile { tensors: file.tensors.clone(), config: file.config.clone() };
    for (name, (_, values)) in &mut rounded.tensors {
        let basis = name.contains("radial_basis") || name.contains("rbf.");
        values.iter_mut().filter(|_| !basis).for_each(|x| *x = f16::from_f32(*x).to_f32());
    }
    let (exact, rounded) = (exactly(file), exactly(&rounded));
    let ours = evaluate(&mut CudaPotential::new(device, &file.load().unwrap(), numbers, 0.3).unwrap(), system);
    let scale = 1.0 + exact.forces.iter().map(|f| f.amax()).fold(0.0, f64::max);
    let depth = 1.0 + exact.atom_energies.iter().fold(0.0f64, |a, e| a.max(e.abs()));
    let off = |ours: &[f64], exact: &[f64]| ours.iter().zip(exact).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    let (energy, usual) =
        (off(&ours.atom_energies, &exact.atom_energies), off(&rounded.atom_energies, &exact.atom_energies));
    assert!(energy < 10.0 * usual + 5e-4 * depth, "{what}: an atom's energy is off by {energy:.1e}, not {usual:.1e}");
    let (force, usual) = (largest(&ours.forces, &exact.forces), largest(&rounded.forces, &exact.forces));
    assert!(force < 10.0 * usual + 5e-4 * scale, "{what}: a force is off by {force:.1e}, not {usual:.1e}, of {scale}");
    let sum: Vector3<f64> = ours.forces.iter().sum();
    assert!(sum.norm() < 1e-12 * system.len() as f64 * scale, "{what}: forces do not cancel: {:.1e}", sum.norm());
    ours
}

#[test]
fn mixed_precision_has_the_exactness_of_16_bits_at_every_size() {
    let Some(single) = device() else { return };
    let mixed = Device::open_for(0, Arithmetic::Mixed).unwrap();
    // With less shared memory tiles have 16 atoms.
    let mut small = Device::open_for(0, Arithmetic::Mixed).unwrap();
    Arc::get_mut(&mut small).expect("nobody else has it").shared_memory = 100 << 10;
    let mut cases: Vec<(&str, Sizes, System)> = Vec::new();
    for network in ["painn", "painn-shared", "painn-repulsive"] {
        cases.extend(systems().into_iter().map(|system| (network, SMALL, system)));
    }
    let open = random_system(13, cell([8.0, 7.0, 9.0], [90.0, 80.0, 100.0], [true, false, true]), 6);
    for (features, layers, radial) in [(2, 1, 5), (33, 2, 20), (96, 3, 17), (128, 2, 20), (256, 2, 5)] {
        cases.push(("painn", Sizes { features, layers, radial }, open.clone()));
    }
    let one = random_system(67, cell([9.0, 10.0, 11.0], [85.0, 95.0, 80.0], [true; 3]), 3);
    cases.push(("painn", Sizes { features: 64, layers: 2, radial: 20 }, one.replicated([3, 2, 1]).unwrap()));
    for (network, sizes, system) in cases {
        let file = ModelFile::random(network, sizes, 8);
        let what = format!("{network}, {} features, {} atoms", sizes.features, system.len());
        let ours = compare_mixed(&mixed, &file, &system, &what);
        let model = file.load().unwrap();
        let of =
            |device| evaluate(&mut CudaPotential::new(device, &model, &system.atomic_numbers, 0.3).unwrap(), &system);
        assert!(ours.forces == of(&small).forces, "{what}: tiles change bits");
        assert!(ours.atom_energies != of(&single).atom_energies, "{what}: in single precision all the same");
    }
}

#[test]
fn networks_that_mixed_precision_has_no_kernels_for_are_refused() {
    if device().is_none() {
        return;
    }
    let mixed = Device::open_for(0, Arithmetic::Mixed).unwrap();
    for (network, radial) in [("student", 8), ("painn-bessel", 8), ("painn", 21)] {
        let model = ModelFile::random(network, Sizes { radial, ..SMALL }, 8).load().unwrap();
        let error = CudaPotential::new(&mixed, &model, &[8], 0.3).map(drop).unwrap_err().to_string();
        assert!(error.contains("mixed precision is for networks of the architecture painn"), "{network}: {error}");
    }
}

/// Atoms at random in a cell, each so many whole cells away.
fn scattered(atoms: usize, cell: Cell, away: impl Fn(u64) -> i32) -> System {
    let mut state = 7u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        state >> 11
    };
    let positions = (0..atoms)
        .map(|_| {
            let inside = Vector3::from([(); 3].map(|()| next() as f64 / (1u64 << 53) as f64));
            let image = [0, 1, 2].map(|k| if cell.periodic()[k] { away(next()) } else { 0 });
            cell.vectors().tr_mul(&inside) + cell.translation(image)
        })
        .collect();
    System::new(vec![8; atoms], positions, cell).unwrap()
}

#[test]
fn lists_are_those_of_the_cpu_entry_by_entry() {
    let angles = [75.0, 95.0, 110.0];
    for device in devices() {
        let check = |system: &System, range, what: &str| {
            same_list(&device, system, range, &format!("{what}, clusters {}", device.clusters));
        };
        for directions in 0..8 {
            let periodic = [0, 1, 2].map(|k| directions >> k & 1 == 1);
            let box_of = |lengths| cell(lengths, angles, periodic);
            let what = format!("{periodic:?}");
            check(&scattered(40, box_of([9.0, 7.0, 8.0]), |_| 0), 5.3, &what);
            check(&scattered(300, box_of([24.0, 14.0, 17.0]), |n| (n % 7) as i32 - 3), 5.6, &what);
            // Many images of each atom, more bins to look at than a block has threads, atoms that went far.
            check(&scattered(7, box_of([2.1, 1.9, 2.3]), |n| (n % 7) as i32 - 3), 8.0, &what);
            check(&scattered(30, box_of([9.0, 7.0, 8.0]), |n| (n % 2_000_001) as i32 - 1_000_000), 5.3, &what);
        }
        check(&scattered(1, cell([3.0; 3], [90.0; 3], [true; 3]), |_| 5), 6.5, "one atom");
        check(&scattered(1, Cell::open(), |_| 0), 6.5, "one atom alone");
        // Neighbours at the very range, and on the edges of bins.
        let lattice =
            (0..216).map(|n| Vector3::new((n % 6) as f64, (n / 6 % 6) as f64, (n / 36) as f64) * 5.5).collect();
        let lattice = System::new(vec![8; 216], lattice, cell([33.0; 3], [90.0; 3], [true; 3])).unwrap();
        check(&lattice, 5.5, "lattice");
        check(&lattice, 5.5 + 1e-12, "lattice, a little more");
        let plane = (0..100).map(|n| Vector3::new((n % 10) as f64 * 2.0, (n / 10) as f64 * 2.0, 4.0)).collect();
        check(&System::new(vec![8; 100], plane, Cell::open()).unwrap(), 5.5, "plane");
        let apart = (0..90).map(|n| Vector3::new((n % 9) as f64, (n / 9 % 5) as f64, (n / 45) as f64 * 1e7)).collect();
        check(&System::new(vec![8; 90], apart, Cell::open()).unwrap(), 5.5, "far apart");
    }
}

/// More candidates of an atom than a block has room for, rows longer than are sorted in shared memory, several pieces of sums.
#[test]
fn lists_of_many_and_of_crowded_atoms_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let even = cell([48.0, 52.0, 50.0], [85.0, 95.0, 100.0], [true, true, false]);
    same_list(&device, &scattered(9000, even, |n| (n % 3) as i32), 5.5, "many");
    let crowded = cell([17.0, 16.0, 18.0], [90.0, 85.0, 95.0], [true; 3]);
    same_list(&device, &scattered(2500, crowded, |_| 0), 5.5, "crowded");
}

#[test]
fn a_range_over_too_many_images_is_refused() {
    let Some(device) = device() else { return };
    let model = ModelFile::random("painn", SMALL, 11).load().unwrap();
    let mut potential = CudaPotential::new(&device, &model, &[8], 1e5).unwrap();
    let thin = cell([3.0; 3], [90.0; 3], [true, false, false]);
    let error = potential.evaluate(&[Vector3::zeros()], &thin, &mut Evaluation::default()).unwrap_err().to_string();
    assert!(error.contains("over more images of the cell, which is 3.000e0 Å thin"), "{error}");
}

#[test]
fn networks_of_all_sizes_work_and_others_are_refused_by_name() {
    let system = random_system(13, cell([8.0, 7.0, 9.0], [90.0, 80.0, 100.0], [true, false, true]), 6);
    for (device, architecture) in devices().iter().flat_map(|device| ARCHITECTURES.map(|name| (device, name))) {
        for (features, layers) in [(2, 1), (33, 2), (64, 1), (96, 6), (256, 3)] {
            let mut file = ModelFile::random(architecture, Sizes { features, layers, radial: 5 }, 5);
            // Many random layers would multiply energies beyond all numbers.
            for (name, (_, values)) in file.tensors.iter_mut().filter(|_| layers > 3) {
                let basis = name.contains("radial_basis") || name.contains("rbf.");
                values.iter_mut().for_each(|x| *x *= if basis { 1.0 } else { 0.5 });
            }
            let model = file.load().unwrap();
            compare(
                device,
                &model,
                &system,
                &format!("{architecture} {features} {layers}, clusters {}", device.clusters),
            );
        }
        for (features, layers, what) in [(258, 1, "258 features, more than 256"), (4, 7, "7 layers, more than 6")] {
            let model = ModelFile::random(architecture, Sizes { features, layers, radial: 5 }, 5).load().unwrap();
            let error = check_model(&model).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}

/// Enough atoms for the kernels' other shapes: large clusters, large tiles, tables in shared memory, walks over atoms, bins.
#[test]
fn many_atoms_are_no_other_case() {
    let Some(device) = device() else { return };
    let one = random_system(67, cell([9.0, 10.0, 11.0], [85.0, 95.0, 80.0], [true; 3]), 3);
    // With 64 features messages go through the pairs twice.
    // Where multiprocessors are few, atoms are many much sooner: then a block has all channels, and a tile half the warps.
    let mut small = Device::open(0).unwrap();
    Arc::get_mut(&mut small).expect("nobody else has it").multiprocessors = 4;
    // Without clusters they are never few: a slice a block, and with 128 features sixteen warps a tile.
    let plain = &devices()[1];
    for (device, copies, features) in [
        (&device, [2, 1, 1], 32),
        (plain, [2, 1, 1], 128),
        (plain, [3, 3, 1], 32),
        (&small, [4, 3, 3], 64),
        (&small, [4, 4, 4], 32),
    ] {
        let sizes = Sizes { features, layers: 2, radial: 5 };
        let model = ModelFile::random("painn-repulsive", sizes, 8).load().unwrap();
        let many = one.replicated(copies).unwrap();
        let what = format!("{} atoms on {} multiprocessors", many.len(), device.multiprocessors);
        compare(device, &model, &many, &what);
    }
}

/// Nobody has said how thick: what the fastest atoms go in some steps.
#[test]
fn the_skin_follows_size_temperature_masses_and_time_step() {
    let Some(device) = device() else { return };
    let (model, _) = ethanol();
    let water = |molecules: usize| [15.999, 1.008, 1.008].repeat(molecules);
    let skin = |masses: &[f64], temperature, timestep| cheapest_skin(&device, &model, masses, temperature, timestep);
    assert_eq!([3, 33].map(|molecules| skin(&water(molecules), 300.0, 0.5)), [2.0, 2.0]);
    assert_eq!([3413, 43_691, 1_666_667].map(|molecules| skin(&water(molecules), 300.0, 0.5)), [0.65, 0.5, 0.55]);
    // Cold, or short steps; hot; heavy.
    let many = water(43_691);
    assert_eq!([skin(&many, 50.0, 0.5), skin(&many, 300.0, 0.1), skin(&many, 2000.0, 0.5)], [0.3, 0.3, 1.0]);
    assert_eq!(skin(&[39.948; 131_072], 600.0, 0.5), 0.3);
}

#[test]
fn lone_atoms_have_an_energy_and_no_force() {
    let Some(device) = device() else { return };
    for architecture in ARCHITECTURES {
        let model = ModelFile::random(architecture, SMALL, 11).load().unwrap();
        for positions in [vec![Vector3::new(3.0, 2.0, 1.0)], vec![Vector3::zeros(), Vector3::new(100.0, 0.0, 0.0)]] {
            let numbers = vec![8; positions.len()];
            let lone = System::new(numbers, positions, Cell::open()).unwrap();
            compare(&device, &model, &lone, architecture);
        }
    }
}

#[test]
fn positions_that_make_no_sense_are_an_error_and_the_next_ones_are_not() {
    let Some(device) = device() else { return };
    let model = ModelFile::random("painn", SMALL, 11).load().unwrap();
    let good = random_system(9, Cell::open(), 1);
    let mut potential = CudaPotential::new(&device, &model, &good.atomic_numbers, 0.3).unwrap();
    let before = evaluate(&mut potential, &good);
    for (atom, x, words) in
        [(4, f64::NAN, "the position of atom 5 is no longer a finite number"), (0, 0.0, "same place")]
    {
        let mut bad = good.clone();
        bad.positions[atom] = if x.is_nan() { Vector3::new(0.0, x, 0.0) } else { bad.positions[3] };
        let error = potential.evaluate(&bad.positions, &bad.cell, &mut Evaluation::default()).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert_eq!(evaluate(&mut potential, &good).forces, before.forces);
    }
}

fn bath(friction: f64, remove: bool) -> Thermostat {
    Thermostat {
        friction,
        temperature: 200.0,
        final_temperature: 600.0,
        ramp_steps: 40,
        seed: 3,
        remove_centre_of_mass: remove,
    }
}

/// Hot atoms and a thin skin: the list is made often.
fn start(device: &Arc<Device>, thermostat: Option<Thermostat>, periodic: bool, path: Option<Path>) -> CudaBackend {
    let model = ModelFile::random("painn", SMALL, 3).load().unwrap();
    let cell = if periodic { cell([6.0, 7.0, 8.0], [90.0, 75.0, 100.0], [true; 3]) } else { Cell::open() };
    let mut system = random_system(11, cell, 9);
    system.velocities = Some(velocities::maxwell_boltzmann(&system, 200.0, 1, true));
    let integrator = Integrator::new(0.3, &system.masses, thermostat);
    CudaBackend::new(device, &model, &system, 0.1, &integrator, 1, 30, path).unwrap()
}

#[test]
fn graphs_and_plain_launches_give_the_same_bits() {
    let baths = [(None, true), (Some(bath(0.02, true)), true), (Some(bath(0.02, false)), false)];
    for (device, (thermostat, periodic)) in devices().iter().flat_map(|device| baths.map(|bath| (device, bath))) {
        let run = |path| {
            let mut backend = start(device, thermostat, periodic, Some(path));
            let samples = advance(&mut backend, 40);
            (backend.path(), samples, backend.state().unwrap(), backend.frame().unwrap().forces)
        };
        let (_, samples, state, forces) = run(Path::Plain);
        assert_eq!(samples.len(), 40);
        assert!(state.list_rebuilds > 1, "the test must see the list made: {}", state.list_rebuilds);
        for path in [Path::Steps, Path::Loop] {
            let again = run(path);
            assert_eq!(again.0, path);
            assert_eq!((&again.1, &again.2, &again.3), (&samples, &state, &forces), "{path:?}");
        }
    }
}

/// The kernel for few in vacuum likewise; a state is taken over in the middle, and nothing of a list or a frame is lost.
#[test]
fn steps_of_few_in_vacuum_give_the_same_bits_however_they_are_launched() {
    let Some(device) = device() else { return };
    let (model, system) = ethanol();
    let integrator = Integrator::new(0.5, &system.masses, Some(bath(0.02, true)));
    let run = |path| {
        let mut backend = CudaBackend::new(&device, &model, &system, 0.05, &integrator, 1, 24, Some(path)).unwrap();
        backend.tell_frames(&[4]).unwrap();
        let Heard { samples, frames, .. } = listen(&mut backend, 9);
        let told: Vec<_> = frames.into_iter().map(|frame| (frame.sample, frame.positions, frame.forces)).collect();
        let middle = backend.state().unwrap();
        let rest = advance(&mut backend, 4);
        (samples, told, middle, rest, backend.frame().unwrap().forces)
    };
    let plain = run(Path::Plain);
    assert_eq!((plain.0.len(), plain.1.len()), (9, 2));
    assert!(plain.2.list_rebuilds > 1, "the test must see the list made: {}", plain.2.list_rebuilds);
    for path in [Path::Steps, Path::Loop] {
        assert_eq!(run(path), plain, "{path:?}");
    }
    let mut other = CudaBackend::new(&device, &model, &system, 0.05, &integrator, 1, 24, None).unwrap();
    other.restore(&plain.2).unwrap();
    assert_eq!(advance(&mut other, 4), plain.3);
    assert_eq!(other.frame().unwrap().forces, plain.4);
}

/// Its strain derivative too, which needs the pairs of the last step.
#[test]
fn an_evaluation_after_steps_is_that_of_the_positions() {
    for device in devices() {
        let mut backend = start(&device, None, true, None);
        advance(&mut backend, 7);
        let (ours, state) = (backend.evaluation().unwrap(), backend.state().unwrap());
        let model = ModelFile::random("painn", SMALL, 3).load().unwrap();
        let mut system = random_system(11, cell([6.0, 7.0, 8.0], [90.0, 75.0, 100.0], [true; 3]), 9);
        let before = evaluate(&mut CudaPotential::new(&device, &model, &system.atomic_numbers, 0.1).unwrap(), &system);
        system.positions = state.positions;
        let alone = evaluate(&mut CudaPotential::new(&device, &model, &system.atomic_numbers, 0.1).unwrap(), &system);
        assert_eq!((&ours.forces, ours.energy), (&alone.forces, alone.energy), "clusters {}", device.clusters);
        let strain = |other: &Evaluation| (ours.strain_derivative - other.strain_derivative).amax();
        assert!(strain(&alone) < 1e-9 && strain(&before) > 1e-3, "{} {}", strain(&alone), strain(&before));
    }
}

/// More atoms and more pairs of an atom than the kernel that ends a step for few has threads in a block: it goes round.
#[test]
fn a_step_of_crowded_atoms_ends_with_the_forces_of_an_evaluation() {
    let Some(device) = device() else { return };
    let model = ModelFile::random("painn-repulsive", SMALL, 3).load().unwrap();
    let mut system = random_system(134, cell([7.4, 7.5, 7.6], [90.0, 85.0, 95.0], [true; 3]), 2);
    let pairs = {
        let mut potential = NetworkPotential::<f32>::new(&model, &system.atomic_numbers, 0.1, Filters::Table).unwrap();
        evaluate(&mut potential, &system);
        potential.pairs()
    };
    assert!(pairs > 134 * 140, "the test must see crowded atoms: {pairs} pairs");
    system.velocities = Some(velocities::maxwell_boltzmann(&system, 200.0, 1, true));
    // A random network would tear them apart.
    system.masses.fill(1e12);
    for thermostat in [None, Some(bath(0.02, true))] {
        let integrator = Integrator::new(0.5, &system.masses, thermostat);
        let run = |path| {
            let mut backend = CudaBackend::new(&device, &model, &system, 0.1, &integrator, 1, 399, Some(path)).unwrap();
            let samples = advance(&mut backend, 4);
            (samples, backend.state().unwrap(), backend.frame().unwrap().forces, backend)
        };
        let (samples, state, forces, mut backend) = run(Path::Loop);
        backend.restore(&state).unwrap();
        assert_eq!(backend.frame().unwrap().forces, forces);
        let plain = run(Path::Plain);
        assert_eq!((&plain.0, &plain.1, &plain.2), (&samples, &state, &forces));
    }
}

/// More steps than one launch takes: the frames of one are told while the next one writes others. Samples are at other steps.
#[test]
fn launches_follow_each_other_and_lose_no_frame() {
    let model = ModelFile::random("painn", SMALL, 3).load().unwrap();
    let velocity = Vector3::new(1e-3, -2e-3, 3e-3);
    let mut system = System::new(vec![8], vec![Vector3::zeros()], Cell::open()).unwrap();
    system.velocities = Some(vec![velocity]);
    let integrator = Integrator::new(0.5, &system.masses, None);
    for device in devices() {
        let mut backend = CudaBackend::new(&device, &model, &system, 1.0, &integrator, 7, 3, None).unwrap();
        backend.tell_frames(&[3]).unwrap();
        let Heard { samples, frames, .. } = listen(&mut backend, 2050);
        let multiples = |of: u64| (1..=2050 / of).map(|n| n * of).collect::<Vec<_>>();
        assert_eq!(samples.iter().map(|sample| sample.step).collect::<Vec<_>>(), multiples(7));
        assert_eq!(frames.iter().map(|frame| frame.sample.step).collect::<Vec<_>>(), multiples(3));
        for frame in &frames {
            let expected = velocity * 0.5 * frame.sample.step as f64;
            assert!((frame.positions[0] - expected).norm() < 1e-12, "{frame:?}");
            assert_eq!((frame.velocities[0], frame.forces[0]), (velocity, Vector3::zeros()), "{frame:?}");
        }
    }
}

/// Our own model, ethanol, 300 K.
fn ethanol() -> (Model, System) {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let model = Model::load(root.join("inputs/models/ethanol-water-v2.safetensors")).unwrap();
    let mut system = verlet::system::structure::read_structure(root.join("inputs/structures/ethanol.xyz"), 0).unwrap();
    system.velocities = Some(velocities::maxwell_boltzmann(&system, 300.0, 4, true));
    (model, system)
}

#[test]
fn a_trajectory_stays_close_to_that_of_the_cpu_and_may_change_over() {
    let Some(device) = device() else { return };
    let (model, system) = ethanol();
    let (before, after) = if emulated(&device) { (14, 6) } else { (50, 20) };
    for thermostat in [None, Some(bath(0.002, true))] {
        let integrator = Integrator::new(0.5, &system.masses, thermostat);
        let potential = NetworkPotential::<f64>::new(&model, &system.atomic_numbers, 1.0, Filters::Direct).unwrap();
        let mut exact = CpuBackend::new(potential, system.clone(), integrator.clone(), 1, 24, "CPU".into()).unwrap();
        let mut ours = CudaBackend::new(&device, &model, &system, 1.0, &integrator, 1, 24, None).unwrap();
        let theirs = advance(&mut exact, before);
        let samples = advance(&mut ours, before);
        let distance = largest(&ours.frame().unwrap().positions, &exact.frame().unwrap().positions);
        assert!(distance < 1e-3, "{distance}");
        for (a, b) in samples.iter().zip(&theirs) {
            assert!((a.conserved - b.conserved).abs() < 2e-5 * 9.0, "{a:?} {b:?}");
            assert!((a.temperature - b.temperature).abs() < 1.0, "{a:?} {b:?}");
        }
        // From one to the other and back.
        exact.restore(&ours.state().unwrap()).unwrap();
        ours.restore(&exact.state().unwrap()).unwrap();
        advance(&mut exact, after);
        advance(&mut ours, after);
        let distance = largest(&ours.frame().unwrap().positions, &exact.frame().unwrap().positions);
        assert!(distance < 1e-3, "{distance}");
    }
}

/// Atoms that rush together need more room than the first list: it grows in the middle of a run.
#[test]
fn a_list_that_grows_loses_no_pair() {
    let Some(device) = device() else { return };
    let model = ModelFile::random("painn", SMALL, 3).load().unwrap();
    // 60 heavy atoms on a line fly towards the first: 1 Å from one to the next becomes 0.2 Å.
    let positions = (0..60).map(|n| Vector3::new(n as f64, 0.0, 0.0)).collect::<Vec<_>>();
    let mut system = System::new(vec![8; 60], positions, Cell::open()).unwrap();
    system.masses.fill(1e9);
    system.velocities = Some((0..60).map(|n| Vector3::new(-0.0294 * n as f64 / 2.0, 0.0, 0.0)).collect());
    let integrator = Integrator::new(1.0, &system.masses, None);
    let run = |path| {
        let mut backend = CudaBackend::new(&device, &model, &system, 0.4, &integrator, 1, 177, Some(path)).unwrap();
        backend.tell_frames(&[1]).unwrap();
        let Heard { samples, frames, .. } = listen(&mut backend, 54);
        // The list grows in the middle of a step, which has a frame all the same.
        assert_eq!(frames.iter().map(|frame| frame.sample).collect::<Vec<_>>(), samples);
        (samples, backend.state().unwrap(), backend.evaluation().unwrap())
    };
    let (samples, state, end) = run(Path::Loop);
    assert!(samples.last().unwrap().list_rebuilds > 20);
    let mut packed = system.clone();
    packed.positions = state.positions.clone();
    let mut potential = NetworkPotential::<f32>::new(&model, &system.atomic_numbers, 0.4, Filters::Table).unwrap();
    let exact = evaluate(&mut potential, &packed);
    assert!(potential.pairs() > 60 * 32, "the test must need more room than at first: {}", potential.pairs());
    let scale = 1.0 + exact.forces.iter().map(|f| f.amax()).fold(0.0, f64::max);
    assert!(largest(&end.forces, &exact.forces) < 1e-4 * scale);
    assert_eq!(run(Path::Plain).1, state);
    assert_eq!(run(Path::Steps).0, samples);
}

#[test]
fn an_explosion_is_reported_with_step_and_atom() {
    let (model, mut system) = ethanol();
    system.velocities.as_mut().unwrap()[3] = Vector3::new(2.1, 0.0, 0.0);
    let integrator = Integrator::new(0.5, &system.masses, None);
    for device in devices() {
        // A driver without conditional nodes goes on for some steps before the host looks.
        let run = |path| {
            let mut backend = CudaBackend::new(&device, &model, &system, 1.0, &integrator, 1, 24, Some(path)).unwrap();
            let error = backend.advance(5, &|| false, &mut |event| panic!("{event:?}")).unwrap_err().to_string();
            assert!(error.starts_with("the simulation exploded at step 1: the energy is "), "{error}");
            assert!(error.contains("atom 4 (H) would move 1."), "{error}");
            error
        };
        assert_eq!(run(Path::Plain), run(Path::Loop));
        assert_eq!(run(Path::Steps), run(Path::Loop));
    }
}
