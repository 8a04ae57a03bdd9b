//! The loop over many systems: how far to advance, who is told, when to stop.

use super::Prepared;
use crate::analysis::{Conservation, Verdict};
use crate::backend::{Batch, Departure, Failure, State};
use crate::error::Result;
use crate::output::{Frame, Sample};
use crate::simulation::{CHECKPOINT_TIME, Schedule};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Most steps between two looks at samples and at the clock.
const CHUNK: u64 = 500;

/// Something that wants to hear of a run of many systems. What is told of each of them stands in the order of the input.
pub trait Observer {
    /// New rows of the energy logs, in order.
    fn samples(&mut self, samples: &[Vec<Sample>]) -> Result<()> {
        let _ = samples;
        Ok(())
    }

    /// A full frame of each system that still moves.
    fn frames(&mut self, frames: &[Option<Frame>]) -> Result<()> {
        let _ = frames;
        Ok(())
    }

    /// A system moves no more.
    fn failure(&mut self, failure: &Failure) -> Result<()> {
        let _ = failure;
        Ok(())
    }

    /// A system has left what its model was trained on, for the first time in this way.
    fn departure(&mut self, replica: usize, departure: &Departure) -> Result<()> {
        let _ = (replica, departure);
        Ok(())
    }

    /// States to go on from, of all systems that still move, and the step of the run: at the beginning, at the end, when the
    /// run is stopped, and in between. Samples, frames and failures up to there have been told.
    fn checkpoint(&mut self, step: u64, states: &[Option<State>]) -> Result<()> {
        let _ = (step, states);
        Ok(())
    }

    /// The run is over, whatever ended it.
    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The last step that was taken.
    pub step: u64,
    /// Whether it was stopped before its end.
    pub interrupted: bool,
    /// What became of the systems, in the order of the input.
    pub replicas: Vec<ReplicaOutcome>,
}

/// What became of one.
#[derive(Debug, Clone)]
pub struct ReplicaOutcome {
    /// Its last whole step.
    pub step: u64,
    /// Energy conservation.
    pub verdict: Verdict,
    /// The step at which it failed, and why, if it has.
    pub failure: Option<(u64, String)>,
    /// Where it left what its model was trained on, the first time in each way.
    pub departures: Vec<Departure>,
}

/// Runs many systems to the end of the schedule, or until `stop` is raised, or until none moves any more.
///
/// Observers hear of every sample and frame, the initial states included; they are finished also when the run fails. A run is
/// resumed when the `conservations` have seen samples. What is observed, and when, changes nothing of the paths.
///
/// # Errors
/// The first error of the device or of an observer. A system that fails is no error.
pub fn run(
    prepared: &mut Prepared,
    conservations: Vec<Conservation>,
    observers: &mut [&mut dyn Observer],
    stop: &AtomicBool,
) -> Result<Outcome> {
    let failures = prepared.members.iter().map(|member| member.failure.clone()).collect::<Vec<_>>();
    let mut told = Told {
        departures: prepared.members.iter().map(|member| member.departures.clone()).collect(),
        frames: failures.iter().map(|failure| failure.is_none().then(Frame::default)).collect(),
        failures,
        conservations,
        observers,
    };
    let result = told.observe(prepared.batch.as_mut(), &prepared.schedule, stop);
    let finished: Vec<Result<()>> = told.observers.iter_mut().map(|observer| observer.finish()).collect();
    result?;
    finished.into_iter().collect::<Result<()>>()?;
    let step = prepared.batch.step();
    let replicas = told.conservations.iter().zip(told.failures).zip(told.departures);
    let replicas: Vec<_> = replicas
        .map(|((conservation, failure), departures)| ReplicaOutcome {
            step: failure.as_ref().map_or(step, |(step, _)| step.saturating_sub(1)),
            verdict: conservation.verdict(prepared.limits),
            failure,
            departures,
        })
        .collect();
    let moves = replicas.iter().any(|replica| replica.failure.is_none());
    Ok(Outcome { step, interrupted: moves && step < prepared.schedule.steps, replicas })
}

/// Who is told, and what is kept of it.
struct Told<'a, 'b> {
    conservations: Vec<Conservation>,
    failures: Vec<Option<(u64, String)>>,
    departures: Vec<Vec<Departure>>,
    /// Of systems that still move.
    frames: Vec<Option<Frame>>,
    observers: &'a mut [&'b mut dyn Observer],
}

impl Told<'_, '_> {
    fn observe(&mut self, batch: &mut dyn Batch, schedule: &Schedule, stop: &AtomicBool) -> Result<()> {
        if schedule.stop_outside {
            batch.stop_outside();
        }
        let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); batch.len()];
        if self.conservations.iter().all(Conservation::is_empty) {
            for (samples, first) in samples.iter_mut().zip(batch.samples()?) {
                samples.extend(first);
            }
            self.samples(&samples)?;
            self.frames(batch)?;
            self.states(batch)?;
        }
        self.look_outside(batch, schedule)?;
        let mut saved = Instant::now();
        let frames_at = |step: u64| schedule.frame_intervals.iter().any(|&interval| step.is_multiple_of(interval));
        while batch.step() < schedule.steps && !stop.load(Ordering::Relaxed) && self.failures.contains(&None) {
            samples.iter_mut().for_each(Vec::clear);
            let before = batch.step();
            batch.advance(next_stop(schedule, before) - before, stop, &mut samples)?;
            self.samples(&samples)?;
            // A departure comes before the explosion that it led to.
            self.look_outside(batch, schedule)?;
            for failure in batch.failures() {
                self.fail(failure)?;
            }
            if batch.step() == before {
                continue;
            }
            if frames_at(batch.step()) {
                self.frames(batch)?;
            }
            let due = match schedule.checkpoint_interval {
                Some(interval) => batch.step().is_multiple_of(interval),
                None => saved.elapsed() >= CHECKPOINT_TIME,
            };
            if due {
                self.states(batch)?;
                saved = Instant::now();
            }
        }
        self.states(batch)
    }

    fn samples(&mut self, samples: &[Vec<Sample>]) -> Result<()> {
        for (conservation, samples) in self.conservations.iter_mut().zip(samples) {
            samples.iter().for_each(|sample| conservation.add(sample));
        }
        self.observers.iter_mut().try_for_each(|observer| observer.samples(samples))
    }

    fn frames(&mut self, batch: &mut dyn Batch) -> Result<()> {
        batch.read_frames(&mut self.frames)?;
        self.observers.iter_mut().try_for_each(|observer| observer.frames(&self.frames))
    }

    fn states(&mut self, batch: &mut dyn Batch) -> Result<()> {
        let (step, states) = (batch.step(), batch.states()?);
        self.observers.iter_mut().try_for_each(|observer| observer.checkpoint(step, &states))
    }

    fn fail(&mut self, failure: Failure) -> Result<()> {
        self.observers.iter_mut().try_for_each(|observer| observer.failure(&failure))?;
        let Failure { replica, step, reason } = failure;
        self.frames[replica] = None;
        self.failures[replica].get_or_insert((step, reason));
        Ok(())
    }

    /// Tells where systems have left what the model was trained on, or stops them there.
    fn look_outside(&mut self, batch: &mut dyn Batch, schedule: &Schedule) -> Result<()> {
        for (replica, departure) in batch.departures() {
            // A batch that goes on from a checkpoint looks anew: it finds what is known, also where nothing moves any more.
            let known = self.departures[replica].iter().any(|known| known.outside.is_like(&departure.outside));
            if known || self.failures[replica].is_some() {
                continue;
            }
            if !schedule.stop_outside {
                self.observers.iter_mut().try_for_each(|observer| observer.departure(replica, &departure))?;
                self.departures[replica].push(departure);
            } else {
                batch.halt(replica)?;
                let reason = format!("{departure}, and model.outside_domain = \"stop\" ends it there");
                // The step is whole: the first one that it did not reach is the next.
                self.fail(Failure { replica, step: departure.step + 1, reason })?;
            }
        }
        Ok(())
    }
}

/// The step at which the batch must next stop for the host.
fn next_stop(schedule: &Schedule, step: u64) -> u64 {
    let next_multiple = |interval: u64| (step / interval + 1).saturating_mul(interval);
    let intervals = schedule.frame_intervals.iter().copied().chain([CHUNK]).chain(schedule.checkpoint_interval);
    intervals.map(next_multiple).fold(schedule.steps, u64::min)
}
