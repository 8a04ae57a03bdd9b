//! What is timed: water of many sizes, or structure files.

use super::Arguments;
use crate::bench::{self, Device};
use crate::elements;
use crate::error::{Error, Result, reason};
use crate::model::Model;
use crate::output::create_new;
use crate::system::{System, extxyz, structure};
use std::path::{Path, PathBuf};

/// Atoms of the systems that are timed when nobody says how many.
const ON_CPU: [u64; 8] = [10, 20, 50, 100, 192, 1023, 3072, 10_239];
const ON_GPU: [u64; 11] = [10, 20, 50, 100, 192, 1023, 3072, 10_239, 32_766, 102_399, 999_999];

/// What is to be timed.
pub(super) enum Subject {
    /// Water of so many atoms.
    Water(u64),
    /// What a structure file holds.
    File(PathBuf, Box<System>),
}

/// What the command line asks for.
///
/// # Errors
/// A file that cannot be read, or elements that the model does not know.
pub(super) fn subjects(arguments: &Arguments, device: &Device, model: &Model) -> Result<Vec<Subject>> {
    if !arguments.structure.is_empty() {
        return arguments
            .structure
            .iter()
            .map(|file| {
                let system = structure::read_structure(file, 0)?;
                let fits = model.check_elements(&system.atomic_numbers);
                fits.map_err(|error| Error::Structure(format!("{}: {error}", file.display())))?;
                Ok(Subject::File(file.clone(), Box::new(system)))
            })
            .collect();
    }
    if ![1, 8].iter().all(|z| model.spec.elements.contains(z)) {
        return Err(Error::Input(format!(
            "the model {} knows {}, but not both H and O of water; time a system of your own with --structure FILE",
            model.name,
            elements::list(&model.spec.elements)
        )));
    }
    let mut sizes = arguments.sizes.clone();
    if sizes.is_empty() {
        sizes = match device {
            Device::Cpu => ON_CPU.to_vec(),
            Device::Cuda(_) => ON_GPU.to_vec(),
        };
    }
    sizes.sort_unstable();
    sizes.dedup();
    Ok(sizes.into_iter().map(Subject::Water).collect())
}

impl Subject {
    /// The system itself.
    ///
    /// # Errors
    /// [`Error::Structure`] when the memory has no room for so many atoms.
    pub fn make(&self) -> Result<System> {
        match self {
            Subject::Water(atoms) => bench::water(usize::try_from(*atoms).unwrap_or(usize::MAX)),
            Subject::File(_, system) => Ok(System::clone(system)),
        }
    }

    /// Atoms that were asked for.
    pub fn atoms(&self) -> u64 {
        match self {
            Subject::Water(atoms) => *atoms,
            Subject::File(_, system) => system.len() as u64,
        }
    }

    /// What it is, in words.
    pub fn name(&self, system: &System) -> String {
        match self {
            Subject::Water(_) if system.cell.is_periodic() => "water box".into(),
            Subject::Water(_) => "water droplet".into(),
            Subject::File(path, _) => path.display().to_string(),
        }
    }
}

/// Writes a subject's system into `folder`, which is made where it is missing.
///
/// # Errors
/// [`Error::Output`] when it cannot be written, or a file of its name is there.
pub(super) fn write(system: &System, folder: &Path, subject: &Subject) -> Result<()> {
    let path = match subject {
        Subject::Water(_) => folder.join(format!("water-{}.xyz", system.len())),
        Subject::File(file, _) => folder.join(file.with_extension("xyz").file_name().unwrap_or_default()),
    };
    std::fs::create_dir_all(folder).map_err(|error| {
        Error::Output(format!("the folder {} cannot be created: {}", folder.display(), reason(&error)))
    })?;
    let mut writer = extxyz::Writer::new(std::io::BufWriter::new(create_new(&path)?), &path.display().to_string());
    writer.write(&extxyz::Frame::new(system.clone()))?;
    writer.finish().map(drop)
}
