//! Velocity Verlet, on potentials with known answers and on a network.

mod common;

use common::models::{ModelFile, SMALL, random_system};
use nalgebra::Vector3;
use std::sync::atomic::AtomicBool;
use verlet::Result;
use verlet::analysis::{Conservation, Limits};
use verlet::backend::cpu::{CpuBackend, Filters, NetworkPotential, Potential, Real};
use verlet::backend::{Backend, Evaluation};
use verlet::integrate::Integrator;
use verlet::output::{Frame, Sample};
use verlet::simulation::{self, Observer, Schedule};
use verlet::system::{Cell, System, velocities};
use verlet::units;

static GO: AtomicBool = AtomicBool::new(false);

/// Every atom on a spring of its own, tied to the origin: E = ½ k x².
struct Springs {
    /// eV/Å².
    stiffness: f64,
}

impl Potential for Springs {
    fn evaluate(&mut self, positions: &[Vector3<f64>], _: &Cell, out: &mut Evaluation) -> Result<()> {
        out.forces = positions.iter().map(|r| -r * self.stiffness).collect();
        out.atom_energies = positions.iter().map(|r| 0.5 * self.stiffness * r.norm_squared()).collect();
        out.energy = out.atom_energies.iter().sum();
        Ok(())
    }
}

fn backend<P: Potential>(potential: P, system: System, timestep: f64) -> CpuBackend<P> {
    let integrator = Integrator::new(timestep, &system.masses, None);
    let freedom = 3 * system.len();
    CpuBackend::new(potential, system, integrator, 1, freedom, "test".into()).unwrap()
}

fn advance(backend: &mut dyn Backend, steps: u64) -> Vec<Sample> {
    let mut samples = Vec::new();
    backend.advance(steps, &GO, &mut samples).unwrap();
    samples
}

fn oscillators() -> System {
    let mut system =
        System::new(vec![1, 8], vec![Vector3::new(0.3, -0.1, 0.0), Vector3::new(0.0, 0.2, -0.4)], Cell::open())
            .unwrap();
    system.velocities = Some(vec![Vector3::new(0.0, 0.01, -0.02), Vector3::new(0.005, 0.0, 0.0)]);
    system
}

/// Verlet's recurrence has a closed form for a harmonic force: x_n = x_0 cos nθ + v_0 sin nθ Δt / sin θ, with
/// cos θ = 1 − (ω Δt)²/2. Against it the error is rounding; against the continuous path it falls with Δt².
#[test]
fn harmonic_oscillators_follow_the_analytic_path() {
    let stiffness = 30.0;
    let system = oscillators();
    let mut errors = Vec::new();
    for timestep in [0.5, 0.25] {
        let mut backend = backend(Springs { stiffness }, system.clone(), timestep);
        let steps = (100.0 / timestep) as u64;
        let mut error = 0.0f64;
        for n in 1..=steps {
            advance(&mut backend, 1);
            let frame = backend.frame().unwrap();
            for atom in 0..2 {
                let omega = (stiffness * units::FORCE_PER_MASS / system.masses[atom]).sqrt();
                let (x0, v0) = (system.positions[atom], system.velocities.as_ref().unwrap()[atom]);
                let theta = (1.0 - 0.5 * (omega * timestep).powi(2)).acos();
                let phase = n as f64 * theta;
                let discrete = x0 * phase.cos() + v0 * (timestep * phase.sin() / theta.sin());
                assert!((frame.positions[atom] - discrete).norm() < 1e-11);
                let t = n as f64 * timestep;
                let exact = x0 * (omega * t).cos() + v0 * ((omega * t).sin() / omega);
                error = error.max((frame.positions[atom] - exact).norm());
            }
        }
        errors.push(error);
    }
    let ratio = errors[0] / errors[1];
    assert!((3.0..5.0).contains(&ratio), "{errors:?}");
}

/// A molecule that holds together: our own model, relaxed enough to run.
fn ethanol<T: Real>(filters: Filters, timestep: f64) -> CpuBackend<NetworkPotential<T>> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let model = verlet::model::Model::load(root.join("inputs/models/ethanol-water-v1.safetensors")).unwrap();
    let mut system = verlet::system::structure::read_structure(root.join("inputs/structures/ethanol.xyz"), 0).unwrap();
    system.velocities = Some(velocities::maxwell_boltzmann(&system, 300.0, 4, true));
    let potential = NetworkPotential::<T>::new(&model, &system.atomic_numbers, 1.0, filters).unwrap();
    let integrator = Integrator::new(timestep, &system.masses, None);
    let freedom = 3 * system.len() - 3;
    CpuBackend::new(potential, system, integrator, 1, freedom, "test".into()).unwrap()
}

#[test]
fn time_can_be_turned_round() {
    let mut backend = ethanol::<f64>(Filters::Table, 0.5);
    let start = backend.frame().unwrap();
    advance(&mut backend, 200);
    let far = backend.frame().unwrap();
    assert!((far.positions[0] - start.positions[0]).norm() > 0.01);
    backend.reverse();
    advance(&mut backend, 200);
    let back = backend.frame().unwrap();
    for (a, b) in start.positions.iter().zip(&back.positions) {
        assert!((a - b).norm() < 1e-9, "{}", (a - b).norm());
    }
}

#[test]
fn the_energy_error_falls_with_the_square_of_the_time_step() {
    let fluctuation = |timestep: f64| {
        let mut backend = ethanol::<f64>(Filters::Table, timestep);
        let energies: Vec<f64> = advance(&mut backend, (100.0 / timestep) as u64).iter().map(|s| s.conserved).collect();
        let mean = energies.iter().sum::<f64>() / energies.len() as f64;
        (energies.iter().map(|e| (e - mean).powi(2)).sum::<f64>() / energies.len() as f64).sqrt()
    };
    let ratio = fluctuation(0.5) / fluctuation(0.25);
    assert!((3.0..5.0).contains(&ratio), "{ratio}");
}

#[test]
fn momentum_is_conserved() {
    for periodic in [false, true] {
        let model = ModelFile::random("painn", SMALL, 21).load().unwrap();
        let cell = if periodic {
            Cell::from_parameters([6.0, 7.0, 8.0], [90.0, 75.0, 100.0], [true; 3]).unwrap()
        } else {
            Cell::open()
        };
        let mut system = random_system(12, cell, 22);
        system.velocities = Some(velocities::maxwell_boltzmann(&system, 100.0, 1, false));
        let momentum = |v: &[Vector3<f64>]| -> Vector3<f64> { v.iter().zip(&system.masses).map(|(v, m)| v * *m).sum() };
        let before = momentum(system.velocities.as_ref().unwrap());
        assert!(before.norm() > 1e-3);
        let potential = NetworkPotential::<f32>::new(&model, &system.atomic_numbers, 0.5, Filters::Table).unwrap();
        let mut backend = backend(potential, system.clone(), 0.2);
        advance(&mut backend, 300);
        let after = momentum(&backend.frame().unwrap().velocities);
        assert!((after - before).norm() < 1e-12, "{}", (after - before).norm());
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

fn run(frame_interval: u64, chunk: u64) -> Record {
    let mut backend = ethanol::<f32>(Filters::Table, 0.5);
    let mut record = Record::default();
    let schedule =
        Schedule { steps: 60, frame_intervals: vec![frame_interval], checkpoint_interval: Some(chunk), chunk };
    let limits = Limits { drift: 1.0, excursion: 1.0 };
    simulation::run(&mut backend, schedule, Conservation::new(9, 24), limits, &mut [&mut record], &GO).unwrap();
    record
}

#[test]
fn what_is_written_and_when_changes_no_bit_of_the_path() {
    let often = run(1, 1);
    let seldom = run(20, 7);
    assert_eq!((often.frames.len(), seldom.frames.len()), (61, 4));
    assert_eq!(often.samples, seldom.samples);
    for (n, frame) in seldom.frames.iter().enumerate() {
        let same = &often.frames[20 * n];
        assert_eq!(
            (&frame.positions, &frame.velocities, &frame.forces),
            (&same.positions, &same.velocities, &same.forces)
        );
    }
}

#[test]
fn a_raised_flag_stops_the_run_at_a_whole_step() {
    let mut backend = ethanol::<f32>(Filters::Table, 0.5);
    let stop = AtomicBool::new(true);
    let mut samples = Vec::new();
    backend.advance(10, &stop, &mut samples).unwrap();
    assert_eq!((backend.step(), samples.len()), (0, 0));
}

/// Two heavy charges of opposite sign on top of each other, in effect: the energy leaves the numbers.
#[test]
fn an_explosion_is_reported_with_step_and_atom() {
    struct Cliff;
    impl Potential for Cliff {
        fn evaluate(&mut self, positions: &[Vector3<f64>], _: &Cell, out: &mut Evaluation) -> Result<()> {
            let over = positions[1].x > 1.0;
            let pull = |on: bool| Vector3::new(if on { f64::NAN } else { 1.0 }, 0.0, 0.0);
            out.forces = vec![pull(false), pull(over)];
            out.energy = if over { f64::NAN } else { 0.0 };
            out.atom_energies = vec![0.0; 2];
            Ok(())
        }
    }
    let system = System::new(vec![8, 1], vec![Vector3::zeros(), Vector3::new(0.99, 0.0, 0.0)], Cell::open()).unwrap();
    let mut backend = backend(Cliff, system, 1.0);
    let error = backend.advance(100, &GO, &mut Vec::new()).unwrap_err().to_string();
    assert!(
        error.starts_with("the simulation exploded at step 2: the energy is NaN, first seen at atom 2 (H)"),
        "{error}"
    );
}

#[test]
fn timing_the_list_changes_no_bit() {
    let model = ModelFile::random("painn", SMALL, 3).load().unwrap();
    let mut system = random_system(11, Cell::from_parameters([6.0, 7.0, 8.0], [90.0; 3], [true; 3]).unwrap(), 9);
    system.velocities = Some(velocities::maxwell_boltzmann(&system, 200.0, 1, true));
    let start = || {
        let potential = NetworkPotential::<f32>::new(&model, &system.atomic_numbers, 0.1, Filters::Table).unwrap();
        backend(potential, system.clone(), 0.3)
    };
    let (mut whole, mut timed) = (start(), start());
    let reference = advance(&mut whole, 40);
    let mut samples = advance(&mut timed, 13);
    assert!(timed.time_list().unwrap() > std::time::Duration::ZERO);
    samples.extend(advance(&mut timed, 27));
    assert!(reference[39].list_rebuilds > 3, "the test must see the list made");
    assert_eq!(samples, reference);
    assert_eq!(timed.state().unwrap(), whole.state().unwrap());
}
