//! Many systems in one run: each has the path that it has alone, one that fails leaves the others as they are, and what is
//! stopped or killed goes on.

mod common;

use common::backends::{Kind, Setup, bath, devices, evaluate};
use common::models::{ModelFile, NETWORKS, SMALL, random_system};
use nalgebra::Vector3;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use verlet::backend::cpu::{CpuBatch, Filters, NetworkPotential};
use verlet::backend::cuda::{CudaBatch, Device, Path};
use verlet::backend::{Batch, Failure, Replica, State};
use verlet::integrate::{Integrator, Thermostat};
use verlet::model::Model;
use verlet::output::{Frame, Sample};
use verlet::system::{Cell, System, degrees_of_freedom, velocities};

static GO: AtomicBool = AtomicBool::new(false);

/// Å: thin, so that lists are made often.
const SKIN: f64 = 0.01;
/// fs: short, because random networks push random atoms hard.
const TIMESTEP: f64 = 0.02;

fn replica(mut system: System, timestep: f64, bath: Option<Thermostat>, seed: u64) -> Replica {
    system.velocities = Some(velocities::maxwell_boltzmann(&system, 200.0 + 20.0 * seed as f64, seed, true));
    let bath = bath.map(|bath| Thermostat { seed, temperature: bath.temperature + 10.0 * seed as f64, ..bath });
    Replica {
        degrees_of_freedom: degrees_of_freedom(system.len(), true),
        integrator: Integrator::new(timestep, &system.masses, bath),
        system,
    }
}

/// Systems of many sizes, in vacuum and in cells, one much smaller than the cutoff, with seeds and temperatures of their own.
fn mixture(bath: Option<Thermostat>) -> Vec<Replica> {
    let cell = |lengths, angles, periodic| Cell::from_parameters(lengths, angles, periodic).unwrap();
    let systems = [
        random_system(9, Cell::open(), 1),
        random_system(37, cell([9.0, 10.0, 11.0], [80.0, 105.0, 65.0], [true; 3]), 3),
        random_system(4, cell([3.1, 3.6, 4.2], [70.0, 85.0, 100.0], [true; 3]), 4),
        random_system(9, Cell::open(), 1),
        random_system(11, cell([6.0, 7.0, 9.0], [75.0, 95.0, 110.0], [true, false, true]), 5),
        random_system(140, Cell::open(), 6),
        System::new(vec![8], vec![Vector3::new(3.0, 2.0, 1.0)], Cell::open()).unwrap(),
    ];
    systems.into_iter().enumerate().map(|(n, system)| replica(system, TIMESTEP, bath, n as u64)).collect()
}

fn model(network: &str) -> Model {
    ModelFile::random(network, SMALL, 3).load().unwrap()
}

fn on_gpu(
    device: &Arc<Device>,
    model: &Model,
    replicas: &[Replica],
    kernels_for: usize,
    path: Option<Path>,
) -> CudaBatch {
    CudaBatch::new(device, model, replicas, SKIN, 1, Some(kernels_for), path).unwrap()
}

fn on_cpu(model: &Model, replicas: &[Replica]) -> CpuBatch<NetworkPotential<f32>> {
    let numbers = |n: usize| &replicas[n].system.atomic_numbers;
    let first = NetworkPotential::<f32>::new(model, numbers(0), SKIN, Filters::Table).unwrap();
    let mut potentials: Vec<_> =
        (1..replicas.len()).map(|n| first.for_others(model, numbers(n), SKIN).unwrap()).collect();
    potentials.insert(0, first);
    CpuBatch::new(potentials, replicas, 1, "test".into()).unwrap()
}

/// All that can be seen of a system after some steps.
#[derive(Debug, PartialEq)]
struct Seen {
    samples: Vec<Sample>,
    state: Option<State>,
    forces: Vec<Vector3<f64>>,
}

fn advance(batch: &mut dyn Batch, steps: u64) -> Vec<Seen> {
    let mut samples = vec![Vec::new(); batch.len()];
    batch.advance(steps, &GO, &mut samples).unwrap();
    let mut frames = vec![Some(Frame::default()); batch.len()];
    batch.read_frames(&mut frames).unwrap();
    let states = batch.states().unwrap();
    let seen = samples.into_iter().zip(states).zip(frames);
    let see = |((samples, state), frame): ((_, Option<State>), Option<Frame>)| {
        // Where a system stands that moves no more is nobody's business.
        let forces = frame.filter(|_| state.is_some()).map_or(Vec::new(), |frame| frame.forces);
        Seen { samples, state, forces }
    };
    seen.map(see).collect()
}

fn rebuilds(seen: &[Seen]) -> u64 {
    seen.iter().map(|seen| seen.state.as_ref().unwrap().list_rebuilds).max().unwrap()
}

/// With the kernels for few atoms in all, for some, and for many.
#[test]
fn company_changes_no_bit_of_a_path() {
    for device in devices().into_iter().take(1) {
        for (network, kernels_for, bath) in [
            ("painn", 100, None),
            ("painn-repulsive", 700, Some(bath())),
            ("student", 5000, Some(bath())),
            ("painn", 5000, None),
        ] {
            let (model, all) = (model(network), mixture(bath));
            let together = advance(&mut on_gpu(&device, &model, &all, kernels_for, None), 12);
            assert!(rebuilds(&together) > 1, "the test must see lists made: {}", rebuilds(&together));
            for (n, seen) in together.iter().enumerate() {
                let alone = advance(&mut on_gpu(&device, &model, &all[n..=n], kernels_for, None), 12);
                assert_eq!(seen.samples.len(), 12);
                assert_eq!(*seen, alone[0], "{network}, kernels for {kernels_for}, system {n}");
            }
            assert_ne!(together[0].state, together[3].state, "seeds and temperatures are their own");
        }
    }
}

#[test]
fn graphs_and_plain_launches_give_the_same_bits() {
    for device in devices().into_iter().take(1) {
        let (model, all) = (model("painn"), mixture(Some(bath())));
        let run = |path| advance(&mut on_gpu(&device, &model, &all, 300, Some(path)), 20);
        let plain = run(Path::Plain);
        for path in [Path::Steps, Path::Loop] {
            assert_eq!(run(path), plain, "{path:?}");
        }
    }
}

/// Forces against the CPU in float64, and a short path against the system alone in its own backend, which may take the
/// network for few atoms: both within what float32 rounds.
#[test]
fn a_replica_moves_as_the_system_alone() {
    for (device, network) in devices().into_iter().flat_map(|device| NETWORKS.map(|network| (device.clone(), network)))
    {
        let (model, all) = (Arc::new(model(network)), mixture(Some(bath())));
        let mut batch = on_gpu(&device, &model, &all, 300, None);
        let mut frames = vec![Some(Frame::default()); all.len()];
        batch.read_frames(&mut frames).unwrap();
        for (n, (replica, frame)) in all.iter().zip(frames.iter().flatten()).enumerate() {
            let numbers = &replica.system.atomic_numbers;
            let mut exact = NetworkPotential::<f64>::new(&model, numbers, SKIN, Filters::Direct).unwrap();
            let exact = evaluate(&mut exact, &replica.system);
            let scale = 1.0 + exact.forces.iter().map(|f| f.amax()).fold(0.0, f64::max);
            let off = frame.forces.iter().zip(&exact.forces).map(|(a, b)| (a - b).amax()).fold(0.0, f64::max);
            assert!(off < 2e-5 * scale, "{network}, system {n}: a force is off by {off:.1e} of {scale}");
        }
        let together = advance(&mut batch, 5);
        for (n, (replica, seen)) in all.iter().zip(&together).enumerate() {
            let setup = Setup {
                model: model.clone(),
                system: replica.system.clone(),
                timestep: replica.integrator.timestep(),
                skin: SKIN,
                thermostat: replica.integrator.thermostat().copied(),
            };
            let mut alone = setup.start(&Kind::Cuda(device.clone()));
            common::backends::advance(alone.as_mut(), 5);
            let (alone, together) = (alone.state().unwrap(), seen.state.as_ref().unwrap());
            assert_eq!((alone.step, alone.list_rebuilds), (together.step, together.list_rebuilds));
            let off = alone.positions.iter().zip(&together.positions).map(|(a, b)| (a - b).amax()).fold(0.0, f64::max);
            assert!(off < 1e-6, "{network}, system {n}: an atom is off by {off:.1e} Å");
        }
    }
}

#[test]
fn on_the_cpu_every_path_is_that_of_the_system_alone() {
    let (model, all) = (Arc::new(model("painn")), mixture(Some(bath())));
    let together = advance(&mut on_cpu(&model, &all), 15);
    for (replica, seen) in all.iter().zip(&together) {
        let setup = Setup {
            model: model.clone(),
            system: replica.system.clone(),
            timestep: replica.integrator.timestep(),
            skin: SKIN,
            thermostat: replica.integrator.thermostat().copied(),
        };
        let mut alone = setup.start(&Kind::CpuF32);
        assert_eq!(common::backends::advance(alone.as_mut(), 15), seen.samples);
        assert_eq!(Some(alone.state().unwrap()), seen.state);
    }
}

/// Every kind of batch there is here.
fn batches(model: &Model, replicas: &[Replica]) -> Vec<(String, Box<dyn Batch>)> {
    let mut all: Vec<(String, Box<dyn Batch>)> = vec![("cpu".into(), Box::new(on_cpu(model, replicas)))];
    for device in devices().into_iter().take(1) {
        all.push(("cuda".into(), Box::new(on_gpu(&device, model, replicas, 300, None))));
    }
    all
}

#[test]
fn one_that_explodes_is_named_and_the_others_go_on_as_before() {
    let (model, all) = (model("painn"), mixture(Some(bath())));
    let mut broken = all.clone();
    // One atom comes at another so fast that it is thrown away some steps later; another is too fast from the start.
    let system = &mut broken[1].system;
    let way = (system.positions[1] - system.positions[0]).normalize();
    system.velocities.as_mut().unwrap()[0] = way * 30.0;
    broken[4].system.velocities.as_mut().unwrap()[2] = Vector3::new(0.0, 90.0, 0.0);
    for ((name, mut good), (_, mut bad)) in batches(&model, &all).into_iter().zip(batches(&model, &broken)) {
        let (mut good_seen, mut seen) = (Vec::new(), Vec::new());
        let mut failures = Vec::new();
        for _ in 0..3 {
            good_seen = advance(good.as_mut(), 9);
            seen = advance(bad.as_mut(), 9);
            failures.extend(bad.failures());
        }
        assert!(good.failures().is_empty());
        let failed: Vec<usize> = failures.iter().map(|failure| failure.replica).collect();
        assert!(failed.contains(&4) && failed.iter().all(|n| [1, 4].contains(n)), "{name}: {failures:?}");
        let Failure { step, reason, .. } = failures.iter().find(|failure| failure.replica == 4).unwrap();
        assert!(*step == 1 && reason.contains("exploded at step 1: ") && reason.contains("atom 3"), "{name}: {reason}");
        for n in (0..all.len()).filter(|n| ![1, 4].contains(n)) {
            assert_eq!(seen[n], good_seen[n], "{name}, system {n}");
        }
        assert!(seen[4].state.is_none() && seen[4].samples.is_empty(), "{name}");
    }
}

#[test]
fn a_batch_goes_on_from_its_states() {
    let (model, all) = (model("painn"), mixture(Some(bath())));
    for (name, mut batch) in batches(&model, &all) {
        advance(batch.as_mut(), 13);
        let states: Vec<State> = batch.states().unwrap().into_iter().map(Option::unwrap).collect();
        batch.halt(2).unwrap();
        let straight = advance(batch.as_mut(), 12);
        let mut moves = vec![true; all.len()];
        moves[2] = false;
        let (_, mut again) = batches(&model, &all).into_iter().find(|(other, _)| *other == name).unwrap();
        again.restore(&states, &moves).unwrap();
        assert_eq!(again.step(), 13);
        assert_eq!(advance(again.as_mut(), 12), straight, "{name}");
        again.time_lists().unwrap();
        assert_eq!(advance(again.as_mut(), 5), advance(batch.as_mut(), 5), "{name}");
    }
}

/// Two clusters meet: rows grow beyond the room that they had at first, in the middle of a launch.
#[test]
fn rows_get_more_room_when_they_need_it() {
    let Some(device) = devices().into_iter().next() else { return };
    let model = model("painn");
    let one = random_system(60, Cell::open(), 6);
    let apart = Vector3::new(15.0, 0.0, 0.0);
    let positions = one.positions.iter().copied().chain(one.positions.iter().map(|r| r + apart)).collect();
    let mut both = replica(System::new(one.atomic_numbers.repeat(2), positions, Cell::open()).unwrap(), 0.005, None, 1);
    let towards = |n: usize| Vector3::new(if n < 60 { 40.0 } else { -40.0 }, 0.0, 0.0);
    both.system.velocities = Some((0..120).map(towards).collect());
    let mut all = mixture(None)[..3].to_vec();
    all.iter_mut().for_each(|other| *other = replica(other.system.clone(), 0.005, None, 4));
    all.insert(1, both);
    let together = advance(&mut on_gpu(&device, &model, &all, 300, None), 32);
    for (n, seen) in together.iter().enumerate() {
        let plain = advance(&mut on_gpu(&device, &model, &all[n..=n], 300, Some(Path::Plain)), 32);
        assert_eq!(*seen, plain[0], "system {n}");
    }
    let state = together[1].state.as_ref().unwrap();
    let near = |r: &Vector3<f64>| state.positions.iter().filter(|other| (*other - r).norm() < 5.1).count();
    let most = state.positions.iter().map(near).max().unwrap();
    assert!(most > 65, "the test must need more room: {most}");
}
