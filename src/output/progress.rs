//! Progress of a run for whoever watches: a bar on a terminal, plain lines elsewhere.

use super::Sample;
use crate::backend::Departure;
use crate::error::Result;
use crate::simulation::Observer;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Seconds between plain lines.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Shows step, simulated time, speed, temperature, energy, drift and time left on stderr, and warns there.
pub struct Progress {
    bar: Option<ProgressBar>,
    /// The step at which this process began.
    begin: u64,
    steps: u64,
    timestep: f64,
    atoms: usize,
    /// The conserved energy at step 0, eV.
    first: Option<f64>,
    begun: Instant,
    /// When a plain line was last written.
    last_line: Instant,
}

impl Progress {
    /// For a run from step `begin` to step `steps`, of `timestep` fs each. `first` is the conserved energy (eV) at the
    /// start of the whole run, when that was earlier.
    pub fn new(begin: u64, steps: u64, timestep: f64, atoms: usize, first: Option<f64>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr_with_hz(5));
            let style = ProgressStyle::with_template("{bar:24} {percent:>3}%  {msg}  ETA {eta}")
                .expect("the template is well-formed");
            bar.set_style(style);
            bar.set_position(begin);
            // The time left follows from the steps of this process.
            bar.reset_eta();
            bar
        });
        let now = Instant::now();
        Progress { bar, begin, steps, timestep, atoms, first, begun: now, last_line: now }
    }

    /// Nanoseconds of simulated time a day of wall time at step `step`.
    fn speed(&self, step: u64) -> f64 {
        let seconds = self.begun.elapsed().as_secs_f64().max(1e-9);
        step.saturating_sub(self.begin) as f64 * self.timestep * 1e-6 / seconds * 86_400.0
    }

    /// Writes a warning where it does not disturb the bar.
    pub fn warn(&self, text: &str) {
        let warn = || {
            let _ = writeln!(std::io::stderr(), "warning: {text}");
        };
        match &self.bar {
            Some(bar) => bar.suspend(warn),
            None => warn(),
        }
    }

    fn message(&self, sample: &Sample) -> String {
        let drift = (sample.conserved - self.first.unwrap_or(sample.conserved)) / self.atoms as f64;
        format!(
            "step {}/{}  {:.3} ps  {:.2} ns/day  {:.0} K  E {:.4} eV  drift {:+.1e} eV/atom",
            sample.step,
            self.steps,
            sample.time * 1e-3,
            self.speed(sample.step),
            sample.temperature,
            sample.total(),
            drift
        )
    }
}

impl Observer for Progress {
    fn samples(&mut self, samples: &[Sample]) -> Result<()> {
        let Some(sample) = samples.last() else { return Ok(()) };
        self.first.get_or_insert(samples[0].conserved);
        match &self.bar {
            Some(bar) => {
                bar.set_position(sample.step);
                bar.set_message(self.message(sample));
            }
            None if self.last_line.elapsed() >= LINE_INTERVAL => {
                self.last_line = Instant::now();
                let taken = sample.step.saturating_sub(self.begin).max(1);
                let left = self.begun.elapsed().as_secs_f64() / taken as f64
                    * (self.steps - sample.step.min(self.steps)) as f64;
                // A closed stderr is no reason to lose the run.
                let _ = writeln!(std::io::stderr(), "{}  ETA {left:.0} s", self.message(sample));
            }
            None => {}
        }
        Ok(())
    }

    fn departure(&mut self, departure: &Departure) -> Result<()> {
        self.warn(&departure.to_string());
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        if let Some(bar) = &self.bar {
            bar.abandon();
        }
        Ok(())
    }
}
