//! `verlet evaluate`: energies and their derivatives for structures of any format.

use crate::backend::cpu::{Filters, NetworkPotential, Potential};
use crate::backend::cuda::{self, Arithmetic, CudaPotential, Device};
use crate::backend::{Evaluation, Outside};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::output::create_new;
use crate::output::trajectory::Format;
use crate::system::extxyz::{Column, Frame, Writer};
use crate::system::structure;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Frame-wide values that another program computed and that would be wrong beside ours.
const STALE: [&str; 5] = ["stress", "virial", "virials", "free_energy", "energies"];

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The force field, a safetensors file
    #[arg(long)]
    model: PathBuf,
    /// Structure files, with any number of frames each
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Extended XYZ file to write; without it, or with -, standard output
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Where to compute
    #[arg(long, value_name = "DEVICE", value_parser = ["auto", "cpu", "cuda"], default_value = "auto")]
    backend: String,
    /// Arithmetic of the network: f32 or, on a GPU, mixed as in a run, or f64 with exact filters as a reference
    #[arg(long, value_parser = ["f32", "f64", "mixed"], default_value = "f32")]
    precision: String,
}

/// Refuses an output whose name says that it is something else.
fn check_name(path: &Path) -> Result<()> {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let other = ["h5md", "h5"].contains(&extension.as_str())
        || Format::of(path).is_ok_and(|format| format.name != "extended XYZ");
    match other {
        false => Ok(()),
        true => Err(Error::Input(format!(
            "{} would hold extended XYZ, which is not what .{extension} stands for; choose a name that ends in .xyz, and make \
             other formats of that with `verlet convert`",
            path.display()
        ))),
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let output = arguments.output.as_deref().filter(|path| path.as_os_str() != "-");
    output.map_or(Ok(()), check_name)?;
    let model = Model::load(&arguments.model)?;
    super::warn_of_defects(&model);
    let (double, mixed) = (arguments.precision == "f64", arguments.precision == "mixed");
    let arithmetic = if mixed { Arithmetic::Mixed } else { Arithmetic::Single };
    let device = match arguments.backend.as_str() {
        "cuda" if double => return Err(super::no_double()),
        "cpu" if mixed => return Err(super::only_gpu()),
        "cuda" => Some(Device::open_for(0, arithmetic)?),
        _ if mixed => Some(Device::open_for(0, arithmetic)?),
        "auto" if !double && cuda::check_model(&model).is_ok() => Device::open(0).ok(),
        _ => None,
    };
    let required = mixed || arguments.backend == "cuda";
    let mut engine = Engine { model, double, device, required, prepared: None, outside: Vec::new() };
    match output {
        None => {
            let mut writer = Writer::new(std::io::BufWriter::new(std::io::stdout().lock()), "standard output");
            evaluate(arguments, &mut engine, |frame| writer.write(frame))?;
            writer.finish().map(drop)
        }
        Some(path) => {
            let file = std::io::BufWriter::new(create_new(path)?);
            let mut writer = Writer::new(file, &path.display().to_string());
            let mut count = 0;
            let evaluated = evaluate(arguments, &mut engine, |frame| {
                writer.write(frame)?;
                count += 1;
                Ok(())
            });
            let flushed = writer.finish().map(drop);
            match evaluated.and(flushed) {
                Ok(()) => Ok(()),
                // What has been computed is kept; what could not be written is of no use to anybody.
                Err(Error::Structure(problem)) if count > 0 => Err(Error::Structure(format!(
                    "{problem}; {} holds the {} before it",
                    path.display(),
                    super::counted(count, "frame")
                ))),
                Err(error) => {
                    let _ = std::fs::remove_file(path);
                    Err(match error {
                        Error::Run(reason) => Error::Run(format!("{reason}; {} is removed", path.display())),
                        other => other,
                    })
                }
            }
        }
    }
}

fn evaluate(arguments: &Arguments, engine: &mut Engine, mut write: impl FnMut(&Frame) -> Result<()>) -> Result<()> {
    let spinner = progress();
    let stop = super::stop_flag()?;
    let mut charged = false;
    for path in &arguments.files {
        for (number, frame) in structure::read_frames(path)?.enumerate() {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Run("the evaluation was stopped, as you asked".into()));
            }
            let mut frame = frame?;
            let place = format!("{}, frame {}", path.display(), number + 1);
            if frame.system.charge != 0.0 && !std::mem::replace(&mut charged, true) {
                spinner.suspend(|| super::warn_of_charge(&place, &frame.system));
            }
            let outside = engine.fill(&mut frame).map_err(|error| Error::Structure(format!("{place}: {error}")))?;
            for outside in outside {
                spinner
                    .suspend(|| super::warn(&format!("{place}: outside of what the model was trained on: {outside}")));
            }
            write(&frame)?;
            spinner.inc(1);
        }
    }
    spinner.finish_and_clear();
    Ok(())
}

/// How many frames are there is known only at the end of a stream, so there is a count and a rate but no end.
pub(super) fn progress() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {pos} frames, {per_sec}").expect("the template is well-formed");
    ProgressBar::new_spinner().with_style(style)
}

/// A model, prepared for the elements of the last frame: trajectories have the same atoms in every frame.
struct Engine {
    model: Model,
    double: bool,
    /// The GPU, if it is to be used, and whether nothing else will do.
    device: Option<Arc<Device>>,
    required: bool,
    prepared: Option<(Vec<u8>, Box<dyn Potential>)>,
    /// In which ways frames were outside of what the model was trained on.
    outside: Vec<Outside>,
}

impl Engine {
    fn potential(&mut self, atomic_numbers: &[u8]) -> Result<&mut dyn Potential> {
        let known = self.prepared.as_ref().is_some_and(|(numbers, _)| numbers == atomic_numbers);
        if !known {
            let model = &self.model;
            let on_gpu = match &self.device {
                Some(device) => match CudaPotential::new(device, model, atomic_numbers, 0.0) {
                    Err(Error::Run(reason)) if !self.required => {
                        eprintln!("warning: computing on the CPU, since {reason}");
                        self.device = None;
                        None
                    }
                    made => Some(made?),
                },
                None => None,
            };
            let potential: Box<dyn Potential> = if let Some(potential) = on_gpu {
                Box::new(potential)
            } else if self.double {
                Box::new(NetworkPotential::<f64>::new(model, atomic_numbers, 0.0, Filters::Direct)?)
            } else {
                Box::new(NetworkPotential::<f32>::new(model, atomic_numbers, 0.0, Filters::Table)?)
            };
            self.prepared = Some((atomic_numbers.to_vec(), potential));
        }
        let (_, potential) = self.prepared.as_mut().expect("set above");
        Ok(potential.as_mut())
    }

    /// Adds energy, forces, energies by atom and, for a periodic frame, the stress. Returns in which ways the frame is the
    /// first one outside of what the model was trained on.
    fn fill(&mut self, frame: &mut Frame) -> Result<Vec<Outside>> {
        let system = &frame.system;
        let mut out = Evaluation::default();
        self.potential(&system.atomic_numbers)?.evaluate(&system.positions, &system.cell, &mut out)?;
        frame.info.retain(|(key, _)| !STALE.contains(&key.as_str()));
        let stress = frame.system.cell.is_periodic().then(|| out.strain_derivative / frame.system.cell.volume());
        frame.set_info("energy", out.energy);
        if let Some(stress) = stress {
            frame.set_info("stress", stress);
        }
        frame.set_column(Column::vectors("forces", &out.forces));
        frame.set_column(Column::scalars("energies", out.atom_energies));
        out.outside.retain(|outside| !self.outside.iter().any(|other| other.is_like(outside)));
        self.outside.extend(out.outside.iter().cloned());
        Ok(out.outside)
    }
}
