//! Binary formats: chemfiles owns the file while frames are written.
//!
//! A file is whole only when chemfiles has closed it: before that it is longer than its frames and, for NetCDF, counts no
//! frame. So a commit closes it and opens it again behind its last frame.

use super::foreign::Template;
use super::{Format, Record, Sink, TrajectoryOptions};
use crate::system::System;
use crate::system::structure::quietly;
use crate::units::AKMA;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

pub(super) struct Binary {
    /// `None` while the file is closed.
    trajectory: Option<chemfiles::Trajectory>,
    path: PathBuf,
    template: Template,
    format: &'static Format,
    frames: u64,
    /// The step of the first frame, unless that is in the file already.
    first_step: Option<u64>,
    interval: u64,
    timestep: f64,
}

impl Binary {
    /// Begins an empty file, which must be there.
    pub fn create(
        path: &Path,
        format: &'static Format,
        system: System,
        options: &TrajectoryOptions,
    ) -> Result<Self, String> {
        Self::append(path, format, system, options, 0)
    }

    /// Goes on behind `frames` frames, with which the file ends.
    pub fn append(
        path: &Path,
        format: &'static Format,
        system: System,
        options: &TrajectoryOptions,
        frames: u64,
    ) -> Result<Self, String> {
        let mut binary = Binary {
            trajectory: None,
            path: path.to_owned(),
            template: Template::new(&system, options),
            format,
            frames,
            first_step: None,
            interval: options.interval,
            timestep: options.timestep,
        };
        binary.count()?;
        binary.open()?;
        Ok(binary)
    }

    fn open(&mut self) -> Result<(), String> {
        let mode = if self.frames == 0 { 'w' } else { 'a' };
        let opened = quietly(|| chemfiles::Trajectory::open_with_format(&self.path, mode, self.format.name));
        self.trajectory = Some(opened.map_err(|problem| format!("cannot be written: {problem}"))?);
        Ok(())
    }

    /// Has chemfiles close the file, which gives it its true length, and completes its head.
    fn close(&mut self) -> Result<u64, String> {
        self.trajectory = None;
        self.count()?;
        let file = OpenOptions::new().write(true).open(&self.path);
        let length = file.and_then(|file| file.sync_all().and_then(|()| file.metadata())).map(|data| data.len());
        length.map_err(|error| format!("cannot be written: {error}"))
    }

    /// Writes into the head what chemfiles does not: how many frames there are, and when they were.
    fn count(&self) -> Result<(), String> {
        if self.frames == 0 {
            return Ok(());
        }
        let number = |value: u64| i32::try_from(value).unwrap_or(i32::MAX);
        let mut head = Vec::new();
        match self.format.name {
            // After "CORD": frames, step of the first, steps between them; at 44 the time step.
            "DCD" => {
                head.push((8, number(self.frames).to_ne_bytes()));
                if let Some(first) = self.first_step {
                    head.push((12, number(first).to_ne_bytes()));
                    head.push((16, number(self.interval).to_ne_bytes()));
                    head.push((44, ((self.timestep / AKMA) as f32).to_ne_bytes()));
                }
            }
            // After "CDF" and the version: the number of records, big-endian.
            "Amber NetCDF" => head.push((4, number(self.frames).to_be_bytes())),
            _ => {}
        }
        let file = OpenOptions::new().write(true).open(&self.path);
        file.and_then(|file| head.iter().try_for_each(|(at, bytes)| file.write_all_at(bytes, *at)))
            .map_err(|error| format!("cannot be written: {error}"))
    }
}

impl Sink for Binary {
    fn write(&mut self, record: &Record) -> Result<(), String> {
        let frame = self.template.fill(record)?;
        let Some(trajectory) = &mut self.trajectory else { return Err("the file is closed".into()) };
        quietly(|| trajectory.write(frame))?;
        if self.frames == 0 {
            self.first_step = Some(record.step);
        }
        self.frames += 1;
        Ok(())
    }

    fn commit(&mut self) -> Result<u64, String> {
        let length = self.close()?;
        self.open()?;
        Ok(length)
    }

    fn finish(&mut self) -> Result<(), String> {
        self.close().map(drop)
    }
}
