//! `verlet run`: from an input file to a folder with its results.

use super::{InputArguments, execute};
use crate::analysis::Conservation;
use crate::error::Result;
use crate::output::folder::RunFolder;
use crate::output::h5md::H5mdOutput;
use crate::output::record::Record;
use crate::setup;

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    input: InputArguments,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let config = arguments.input.load()?;
    let directory = &config.output.directory;
    RunFolder::check_free(directory)?;
    let mut prepared = setup::prepare(&config)?;
    super::warn_of_defects(&prepared.model);
    println!("{}", super::describe(&config, &prepared));
    println!("output   {}", directory.display());

    let folder = RunFolder::create(directory, &config.record())?;
    let trajectory = H5mdOutput::create(&folder.trajectory(), &prepared.info, &execute::options(&config))?;
    let run = setup::provenance(&config, &prepared.model)?;
    let system = &prepared.info.system;
    let record = Record::new(vec![Box::new(trajectory)], folder.checkpoints(), run, config.dynamics.steps, system);
    let conservation = Conservation::new(system.len(), prepared.degrees_of_freedom);
    execute::execute(&config, &mut prepared, &folder, record, conservation)
}
