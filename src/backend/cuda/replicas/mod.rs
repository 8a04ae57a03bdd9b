//! Many systems on one GPU: their atoms are those of one large system for the network, and everything else is done system
//! by system, in one launch for all (kernels/replicas.cu).

mod memory;
mod order;

use super::device::Device;
use super::engine::Path;
use super::graph::Graph;
use super::layout::{Control, DeviceSample, status};
use super::memory::Staging;
use super::sample::Scale;
use super::state::{Motion, SAMPLES, State, check_images};
use crate::backend::departure::Watch;
use crate::backend::guard::Guard;
use crate::backend::{self, Batch, Departure, Failure, Replica, explosion};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::output::{Frame, Sample};
use crate::system::{Cell, kinetic_energy};
use memory::Memory;
use nalgebra::Vector3;
use order::Kernels;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Atoms times steps of one launch: after each the host looks at every system. Less than a second, so that a run can be
/// stopped.
const WORK: u64 = 800_000;

/// What the host knows of a system.
struct Member {
    /// Its atoms among all.
    atoms: Range<usize>,
    atomic_numbers: Vec<u8>,
    scale: Scale,
    guard: Guard,
    watch: Watch,
    /// It moves no more.
    halted: bool,
}

/// Many systems moving on the GPU under one network.
///
/// The path of a system is the same, bit for bit, whichever systems stand beside it, as long as the network takes the same
/// kernels; which it takes depends on the number of all atoms, as for one system of that size. Against the path of the system
/// alone in a [`CudaBackend`](super::CudaBackend) other sums are rounded: those of the network for few atoms in float32, and
/// kinetic energies of more than 128 atoms in float64.
pub struct CudaBatch {
    state: State,
    kernels: Kernels,
    memory: Memory,
    members: Vec<Member>,
    /// As on the device: that of all, then one for each system.
    controls: Vec<Control>,
    path: Path,
    graph: Option<Graph>,
    /// Most steps of a launch.
    launch: u64,
    staging: Staging<f64>,
    /// Positions, velocities and forces of all atoms, on their way into frames.
    passing: [Vec<Vector3<f64>>; 3],
    bath: bool,
    failures: Vec<Failure>,
    description: String,
}

impl CudaBatch {
    /// Starts at step 0 with the systems' velocities (at rest without any) and computes the first forces.
    ///
    /// All replicas have the time step and the friction of the first one. A sample is taken at every multiple of `log_interval`
    /// steps. The network takes the kernels for `kernels_for` atoms, or, without a number, for as many as there are: with the
    /// same number a replica has the same path in any company. Without a `path` the driver decides.
    ///
    /// # Errors
    /// As [`CudaBackend::new`](super::CudaBackend::new), with the number of the replica.
    pub fn new(
        device: &Arc<Device>,
        model: &Model,
        replicas: &[Replica],
        skin: f64,
        log_interval: u64,
        kernels_for: Option<usize>,
        path: Option<Path>,
    ) -> Result<Self> {
        let all = |of: fn(&Replica) -> &[f64]| -> Vec<f64> { replicas.iter().flat_map(of).copied().collect() };
        let masses = all(|replica| &replica.system.masses);
        let numbers: Vec<u8> = replicas.iter().flat_map(|replica| &replica.system.atomic_numbers).copied().collect();
        let (atoms, integrator) = (numbers.len(), &replicas.first().expect("there is at least one system").integrator);
        let kernels_for = Some(kernels_for.unwrap_or(atoms));
        let motion = Motion { masses: &masses, integrator, log_interval, replicas: kernels_for };
        let mut state = State::new(device, model, &numbers, &Cell::open(), skin, Some(motion))?;
        let range = state.parameters.range;
        for (n, replica) in replicas.iter().enumerate() {
            check_images(&replica.system.cell, range)
                .map_err(|error| Error::Run(format!("replica {}: {error}", n + 1)))?;
        }
        let kernels = Kernels::new(&mut state, replicas.len(), atoms)?;
        let launch = (WORK / atoms as u64).clamp(1, SAMPLES as u64);
        let mut first = 0;
        let members: Vec<Member> = replicas
            .iter()
            .map(|replica| {
                let system = &replica.system;
                let begin = first;
                first += system.len();
                Member {
                    atoms: begin..first,
                    atomic_numbers: system.atomic_numbers.clone(),
                    scale: Scale {
                        energy_unit: model.energy_unit,
                        offset: system.atomic_numbers.iter().map(|&z| model.offsets[z as usize]).sum(),
                        timestep: integrator.timestep(),
                        degrees_of_freedom: replica.degrees_of_freedom,
                    },
                    guard: Guard::new(model, &system.atomic_numbers),
                    watch: Watch::default(),
                    halted: false,
                }
            })
            .collect();
        let guards: Vec<Guard> = members.iter().map(|member| member.guard.clone()).collect();
        let memory = Memory::new(device, &mut state.parameters, replicas, &guards, launch as usize)?;
        let path = Path::choose(device, path);
        let velocities = replicas.iter().map(|replica| {
            replica.system.velocities.clone().unwrap_or_else(|| vec![Vector3::zeros(); replica.system.len()])
        });
        let velocities: Vec<_> = velocities.collect();
        let control = |(replica, velocities): (&Replica, &Vec<_>)| Control {
            kinetic: kinetic_energy(&replica.system.masses, velocities),
            ..Control::new()
        };
        let mut batch = CudaBatch {
            description: format!("{} (GPU), network in {}, {}", device.name, device.arithmetic.name(), path.words()),
            controls: [Control { rebuild: 0, ..Control::new() }]
                .into_iter()
                .chain(replicas.iter().zip(&velocities).map(control))
                .collect(),
            kernels,
            memory,
            members,
            path,
            graph: None,
            launch,
            staging: Staging::new(device, 9 * atoms)?,
            passing: Default::default(),
            bath: integrator.thermostat().is_some_and(|bath| bath.friction > 0.0),
            failures: Vec::new(),
            state,
        };
        batch.memory.lay_out(&mut batch.state)?;
        let positions: Vec<_> = replicas.iter().flat_map(|replica| &replica.system.positions).copied().collect();
        batch.state.set_positions(&positions)?;
        batch.state.set_velocities(&velocities.concat())?;
        batch.memory.write_controls(&batch.controls)?;
        batch.settle()?;
        Ok(batch)
    }

    /// Forces and sums for the states as the host has set them.
    fn settle(&mut self) -> Result<()> {
        self.memory.forget_contacts()?;
        loop {
            let device = self.state.device.clone();
            let mut sink = &*device;
            self.kernels.record_lists(&self.state, &mut sink)?;
            self.kernels.record_evaluation(&self.state, &mut sink)?;
            self.kernels.record_observe(&self.state, &mut sink)?;
            self.controls = self.memory.read_controls()?;
            if self.controls[0].status != status::CAPACITY {
                break;
            }
            self.make_room()?;
        }
        self.look_outside()?;
        for (s, (control, member)) in self.controls[1..].iter().zip(&mut self.members).enumerate() {
            if member.halted {
                continue;
            }
            let checked = control.good().and_then(|control| match control.network.is_finite() {
                true => Ok(()),
                false => {
                    let energy = member.scale.potential(control.network);
                    let name = explosion::lost(&self.state.forces()?[member.atoms.clone()], &member.atomic_numbers);
                    Err(explosion::no_energy(control.step as u64, energy, &name))
                }
            });
            checked.map_err(|error| Error::Run(format!("replica {}: {error}", s + 1)))?;
            if control.step % self.state.parameters.log_interval == 0 {
                member.look_beyond(control.step, control.network);
            }
        }
        Ok(())
    }

    /// Gives lists room that had too little, and lets the device go on.
    fn make_room(&mut self) -> Result<()> {
        self.controls[0].status = status::GOOD;
        for (s, control) in self.controls[1..].iter_mut().enumerate() {
            self.memory.widen(s, control.needed);
            control.needed = 0;
            // The others' lists must be made again where they are now, but are not new.
            if control.rebuild == 0 && control.status == status::GOOD {
                control.rebuild = 2;
            }
        }
        self.graph = None;
        self.memory.lay_out(&mut self.state)?;
        self.memory.write_controls(&self.controls)
    }

    /// Notes the atoms that were too close since the host looked.
    fn look_outside(&mut self) -> Result<()> {
        if self.controls[1..].iter().all(|control| control.close == 0) {
            return Ok(());
        }
        let contacts = self.memory.take_contacts()?;
        let each = contacts.len() / self.members.len();
        for ((control, member), contacts) in
            self.controls[1..].iter_mut().zip(&mut self.members).zip(contacts.chunks_exact(each))
        {
            control.close = 0;
            // What a step that failed has left is not complete.
            for contact in contacts.iter().filter(|contact| contact.distance > 0.0) {
                let outside = contact.atoms().map(|atoms| member.guard.distance(atoms, contact.distance));
                member.watch.note(contact.step as u64, outside);
            }
        }
        Ok(())
    }

    fn graph(&mut self) -> Result<&Graph> {
        if self.graph.is_none() {
            let (state, kernels) = (&self.state, &self.kernels);
            let graph = Graph::build(&state.device, |top| match self.path {
                Path::Loop => kernels.record_steps(state, top),
                _ => kernels.record_step(state, top),
            })?;
            self.graph = Some(graph);
        }
        Ok(self.graph.as_ref().expect("built above"))
    }

    /// Launches so many steps, finishes the last one, and reads where the device got to.
    fn launch(&mut self, steps: u64) -> Result<()> {
        let target = self.controls[0].step + steps as i64;
        for control in &mut self.controls {
            control.target = target;
            control.samples = 0;
        }
        self.memory.write_controls(&self.controls)?;
        let device = self.state.device.clone();
        let mut sink = &*device;
        match self.path {
            Path::Loop => self.graph()?.launch()?,
            Path::Steps => {
                for _ in 0..steps {
                    self.graph()?.launch()?;
                }
            }
            Path::Plain => {
                for _ in 0..steps {
                    self.kernels.record_step(&self.state, &mut sink)?;
                }
            }
        }
        self.controls = self.memory.read_controls()?;
        // A step some list of which did not fit: the atoms have moved, nothing after that has happened.
        while self.controls[0].status == status::CAPACITY {
            self.make_room()?;
            self.kernels.record_lists(&self.state, &mut sink)?;
            self.kernels.record_rest(&self.state, &mut sink)?;
            self.controls = self.memory.read_controls()?;
        }
        Ok(())
    }

    /// Hands out the samples of a launch.
    fn collect_samples(&mut self, samples: &mut [Vec<Sample>]) -> Result<()> {
        if self.controls[1..].iter().all(|control| control.samples == 0) {
            return Ok(());
        }
        let taken = self.memory.read_samples()?;
        for (s, taken) in taken.chunks_exact(self.launch as usize).enumerate() {
            for sample in &taken[..self.controls[1 + s].samples as usize] {
                let member = &mut self.members[s];
                if !sample.network.is_finite() && !member.halted {
                    let (step, energy) = (sample.step as u64, member.scale.potential(sample.network));
                    let name = explosion::lost(&self.state.forces()?[member.atoms.clone()], &member.atomic_numbers);
                    let error = explosion::no_energy(step, energy, &name);
                    self.fail(s, step, error);
                }
                let member = &mut self.members[s];
                if !member.halted {
                    member.look_beyond(sample.step, sample.network);
                    samples[s].push(member.scale.sample(sample));
                }
            }
        }
        Ok(())
    }

    /// Takes those out of the batch that failed in a launch.
    fn collect_failures(&mut self) -> Result<()> {
        for s in 0..self.members.len() {
            let (control, member) = (self.controls[1 + s], &self.members[s]);
            let step = control.step as u64 + 1;
            let error = match control.status {
                _ if member.halted => continue,
                status::GOOD => continue,
                // Whoever asked for that finds the departure and halts the system.
                status::OUTSIDE if member.watch.has_found() => continue,
                status::OUTSIDE => Error::Run("it left what the model was trained on".into()),
                status::FAST | status::STOPPED => {
                    let (atom, first) = (control.atom as usize, member.atoms.start);
                    let distance = self.state.velocities()?[first + atom].norm() * member.scale.timestep;
                    let name = explosion::name(atom, &member.atomic_numbers);
                    explosion::ended(step, member.scale.potential(control.network), &name, distance)
                }
                _ => match control.blame(step as i64) {
                    Ok(()) => continue,
                    Err(error) => error,
                },
            };
            self.fail(s, step, error);
        }
        Ok(())
    }

    fn fail(&mut self, replica: usize, step: u64, error: Error) {
        self.members[replica].halted = true;
        self.controls[1 + replica].status = status::STOPPED;
        self.failures.push(Failure { replica, step, reason: error.to_string() });
    }

    /// Brings the sums of the current states into the control blocks.
    fn observe(&mut self) -> Result<()> {
        let device = self.state.device.clone();
        self.memory.write_controls(&self.controls)?;
        self.kernels.record_observe(&self.state, &mut &*device)?;
        self.controls = self.memory.read_controls()?;
        if !self.bath {
            self.controls[1..].iter_mut().for_each(|control| control.kinetic = control.full_step);
        }
        Ok(())
    }
}

impl Member {
    /// Notes an energy, in the network's unit, that is beyond those of training.
    fn look_beyond(&mut self, step: i64, network: f64) {
        let outside = self.guard.beyond(network * self.scale.energy_unit);
        self.watch.note(step as u64, outside);
    }
}

impl Batch for CudaBatch {
    fn describe(&self) -> String {
        self.description.clone()
    }

    fn len(&self) -> usize {
        self.members.len()
    }

    fn step(&self) -> u64 {
        self.controls[0].step as u64
    }

    fn advance(&mut self, steps: u64, stop: &AtomicBool, samples: &mut [Vec<Sample>]) -> Result<()> {
        let goal = self.step() + steps;
        while self.step() < goal && !stop.load(Ordering::Relaxed) && self.members.iter().any(|member| !member.halted) {
            self.launch((goal - self.step()).min(self.launch))?;
            self.look_outside()?;
            self.collect_samples(samples)?;
            self.collect_failures()?;
        }
        Ok(())
    }

    fn failures(&mut self) -> Vec<Failure> {
        let mut failures = std::mem::take(&mut self.failures);
        failures.sort_by_key(|failure| (failure.step, failure.replica));
        failures
    }

    fn departures(&mut self) -> Vec<(usize, Departure)> {
        let members = self.members.iter_mut().enumerate();
        members.flat_map(|(s, member)| member.watch.take().into_iter().map(move |departure| (s, departure))).collect()
    }

    fn stop_outside(&mut self) {
        self.state.parameters.stop_outside = 1;
        self.graph = None;
    }

    fn halt(&mut self, replica: usize) -> Result<()> {
        self.members[replica].halted = true;
        self.controls[1 + replica].status = status::STOPPED;
        self.memory.write_controls(&self.controls)
    }

    fn samples(&mut self) -> Result<Vec<Option<Sample>>> {
        self.observe()?;
        let members = self.members.iter().zip(&self.controls[1..]);
        let sample = |(member, control): (&Member, &Control)| {
            (!member.halted).then(|| member.scale.sample(&DeviceSample::from(control)))
        };
        Ok(members.map(sample).collect())
    }

    fn read_frames(&mut self, frames: &mut [Option<Frame>]) -> Result<()> {
        self.observe()?;
        let [positions, velocities, forces] = &mut self.passing;
        self.state.read_frame(&mut self.staging, [positions, velocities, forces])?;
        for ((frame, control), member) in frames.iter_mut().zip(&self.controls[1..]).zip(&self.members) {
            let Some(frame) = frame else { continue };
            frame.sample = member.scale.sample(&DeviceSample::from(control));
            for (to, from) in [
                (&mut frame.positions, &*positions),
                (&mut frame.velocities, &*velocities),
                (&mut frame.forces, &*forces),
            ] {
                to.clear();
                to.extend_from_slice(&from[member.atoms.clone()]);
            }
        }
        Ok(())
    }

    fn states(&mut self) -> Result<Vec<Option<backend::State>>> {
        self.observe()?;
        let (positions, velocities) = (self.state.positions()?, self.state.velocities()?);
        let list_positions = self.state.list_positions()?;
        let members = self.members.iter().zip(&self.controls[1..]);
        let state = |(member, control): (&Member, &Control)| {
            let own = |all: &[Vector3<f64>]| all[member.atoms.clone()].to_vec();
            (!member.halted).then(|| backend::State {
                step: control.step as u64,
                positions: own(&positions),
                velocities: own(&velocities),
                heat: control.heat,
                kinetic: control.kinetic,
                list_positions: own(&list_positions),
                list_rebuilds: control.rebuilds as u64,
            })
        };
        Ok(members.map(state).collect())
    }

    fn restore(&mut self, states: &[backend::State], moves: &[bool]) -> Result<()> {
        for (state, member) in states.iter().zip(&self.members) {
            explosion::check_state(state, member.atoms.len())?;
        }
        let moving = states.iter().zip(moves).filter(|(_, moves)| **moves);
        let step = moving.map(|(state, _)| state.step).max().unwrap_or(0) as i64;
        self.controls = vec![Control { rebuild: 0, step, target: step, ..Control::new() }];
        for ((state, &moves), member) in states.iter().zip(moves).zip(&mut self.members) {
            member.halted = !moves;
            self.controls.push(Control {
                heat: state.heat,
                kinetic: state.kinetic,
                step: state.step as i64,
                target: step,
                rebuilds: state.list_rebuilds as i64 - 1,
                status: if moves { status::GOOD } else { status::STOPPED },
                ..Control::new()
            });
        }
        self.failures.clear();
        let all = |of: fn(&backend::State) -> &Vec<Vector3<f64>>| -> Vec<Vector3<f64>> {
            states.iter().flat_map(of).copied().collect()
        };
        self.state.set_velocities(&all(|state| &state.velocities))?;
        // The lists as they were, then the atoms where they are.
        self.state.set_positions(&all(|state| match state.list_positions.is_empty() {
            true => &state.positions,
            false => &state.list_positions,
        }))?;
        self.memory.write_controls(&self.controls)?;
        self.settle()?;
        // What was found on the way here belongs to other paths.
        self.members.iter_mut().for_each(|member| member.watch = Watch::default());
        self.state.set_positions(&all(|state| &state.positions))?;
        self.memory.write_controls(&self.controls)?;
        self.kernels.record_moved(&self.state, &mut &*self.state.device)?;
        self.settle()
    }

    fn time_lists(&mut self) -> Result<Duration> {
        let moving = |control: &&mut Control| control.status == status::GOOD;
        self.controls[1..].iter_mut().filter(moving).for_each(|control| control.rebuild = 2);
        self.memory.write_controls(&self.controls)?;
        let begun = Instant::now();
        self.kernels.record_lists(&self.state, &mut &*self.state.device)?;
        self.state.device.wait()?;
        let took = begun.elapsed();
        self.controls.iter_mut().for_each(|control| control.rebuild = 0);
        self.memory.write_controls(&self.controls)?;
        Ok(took)
    }
}
