//! `verlet check`: everything but moving atoms.

use super::InputArguments;
use crate::error::Result;
use crate::output::folder::RunFolder;
use crate::setup;

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    input: InputArguments,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let config = arguments.input.load()?;
    if !config.replicas.is_empty() {
        return super::replicas::check(&config);
    }
    let mut prepared = setup::prepare(&config)?;
    super::warn_of_defects(&prepared.model);
    super::warn_of_charge(&config.system.structure.display().to_string(), &prepared.info.system);
    super::outputs::check(&config, &prepared.info.system)?;
    RunFolder::check_free(&config.output.directory)?;
    super::say(&format!(
        "{}\noutput   {} (nothing written)",
        super::describe(&config, &prepared),
        config.output.directory.display()
    ))?;
    for departure in prepared.backend.departures() {
        super::warn(&format!("the structure is outside of what the model was trained on: {}", departure.outside));
    }
    let frame = prepared.backend.frame()?;
    let largest = frame.forces.iter().map(|force| force.norm()).fold(0.0, f64::max);
    super::say(&format!(
        "energy   {:.6} eV, largest force {largest:.4} eV/Å, temperature {:.1} K",
        frame.sample.potential, frame.sample.temperature
    ))
}
