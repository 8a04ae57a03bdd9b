//! `verlet info`: what is this file; which keys are there.

use crate::backend::cuda;
use crate::config::{KEYS, header};
use crate::elements;
use crate::error::{Error, Result};
use crate::model::{Model, RadialKind};
use std::fmt::Write;
use std::path::PathBuf;

/// Atoms per Å³ of water, and the skin in Å that large systems of it have.
const DENSITY: f64 = 0.1;
const SKIN: f64 = 0.5;
/// GB that GPUs have.
const MEMORIES: [u32; 4] = [8, 24, 80, 141];

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// A model file
    #[arg(required_unless_present_any = ["keys", "devices"])]
    model: Option<PathBuf>,
    /// Print every key of the input file as a Markdown table
    #[arg(long)]
    keys: bool,
    /// Say what this machine can compute on
    #[arg(long)]
    devices: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.keys {
        super::say(key_table().trim_end())?;
    }
    if arguments.devices {
        super::say(devices().trim_end())?;
    }
    if let Some(path) = &arguments.model {
        let model = Model::load(path)?;
        super::say(describe(&model)?.trim_end())?;
        super::warn_of_defects(&model);
    }
    Ok(())
}

/// A model in one line.
pub(super) fn one_line(model: &Model) -> String {
    format!(
        "{} ({}, {} features, {} layers, cutoff {} Å; knows {})",
        model.name,
        model.spec.architecture,
        model.features(),
        model.layers.len(),
        model.cutoff(),
        elements::list(&model.spec.elements)
    )
}

fn describe(model: &Model) -> Result<String> {
    let table = model.filter_table();
    let mut text = String::new();
    (|| {
        writeln!(text, "model        {}", model.name)?;
        writeln!(text, "architecture {}", model.spec.architecture)?;
        writeln!(
            text,
            "size         {} features, {} layers, {} weights",
            model.features(),
            model.layers.len(),
            model.parameters()
        )?;
        writeln!(text, "cutoff       {} Å", model.cutoff())?;
        let kind = match model.spec.radial_basis {
            RadialKind::Gaussian => "Gaussian",
            RadialKind::Bessel => "spherical Bessel",
        };
        writeln!(text, "radial basis {} {kind} functions", model.spec.radial_count)?;
        let shared = match (model.spec.shared_filters, model.spec.shared_interactions) {
            (false, false) => "nothing",
            (true, false) => "filters",
            (false, true) => "message and update blocks",
            (true, true) => "filters, message and update blocks",
        };
        writeln!(text, "layers share {shared}")?;
        writeln!(text, "elements     {}", elements::list(&model.spec.elements))?;
        writeln!(
            text,
            "filter table {} intervals; largest error of W {:.1e} (of {:.2}), of dW/dd {:.1e} (of {:.2}) 1/Å",
            table.intervals,
            table.error.value,
            table.error.value_scale,
            table.error.derivative,
            table.error.derivative_scale
        )?;
        if let Some(domain) = &model.spec.domain {
            writeln!(text, "domain       {domain}")?;
        }
        if let Some(repulsion) = &model.spec.repulsion {
            writeln!(text, "repulsion    {repulsion}")?;
        }
        if let Some(bytes) = cuda::bytes_an_atom(model, DENSITY, SKIN) {
            let sizes = MEMORIES.map(|memory| {
                format!("{:.2} M in {memory} GB", cuda::largest_system(memory as f64 * 1e9, bytes) * 1e-6)
            });
            writeln!(text, "on a GPU     {:.1} kB an atom in water: {} atoms", bytes * 1e-3, sizes.join(", "))?;
        }
        writeln!(text, "SHA-256      {}", model.hash)?;
        writeln!(text, "provenance   {}", model.spec.provenance)
    })()
    .map_err(|error: std::fmt::Error| Error::Output(error.to_string()))?;
    Ok(text)
}

/// What this machine can compute on, and what is missing for more.
fn devices() -> String {
    let threads = rayon::current_num_threads();
    let mut text = format!("CPU      {threads} threads, {}\n", crate::backend::cpu::instructions());
    let driver = match cuda::Driver::start() {
        Ok(driver) => driver,
        Err(error) => return text + &format!("GPU      none: {error}\n"),
    };
    text.push_str(&format!("driver   CUDA {}\n", driver.version_text()));
    for number in 0..driver.devices {
        let line = match cuda::Device::open(number).and_then(|device| Ok((device.free_memory()?, device))) {
            Ok((free, device)) => format!(
                "{}, {}, {} multiprocessors, {:.1} of {:.1} GB free",
                device.name,
                device.architecture(),
                device.multiprocessors,
                free as f64 * 1e-9,
                device.memory as f64 * 1e-9
            ),
            Err(error) => error.to_string(),
        };
        let used = if number == 0 { "" } else { " (not used)" };
        text.push_str(&format!("GPU {number}    {line}{used}\n"));
    }
    match cuda::Nvrtc::find(Some(driver.version)) {
        Ok(found) => {
            let (major, minor) = found.version;
            text.push_str(&format!("NVRTC    CUDA {major}.{minor}, {}\n", found.path.display()));
        }
        Err(error) => text.push_str(&format!("NVRTC    missing: {error}\n")),
    }
    let folder = cuda::cache_folder();
    let count = folder.as_ref().and_then(|folder| std::fs::read_dir(folder).ok()).map_or(0, Iterator::count);
    match folder {
        Some(folder) => text.push_str(&format!("kernels  {count} compiled in {}\n", folder.display())),
        None => text.push_str("kernels  nowhere to keep them: neither XDG_CACHE_HOME nor HOME is set\n"),
    }
    text
}

/// Every key of the input as a Markdown table a section.
fn key_table() -> String {
    let mut text = String::new();
    let mut section = None;
    for key in KEYS {
        if section != Some(key.section) {
            section = Some(key.section);
            let title =
                if key.section.is_empty() { "Top of the file".into() } else { format!("`{}`", header(key.section)) };
            text.push_str(&format!("\n## {title}\n\n| key | value | default | meaning |\n|---|---|---|---|\n"));
        }
        text.push_str(&format!("| `{}` | {} | {} | {} |\n", key.name, key.kind.describe(), key.default, key.meaning));
    }
    text.trim_start().to_string()
}
