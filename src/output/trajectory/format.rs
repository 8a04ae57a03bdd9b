//! Which formats can be written, and what each of them holds.

use crate::system::Cell;
use std::path::Path;

/// Who writes a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writer {
    /// [`extxyz`](crate::system::extxyz), with every digit.
    Own,
    /// chemfiles in memory, one frame at a time; the file is ours.
    Text,
    /// chemfiles, which must own the file.
    Binary,
}

/// A trajectory format.
#[derive(Debug, PartialEq)]
pub struct Format {
    /// Its name, which is also chemfiles' name for it.
    pub name: &'static str,
    /// Extensions of its files, without the dot.
    pub extensions: &'static [&'static str],
    /// The name of VMD's reader.
    pub vmd: &'static str,
    /// Whether it says which element an atom is.
    pub elements: bool,
    /// Whether it holds velocities.
    pub velocities: bool,
    /// Whether it holds forces.
    pub forces: bool,
    /// Lowest and highest coordinate that fit its columns, Å.
    pub(super) range: Option<(f64, f64)>,
    pub(super) writer: Writer,
}

const fn binary(
    name: &'static str,
    extensions: &'static [&'static str],
    vmd: &'static str,
    velocities: bool,
) -> Format {
    Format { name, extensions, vmd, elements: false, velocities, forces: false, range: None, writer: Writer::Binary }
}

const fn text(name: &'static str, extensions: &'static [&'static str], vmd: &'static str, velocities: bool) -> Format {
    Format { elements: true, writer: Writer::Text, ..binary(name, extensions, vmd, velocities) }
}

/// Every format that can be written besides H5MD. chemfiles writes some more that are not here: formats of a single
/// structure, and formats that it does not read back as they were. Amber NetCDF is not here because chemfiles writes no times
/// into it, and an empty cell where there is none, over which MDAnalysis stumbles.
pub static FORMATS: &[Format] = &[
    binary("DCD", &["dcd"], "dcd", false),
    binary("XTC", &["xtc"], "xtc", false),
    binary("TRR", &["trr"], "trr", true),
    Format { range: Some((-999.999, 9999.999)), ..text("PDB", &["pdb"], "pdb", false) },
    Format { range: Some((-9999.99, 99999.99)), ..text("GRO", &["gro"], "gro", true) },
    text("LAMMPS", &["lammpstrj"], "lammpstrj", true),
    text("Tinker", &["arc"], "tinker", false),
    text("MOL2", &["mol2"], "mol2", false),
    Format { forces: true, writer: Writer::Own, ..text("extended XYZ", &["xyz", "extxyz"], "xyz", true) },
];

impl Format {
    /// The format of a file name, by its extension in lower or upper case.
    ///
    /// # Errors
    /// The end of a sentence that begins with the file's name.
    pub fn of(path: &Path) -> Result<&'static Format, String> {
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        FORMATS.iter().find(|format| format.extensions.contains(&extension.as_str())).ok_or_else(|| {
            if extension == "nc" {
                return "cannot be written: chemfiles, which would write it, knows no times in Amber NetCDF, and no system \
                        without a cell; choose .dcd, .xtc or .trr"
                    .to_owned();
            }
            let known: Vec<_> =
                FORMATS.iter().flat_map(|format| format.extensions).map(|name| format!(".{name}")).collect();
            format!("has a format that cannot be written; choose one of {}", known.join(", "))
        })
    }

    /// Refuses a cell that the format cannot hold: all but extended XYZ keep lengths and angles only, or expect a along
    /// x and b in the xy plane.
    ///
    /// # Errors
    /// The end of a sentence that begins with the file's name.
    pub fn check_cell(&self, cell: &Cell) -> Result<(), String> {
        let rows = cell.vectors();
        let below = [(0, 1), (0, 2), (1, 2)].map(|(edge, axis)| rows[(edge, axis)].abs());
        let longest = (0..3).map(|k| rows.row(k).norm()).fold(0.0, f64::max);
        // What rounding leaves of a zero is far below what a trajectory resolves.
        let turned = below.iter().any(|&x| x > 1e-6 * longest) || (0..3).any(|k| rows[(k, k)] <= 0.0);
        if self.writer == Writer::Own || !cell.is_periodic() || !turned {
            return Ok(());
        }
        Err(format!(
            "cannot hold this cell: {} wants edge a along x and b in the xy plane; write H5MD or extended XYZ, which \
             keep the edges as they are, or turn the structure before the run",
            self.name
        ))
    }
}
