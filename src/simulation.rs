//! The loop: how far to advance, who is told, when to stop.

use crate::analysis::{Conservation, Limits, Verdict};
use crate::backend::Backend;
use crate::error::Result;
use crate::output::{Frame, Sample};
use std::sync::atomic::{AtomicBool, Ordering};

/// Something that wants to hear of a run: a file, a progress bar, an analysis.
pub trait Observer {
    /// New rows of the energy log, in order.
    fn samples(&mut self, samples: &[Sample]) -> Result<()> {
        let _ = samples;
        Ok(())
    }

    /// A full frame, at every multiple of one of the schedule's frame intervals: who has an interval of its own leaves
    /// the others.
    fn frame(&mut self, frame: &Frame) -> Result<()> {
        let _ = frame;
        Ok(())
    }

    /// The run is over, whatever ended it.
    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

/// What a run does and when it tells.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// Last step.
    pub steps: u64,
    /// Steps between frames, one for every output.
    pub frame_intervals: Vec<u64>,
    /// Most steps between two looks at samples and at the stop flag.
    pub chunk: u64,
}

impl Schedule {
    /// The step at which the backend must next stop for the host.
    fn next_stop(&self, step: u64) -> u64 {
        let next_multiple = |interval: u64| (step / interval + 1).saturating_mul(interval);
        let frames = self.frame_intervals.iter().map(|&interval| next_multiple(interval));
        frames.fold(next_multiple(self.chunk).min(self.steps), u64::min)
    }

    fn has_frame(&self, step: u64) -> bool {
        self.frame_intervals.iter().any(|&interval| step.is_multiple_of(interval))
    }
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The last step taken.
    pub step: u64,
    /// Whether it was stopped before its end.
    pub interrupted: bool,
    /// Energy conservation.
    pub verdict: Verdict,
    /// The last sample.
    pub last: Sample,
}

/// Runs `backend` to the end of the schedule, or until `stop` is raised.
///
/// Observers hear of every sample and frame, the initial state included; they are finished also when the run fails.
/// What is observed, and when, changes nothing of the path.
///
/// # Errors
/// The first error of the backend or of an observer.
pub fn run(
    backend: &mut dyn Backend,
    schedule: Schedule,
    mut conservation: Conservation,
    limits: Limits,
    observers: &mut [&mut dyn Observer],
    stop: &AtomicBool,
) -> Result<Outcome> {
    let result = observe(backend, &schedule, &mut conservation, observers, stop);
    let finished: Vec<Result<()>> = observers.iter_mut().map(|observer| observer.finish()).collect();
    result?;
    finished.into_iter().collect::<Result<()>>()?;
    let last = backend.sample()?;
    Ok(Outcome {
        step: backend.step(),
        interrupted: backend.step() < schedule.steps,
        verdict: conservation.verdict(limits),
        last,
    })
}

fn observe(
    backend: &mut dyn Backend,
    schedule: &Schedule,
    conservation: &mut Conservation,
    observers: &mut [&mut dyn Observer],
    stop: &AtomicBool,
) -> Result<()> {
    let mut samples = vec![backend.sample()?];
    let first = backend.frame()?;
    tell(observers, conservation, &samples)?;
    for observer in observers.iter_mut() {
        observer.frame(&first)?;
    }
    while backend.step() < schedule.steps && !stop.load(Ordering::Relaxed) {
        samples.clear();
        let target = schedule.next_stop(backend.step());
        let advanced = backend.advance(target - backend.step(), stop, &mut samples);
        // What was reached before an error is still told.
        tell(observers, conservation, &samples)?;
        advanced?;
        if schedule.has_frame(backend.step()) {
            let frame = backend.frame()?;
            for observer in observers.iter_mut() {
                observer.frame(&frame)?;
            }
        }
    }
    Ok(())
}

fn tell(observers: &mut [&mut dyn Observer], conservation: &mut Conservation, samples: &[Sample]) -> Result<()> {
    for sample in samples {
        conservation.add(sample);
    }
    for observer in observers.iter_mut().filter(|_| !samples.is_empty()) {
        observer.samples(samples)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_stops_at_every_multiple_and_at_the_end() {
        let stops = |frame_intervals: &[u64]| {
            let schedule = Schedule { steps: 20, frame_intervals: frame_intervals.to_vec(), chunk: 4 };
            let mut stops = vec![0];
            while *stops.last().unwrap() < schedule.steps {
                stops.push(schedule.next_stop(*stops.last().unwrap()));
            }
            stops
        };
        assert_eq!(stops(&[6]), [0, 4, 6, 8, 12, 16, 18, 20]);
        assert_eq!(stops(&[9, 5]), [0, 4, 5, 8, 9, 10, 12, 15, 16, 18, 20]);
        assert_eq!(stops(&[]), [0, 4, 8, 12, 16, 20]);
    }
}
