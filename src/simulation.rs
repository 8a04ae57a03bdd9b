//! The loop: how far to advance, who is told, when to stop.

use crate::analysis::{Conservation, Limits, Verdict};
use crate::backend::due::Due;
use crate::backend::{Backend, Departure, Event, State};
use crate::error::{Error, Result};
use crate::output::{Frame, Sample};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Time between checkpoints that have no interval: a kill costs no more than this, and writing them costs nothing that
/// anybody would notice, however long a step takes.
pub(crate) const CHECKPOINT_TIME: Duration = Duration::from_secs(30);

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

    /// The run has left what its model was trained on, for the first time in this way.
    fn departure(&mut self, departure: &Departure) -> Result<()> {
        let _ = departure;
        Ok(())
    }

    /// A state to go on from: at the beginning, at the end, when the run is stopped, and in between. Samples and frames
    /// up to its step have been told; it is never the state of a run that exploded.
    fn checkpoint(&mut self, state: &State) -> Result<()> {
        let _ = state;
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
    /// Steps between checkpoints; by the clock without a number. It decides nothing but what a kill costs.
    pub checkpoint_interval: Option<u64>,
    /// Whether the run ends, as one that failed, with the step in which it leaves what its model was trained on.
    pub stop_outside: bool,
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
    /// Where the run left what its model was trained on, the first time in each way.
    pub departures: Vec<Departure>,
}

/// Runs `backend` to the end of the schedule, or until `stop` is raised.
///
/// Observers hear of every sample and frame, the initial state included; they are finished also when the run fails.
/// A run is resumed when `conservation` has seen samples: then `backend` stands where the observers left off, and nothing
/// is told twice. What is observed, and when, changes nothing of the path.
///
/// # Errors
/// The first error of the backend or of an observer; [`Error::Run`] where the run leaves what its model was trained on and
/// is to stop there. Its checkpoint is then that of this step.
pub fn run(
    backend: &mut dyn Backend,
    schedule: Schedule,
    mut conservation: Conservation,
    limits: Limits,
    observers: &mut [&mut dyn Observer],
    stop: &AtomicBool,
) -> Result<Outcome> {
    let mut departures = Vec::new();
    let result = observe(backend, &schedule, &mut conservation, observers, stop, &mut departures);
    let finished: Vec<Result<()>> = observers.iter_mut().map(|observer| observer.finish()).collect();
    result?;
    finished.into_iter().collect::<Result<()>>()?;
    let last = backend.sample()?;
    Ok(Outcome {
        step: backend.step(),
        interrupted: backend.step() < schedule.steps,
        verdict: conservation.verdict(limits),
        last,
        departures,
    })
}

fn observe(
    backend: &mut dyn Backend,
    schedule: &Schedule,
    conservation: &mut Conservation,
    observers: &mut [&mut dyn Observer],
    stop: &AtomicBool,
    departures: &mut Vec<Departure>,
) -> Result<()> {
    if schedule.stop_outside {
        backend.stop_outside();
    }
    backend.tell_frames(&schedule.frame_intervals)?;
    if conservation.is_empty() {
        tell_samples(&[backend.sample()?], observers, conservation)?;
        tell_frame(&backend.frame()?, observers)?;
        tell_state(backend, observers)?;
    }
    for departure in backend.departures() {
        if schedule.stop_outside {
            return Err(outside(&departure));
        }
        tell_departure(departure, observers, departures)?;
    }
    let checkpoints = Due::new(schedule.checkpoint_interval);
    let mut saved = Instant::now();
    while backend.step() < schedule.steps && !stop.load(Ordering::Relaxed) {
        let before = backend.step();
        let end = checkpoints.after(before).map_or(schedule.steps, |next| next.min(schedule.steps));
        let overdue = || schedule.checkpoint_interval.is_none() && saved.elapsed() >= CHECKPOINT_TIME;
        // The departure that the run ends with.
        let mut last = None;
        let advanced =
            backend.advance(end - before, &|| stop.load(Ordering::Relaxed) || overdue(), &mut |event| match event {
                Event::Samples(samples) => tell_samples(samples, observers, conservation),
                Event::Departure(departure) if schedule.stop_outside => {
                    last.get_or_insert(departure);
                    Ok(())
                }
                Event::Departure(departure) => tell_departure(departure, observers, departures),
                Event::Frame(frame) => tell_frame(frame, observers),
            });
        if let Some(departure) = last {
            // It comes before the explosion that it led to.
            if advanced.is_ok() {
                tell_state(backend, observers)?;
            }
            return Err(outside(&departure));
        }
        advanced?;
        if overdue() || (backend.step() != before && checkpoints.at(backend.step())) {
            tell_state(backend, observers)?;
            saved = Instant::now();
        }
    }
    tell_state(backend, observers)
}

/// Why a run that is to stay inside of what its model was trained on goes no further.
fn outside(departure: &Departure) -> Error {
    Error::Run(format!(
        "{departure}, and model.outside_domain = \"stop\" ends it there; use a better start or another model, or go on with \
         verlet resume --outside-domain warn"
    ))
}

fn tell_departure(
    departure: Departure,
    observers: &mut [&mut dyn Observer],
    departures: &mut Vec<Departure>,
) -> Result<()> {
    observers.iter_mut().try_for_each(|observer| observer.departure(&departure))?;
    departures.push(departure);
    Ok(())
}

fn tell_frame(frame: &Frame, observers: &mut [&mut dyn Observer]) -> Result<()> {
    observers.iter_mut().try_for_each(|observer| observer.frame(frame))
}

fn tell_state(backend: &mut dyn Backend, observers: &mut [&mut dyn Observer]) -> Result<()> {
    let state = backend.state()?;
    observers.iter_mut().try_for_each(|observer| observer.checkpoint(&state))
}

fn tell_samples(
    samples: &[Sample],
    observers: &mut [&mut dyn Observer],
    conservation: &mut Conservation,
) -> Result<()> {
    for sample in samples {
        conservation.add(sample);
    }
    observers.iter_mut().try_for_each(|observer| observer.samples(samples))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::State;

    /// Moves a step a call, until it is stopped before a step.
    struct Steps<'a> {
        step: u64,
        frames: Due,
        stop: &'a AtomicBool,
        last: u64,
    }

    impl Backend for Steps<'_> {
        fn describe(&self) -> String {
            String::new()
        }

        fn step(&self) -> u64 {
            self.step
        }

        fn advance(
            &mut self,
            steps: u64,
            _: &(dyn Fn() -> bool + Sync),
            tell: &mut dyn FnMut(Event) -> Result<()>,
        ) -> Result<()> {
            if self.step == self.last {
                self.stop.store(true, Ordering::Relaxed);
            } else if steps > 0 {
                self.step += 1;
                if self.frames.at(self.step) {
                    tell(Event::Frame(&self.frame()?))?;
                }
            }
            Ok(())
        }

        fn tell_frames(&mut self, intervals: &[u64]) -> Result<()> {
            self.frames = Due::new(intervals.iter().copied());
            Ok(())
        }

        fn sample(&mut self) -> Result<Sample> {
            Ok(Sample {
                step: self.step,
                time: self.step as f64,
                kinetic: 0.0,
                potential: 0.0,
                conserved: 0.0,
                temperature: 0.0,
                list_rebuilds: 0,
            })
        }

        fn read_frame(&mut self, frame: &mut Frame) -> Result<()> {
            frame.sample = self.sample()?;
            Ok(())
        }

        fn state(&mut self) -> Result<State> {
            Ok(State {
                step: self.step,
                positions: Vec::new(),
                velocities: Vec::new(),
                heat: 0.0,
                kinetic: 0.0,
                list_positions: Vec::new(),
                list_rebuilds: 0,
            })
        }

        fn restore(&mut self, _: &State) -> Result<()> {
            Ok(())
        }

        fn time_list(&mut self) -> Result<std::time::Duration> {
            Ok(std::time::Duration::ZERO)
        }
    }

    #[derive(Default)]
    struct Seen {
        frames: Vec<u64>,
        states: Vec<u64>,
    }

    impl Observer for Seen {
        fn frame(&mut self, frame: &Frame) -> Result<()> {
            self.frames.push(frame.sample.step);
            Ok(())
        }

        fn checkpoint(&mut self, state: &State) -> Result<()> {
            self.states.push(state.step);
            Ok(())
        }
    }

    /// Whoever asks for a stop between the loop's look and the backend's finds no frame and no state twice but the last.
    #[test]
    fn a_stop_before_the_first_step_repeats_nothing() {
        for last in 0..7 {
            let (stop, mut seen) = (AtomicBool::new(false), Seen::default());
            let schedule =
                Schedule { steps: 10, frame_intervals: vec![3], checkpoint_interval: Some(2), stop_outside: false };
            let limits = Limits { drift: 1.0, excursion: 1.0 };
            let mut backend = Steps { step: 0, frames: Due::default(), stop: &stop, last };
            run(&mut backend, schedule, Conservation::new(1, 3), limits, &mut [&mut seen], &stop).unwrap();
            assert_eq!(seen.frames, (0..=last).step_by(3).collect::<Vec<_>>());
            assert_eq!(seen.states, (0..=last).step_by(2).chain([last]).collect::<Vec<_>>());
        }
    }
}
