//! `verlet run`: from an input file to a folder with its results.

use super::{Ending, InputArguments, execute, outputs, replicas};
use crate::analysis::Conservation;
use crate::error::{Error, Result};
use crate::output::folder::RunFolder;
use crate::output::record::Record;
use crate::setup;

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    input: InputArguments,
}

pub(super) fn run(arguments: &Arguments) -> Result<Ending> {
    let config = arguments.input.load()?;
    if !config.replicas.is_empty() {
        return replicas::run(&config);
    }
    let directory = &config.output.directory;
    RunFolder::check_free(directory)?;
    let mut prepared = setup::prepare(&config)?;
    super::warn_of_defects(&prepared.model);
    super::warn_of_charge(&config.system.structure.display().to_string(), &prepared.info.system);
    outputs::check(&config, &prepared.info.system)?;
    super::say(&format!("{}\noutput   {}", super::describe(&config, &prepared), directory.display()))?;

    let folder = RunFolder::create(directory, &config.record())?;
    let outputs = outputs::create(&folder, &config, &prepared.info).map_err(|error| match error {
        Error::Output(problem) => Error::Output(format!(
            "{problem}; the run has not begun: remove the folder {} before you start again",
            directory.display()
        )),
        other => other,
    })?;
    let run = setup::provenance(&config, &prepared.model, prepared.skin)?;
    let system = &prepared.info.system;
    let record = Record::new(outputs, folder.checkpoints(), run, config.dynamics.steps, system);
    let conservation = Conservation::new(system.len(), prepared.degrees_of_freedom);
    execute::execute(&config, &mut prepared, &folder, record, conservation)
}
