//! Going on with a file that a run left behind.

use super::H5mdOptions;
use super::columns::{FrameColumns, LogColumns, Observables};
use super::repair::Growing;
use super::series::{Series, Vectors};
use crate::system::System;
use hdf5::File;

/// Opens all that grows, cut to so many frames and rows, and changes to single-writer mode.
pub(super) fn open(
    file: &File,
    system: &System,
    options: &H5mdOptions,
    frames: usize,
    rows: usize,
) -> hdf5::Result<(FrameColumns, LogColumns)> {
    Growing::of(file)?.cut(frames, rows)?;
    file.flush()?;
    let particles = file.group("particles/trajectory")?;
    let optional = |name: &str| {
        let path = format!("{name}/value");
        particles.link_exists(name).then(|| particles.dataset(&path)).transpose()
    };
    let position = Vectors::open(particles.dataset("position/value")?)?;
    let atoms = system.len();
    if position.row() != [atoms, 3] {
        return Err(format!("its frames are not for the {atoms} atoms of this run").into());
    }
    let group = file.group("observables")?;
    let observable = |name: &str| Series::open(group.dataset(&format!("{name}/value"))?);
    let columns = FrameColumns {
        position,
        velocity: optional("velocity")?.map(Vectors::open).transpose()?,
        force: optional("force")?.map(Vectors::open).transpose()?,
        edges: optional("box/edges")?.map(Series::open).transpose()?,
        time: Series::open(particles.dataset("position/time")?)?,
        observables: Observables {
            potential_energy: observable("potential_energy")?,
            kinetic_energy: observable("kinetic_energy")?,
            total_energy: observable("total_energy")?,
            temperature: observable("temperature")?,
        },
        step: Series::open(particles.dataset("position/step")?)?,
        cell: system.cell.clone(),
        wrap: options.wrap,
        atoms,
    };
    let log = LogColumns::open(&file.group("parameters/verlet/energy")?, atoms)?;
    file.start_swmr()?;
    Ok((columns, log))
}
