//! Progress of a measurement: a bar on a terminal, plain lines elsewhere.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Time between plain lines.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Which system is timed, and how long that still takes.
pub(super) struct Progress {
    number: usize,
    of: usize,
    atoms: usize,
    begun: Instant,
    last_line: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// For the system of this number, counted from 0.
    pub fn new(number: usize, of: usize) -> Self {
        let now = Instant::now();
        Progress { number: number + 1, of, atoms: 0, begun: now, last_line: now, bar: None }
    }

    /// The system is ready.
    pub fn begin(&mut self, atoms: usize) {
        self.atoms = atoms;
        if std::io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(5));
            let style = ProgressStyle::with_template("{bar:24} {percent:>3}%  {msg}  ETA {eta}");
            bar.set_style(style.expect("the template is well-formed"));
            bar.set_message(self.what());
            self.bar = Some(bar);
        }
    }

    fn what(&self) -> String {
        format!("system {} of {}, {} atoms", self.number, self.of, self.atoms)
    }

    /// So many repetitions of so many are done.
    pub fn tell(&mut self, done: usize, of: usize) {
        if done == 1 {
            self.begun = Instant::now();
        }
        if let Some(bar) = &self.bar {
            bar.set_length(of as u64);
            bar.set_position(done as u64);
        } else if self.last_line.elapsed() >= LINE_INTERVAL && done > 1 {
            self.last_line = Instant::now();
            let left = self.begun.elapsed().as_secs_f64() / (done - 1) as f64 * (of - done) as f64;
            crate::cli::complain(&format!("{}: repetition {done} of {of}  ETA {left:.0} s", self.what()));
        }
    }

    /// Leaves nothing of the bar.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
