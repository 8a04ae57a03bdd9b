//! What every backend owes: the same tests for the CPU in float64 and in float32 and for the GPU.

mod common;

use common::backends::{Heard, Setup, advance, kinds, listen};
use common::models::{ModelFile, SMALL, random_system};
use nalgebra::Vector3;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use verlet::analysis::{Conservation, Limits};
use verlet::backend::Event;
use verlet::integrate::Thermostat;
use verlet::model::Model;
use verlet::output::{Frame, Sample};
use verlet::simulation::{self, Observer, Schedule};
use verlet::system::{Cell, System, velocities};
use verlet::{Error, Result};

static GO: AtomicBool = AtomicBool::new(false);

fn bath(friction: f64, seed: u64, remove_centre_of_mass: bool) -> Thermostat {
    Thermostat { friction, temperature: 200.0, final_temperature: 600.0, ramp_steps: 40, seed, remove_centre_of_mass }
}

/// Hot atoms and a thin skin: the list is made often. Periodic, and not.
fn random(periodic: bool, thermostat: Option<Thermostat>) -> Setup {
    let model = Arc::new(ModelFile::random("painn", SMALL, 3).load().unwrap());
    let cell = match periodic {
        true => Cell::from_parameters([6.0, 7.0, 8.0], [90.0, 75.0, 100.0], [true; 3]).unwrap(),
        false => Cell::open(),
    };
    let mut system = random_system(11, cell, 9);
    system.velocities = Some(velocities::maxwell_boltzmann(&system, 200.0, 1, false));
    Setup { model, system, timestep: 0.3, skin: 0.1, thermostat }
}

/// A molecule that holds together: our own model, relaxed enough to run.
fn ethanol(timestep: f64) -> Setup {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let model = Arc::new(Model::load(root.join("inputs/models/ethanol-water-v2.safetensors")).unwrap());
    let mut system = verlet::system::structure::read_structure(root.join("inputs/structures/ethanol.xyz"), 0).unwrap();
    system.velocities = Some(velocities::maxwell_boltzmann(&system, 300.0, 4, true));
    Setup { model, system, timestep, skin: 1.0, thermostat: None }
}

#[test]
fn time_can_be_turned_round() {
    for kind in kinds() {
        let mut backend = ethanol(0.5).start(&kind);
        let start = backend.frame().unwrap();
        let steps = if kind.is_emulated() { 12 } else { 40 };
        advance(&mut *backend, steps);
        let mut state = backend.state().unwrap();
        assert!((state.positions[0] - start.positions[0]).norm() > 0.01, "{kind}");
        state.velocities.iter_mut().for_each(|v| *v = -*v);
        backend.restore(&state).unwrap();
        advance(&mut *backend, steps);
        let back = backend.frame().unwrap();
        // Nothing but the rounding of float64 is lost on the way, whatever the network's precision: forces are those of
        // positions. Float32 makes jumps of 1e-7 of them where positions differ by less.
        let bound = if matches!(kind, common::backends::Kind::CpuF64) { 1e-10 } else { 1e-6 };
        for (a, b) in start.positions.iter().zip(&back.positions) {
            assert!((a - b).norm() < bound, "{kind}: {:e}", (a - b).norm());
        }
    }
}

#[test]
fn the_energy_error_falls_with_the_square_of_the_time_step() {
    for kind in kinds() {
        // A vibration of O–H takes 9 fs.
        let time = if kind.is_emulated() { 9.0 } else { 30.0 };
        let fluctuation = |timestep: f64| {
            let mut backend = ethanol(timestep).start(&kind);
            let samples = advance(&mut *backend, (time / timestep) as u64);
            let mean = samples.iter().map(|s| s.conserved).sum::<f64>() / samples.len() as f64;
            (samples.iter().map(|s| (s.conserved - mean).powi(2)).sum::<f64>() / samples.len() as f64).sqrt()
        };
        let ratio = fluctuation(0.5) / fluctuation(0.25);
        assert!((3.0..5.0).contains(&ratio), "{kind}: {ratio}");
    }
}

#[test]
fn momentum_is_conserved() {
    for kind in kinds() {
        for periodic in [false, true] {
            let setup = random(periodic, None);
            let masses = &setup.system.masses;
            let momentum = |v: &[Vector3<f64>]| -> Vector3<f64> { v.iter().zip(masses).map(|(v, m)| v * *m).sum() };
            let before = momentum(setup.system.velocities.as_ref().unwrap());
            assert!(before.norm() > 1e-3);
            let mut backend = setup.start(&kind);
            advance(&mut *backend, 40);
            let after = momentum(&backend.frame().unwrap().velocities);
            assert!((after - before).norm() < 1e-12, "{kind}: {}", (after - before).norm());
        }
    }
}

#[test]
fn without_friction_it_is_constant_energy_bit_for_bit() {
    for kind in kinds() {
        let (mut nve, mut langevin) =
            (random(true, None).start(&kind), random(true, Some(bath(0.0, 4, false))).start(&kind));
        let (a, b) = (advance(&mut *nve, 40), advance(&mut *langevin, 40));
        let energies = |samples: &[Sample]| -> Vec<[f64; 3]> {
            samples.iter().map(|s| [s.kinetic, s.potential, s.conserved]).collect()
        };
        assert_eq!(energies(&a), energies(&b), "{kind}");
        assert_eq!(nve.state().unwrap(), langevin.state().unwrap(), "{kind}");
    }
}

#[test]
fn one_seed_repeats_and_two_seeds_differ() {
    for kind in kinds() {
        let path = |seed| advance(&mut *random(true, Some(bath(0.01, seed, true))).start(&kind), 20);
        let first = path(1);
        assert_eq!(first, path(1), "{kind}");
        assert_ne!(first, path(2), "{kind}");
    }
}

/// Taking a state out and putting it into a fresh backend at any step changes no bit, list rebuilds included.
#[test]
fn a_restored_state_goes_on_bit_for_bit() {
    for kind in kinds() {
        for thermostat in [None, Some(bath(0.02, 3, true))] {
            let setup = random(true, thermostat);
            let mut whole = setup.start(&kind);
            let reference = advance(&mut *whole, 40);
            assert!(reference.last().unwrap().list_rebuilds > 1, "the test must see rebuilds");
            let mut second = setup.start(&kind);
            let mut first = setup.start(&kind);
            for split in (0..40).step_by(7) {
                let steps = split - first.step();
                advance(&mut *first, steps);
                let state = first.state().unwrap();
                advance(&mut *second, 3);
                second.restore(&state).unwrap();
                assert_eq!(second.state().unwrap(), state, "{kind}");
                assert_eq!(advance(&mut *second, 40 - split), reference[split as usize..], "{kind}: split at {split}");
                assert_eq!(second.state().unwrap(), whole.state().unwrap(), "{kind}");
            }
        }
    }
}

/// A run may change over from each backend to each other: the path goes on as that of the other would.
#[test]
fn a_state_goes_from_each_backend_to_each_other() {
    let setup = random(true, Some(bath(0.02, 3, true)));
    let kinds = kinds();
    let mut exact = setup.start(&kinds[0]);
    advance(&mut *exact, 30);
    let end = exact.state().unwrap();
    for from in &kinds {
        for to in &kinds {
            let (mut first, mut second) = (setup.start(from), setup.start(to));
            advance(&mut *first, 15);
            second.restore(&first.state().unwrap()).unwrap();
            advance(&mut *second, 15);
            let state = second.state().unwrap();
            assert_eq!((state.step, state.list_rebuilds), (end.step, end.list_rebuilds), "{from} to {to}");
            for (a, b) in state.positions.iter().zip(&end.positions) {
                assert!((a - b).norm() < 1e-5, "{from} to {to}: {:e}", (a - b).norm());
            }
        }
    }
}

/// Collects what it is told.
#[derive(Default)]
struct Record {
    frames: Vec<Frame>,
    samples: Vec<Sample>,
}

impl Observer for Record {
    fn samples(&mut self, samples: &[Sample]) -> Result<()> {
        self.samples.extend(samples);
        Ok(())
    }

    fn frame(&mut self, frame: &Frame) -> Result<()> {
        self.frames.push(frame.clone());
        Ok(())
    }
}

#[test]
fn what_is_written_and_when_changes_no_bit_of_the_path() {
    for kind in kinds() {
        let run = |frame_interval: u64, checkpoint_interval: u64| {
            let mut backend = random(true, Some(bath(0.01, 5, true))).start(&kind);
            let mut record = Record::default();
            let schedule = Schedule {
                steps: 40,
                frame_intervals: vec![frame_interval],
                checkpoint_interval: Some(checkpoint_interval),
                stop_outside: false,
            };
            let limits = Limits { drift: 1.0, excursion: 1.0 };
            let conservation = Conservation::new(11, 30);
            simulation::run(&mut *backend, schedule, conservation, limits, &mut [&mut record], &GO).unwrap();
            record
        };
        let (often, seldom) = (run(1, 1), run(20, 7));
        assert_eq!((often.frames.len(), seldom.frames.len()), (41, 3), "{kind}");
        assert_eq!(often.samples, seldom.samples, "{kind}");
        for (n, frame) in seldom.frames.iter().enumerate() {
            let same = &often.frames[20 * n];
            assert_eq!(parts(frame), parts(same), "{kind}");
        }
    }
}

fn parts(frame: &Frame) -> [&Vec<Vector3<f64>>; 3] {
    [&frame.positions, &frame.velocities, &frame.forces]
}

/// Frames at the multiples of several intervals, told on the way, are the states of a backend that stops there, however the
/// steps are cut into calls; and nobody's path changes.
#[test]
fn frames_on_the_way_are_the_states_of_their_steps() {
    for kind in kinds() {
        for thermostat in [None, Some(bath(0.02, 3, true))] {
            let setup = random(true, thermostat);
            let mut backend = setup.start(&kind);
            backend.tell_frames(&[6, 10]).unwrap();
            let mut heard = Heard::default();
            for steps in [13, 1, 16, 10] {
                backend.advance(steps, &|| false, &mut |event| heard.hear(event)).unwrap();
            }
            let steps: Vec<_> = heard.frames.iter().map(|frame| frame.sample.step).collect();
            assert_eq!(steps, [6, 10, 12, 18, 20, 24, 30, 36, 40], "{kind}");
            let mut plain = setup.start(&kind);
            let mut samples = Vec::new();
            for frame in &heard.frames {
                samples.extend(advance(&mut *plain, frame.sample.step - samples.len() as u64));
                assert_eq!(parts(frame), parts(&plain.frame().unwrap()), "{kind}");
                assert_eq!(frame.sample, *samples.last().unwrap(), "{kind}");
            }
            assert_eq!(heard.samples, samples, "{kind}");
            assert_eq!(backend.state().unwrap(), plain.state().unwrap(), "{kind}");
            // No frames from now on.
            backend.tell_frames(&[]).unwrap();
            assert!(listen(&mut *backend, 20).frames.is_empty(), "{kind}");
        }
    }
}

/// A run that fails has told everything before the step in which it did.
#[test]
fn frames_before_an_explosion_are_told() {
    for kind in kinds() {
        let mut setup = random(false, None);
        setup.timestep = 1.0;
        let mut backend = setup.start(&kind);
        backend.tell_frames(&[2]).unwrap();
        let mut heard = Heard::default();
        let error = backend.advance(40, &|| false, &mut |event| heard.hear(event)).unwrap_err().to_string();
        let step = error.strip_prefix("the simulation exploded at step ").and_then(|rest| rest.split_once(':'));
        let step: u64 = step.unwrap_or_else(|| panic!("{kind}: {error}")).0.parse().unwrap();
        assert!(step > 4, "{kind}: the test must see frames: {error}");
        let told = |steps: Vec<u64>| steps.into_iter().map(|step| step.to_string()).collect::<Vec<_>>().join(" ");
        let frames = heard.frames.iter().map(|frame| frame.sample.step).collect();
        assert_eq!(told(frames), told((2..step).step_by(2).collect()), "{kind}");
        assert_eq!(heard.samples.len() as u64, step - 1, "{kind}");
    }
}

/// Whoever listens may fail: that is the end of the call, and nothing else.
#[test]
fn a_listener_that_fails_leaves_the_path_alone() {
    for kind in kinds() {
        let setup = random(true, Some(bath(0.02, 3, true)));
        let mut whole = setup.start(&kind);
        let reference = advance(&mut *whole, 40);
        let mut backend = setup.start(&kind);
        backend.tell_frames(&[5]).unwrap();
        let error = backend.advance(20, &|| false, &mut |event| match event {
            Event::Frame(frame) if frame.sample.step == 10 => Err(Error::Output("the disk is full".into())),
            _ => Ok(()),
        });
        assert_eq!(error.unwrap_err().to_string(), "the disk is full", "{kind}");
        let step = backend.step();
        assert!((10..=20).contains(&step), "{kind}: {step}");
        assert_eq!(advance(&mut *backend, 40 - step), reference[step as usize..], "{kind}");
        assert_eq!(backend.state().unwrap(), whole.state().unwrap(), "{kind}");
    }
}

#[test]
fn timing_the_list_changes_no_bit() {
    for kind in kinds() {
        let setup = random(true, Some(bath(0.02, 3, true)));
        let (mut whole, mut timed) = (setup.start(&kind), setup.start(&kind));
        let reference = advance(&mut *whole, 40);
        assert!(reference[39].list_rebuilds > 3, "the test must see the list made");
        let mut samples = advance(&mut *timed, 13);
        assert!(timed.time_list().unwrap() > std::time::Duration::ZERO, "{kind}");
        samples.extend(advance(&mut *timed, 27));
        assert_eq!(samples, reference, "{kind}");
        assert_eq!(timed.state().unwrap(), whole.state().unwrap(), "{kind}");
    }
}

#[test]
fn a_pause_at_once_moves_and_tells_nothing() {
    for kind in kinds() {
        let mut backend = random(false, None).start(&kind);
        backend.tell_frames(&[1]).unwrap();
        backend.advance(10, &|| true, &mut |event| panic!("{event:?}")).unwrap();
        assert_eq!(backend.step(), 0, "{kind}");
    }
}

/// Alone, and too far from each other to feel anything: an energy and no force, on a straight path.
#[test]
fn atoms_without_neighbours_fly_straight() {
    for kind in kinds() {
        for count in [1, 3] {
            let positions = (0..count).map(|n| Vector3::new(20.0 * n as f64, 0.0, 0.0)).collect();
            let mut system = System::new(vec![8; count], positions, Cell::open()).unwrap();
            system.velocities = Some(vec![Vector3::new(0.01, -0.02, 0.03); count]);
            let setup = Setup { system, ..random(false, None) };
            let mut backend = setup.start(&kind);
            let samples = advance(&mut *backend, 20);
            let frame = backend.frame().unwrap();
            assert!(samples.iter().all(|s| s.conserved == samples[0].conserved && s.potential.is_finite()), "{kind}");
            for (n, x) in frame.positions.iter().enumerate() {
                let expected = setup.system.positions[n] + Vector3::new(0.01, -0.02, 0.03) * 0.3 * 20.0;
                assert!((x - expected).norm() < 1e-12 && frame.forces[n] == Vector3::zeros(), "{kind}");
            }
        }
    }
}
