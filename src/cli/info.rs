//! `verlet info`: what is this file; which keys are there.

use crate::config::{KEYS, header};
use crate::elements;
use crate::error::{Error, Result};
use crate::model::Model;
use std::fmt::Write;
use std::path::PathBuf;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// A model file
    #[arg(required_unless_present = "keys")]
    model: Option<PathBuf>,
    /// Print every key of the input file as a Markdown table
    #[arg(long)]
    keys: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.keys {
        print!("{}", key_table());
    }
    if let Some(path) = &arguments.model {
        let model = Model::load(path)?;
        print!("{}", describe(&model)?);
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
        writeln!(text, "SHA-256      {}", model.hash)?;
        writeln!(text, "provenance   {}", model.spec.provenance)
    })()
    .map_err(|error: std::fmt::Error| Error::Output(error.to_string()))?;
    Ok(text)
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
