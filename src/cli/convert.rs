//! `verlet convert`: a trajectory in another format.

use crate::error::{Error, Result};
use crate::output::h5md::{H5mdOptions, H5mdReader, H5mdWriter};
use crate::output::trajectory::{Format, Snapshot, TrajectoryOptions, TrajectoryWriter};
use crate::output::{self, RunInfo, Sample};
use crate::system::extxyz::{Column, Frame};
use crate::system::{Selection, System, degrees_of_freedom, kinetic_energy, structure, temperature};
use nalgebra::Vector3;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The trajectory to read: H5MD of this program, extended XYZ, or any format that chemfiles reads
    from: PathBuf,
    /// The file to write; its extension is the format: .h5md, .xyz or .extxyz (extended XYZ), .dcd, .xtc, .trr, .pdb,
    /// .gro, .lammpstrj, .arc, .mol2. Never overwritten
    to: PathBuf,
    /// A structure file with the same atoms, for formats that do not know elements (DCD, XTC, TRR, NetCDF)
    #[arg(long, value_name = "FILE")]
    topology: Option<PathBuf>,
    /// Move every atom into the cell along its periodic directions
    #[arg(long)]
    wrap: bool,
    /// Which atoms: "all", elements such as "C,O", numbers from 1 such as "1-9,12"
    #[arg(long, value_name = "SELECTION", default_value = "all", value_parser = selection)]
    atoms: Selection,
    /// First frame, counted from 1
    #[arg(long = "from", value_name = "FRAME", default_value_t = 1, value_parser = super::number_from_one)]
    first: u64,
    /// Last frame, counted from 1
    #[arg(long = "to", value_name = "FRAME", default_value_t = u64::MAX, hide_default_value = true, value_parser = super::number_from_one)]
    last: u64,
    /// Every how many frames
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = super::number_from_one)]
    every: u64,
    /// Precision of an H5MD file
    #[arg(long, value_parser = ["f32", "f64"], default_value = "f32")]
    precision: String,
}

fn selection(text: &str) -> std::result::Result<Selection, String> {
    text.parse().map_err(|problem| format!("\"{text}\" {problem}"))
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let source = Source::open(arguments)?;
    // Two frames ahead: from them come what the file holds and how far apart its frames are.
    let mut frames = source.frames.peekable();
    let Some(first) = frames.next().transpose()? else {
        let range = match arguments.last {
            u64::MAX => format!("frame {}", arguments.first),
            last => format!("frames {} to {last}", arguments.first),
        };
        return Err(Error::Input(format!("{} has no {range} (frames count from 1)", arguments.from.display())));
    };
    let spacing = match frames.peek() {
        Some(Ok(second)) => Spacing::between(&first, second),
        _ => Spacing { steps: 1, timestep: 0.0 },
    };
    let target = Target::create(arguments, &first, spacing, source.about)?;
    let result = target.write_all(first, frames, &source.samples);
    if result.is_err() {
        // A part of a file would only stand in the way; the first error says why.
        let _ = std::fs::remove_file(&arguments.to);
    }
    let count = result?;
    super::say(&format!("{}: {}", arguments.to.display(), super::counted(count, "frame")))
}

/// Frames to convert, and what else the file says.
struct Source {
    frames: Box<dyn Iterator<Item = Result<Frame>>>,
    /// The energy log.
    samples: Vec<Sample>,
    about: Option<RunInfo>,
}

impl Source {
    fn open(arguments: &Arguments) -> Result<Self> {
        let path = &arguments.from;
        let skip = (arguments.first - 1) as usize;
        let count = arguments.last.saturating_sub(arguments.first - 1) as usize;
        let every = arguments.every as usize;
        if is_h5md(path) {
            if arguments.topology.is_some() {
                return Err(Error::Input(format!(
                    "{} knows its elements itself; leave --topology out",
                    path.display()
                )));
            }
            let reader = H5mdReader::open(path)?;
            let (numbers, masses) = (reader.atomic_numbers()?, reader.masses()?);
            let samples = reader.samples()?;
            let total = reader.frames()?;
            if total == 0 {
                return Err(Error::Output(format!("{} holds no frames", path.display())));
            }
            let log = samples.clone();
            let name = path.display().to_string();
            let read = move |reader: &H5mdReader, index| {
                stored(reader, index, &numbers, &masses, &log).map_err(|error| match error {
                    Error::Structure(problem) => Error::Structure(format!("{name}, frame {}: {problem}", index + 1)),
                    other => other,
                })
            };
            let about = Some(reader.about(read(&reader, 0)?.system)?);
            let frames = (0..total).map(move |index| read(&reader, index));
            return Ok(Source { frames: Box::new(frames.skip(skip).take(count).step_by(every)), samples, about });
        }
        let topology = arguments.topology.as_deref().map(|file| structure::read_structure(file, 0)).transpose()?;
        let frames = structure::read_frames_with(path, topology.as_ref())?;
        // An error is no frame to be counted or passed over: it ends the conversion wherever it is.
        let chosen = frames.enumerate().take_while(move |(index, _)| *index < skip.saturating_add(count)).filter_map(
            move |(index, frame)| {
                (frame.is_err() || (index >= skip && (index - skip).is_multiple_of(every))).then_some(frame)
            },
        );
        Ok(Source { frames: Box::new(chosen), samples: Vec::new(), about: None })
    }
}

fn is_h5md(path: &Path) -> bool {
    path.extension().is_some_and(|extension| ["h5md", "h5"].iter().any(|known| extension.eq_ignore_ascii_case(known)))
}

/// A frame of an H5MD file with everything that is known about it.
fn stored(reader: &H5mdReader, index: usize, numbers: &[u8], masses: &[f64], log: &[Sample]) -> Result<Frame> {
    let stored = reader.frame(index)?;
    let mut system = System::new(numbers.to_vec(), stored.positions, stored.cell)?;
    system.masses = masses.to_vec();
    system.velocities = stored.velocities;
    let mut frame = Frame::new(system);
    frame.set_info("step", stored.step as i64);
    frame.set_info("time", stored.time);
    if let Ok(row) = log.binary_search_by_key(&stored.step, |sample| sample.step) {
        frame.set_info("energy", log[row].potential);
    }
    if let Some(forces) = &stored.forces {
        frame.set_column(Column::vectors("forces", forces));
    }
    Ok(frame)
}

fn number(frame: &Frame, key: &str) -> Option<f64> {
    frame.info(key).and_then(|value| value.as_real())
}

fn forces(frame: &Frame) -> Option<Vec<Vector3<f64>>> {
    frame.column("forces").and_then(|column| column.as_vectors())
}

/// How far apart frames are.
#[derive(Clone, Copy)]
struct Spacing {
    steps: u64,
    /// fs; zero when the times are not known.
    timestep: f64,
}

impl Spacing {
    fn between(first: &Frame, second: &Frame) -> Self {
        let difference = |key: &str| Some(number(second, key)? - number(first, key)?);
        let steps = difference("step").filter(|&steps| steps >= 1.0).unwrap_or(1.0);
        Spacing { steps: steps as u64, timestep: difference("time").map_or(0.0, |time| time / steps) }
    }
}

/// The file to write.
struct Target<'a> {
    arguments: &'a Arguments,
    writer: Writer,
    /// The system of the first frame: all others have the same atoms.
    system: System,
    spacing: Spacing,
}

enum Writer {
    H5md { writer: Box<H5mdWriter>, atoms: Vec<usize> },
    Other(Box<TrajectoryWriter>),
}

impl<'a> Target<'a> {
    fn create(arguments: &'a Arguments, first: &Frame, spacing: Spacing, about: Option<RunInfo>) -> Result<Self> {
        let system = first.system.clone();
        let path = &arguments.to;
        let wrong = |problem: String| Error::Input(format!("{} {problem}", path.display()));
        let (velocities, forces) = (system.velocities.is_some(), forces(first).is_some());
        let writer = if is_h5md(path) {
            if number(first, "time").is_none() {
                return Err(wrong(format!("needs the time of every frame, and {} has none", arguments.from.display())));
            }
            let atoms = arguments.atoms.atoms(&system);
            let atoms =
                atoms.map_err(|problem| wrong(format!("cannot be written: \"{}\" {problem}", arguments.atoms)))?;
            let nobody = RunInfo {
                system: system.clone(),
                title: format!("converted from {}", arguments.from.display()),
                author: std::env::var("USER").unwrap_or_default(),
                input: String::new(),
                model: String::new(),
                model_hash: String::new(),
                seed: 0,
                backend: String::new(),
            };
            let about = RunInfo { system: system.subset(&atoms), ..about.unwrap_or(nobody) };
            let double = arguments.precision == "f64";
            let options = H5mdOptions { velocities, forces, double, wrap: arguments.wrap };
            Writer::H5md { writer: Box::new(H5mdWriter::create(path, &about, &options)?), atoms }
        } else {
            let format = Format::of(path).map_err(|problem| wrong(problem.replace("one of", "one of .h5md,")))?;
            let options = TrajectoryOptions {
                atoms: arguments.atoms.clone(),
                wrap: arguments.wrap,
                velocities: velocities && format.velocities,
                forces: forces && format.forces,
                interval: spacing.steps,
                timestep: spacing.timestep,
            };
            let writer = TrajectoryWriter::create(path, &system, options)?;
            if number(first, "time").is_none() && ["XTC", "TRR"].contains(&format.name) {
                super::warn(&format!(
                    "{} does not say when its frames are, and {} cannot leave that out: all of them are at time 0 in {}",
                    arguments.from.display(),
                    format.name,
                    path.display()
                ));
            }
            Writer::Other(Box::new(writer))
        };
        Ok(Target { arguments, writer, system, spacing })
    }

    /// Writes all frames, each after its share of the energy log, and closes the file.
    fn write_all(mut self, first: Frame, rest: impl Iterator<Item = Result<Frame>>, samples: &[Sample]) -> Result<u64> {
        let spinner = super::evaluate::progress();
        let stop = super::stop_flag()?;
        let from = number(&first, "step").unwrap_or(0.0) as u64;
        let begun = number(&first, "time");
        let mut log = &samples[samples.partition_point(|sample| sample.step < from)..];
        let (mut count, mut uneven) = (0, false);
        for frame in std::iter::once(Ok(first)).chain(rest) {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Run(format!(
                    "the conversion was stopped, as you asked, and {} is removed",
                    self.arguments.to.display()
                )));
            }
            let frame = frame?;
            let step = number(&frame, "step").map_or(count, |step| step as u64);
            let (share, later) = log.split_at(log.partition_point(|sample| sample.step <= step));
            log = later;
            if let (Some(begun), Some(time)) = (begun, number(&frame, "time")) {
                let apart = self.spacing.steps as f64 * self.spacing.timestep;
                uneven |= (time - begun - count as f64 * apart).abs() > 0.01 * apart.abs();
            }
            self.write(&frame, step, share).map_err(|error| match error {
                Error::Input(problem) => {
                    Error::Input(format!("{}, frame {}: {problem}", self.arguments.from.display(), count + 1))
                }
                other => other,
            })?;
            count += 1;
            spinner.inc(1);
        }
        spinner.finish_and_clear();
        if uneven && self.arguments.to.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("dcd")) {
            super::warn("the frames are not evenly spaced in time, and DCD has one time step for all of them");
        }
        match self.writer {
            Writer::H5md { writer, .. } => writer.finish()?,
            Writer::Other(writer) => writer.close()?,
        }
        Ok(count)
    }

    fn write(&mut self, frame: &Frame, step: u64, log: &[Sample]) -> Result<()> {
        let system = &frame.system;
        if system.atomic_numbers != self.system.atomic_numbers {
            return Err(Error::Input("has other atoms than the first frame; a trajectory has the same in all".into()));
        }
        let time = number(frame, "time");
        let forces = forces(frame);
        match &mut self.writer {
            Writer::Other(writer) => writer.write(&Snapshot {
                step,
                time,
                energy: number(frame, "energy"),
                positions: &system.positions,
                velocities: system.velocities.as_deref(),
                forces: forces.as_deref(),
                cell: &system.cell,
            }),
            Writer::H5md { writer, atoms } => {
                // A vacuum grows in steps with its layer; nothing else may change.
                let repeats = |k: &usize| system.cell.periodic()[*k];
                let edge_changed = |k: usize| {
                    (system.cell.vector(k) - self.system.cell.vector(k)).amax()
                        > 1e-6 * self.system.cell.vector(k).amax()
                };
                if system.cell.periodic() != self.system.cell.periodic() || (0..3).filter(repeats).any(edge_changed) {
                    return Err(Error::Input(
                        "has another cell than the first frame, which our H5MD does not hold; write another format"
                            .into(),
                    ));
                }
                let time = time.ok_or_else(|| Error::Input("has no time".into()))?;
                let known = log.last().filter(|sample| sample.step == step);
                let sample = known.copied().unwrap_or_else(|| measured(frame, step, time));
                writer.write_samples(log)?;
                let pick = |all: &[Vector3<f64>]| atoms.iter().map(|&atom| all[atom]).collect::<Vec<_>>();
                writer.write_frame(&output::Frame {
                    sample,
                    positions: pick(&system.positions),
                    velocities: system.velocities.as_deref().map(pick).unwrap_or_default(),
                    forces: forces.as_deref().map(pick).unwrap_or_default(),
                })
            }
        }
    }
}

/// Energies of a frame without a log: what is not known is not a number.
fn measured(frame: &Frame, step: u64, time: f64) -> Sample {
    let system = &frame.system;
    let kinetic = system.velocities.as_ref().map_or(f64::NAN, |velocities| kinetic_energy(&system.masses, velocities));
    let potential = number(frame, "energy").unwrap_or(f64::NAN);
    Sample {
        step,
        time,
        kinetic,
        potential,
        conserved: kinetic + potential,
        temperature: temperature(kinetic, degrees_of_freedom(system.len(), false)),
        list_rebuilds: 0,
    }
}
