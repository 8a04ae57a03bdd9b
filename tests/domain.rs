//! What a model file says of its domain: the repulsion below the trained distances, and the watch over a run.

mod common;

use common::backends::{Kind, Setup, advance, devices, kinds};
use common::models::{ModelFile, ONSET, OUTER, SMALL, random_system};
use nalgebra::{Matrix3, Vector3};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use verlet::analysis::{Conservation, Limits};
use verlet::backend::cpu::{Filters, NetworkPotential, Potential};
use verlet::backend::cuda::{CudaBackend, CudaPotential, Path};
use verlet::backend::{Backend, Departure, Evaluation, Outside, State};
use verlet::integrate::{Integrator, Thermostat};
use verlet::model::Model;
use verlet::simulation::{self, Observer, Schedule};
use verlet::system::{Cell, System, velocities};

static GO: AtomicBool = AtomicBool::new(false);

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

/// Potentials of every kind, and to what part of it they know an energy: in float64 as far as the published digits of α and
/// of ħ c go together with those of the hartree and of the Bohr radius.
fn potentials(model: &Model, system: &System) -> Vec<(String, Box<dyn Potential>, f64)> {
    let numbers = &system.atomic_numbers;
    let exact = NetworkPotential::<f64>::new(model, numbers, 0.3, Filters::Direct).unwrap();
    let single = NetworkPotential::<f32>::new(model, numbers, 0.3, Filters::Table).unwrap();
    let mut all: Vec<(String, Box<dyn Potential>, f64)> =
        vec![("cpu-f64".into(), Box::new(exact), 1e-10), ("cpu-f32".into(), Box::new(single), 1e-6)];
    for device in devices() {
        let name = format!("cuda, clusters {}", device.clusters);
        all.push((name, Box::new(CudaPotential::new(&device, model, numbers, 0.3).unwrap()), 1e-6));
    }
    all
}

fn evaluate(potential: &mut dyn Potential, system: &System) -> Evaluation {
    let mut out = Evaluation::default();
    potential.evaluate(&system.positions, &system.cell, &mut out).unwrap();
    out
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

/// Random atoms in a small cell, many of them so close that they repel each other.
fn repulsive(thermostat: Option<Thermostat>) -> Setup {
    let model = Arc::new(ModelFile::random("painn-repulsive", SMALL, 3).load().unwrap());
    let cell = Cell::from_parameters([6.0, 7.0, 8.0], [90.0, 75.0, 100.0], [true; 3]).unwrap();
    let mut system = random_system(11, cell, 9);
    system.velocities = Some(velocities::maxwell_boltzmann(&system, 200.0, 1, false));
    Setup { model, system, timestep: 0.1, skin: 0.1, thermostat }
}

fn bath() -> Thermostat {
    Thermostat {
        friction: 0.02,
        temperature: 200.0,
        final_temperature: 600.0,
        ramp_steps: 40,
        seed: 3,
        remove_centre_of_mass: true,
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

/// A hydrogen and a carbon that meet, far from a hydrogen and an oxygen that meet earlier, without any forces to speak of:
/// which atoms, when and how close follows from the velocities.
fn meeting(domain: Option<serde_json::Value>) -> Setup {
    let mut file = ModelFile::random("painn", SMALL, 3);
    file.tensors.iter_mut().filter(|(name, _)| name.contains("outnet")).for_each(|(_, (_, w))| w.fill(1e-8));
    if let Some(domain) = domain {
        file.config["domain"] = domain;
    }
    let x = |x: f64, y: f64| Vector3::new(x, y, 0.0);
    let positions = vec![x(0.0, 0.0), x(2.0, 0.0), x(0.0, 20.0), x(1.5, 20.0), x(0.0, 40.0), x(2.0, 40.0)];
    let mut system = System::new(vec![6, 1, 8, 1, 1, 6], positions, Cell::open()).unwrap();
    let v = 0.01;
    system.velocities = Some(vec![x(v, 0.0), x(-v, 0.0), x(v, 0.0), x(-v, 0.0), x(v, 0.0), x(-v, 0.0)]);
    Setup { model: Arc::new(file.load().unwrap()), system, timestep: 0.5, skin: 0.3, thermostat: None }
}

/// 0.01 Å a step: carbons and hydrogens are below 1.2455 Å after step 76, oxygen and hydrogen below 0.9 Å after step 60.
/// The hydrogens of the pairs never met within the cutoff.
fn distances() -> serde_json::Value {
    serde_json::json!({"shortest_distance": {"C-H": 1.2455, "H-O": 0.905, "H-H": 0.7, "C-C": 1.2, "O-O": 1.9}})
}

fn departures(backend: &mut dyn Backend, steps: u64) -> Vec<Departure> {
    advance(backend, steps);
    backend.departures()
}

#[test]
fn each_pair_of_elements_is_reported_once_with_its_first_step_and_lowest_atoms() {
    for kind in kinds() {
        let mut backend = meeting(Some(distances())).start(&kind);
        assert_eq!(backend.departures(), [], "{kind}: at the start everything is inside");
        assert_eq!(departures(&mut *backend, 59), [], "{kind}");
        let found = departures(&mut *backend, 41);
        let texts: Vec<_> = found.iter().map(Departure::to_string).collect();
        let expected = [
            "at step 60 the run left what its model was trained on: atoms 3 (O) and 4 (H) are 0.9000 Å apart, closer than any \
             O and H that it was trained on (0.9050 Å)",
            "at step 76 the run left what its model was trained on: atoms 1 (C) and 2 (H) are 1.2400 Å apart, closer than any \
             C and H that it was trained on (1.2455 Å)",
        ];
        assert_eq!(texts, expected, "{kind}");
        assert_eq!(departures(&mut *backend, 30), [], "{kind}: nothing is said twice");
    }
}

/// Nobody who looks changes a bit of the path, however the steps are cut into calls.
#[test]
fn looking_changes_no_bit() {
    for kind in kinds() {
        let run = |domain: Option<serde_json::Value>, cuts: &[u64]| {
            let mut setup = repulsive(Some(bath()));
            let mut file = ModelFile::random("painn", SMALL, 3);
            if let Some(domain) = domain {
                file.config["domain"] = domain;
            }
            setup.model = Arc::new(file.load().unwrap());
            let mut backend = setup.start(&kind);
            let samples: Vec<_> = cuts.iter().flat_map(|&steps| advance(&mut *backend, steps)).collect();
            (samples, backend.state().unwrap(), backend.departures())
        };
        let all = serde_json::json!({"shortest_distance": {"H-H": 2.5, "C-H": 2.5}, "energy_per_atom": [-1e-6, 1e-6]});
        let (samples, state, none) = run(None, &[40]);
        let (watched_samples, watched_state, found) = run(Some(all.clone()), &[40]);
        assert_eq!((none.len(), &samples, &state), (0, &watched_samples, &watched_state), "{kind}");
        // Six pairs of elements and the energy.
        assert!(found.len() >= 6, "{kind}: {found:?}");
        assert_eq!(run(Some(all), &[13, 1, 26]).2, found, "{kind}");
    }
}

/// Elements that were never near each other in training are outside as soon as they are inside the cutoff.
#[test]
fn elements_that_never_met_are_reported() {
    let domain = serde_json::json!({"shortest_distance": {"C-H": 0.5}});
    for kind in kinds() {
        let found = meeting(Some(domain.clone())).start(&kind).departures();
        let texts: Vec<_> = found.iter().map(Departure::to_string).collect();
        let expected = "at step 0 the run left what its model was trained on: atoms 3 (O) and 4 (H) are 1.5000 Å apart, and it \
                        was trained on no O and H within its cutoff";
        assert_eq!(texts, [expected], "{kind}");
    }
}

/// Every image counts, and the nearest is named.
#[test]
fn images_are_neighbours_too() {
    let file = |domain| {
        let mut file = ModelFile::random("painn", SMALL, 3);
        file.config["domain"] = domain;
        file.load().unwrap()
    };
    let cell = Cell::from_parameters([3.0, 3.5, 4.0], [90.0; 3], [true; 3]).unwrap();
    let positions = vec![Vector3::zeros(), Vector3::new(2.0, 0.0, 0.0)];
    let system = System::new(vec![8, 1], positions, cell).unwrap();
    let model = file(serde_json::json!({"shortest_distance": {"O-H": 1.1, "H-H": 1.0, "O-O": 3.2}}));
    for (name, mut potential, _) in potentials(&model, &system) {
        for _ in 0..2 {
            let outside: Vec<_> = evaluate(&mut *potential, &system).outside.iter().map(Outside::to_string).collect();
            let own = "atom 1 (O) and its own periodic image are 3.0000 Å apart, closer than any O and O that it was trained \
                       on (3.2000 Å)";
            let other =
                "atoms 1 (O) and 2 (H) are 1.0000 Å apart, closer than any O and H that it was trained on (1.1000 Å)";
            let mut found = outside.clone();
            found.sort();
            assert_eq!(found, [own, other], "{name}");
        }
    }
}

#[test]
fn the_energy_is_held_against_that_of_training() {
    for kind in kinds() {
        let plain = repulsive(None);
        let mut reference = plain.start(&kind);
        let mut samples = vec![reference.sample().unwrap()];
        samples.extend(advance(&mut *reference, 60));
        // Without the offset of −3 eV.
        let per_atom: Vec<f64> = samples.iter().map(|sample| sample.potential / 11.0 + 3.0).collect();
        let (start, end) = (per_atom[0], per_atom[60]);
        assert!((end - start).abs() > 0.1, "{kind}: {start} {end}");
        // A tenth of the range is allowed: the bound lies half way.
        let (middle, width) = (0.5 * (start + end), 10.0);
        let range = match end < start {
            true => [middle + 0.1 * width, middle + 1.1 * width],
            false => [middle - 1.1 * width, middle - 0.1 * width],
        };
        let outside = |e: f64| if end < start { e < middle } else { e > middle };
        let step = per_atom.iter().position(|&e| outside(e)).unwrap() as u64;
        assert!(step > 0);
        let mut file = ModelFile::random("painn-repulsive", SMALL, 3);
        file.config["domain"]["energy_per_atom"] = serde_json::json!(range);
        let setup = Setup { model: Arc::new(file.load().unwrap()), ..plain };
        let mut backend = setup.start(&kind);
        let found = departures(&mut *backend, 60);
        let energies: Vec<_> = found.iter().filter(|d| matches!(d.outside, Outside::Energy { .. })).collect();
        assert_eq!(energies.len(), 1, "{kind}: {found:?}");
        assert_eq!(energies[0].step, step, "{kind}");
        let expected = format!("the energy without offsets is {:.4} eV per atom, beyond the ", per_atom[step as usize]);
        assert!(energies[0].outside.to_string().starts_with(&expected), "{kind}: {} {expected}", energies[0].outside);
    }
}

/// What an observer is told.
#[derive(Default)]
struct Told {
    states: Vec<State>,
    departures: Vec<u64>,
}

impl Observer for Told {
    fn departure(&mut self, departure: &Departure) -> verlet::Result<()> {
        self.departures.push(departure.step);
        Ok(())
    }

    fn checkpoint(&mut self, state: &State) -> verlet::Result<()> {
        self.states.push(state.clone());
        Ok(())
    }
}

/// The run ends with the step of the departure, on every backend, and that step's state is the one of a run that goes on.
#[test]
fn a_run_that_is_to_stop_stops_there() {
    for kind in kinds() {
        let run = |stop_outside: bool, interval: u64| {
            let mut told = Told::default();
            let mut backend = meeting(Some(distances())).start(&kind);
            let schedule = Schedule {
                steps: 100,
                frame_intervals: vec![50],
                checkpoint_interval: Some(interval),
                chunk: 100,
                stop_outside,
            };
            let limits = Limits { drift: 1.0, excursion: 1.0 };
            let conservation = Conservation::new(6, 15);
            let end = simulation::run(&mut *backend, schedule, conservation, limits, &mut [&mut told], &GO);
            (end, told)
        };
        let (end, told) = run(false, 60);
        let outcome = end.unwrap();
        assert_eq!((outcome.step, outcome.departures.len()), (100, 2), "{kind}");
        assert_eq!(told.departures, [60, 76], "{kind}");
        let at_60 = told.states.iter().find(|state| state.step == 60).unwrap().clone();

        let (end, told) = run(true, 1000);
        let error = end.unwrap_err();
        assert_eq!(error.exit_status(), 1);
        assert_eq!(
            error.to_string(),
            "at step 60 the run left what its model was trained on: atoms 3 (O) and 4 (H) are 0.9000 Å apart, closer than any \
             O and H that it was trained on (0.9050 Å), and model.outside_domain = \"stop\" ends it there; use a better start or \
             another model, or \"warn\" to go on",
            "{kind}"
        );
        assert!(told.departures.is_empty(), "{kind}: it is the error that tells");
        assert_eq!(told.states.last().unwrap(), &at_60, "{kind}");
    }
}

/// A backend that is restored looks anew, at the step that it is set to, and not at the positions of the old list.
#[test]
fn a_restored_run_looks_again() {
    for kind in kinds() {
        let setup = meeting(Some(distances()));
        let mut first = setup.start(&kind);
        advance(&mut *first, 90);
        let (late, mut second) = (first.state().unwrap(), setup.start(&kind));
        second.restore(&late).unwrap();
        let steps: Vec<_> = second.departures().iter().map(|departure| departure.step).collect();
        assert_eq!(steps, [90, 90], "{kind}");
        let early = setup.start(&kind).state().unwrap();
        second.restore(&early).unwrap();
        assert_eq!(second.departures(), [], "{kind}");
        // Positions of the last list that are too close, and atoms that are not.
        let apart = State { list_positions: late.positions.clone(), ..early };
        second.restore(&apart).unwrap();
        assert_eq!(second.departures(), [], "{kind}");
        let steps: Vec<_> = departures(&mut *second, 100).iter().map(|departure| departure.step).collect();
        assert_eq!(steps, [60, 76], "{kind}");
    }
}
