//! Many systems on the CPU: each is a backend of its own, and they are shared out among the threads.

use super::{CpuBackend, Potential};
use crate::backend::{Backend, Batch, Departure, Event, Failure, Replica, State};
use crate::error::{Error, Result};
use crate::output::{Frame, Sample};
use rayon::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Between two looks at the stop flag.
const TURN: Duration = Duration::from_millis(100);

/// Many systems moving under [`Potential`]s of their own. The path of each is that of the system alone in a [`CpuBackend`],
/// bit for bit.
pub struct CpuBatch<P> {
    members: Vec<Member<P>>,
    step: u64,
    /// Steps that are taken without a look at the stop flag.
    turn: u64,
    failures: Vec<Failure>,
    description: String,
}

struct Member<P> {
    backend: CpuBackend<P>,
    /// Where it has left what the model was trained on, since somebody asked.
    departures: Vec<Departure>,
    /// It moves no more.
    halted: bool,
}

impl<P: Potential> CpuBatch<P> {
    /// Starts at step 0 with the systems' velocities (at rest without any) and computes the first forces.
    ///
    /// `potentials` are those of the replicas, in their order. A sample is taken at every multiple of `log_interval` steps.
    ///
    /// # Errors
    /// As [`CpuBackend::new`], with the number of the replica.
    pub fn new(potentials: Vec<P>, replicas: &[Replica], log_interval: u64, description: String) -> Result<Self> {
        let member = |(n, (potential, replica)): (usize, (P, &Replica))| {
            let backend = CpuBackend::new(
                potential,
                replica.system.clone(),
                replica.integrator.clone(),
                log_interval,
                replica.degrees_of_freedom,
                String::new(),
            );
            let backend = backend.map_err(|error| Error::Run(format!("replica {}: {error}", n + 1)))?;
            Ok(Member { backend, departures: Vec::new(), halted: false })
        };
        let given: Vec<_> = potentials.into_iter().zip(replicas).enumerate().collect();
        let members = given.into_par_iter().map(member).collect::<Result<_>>()?;
        Ok(CpuBatch { members, step: 0, turn: 1, failures: Vec::new(), description })
    }

    fn moving(&mut self) -> impl ParallelIterator<Item = (usize, &mut Member<P>)> {
        self.members.par_iter_mut().enumerate().filter(|(_, member)| !member.halted)
    }
}

impl<P: Potential> Batch for CpuBatch<P> {
    fn describe(&self) -> String {
        self.description.clone()
    }

    fn len(&self) -> usize {
        self.members.len()
    }

    fn step(&self) -> u64 {
        self.step
    }

    fn advance(&mut self, steps: u64, stop: &AtomicBool, samples: &mut [Vec<Sample>]) -> Result<()> {
        let goal = self.step + steps;
        while self.step < goal && !stop.load(Ordering::Relaxed) && self.members.iter().any(|member| !member.halted) {
            let (turn, begun) = (self.turn.min(goal - self.step), Instant::now());
            let advance = |((n, member), samples): ((usize, &mut Member<P>), &mut Vec<Sample>)| {
                if member.halted {
                    return None;
                }
                // A system that was stopped in the middle of a turn would be steps behind the others.
                let departures = &mut member.departures;
                let advanced = member.backend.advance(turn, &|| false, &mut |event| {
                    match event {
                        Event::Samples(new) => samples.extend_from_slice(new),
                        Event::Departure(departure) => departures.push(departure),
                        Event::Frame(_) => {}
                    }
                    Ok(())
                });
                let error = advanced.err()?;
                member.halted = true;
                Some(Failure { replica: n, step: member.backend.step(), reason: error.to_string() })
            };
            let members = self.members.par_iter_mut().enumerate().zip(samples.par_iter_mut());
            let failed: Vec<Failure> = members.filter_map(advance).collect();
            self.failures.extend(failed);
            self.step += turn;
            if turn == self.turn {
                self.turn = match begun.elapsed() {
                    took if took < TURN / 2 => 2 * turn,
                    took if took > TURN => (turn / 2).max(1),
                    _ => turn,
                };
            }
        }
        Ok(())
    }

    fn failures(&mut self) -> Vec<Failure> {
        let mut failures = std::mem::take(&mut self.failures);
        failures.sort_by_key(|failure| (failure.step, failure.replica));
        failures
    }

    fn departures(&mut self) -> Vec<(usize, Departure)> {
        let mut found = Vec::new();
        for (n, member) in self.members.iter_mut().enumerate() {
            let new = member.backend.departures().into_iter().chain(std::mem::take(&mut member.departures));
            found.extend(new.map(|departure| (n, departure)));
        }
        found
    }

    fn stop_outside(&mut self) {
        self.members.iter_mut().for_each(|member| member.backend.stop_outside());
    }

    fn halt(&mut self, replica: usize) -> Result<()> {
        self.members[replica].halted = true;
        Ok(())
    }

    fn samples(&mut self) -> Result<Vec<Option<Sample>>> {
        let sample = |member: &mut Member<P>| (!member.halted).then(|| member.backend.sample()).transpose();
        self.members.iter_mut().map(sample).collect()
    }

    fn read_frames(&mut self, frames: &mut [Option<Frame>]) -> Result<()> {
        let wanted = self.members.iter_mut().zip(frames).filter_map(|(member, frame)| Some((member, frame.as_mut()?)));
        wanted.into_iter().try_for_each(|(member, frame)| member.backend.read_frame(frame))
    }

    fn states(&mut self) -> Result<Vec<Option<State>>> {
        let state = |member: &mut Member<P>| (!member.halted).then(|| member.backend.state()).transpose();
        self.members.iter_mut().map(state).collect()
    }

    fn restore(&mut self, states: &[State], moves: &[bool]) -> Result<()> {
        self.failures.clear();
        self.members.iter_mut().zip(moves).for_each(|(member, moves)| member.halted = !moves);
        let moving = states.iter().zip(moves).filter(|(_, moves)| **moves);
        self.step = moving.map(|(state, _)| state.step).max().unwrap_or(0);
        self.members.iter_mut().for_each(|member| member.departures.clear());
        self.moving().try_for_each(|(n, member)| member.backend.restore(&states[n]))
    }

    fn time_lists(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        self.moving().try_for_each(|(_, member)| member.backend.time_list().map(drop))?;
        Ok(begun.elapsed())
    }
}
