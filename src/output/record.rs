//! All that a run writes: its outputs, and the checkpoints that hold them together.

use super::checkpoint::{Checkpoint, Generations, Provenance};
use super::{Frame, Output, Sample};
use crate::backend::State;
use crate::error::Result;
use crate::simulation::Observer;
use crate::system::{Cell, System};

/// The outputs of a run. A checkpoint is written when they are all safe, with the place where each of them stands. The
/// program gives it a thread of its own: [`writer`](super::writer).
pub struct Record {
    outputs: Vec<Box<dyn Output>>,
    checkpoints: Generations,
    run: Provenance,
    steps: u64,
    atomic_numbers: Vec<u8>,
    masses: Vec<f64>,
    cell: Cell,
    /// Step of the last checkpoint.
    safe: Option<u64>,
}

impl Record {
    /// For a run of `system` that is to end at step `steps`.
    pub fn new(
        outputs: Vec<Box<dyn Output>>,
        checkpoints: Generations,
        run: Provenance,
        steps: u64,
        system: &System,
    ) -> Self {
        Record {
            outputs,
            checkpoints,
            run,
            steps,
            atomic_numbers: system.atomic_numbers.clone(),
            masses: system.masses.clone(),
            cell: system.cell.clone(),
            safe: None,
        }
    }

    /// Goes on behind a checkpoint that is in its folder already.
    pub fn behind(mut self, step: u64) -> Self {
        self.safe = Some(step);
        self
    }

    /// A sentence part for a run that failed: where it can be taken up.
    pub fn last_good(&self) -> String {
        match self.safe {
            Some(step) => {
                format!("the last good state is that of step {step}, in {}", self.checkpoints.current().display())
            }
            None => "there is no checkpoint yet: remove the folder before you start again".into(),
        }
    }
}

impl Observer for Record {
    fn samples(&mut self, samples: &[Sample]) -> Result<()> {
        self.outputs.iter_mut().try_for_each(|output| output.samples(samples))
    }

    fn frame(&mut self, frame: &Frame) -> Result<()> {
        self.outputs.iter_mut().try_for_each(|output| output.frame(frame))
    }

    fn checkpoint(&mut self, state: &State) -> Result<()> {
        if self.safe == Some(state.step) {
            return Ok(());
        }
        // The outputs first: a checkpoint must never count what a power failure can still take.
        let outputs = self.outputs.iter_mut().map(|output| Ok((output.name().to_owned(), output.commit()?)));
        let outputs = outputs.collect::<Result<_>>()?;
        self.checkpoints.add(&Checkpoint {
            run: self.run.clone(),
            steps: self.steps,
            atomic_numbers: self.atomic_numbers.clone(),
            masses: self.masses.clone(),
            cell: self.cell.clone(),
            state: state.clone(),
            outputs,
        })?;
        self.safe = Some(state.step);
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        // All of them, also when one fails.
        let finished: Vec<Result<()>> = self.outputs.iter_mut().map(|output| output.finish()).collect();
        finished.into_iter().collect()
    }
}
