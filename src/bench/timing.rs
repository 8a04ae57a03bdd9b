//! Whole steps against the clock.

use crate::backend::{Backend, Batch};
use crate::error::{Error, Result};
use crate::output::Sample;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Time that is spent before anything is measured, and the fewest steps of it: caches fill, the processor finds its
/// clock rate, and the first graph is built.
const WARM_UP: (Duration, u64) = (Duration::from_millis(300), 5);
/// A repetition lasts so long, or takes so many steps, whichever is more: its list is then rebuilt as often as in a run.
const REPETITION: (Duration, u64) = (Duration::from_millis(20), 50);
/// All repetitions together take no longer than this where that leaves one step to each…
const LONGEST: Duration = Duration::from_secs(20);
/// …and there are fewer of them when it does not, but so many at least.
const FEWEST: usize = 10;
/// Builds of the list that are timed.
const LIST_BUILDS: usize = 5;

/// How a system is to be timed.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Repetitions of the same number of steps.
    pub repetitions: usize,
}

/// What is known after each repetition.
#[derive(Debug, Clone, Copy)]
pub struct Repetition {
    /// Repetitions done, of so many.
    pub done: usize,
    /// Repetitions that there will be.
    pub of: usize,
}

/// Times of a system's steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Timing {
    /// Steps before the first repetition.
    pub warm_up_steps: u64,
    /// Steps of a repetition.
    pub steps: u64,
    /// Seconds a step, a number for each repetition, in their order.
    pub step_seconds: Vec<f64>,
    /// Rebuilds of the neighbour list in all repetitions; of many systems the mean.
    pub rebuilds: f64,
    /// Seconds that one rebuild takes, the median of some.
    pub rebuild_seconds: f64,
    /// Temperature at the end, K.
    pub temperature: f64,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Measured {
    /// With times.
    Done(Timing),
    /// By the flag: nothing is known.
    Stopped,
}

impl Timing {
    /// Steps that were timed.
    pub fn all_steps(&self) -> u64 {
        self.steps * self.step_seconds.len() as u64
    }

    /// Mean seconds of a step: what a run needs, rebuilds included.
    pub fn mean(&self) -> f64 {
        self.step_seconds.iter().sum::<f64>() / self.step_seconds.len() as f64
    }

    /// Seconds a step below which this part (0 to 1) of the repetitions lies; between two of them linearly.
    pub fn quantile(&self, part: f64) -> f64 {
        let mut sorted = self.step_seconds.clone();
        sorted.sort_by(f64::total_cmp);
        let place = part.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
        let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
        below + (above - below) * place.fract()
    }

    /// Rebuilds of the list a step.
    pub fn rebuilds_per_step(&self) -> f64 {
        self.rebuilds / self.all_steps() as f64
    }

    /// Part of the time that goes into rebuilds of the list.
    pub fn rebuild_share(&self) -> f64 {
        self.rebuilds_per_step() * self.rebuild_seconds / self.mean()
    }
}

/// What can be timed: one system, or many that move together.
pub trait Moves {
    /// The step that it has come to.
    fn step(&self) -> u64;

    /// Takes so many steps, fewer when `stop` is raised.
    ///
    /// # Errors
    /// As [`Backend::advance`], also where one of many systems fails.
    fn advance(&mut self, steps: u64, stop: &AtomicBool) -> Result<()>;

    /// Rebuilds of its neighbour list since its start, and temperature in K; of many systems the means.
    ///
    /// # Errors
    /// As [`Backend::sample`].
    fn look(&mut self) -> Result<(f64, f64)>;

    /// How long it takes to make its neighbour lists.
    ///
    /// # Errors
    /// As [`Backend::time_list`].
    fn time_list(&mut self) -> Result<Duration>;
}

impl Moves for dyn Backend + '_ {
    fn step(&self) -> u64 {
        Backend::step(self)
    }

    fn advance(&mut self, steps: u64, stop: &AtomicBool) -> Result<()> {
        Backend::advance(self, steps, &|| stop.load(Ordering::Relaxed), &mut |_| Ok(()))
    }

    fn look(&mut self) -> Result<(f64, f64)> {
        self.sample().map(|sample| (sample.list_rebuilds as f64, sample.temperature))
    }

    fn time_list(&mut self) -> Result<Duration> {
        Backend::time_list(self)
    }
}

impl Moves for dyn Batch + '_ {
    fn step(&self) -> u64 {
        Batch::step(self)
    }

    fn advance(&mut self, steps: u64, stop: &AtomicBool) -> Result<()> {
        Batch::advance(self, steps, stop, &mut vec![Vec::new(); self.len()])?;
        match self.failures().into_iter().next() {
            None => Ok(()),
            Some(failure) => Err(Error::Run(format!("replica {}: {}", failure.replica + 1, failure.reason))),
        }
    }

    fn look(&mut self) -> Result<(f64, f64)> {
        let samples: Vec<_> = self.samples()?.into_iter().flatten().collect();
        let mean = |of: fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / samples.len() as f64;
        Ok((mean(|sample| sample.list_rebuilds as f64), mean(|sample| sample.temperature)))
    }

    fn time_list(&mut self) -> Result<Duration> {
        self.time_lists()
    }
}

/// Moves a system, or many, and times it. `tell` hears of every repetition; `stop` ends everything at the next whole step.
///
/// Repetitions follow each other on one trajectory. The system stands elsewhere afterwards.
///
/// # Errors
/// As [`Backend::advance`].
pub fn measure(
    system: &mut (impl Moves + ?Sized),
    plan: Plan,
    stop: &AtomicBool,
    tell: &mut dyn FnMut(Repetition),
) -> Result<Measured> {
    let stopped = || stop.load(Ordering::Relaxed);

    let (begun, first) = (Instant::now(), system.step());
    let mut step = Duration::MAX;
    let mut batch = 1;
    while !stopped() && (begun.elapsed() < WARM_UP.0 || system.step() - first < WARM_UP.1) {
        let begun = Instant::now();
        system.advance(batch, stop)?;
        let took = begun.elapsed() / batch as u32;
        step = step.min(took);
        batch = (2 * batch).min((WARM_UP.0.as_secs_f64() / took.as_secs_f64().max(1e-9)) as u64 / 4 + 1);
    }
    let warm_up_steps = system.step() - first;
    let (steps, repetitions) = shape(plan, step);

    let (rebuilds, _) = system.look()?;
    let mut step_seconds = Vec::with_capacity(repetitions);
    for done in 1..=repetitions {
        let begun = Instant::now();
        system.advance(steps, stop)?;
        let took = begun.elapsed();
        if stopped() {
            return Ok(Measured::Stopped);
        }
        step_seconds.push(took.as_secs_f64() / steps as f64);
        tell(Repetition { done, of: repetitions });
    }
    let (last, temperature) = system.look()?;
    let mut builds = (0..LIST_BUILDS).map(|_| system.time_list()).collect::<Result<Vec<_>>>()?;
    builds.sort();
    Ok(Measured::Done(Timing {
        warm_up_steps,
        steps,
        step_seconds,
        rebuilds: last - rebuilds,
        rebuild_seconds: builds[LIST_BUILDS / 2].as_secs_f64(),
        temperature,
    }))
}

/// Steps of a repetition, and repetitions, for a step that takes so long.
fn shape(plan: Plan, step: Duration) -> (u64, usize) {
    let step = step.as_secs_f64().max(1e-9);
    let repetitions = plan.repetitions.max(1);
    let wanted = (REPETITION.0.as_secs_f64() / step).max(REPETITION.1 as f64);
    let most = LONGEST.as_secs_f64() / step / repetitions as f64;
    if most >= 1.0 {
        return (wanted.min(most) as u64, repetitions);
    }
    let fitting = (LONGEST.as_secs_f64() / step) as usize;
    (1, fitting.max(FEWEST).min(repetitions))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_takes_bounded_time() {
        let shape = |repetitions, microseconds| shape(Plan { repetitions }, Duration::from_micros(microseconds));
        assert_eq!(shape(100, 100), (200, 100));
        assert_eq!(shape(100, 2_000), (50, 100));
        assert_eq!(shape(100, 20_000), (10, 100));
        assert_eq!(shape(100, 500_000), (1, 40));
        assert_eq!(shape(100, 10_000_000), (1, 10));
        assert_eq!(shape(3, 10_000_000), (1, 3));
        assert_eq!(shape(3, 0), (20_000_000, 3));
    }

    #[test]
    fn medians_and_shares_are_those_of_the_numbers() {
        let timing = Timing {
            warm_up_steps: 5,
            steps: 10,
            step_seconds: vec![4.0, 1.0, 3.0, 2.0],
            rebuilds: 2.0,
            rebuild_seconds: 5.0,
            temperature: 300.0,
        };
        assert_eq!((timing.quantile(0.0), timing.quantile(0.5), timing.quantile(1.0)), (1.0, 2.5, 4.0));
        assert_eq!((timing.mean(), timing.all_steps()), (2.5, 40));
        assert!((timing.rebuild_share() - 0.1).abs() < 1e-12);
    }
}
