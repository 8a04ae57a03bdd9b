//! The trajectory of a run, as one of its outputs.

use super::{H5mdOptions, H5mdWriter, repair};
use crate::error::{Error, Result, reason};
use crate::output::{Frame, Output, Position, RunInfo, Sample};
use crate::simulation::Observer;
use crate::system::System;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What was written becomes safe from a kill, and visible to readers that follow, at least this often.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

/// An [`H5mdWriter`] that flushes by the clock.
pub struct H5mdOutput {
    /// `None` when finished.
    writer: Option<H5mdWriter>,
    name: String,
    path: PathBuf,
    /// Steps between frames.
    interval: u64,
    /// To sync with: HDF5 only hands things to the operating system.
    file: File,
    flushed: Instant,
}

impl H5mdOutput {
    /// Begins a trajectory.
    ///
    /// # Errors
    /// As [`H5mdWriter::create`].
    pub fn create(path: &Path, info: &RunInfo, options: &H5mdOptions) -> Result<Self> {
        Self::over(path, H5mdWriter::create(path, info, options)?)
    }

    /// Whether a trajectory has as much as `position` counts. It is repaired first if need be.
    ///
    /// # Errors
    /// As [`repair`](fn@repair).
    pub fn holds(path: &Path, position: &Position) -> Result<bool> {
        if !path.exists() {
            return Ok(false);
        }
        let found = repair(path)?;
        Ok(found.frames >= position.frames && found.rows >= position.rows)
    }

    /// Cuts a repaired trajectory to `position` and goes on behind it.
    ///
    /// # Errors
    /// As [`H5mdWriter::append`].
    pub fn append(path: &Path, system: &System, options: &H5mdOptions, position: &Position) -> Result<Self> {
        Self::over(path, H5mdWriter::append(path, system, options, position)?)
    }

    /// Takes only the frames at multiples of `interval` steps; else all that it is given.
    pub fn every(mut self, interval: u64) -> Self {
        self.interval = interval;
        self
    }

    fn over(path: &Path, writer: H5mdWriter) -> Result<Self> {
        let file = File::open(path)
            .map_err(|error| Error::Output(format!("{} cannot be read: {}", path.display(), reason(&error))))?;
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        Ok(H5mdOutput { writer: Some(writer), name, path: path.to_owned(), interval: 1, file, flushed: Instant::now() })
    }

    fn flush_in_time(&mut self) -> Result<()> {
        if self.flushed.elapsed() < FLUSH_INTERVAL {
            return Ok(());
        }
        self.flushed = Instant::now();
        self.writer.as_mut().map_or(Ok(()), H5mdWriter::flush)
    }

    fn sync(&self) -> Result<()> {
        let failed = |error| Error::Output(format!("{} could not be written: {}", self.path.display(), reason(&error)));
        self.file.sync_all().map_err(failed)
    }
}

impl Observer for H5mdOutput {
    fn samples(&mut self, samples: &[Sample]) -> Result<()> {
        if let Some(writer) = &mut self.writer {
            writer.write_samples(samples)?;
        }
        self.flush_in_time()
    }

    fn frame(&mut self, frame: &Frame) -> Result<()> {
        if let Some(writer) = &mut self.writer
            && frame.sample.step.is_multiple_of(self.interval)
        {
            writer.write_frame(frame)?;
        }
        self.flush_in_time()
    }

    fn finish(&mut self) -> Result<()> {
        self.writer.take().map_or(Ok(()), H5mdWriter::finish)?;
        self.sync()
    }
}

impl Output for H5mdOutput {
    fn name(&self) -> &str {
        &self.name
    }

    fn commit(&mut self) -> Result<Position> {
        let Some(writer) = &mut self.writer else {
            return Err(Error::Output(format!("{} is finished already", self.path.display())));
        };
        writer.flush()?;
        let position = Position { frames: writer.frames() as u64, rows: writer.rows() as u64, bytes: 0 };
        self.sync()?;
        Ok(position)
    }
}
