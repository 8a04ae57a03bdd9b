//! The watch over a model's domain: what a run says where it leaves what the model was trained on, on every backend.

mod common;

use common::backends::{Heard, Kind, Setup, advance, bath, devices, evaluate, kinds, listen, potentials, repulsive};
use common::models::{ModelFile, SMALL, Sizes};
use nalgebra::Vector3;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use verlet::analysis::{Conservation, Limits};
use verlet::backend::{Backend, Departure, Outside, State};
use verlet::output::Frame;
use verlet::simulation::{self, Observer, Schedule};
use verlet::system::{Cell, System};

static GO: AtomicBool = AtomicBool::new(false);

/// A hydrogen and a carbon that meet, far from a hydrogen and an oxygen that meet earlier, without any forces to speak of:
/// which atoms, when and how close follows from the velocities.
fn meeting(domain: Option<serde_json::Value>) -> Setup {
    meeting_of(SMALL, domain)
}

fn meeting_of(sizes: Sizes, domain: Option<serde_json::Value>) -> Setup {
    let mut file = ModelFile::random("painn", sizes, 3);
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
    listen(backend, steps).departures
}

#[test]
fn each_pair_of_elements_is_reported_once_with_its_first_step_and_lowest_atoms() {
    let mut all: Vec<_> = kinds().into_iter().map(|kind| (kind, SMALL, 1)).collect();
    // So wide a network takes so few atoms in clusters that keep all weights. Those are slow where they are emulated: atoms fly faster.
    let wide = Sizes { features: 128, layers: 1, radial: 5 };
    all.extend(devices().into_iter().filter(|device| device.clusters).map(|device| (Kind::Cuda(device), wide, 4)));
    for (kind, sizes, pace) in all {
        let mut setup = meeting_of(sizes, Some(distances()));
        setup.system.velocities.iter_mut().flatten().for_each(|v| *v *= pace as f64);
        let mut backend = setup.start(&kind);
        let (first, second) = (60 / pace, 76 / pace);
        assert_eq!(backend.departures(), [], "{kind}: at the start everything is inside");
        assert_eq!(departures(&mut *backend, first - 1), [], "{kind}");
        let found = departures(&mut *backend, 100 / pace - first + 1);
        let texts: Vec<_> = found.iter().map(Departure::to_string).collect();
        let expected = [
            format!(
                "at step {first} the run left what its model was trained on: atoms 3 (O) and 4 (H) are 0.9000 Å apart, closer than \
                 any O and H that it was trained on (0.9050 Å)"
            ),
            format!(
                "at step {second} the run left what its model was trained on: atoms 1 (C) and 2 (H) are 1.2400 Å apart, closer than \
                 any C and H that it was trained on (1.2455 Å)"
            ),
        ];
        assert_eq!(texts, expected, "{kind}");
        assert_eq!(departures(&mut *backend, 28 / pace), [], "{kind}: nothing is said twice");
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
            let mut heard = Heard::default();
            for &steps in cuts {
                backend.advance(steps, &|| false, &mut |event| heard.hear(event)).unwrap();
            }
            (heard.samples, backend.state().unwrap(), heard.departures)
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
        assert!((end - start).abs() > 0.05, "{kind}: {start} {end}");
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
    frames: Vec<u64>,
    states: Vec<State>,
    departures: Vec<u64>,
}

impl Observer for Told {
    fn frame(&mut self, frame: &Frame) -> verlet::Result<()> {
        self.frames.push(frame.sample.step);
        Ok(())
    }

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
            let schedule =
                Schedule { steps: 100, frame_intervals: vec![20], checkpoint_interval: Some(interval), stop_outside };
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
             another model, or go on with verlet resume --outside-domain warn",
            "{kind}"
        );
        assert!(told.departures.is_empty(), "{kind}: it is the error that tells");
        assert_eq!(told.states.last().unwrap(), &at_60, "{kind}");
        assert_eq!(told.frames, [0, 20, 40, 60], "{kind}: the checkpoint comes after the frame of its step");
    }
}

/// A backend that stops at departures takes no step beyond one, and is not held up by those that are known.
#[test]
fn known_departures_stop_no_backend() {
    for kind in kinds() {
        let mut backend = meeting(Some(distances())).start(&kind);
        backend.stop_outside();
        for end in [60, 76, 120] {
            let steps = 120 - backend.step();
            let heard = listen(&mut *backend, steps);
            assert_eq!((backend.step(), heard.samples.last().unwrap().step), (end, end), "{kind}");
            assert_eq!(heard.departures.len(), (end < 120) as usize, "{kind}");
        }
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
