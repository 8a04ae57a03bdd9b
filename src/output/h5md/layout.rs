//! The part of a file that is written once, before the first frame.

use super::H5mdOptions;
use super::columns::{FrameColumns, LogColumns, Observables};
use super::series::{Series, Vectors};
use crate::elements;
use crate::output::RunInfo;
use crate::system::System;
use hdf5::file::LibraryVersion;
use hdf5::types::{FixedAscii, FixedUnicode, VarLenUnicode};
use hdf5::{File, Group, Location};
use std::path::Path;
use std::str::FromStr;

/// Longest author name in bytes: the specification wants fixed-length strings for it.
pub(super) const AUTHOR_BYTES: usize = 256;
/// `step` and `time` of the frames, to which all others are linked.
const STEP: &str = "/particles/trajectory/position/step";
const TIME: &str = "/particles/trajectory/position/time";

/// Creates all groups, datasets and attributes and changes to single-writer mode: what is created after that would be
/// lost without any error.
pub(super) fn create(
    path: &Path,
    info: &RunInfo,
    options: &H5mdOptions,
) -> hdf5::Result<(File, FrameColumns, LogColumns)> {
    // Single-writer mode needs the 1.10 format; every HDF5 since 1.10 reads it.
    let format = LibraryVersion::V110;
    let file = File::with_options().with_fapl(|access| access.libver_bounds(format, format)).create(path)?;
    heading(&file, info)?;
    let atoms = info.system.len();
    let particles = file.create_group("particles")?.create_group("trajectory")?;
    let position_group = particles.create_group("position")?;
    let position = Vectors::create(&position_group, atoms, options.double, "Angstrom")?;
    let step = Series::create(&position_group, "step", &[], None)?;
    let time = Series::create(&position_group, "time", &[], Some("ps"))?;
    let vectors = |wanted: bool, name: &str, unit: &str| -> hdf5::Result<Option<Vectors>> {
        if !wanted {
            return Ok(None);
        }
        Vectors::create(&element(&particles, name)?, atoms, options.double, unit).map(Some)
    };
    let velocity = vectors(options.velocities, "velocity", "Angstrom ps-1")?;
    let force = vectors(options.forces, "force", "kJ mol-1 Angstrom-1")?;
    let edges = cell(&particles, &info.system)?;
    atom_properties(&particles, &info.system)?;
    let group = file.create_group("observables")?;
    let observable = |name: &str, unit: &str| Series::create(&element(&group, name)?, "value", &[], Some(unit));
    let observables = Observables {
        potential_energy: observable("potential_energy", "kJ mol-1")?,
        kinetic_energy: observable("kinetic_energy", "kJ mol-1")?,
        total_energy: observable("total_energy", "kJ mol-1")?,
        temperature: observable("temperature", "K")?,
    };
    let parameters = file.create_group("parameters")?;
    vmd_structure(&parameters, &info.system)?;
    let log = LogColumns::create(&provenance(&parameters, info)?.create_group("energy")?, atoms)?;
    file.flush()?;
    file.start_swmr()?;
    let frames = FrameColumns {
        position,
        velocity,
        force,
        edges,
        time,
        observables,
        step,
        cell: info.system.cell.clone(),
        wrap: options.wrap,
        atoms,
    };
    Ok((file, frames, log))
}

/// A variable-length string attribute: MDAnalysis refuses fixed-length units.
pub(super) fn text(location: &Location, name: &str, value: &str) -> hdf5::Result<()> {
    let value = VarLenUnicode::from_str(value).map_err(|error| format!("{name}: {error}"))?;
    location.new_attr::<VarLenUnicode>().create(name)?.write_scalar(&value)
}

/// A fixed-length string attribute, as the specification wants them.
fn fixed_text(location: &Location, name: &str, value: &str) -> hdf5::Result<()> {
    let end = (0..=AUTHOR_BYTES).rev().find(|&end| value.is_char_boundary(end)).unwrap_or(0);
    let value = &value[..end];
    let value = FixedUnicode::<AUTHOR_BYTES>::from_str(value).map_err(|error| format!("{name}: {error}"))?;
    location.new_attr::<FixedUnicode<AUTHOR_BYTES>>().create(name)?.write_scalar(&value)
}

/// `/h5md`: what kind of file this is, by whom, with what.
fn heading(file: &File, info: &RunInfo) -> hdf5::Result<()> {
    let group = file.create_group("h5md")?;
    group.new_attr::<i32>().shape(2).create("version")?.write(&[1, 1])?;
    let author = group.create_group("author")?;
    fixed_text(&author, "name", &info.author)?;
    let creator = group.create_group("creator")?;
    fixed_text(&creator, "name", "verlet")?;
    fixed_text(&creator, "version", env!("CARGO_PKG_VERSION"))
}

/// A group for a quantity of every frame, with the frames' step and time.
fn element(parent: &Group, name: &str) -> hdf5::Result<Group> {
    let group = parent.create_group(name)?;
    group.link_hard(STEP, "step")?;
    group.link_hard(TIME, "time")?;
    Ok(group)
}

/// The cell. Without any periodic direction it has no edges, as the specification allows: then MDAnalysis and VMD know
/// that there is none.
fn cell(particles: &Group, system: &System) -> hdf5::Result<Option<Series<f64>>> {
    let group = particles.create_group("box")?;
    group.new_attr::<i32>().create("dimension")?.write_scalar(&3)?;
    let boundary = system.cell.periodic().map(|periodic| if periodic { "periodic" } else { "none" });
    group.new_attr::<FixedAscii<8>>().shape(3).create("boundary")?.write(&ascii::<8>(&boundary)?)?;
    if !system.cell.is_periodic() {
        return Ok(None);
    }
    Series::create(&element(&group, "edges")?, "value", &[3, 3], Some("Angstrom")).map(Some)
}

/// Species, masses and numbers of the atoms, in the order of the positions.
fn atom_properties(particles: &Group, system: &System) -> hdf5::Result<()> {
    let species: Vec<i32> = system.atomic_numbers.iter().map(|&z| z.into()).collect();
    particles.new_dataset_builder().with_data(&species).create("species")?;
    let mass = particles.new_dataset_builder().with_data(&system.masses).create("mass")?;
    text(&mass, "unit", "u")?;
    let id: Vec<i64> = (1..=system.len() as i64).collect();
    particles.new_dataset_builder().with_data(&id).create("id")?;
    Ok(())
}

/// The tables in which VMD looks up every species. It wants exactly the species that occur, and names of 16 bytes.
fn vmd_structure(parameters: &Group, system: &System) -> hdf5::Result<()> {
    let group = parameters.create_group("vmd_structure")?;
    let elements = system.elements();
    let numbers: Vec<i32> = elements.iter().map(|&z| z.into()).collect();
    let names: Vec<FixedAscii<16>> = ascii(&elements.iter().map(|&z| elements::symbol(z)).collect::<Vec<_>>())?;
    let radii: Vec<f32> = elements.iter().map(|&z| elements::radius(z) as f32).collect();
    for name in ["indexOfSpecies", "atomicnumber"] {
        group.new_dataset_builder().with_data(&numbers).create(name)?;
    }
    for name in ["name", "type"] {
        group.new_dataset_builder().with_data(&names).create(name)?;
    }
    group.new_dataset_builder().with_data(&radii).create("radius")?;
    Ok(())
}

/// `/parameters/verlet`: what it takes to run this again.
fn provenance(parameters: &Group, info: &RunInfo) -> hdf5::Result<Group> {
    let group = parameters.create_group("verlet")?;
    for (name, value) in [
        ("input", info.input.as_str()),
        ("title", &info.title),
        ("model", &info.model),
        ("model_hash", &info.model_hash),
        ("backend", &info.backend),
        ("version", env!("CARGO_PKG_VERSION")),
    ] {
        text(&group, name, value)?;
    }
    group.new_attr::<u64>().create("seed")?.write_scalar(&info.seed)?;
    Ok(group)
}

fn ascii<const N: usize>(texts: &[&str]) -> hdf5::Result<Vec<FixedAscii<N>>> {
    texts.iter().map(|text| FixedAscii::from_ascii(text).map_err(|error| format!("{text}: {error}").into())).collect()
}
