//! The outputs that an input asks for, new ones and those of a run that goes on.

use crate::config::RunConfig;
use crate::error::{Error, Result};
use crate::output::checkpoint::Checkpoint;
use crate::output::folder::{RunFolder, TRAJECTORY};
use crate::output::h5md::{H5mdOptions, H5mdOutput};
use crate::output::trajectory::TrajectoryWriter;
use crate::output::{Output, RunInfo, vmd};
use crate::system::System;
use std::path::Path;

/// Refuses outputs that cannot hold what the input wants in them, before anything is written.
pub(super) fn check(config: &RunConfig, system: &System) -> Result<()> {
    config.output.extra.iter().try_for_each(|output| {
        TrajectoryWriter::check(Path::new(&output.file), system, &output.options)
            .map_err(|problem| Error::Input(format!("{} {problem}", output.place)))
    })
}

/// New outputs in an empty folder, with a script for VMD beside each trajectory.
pub(super) fn create(folder: &RunFolder, config: &RunConfig, info: &RunInfo) -> Result<Vec<Box<dyn Output>>> {
    let trajectory = H5mdOutput::create(&folder.trajectory(), info, &options(config))?;
    vmd::accompany_h5md(&folder.trajectory(), &info.system, config.output.wrap)?;
    let mut outputs: Vec<Box<dyn Output>> = vec![Box::new(trajectory.every(config.output.trajectory_interval))];
    for output in &config.output.extra {
        let path = folder.path().join(&output.file);
        vmd::accompany(&path, &info.system, &output.options)?;
        outputs.push(Box::new(TrajectoryWriter::create(&path, &info.system, output.options.clone())?));
    }
    Ok(outputs)
}

/// The outputs of a run, cut to its checkpoint.
pub(super) fn append(
    folder: &RunFolder,
    config: &RunConfig,
    system: &System,
    checkpoint: &Checkpoint,
) -> Result<Vec<Box<dyn Output>>> {
    let position = |name: &str| checkpoint.outputs.get(name).copied().unwrap_or_default();
    let trajectory = H5mdOutput::append(&folder.trajectory(), system, &options(config), &position(TRAJECTORY))?;
    let mut outputs: Vec<Box<dyn Output>> = vec![Box::new(trajectory.every(config.output.trajectory_interval))];
    for output in &config.output.extra {
        let path = folder.path().join(&output.file);
        let writer = TrajectoryWriter::append(&path, system, output.options.clone(), &position(&output.file))?;
        outputs.push(Box::new(writer));
    }
    Ok(outputs)
}

/// What the input wants in the H5MD trajectory.
pub(super) fn options(config: &RunConfig) -> H5mdOptions {
    H5mdOptions {
        velocities: config.output.velocities,
        forces: config.output.forces,
        double: config.output.double,
        wrap: config.output.wrap,
    }
}
