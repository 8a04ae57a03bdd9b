//! Binary formats: chemfiles owns the file while frames are written.
//!
//! A file is whole only when chemfiles has closed it: before that it is longer than its frames. So a commit closes it and
//! opens it again behind its last frame.

use super::foreign::Template;
use super::{Format, Record, Sink, TrajectoryOptions};
use crate::error::reason;
use crate::system::System;
use crate::system::structure::quietly;
use crate::units::AKMA;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use rustix::param::page_size;
use rustix::process::{Resource, getrlimit};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes of an atom in a frame: a position and a velocity in float64, and some to spare.
const BYTES_AN_ATOM: u64 = 64;
/// Bytes of everything else in a frame, the head of the file included.
const BYTES_A_HEAD: u64 = 4096;
/// Memory pages by which chemfiles makes a file longer.
const GROWTH: u64 = 4;

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
    /// Bytes that a frame takes at most.
    frame_bytes: u64,
    /// The end of what the disk has room for.
    reserved: u64,
}

// SAFETY: the trajectory is owned by this value alone, and chemfiles ties no trajectory to a thread: what all of them share,
// its table of pointers and its configuration, is behind mutexes. Everything else is Send by itself.
unsafe impl Send for Binary {}

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
            frame_bytes: BYTES_A_HEAD + BYTES_AN_ATOM * system.len() as u64,
            reserved: 0,
        };
        binary.count()?;
        binary.open()?;
        Ok(binary)
    }

    fn open(&mut self) -> Result<(), String> {
        let mode = if self.frames == 0 { 'w' } else { 'a' };
        let opened = quietly(|| chemfiles::Trajectory::open_with_format(&self.path, mode, self.format.name));
        self.trajectory = Some(opened.map_err(|problem| format!("cannot be written: {problem}"))?);
        // When it is closed, the file is cut to its content.
        self.reserved = 0;
        Ok(())
    }

    /// Makes sure that there is room for one more frame. chemfiles writes through a memory map: what finds no room on the
    /// disk then ends the program (SIGBUS), and what no limit allows is lost.
    fn reserve(&mut self) -> std::io::Result<()> {
        let file = OpenOptions::new().write(true).open(&self.path)?;
        let length = file.metadata()?.len();
        let end = length + self.frame_bytes;
        let largest = getrlimit(Resource::Fsize).current;
        if largest.is_some_and(|largest| end + GROWTH * page_size() as u64 > largest) {
            return Err(Errno::FBIG.into());
        }
        let begin = self.reserved.clamp(0, length);
        match fallocate(&file, FallocateFlags::KEEP_SIZE, begin, end - begin) {
            // Some file systems cannot promise room.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                self.reserved = end;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Has chemfiles close the file, which gives it its true length, and completes its head.
    fn close(&mut self) -> Result<u64, String> {
        self.trajectory = None;
        self.count()?;
        let file = OpenOptions::new().write(true).open(&self.path);
        let length = file.and_then(|file| file.sync_all().and_then(|()| file.metadata())).map(|data| data.len());
        length.map_err(|error| format!("cannot be written: {}", reason(&error)))
    }

    /// Writes into the head what chemfiles does not: how many frames there are, and when they were.
    fn count(&self) -> Result<(), String> {
        if self.frames == 0 {
            return Ok(());
        }
        let number = |value: u64| i32::try_from(value).unwrap_or(i32::MAX);
        let mut head = Vec::new();
        // After "CORD": frames, step of the first, steps between them; at 44 the time step.
        if self.format.name == "DCD" {
            head.push((8, number(self.frames).to_ne_bytes()));
            if let Some(first) = self.first_step {
                head.push((12, number(first).to_ne_bytes()));
                head.push((16, number(self.interval).to_ne_bytes()));
                head.push((44, ((self.timestep / AKMA) as f32).to_ne_bytes()));
            }
        }
        let file = OpenOptions::new().write(true).open(&self.path);
        file.and_then(|file| head.iter().try_for_each(|(at, bytes)| file.write_all_at(bytes, *at)))
            .map_err(|error| format!("cannot be written: {}", reason(&error)))
    }
}

impl Sink for Binary {
    fn write(&mut self, record: &Record) -> Result<(), String> {
        self.reserve().map_err(|error| format!("the file cannot be written: {}", reason(&error)))?;
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
