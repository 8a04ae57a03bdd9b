//! What a run of many systems writes: a trajectory for each, and one checkpoint for all.
//!
//! There may be more systems than a process may have open files, so what is told is kept in memory, up to a bound, and then
//! written to one file after the other: each is opened, gets many frames at once, and is closed. A checkpoint comes after all
//! files are safe. A kill in between leaves files that have more than the checkpoint counts, one of them marked as being
//! written; `resume` repairs them and cuts them to its counts.

use super::checkpoint::{Generations, SetCheckpoint};
use super::h5md::{H5mdOptions, H5mdOutput, H5mdWriter};
use super::writer::Queue;
use super::{Frame, Position, RunInfo, Sample, vmd};
use crate::backend::{Departure, Failure, State};
use crate::error::{Error, Result, reason};
use crate::replicas::Observer;
use crate::system::System;
use nalgebra::Vector3;
use rayon::prelude::*;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::thread::scope;

/// Bytes that may wait to be written.
const WAITING_BYTES: usize = 256 << 20;

/// A trajectory and what waits to be written to it.
struct Trajectory {
    path: PathBuf,
    system: System,
    samples: Vec<Sample>,
    frames: Vec<Frame>,
    /// What the file holds.
    written: Position,
    /// Whether the file may have what a power failure can take.
    unsafe_yet: bool,
}

/// The trajectories of a run, and its checkpoints. It is told by a thread of its own: [`beside`].
pub struct SetRecord {
    trajectories: Vec<Trajectory>,
    options: H5mdOptions,
    checkpoints: Generations,
    /// The one that was last written, but for what has failed since; before the first one its states are those of the start.
    checkpoint: SetCheckpoint,
    /// Bytes that wait.
    waiting: usize,
    /// Step of the last checkpoint.
    safe: Option<u64>,
    /// Whether a system has failed since.
    failed: bool,
}

/// The trajectory of a replica.
pub fn trajectory(folder: &Path, name: &str) -> PathBuf {
    folder.join(name).join(super::folder::TRAJECTORY)
}

impl SetRecord {
    /// Makes a folder with a trajectory and its script for VMD for each system; `checkpoint` is that of the start.
    ///
    /// # Errors
    /// [`Error::Output`] when something cannot be written, or is there.
    pub fn create(
        folder: &Path,
        infos: &[&RunInfo],
        options: H5mdOptions,
        checkpoints: Generations,
        checkpoint: SetCheckpoint,
    ) -> Result<Self> {
        for (info, member) in infos.iter().zip(&checkpoint.members) {
            let path = trajectory(folder, &member.name);
            let own = folder.join(&member.name);
            std::fs::create_dir(&own).map_err(|error| {
                Error::Output(format!("the folder {} cannot be created: {}", own.display(), reason(&error)))
            })?;
            H5mdWriter::create(&path, info, &options)?.finish()?;
            vmd::accompany_h5md(&path, &info.system, options.wrap)?;
        }
        let systems = infos.iter().map(|info| info.system.clone());
        Ok(Self::over(folder, systems.collect(), options, checkpoints, checkpoint, None))
    }

    /// Goes on behind a checkpoint of the folder; its trajectories hold what it counts, and are cut to that.
    ///
    /// # Errors
    /// [`Error::Output`] when a trajectory cannot be written.
    pub fn append(
        folder: &Path,
        options: H5mdOptions,
        checkpoints: Generations,
        checkpoint: SetCheckpoint,
    ) -> Result<Self> {
        let systems = checkpoint.members.iter().map(|member| member.system()).collect::<Result<_>>()?;
        let safe = Some(checkpoint.step);
        let record = Self::over(folder, systems, options, checkpoints, checkpoint, safe);
        for Trajectory { path, system, written, .. } in &record.trajectories {
            H5mdWriter::append(path, system, &record.options, written)?.finish()?;
        }
        Ok(record)
    }

    fn over(
        folder: &Path,
        systems: Vec<System>,
        options: H5mdOptions,
        checkpoints: Generations,
        checkpoint: SetCheckpoint,
        safe: Option<u64>,
    ) -> Self {
        let trajectories = systems.into_iter().zip(&checkpoint.members).map(|(system, member)| Trajectory {
            path: trajectory(folder, &member.name),
            system,
            samples: Vec::new(),
            frames: Vec::new(),
            written: member.output,
            unsafe_yet: true,
        });
        SetRecord {
            trajectories: trajectories.collect(),
            options,
            checkpoints,
            checkpoint,
            waiting: 0,
            safe,
            failed: false,
        }
    }

    /// Whether the trajectories have as much as a checkpoint counts, and which one has not. They are repaired if need be.
    ///
    /// # Errors
    /// As [`H5mdOutput::holds`].
    pub fn lacks(folder: &Path, checkpoint: &SetCheckpoint) -> Result<Option<PathBuf>> {
        for member in &checkpoint.members {
            let path = trajectory(folder, &member.name);
            if !H5mdOutput::holds(&path, &member.output)? {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    /// A sentence part for a run that failed: where it can be taken up.
    pub fn last_good(&self) -> String {
        match self.safe {
            Some(step) => {
                format!("the last good states are those of step {step}, in {}", self.checkpoints.current().display())
            }
            None => "there is no checkpoint yet: remove the folder before you start again".into(),
        }
    }

    /// Writes all that waits.
    fn write(&mut self) -> Result<()> {
        for trajectory in self.trajectories.iter_mut().filter(|trajectory| trajectory.waits()) {
            trajectory.write(&self.options)?;
        }
        self.waiting = 0;
        Ok(())
    }

    fn write_if_much(&mut self) -> Result<()> {
        if self.waiting >= WAITING_BYTES { self.write() } else { Ok(()) }
    }
}

impl Trajectory {
    fn waits(&self) -> bool {
        !self.samples.is_empty() || !self.frames.is_empty()
    }

    fn write(&mut self, options: &H5mdOptions) -> Result<()> {
        let mut writer = H5mdWriter::append(&self.path, &self.system, options, &self.written)?;
        self.unsafe_yet = true;
        self.frames.iter().try_for_each(|frame| writer.write_frame(frame))?;
        writer.write_samples(&self.samples)?;
        self.written = Position { frames: writer.frames() as u64, rows: writer.rows() as u64, bytes: 0 };
        writer.finish()?;
        (self.samples, self.frames) = Default::default();
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.unsafe_yet) {
            return Ok(());
        }
        File::open(&self.path)
            .and_then(|file| file.sync_all())
            .map_err(|error| Error::Output(format!("{} could not be written: {}", self.path.display(), reason(&error))))
    }
}

impl Observer for SetRecord {
    fn samples(&mut self, samples: &[Vec<Sample>]) -> Result<()> {
        for (trajectory, samples) in self.trajectories.iter_mut().zip(samples) {
            trajectory.samples.extend(samples);
            self.waiting += size_of_val(&samples[..]);
        }
        self.write_if_much()
    }

    fn frames(&mut self, frames: &[Option<Frame>]) -> Result<()> {
        for (trajectory, frame) in self.trajectories.iter_mut().zip(frames) {
            let Some(frame) = frame else { continue };
            let kept = |wanted: bool, vectors: &Vec<Vector3<f64>>| if wanted { vectors.clone() } else { Vec::new() };
            let frame = Frame {
                sample: frame.sample,
                positions: frame.positions.clone(),
                velocities: kept(self.options.velocities, &frame.velocities),
                forces: kept(self.options.forces, &frame.forces),
            };
            let vectors = frame.positions.len() + frame.velocities.len() + frame.forces.len();
            self.waiting += vectors * size_of::<Vector3<f64>>();
            trajectory.frames.push(frame);
        }
        self.write_if_much()
    }

    fn failure(&mut self, failure: &Failure) -> Result<()> {
        self.checkpoint.members[failure.replica].failure = Some((failure.step, failure.reason.clone()));
        self.failed = true;
        Ok(())
    }

    fn departure(&mut self, replica: usize, departure: &Departure) -> Result<()> {
        self.checkpoint.members[replica].departures.push(departure.clone());
        Ok(())
    }

    fn checkpoint(&mut self, step: u64, states: &[Option<State>]) -> Result<()> {
        if self.safe == Some(step) && !self.failed {
            return Ok(());
        }
        self.write()?;
        self.trajectories.par_iter_mut().try_for_each(Trajectory::sync)?;
        self.checkpoint.step = step;
        for ((member, state), trajectory) in self.checkpoint.members.iter_mut().zip(states).zip(&self.trajectories) {
            member.output = trajectory.written;
            if let Some(state) = state {
                member.state.clone_from(state);
            }
        }
        self.checkpoints.add(&self.checkpoint)?;
        (self.safe, self.failed) = (Some(step), false);
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        let written = self.write();
        let synced = self.trajectories.par_iter_mut().try_for_each(Trajectory::sync);
        written.and(synced)
    }
}

/// What waits for the thread.
enum Message {
    Samples(Vec<Vec<Sample>>),
    Frames(Vec<Option<Frame>>),
    Failure(Failure),
    Departure(usize, Departure),
    States(u64, Vec<Option<State>>),
}

/// Passes on what it is told to a thread.
pub struct SetWriter<'scope>(Queue<'scope, Message>);

/// Calls `run` with a [`SetWriter`] for `record`, as [`writer::beside`](super::writer::beside).
///
/// # Errors
/// As there.
pub fn beside<T>(
    record: &mut SetRecord,
    places: usize,
    run: impl FnOnce(&mut SetWriter<'_>) -> Result<T>,
) -> Result<T> {
    scope(|scope| {
        let queue = Queue::start(scope, places, |messages| {
            let told = messages.iter().try_for_each(|message| match message {
                Message::Samples(samples) => record.samples(&samples),
                Message::Frames(frames) => record.frames(&frames),
                Message::Failure(failure) => record.failure(&failure),
                Message::Departure(replica, departure) => record.departure(replica, &departure),
                Message::States(step, states) => record.checkpoint(step, &states),
            });
            // After an error the run must not wait for a place.
            drop(messages);
            let finished = record.finish();
            told.and(finished)
        })?;
        let mut writer = SetWriter(queue);
        let result = run(&mut writer);
        let finished = writer.finish();
        let value = result?;
        finished.map(|()| value)
    })
}

impl Observer for SetWriter<'_> {
    fn samples(&mut self, samples: &[Vec<Sample>]) -> Result<()> {
        self.0.send(Message::Samples(samples.to_vec()))
    }

    fn frames(&mut self, frames: &[Option<Frame>]) -> Result<()> {
        self.0.send(Message::Frames(frames.to_vec()))
    }

    fn failure(&mut self, failure: &Failure) -> Result<()> {
        self.0.send(Message::Failure(failure.clone()))
    }

    fn departure(&mut self, replica: usize, departure: &Departure) -> Result<()> {
        self.0.send(Message::Departure(replica, departure.clone()))
    }

    fn checkpoint(&mut self, step: u64, states: &[Option<State>]) -> Result<()> {
        self.0.send(Message::States(step, states.to_vec()))
    }

    fn finish(&mut self) -> Result<()> {
        self.0.finish()
    }
}
