//! A script beside a trajectory that shows it in VMD: `vmd -e water.vmd`.
//!
//! Bonds are drawn, atoms are coloured by element, and the cell is shown where there is one. Formats that do not know
//! their elements get a file with one frame beside them that does, `water-topology.xyz`; MDAnalysis and
//! `verlet convert --topology` take it too.

use super::create_new;
use super::trajectory::{Format, TrajectoryOptions};
use crate::error::{Error, Result, reason};
use crate::system::{Cell, System, extxyz};
use std::io::Write;
use std::path::Path;

/// What a script is to show.
struct Scene<'a> {
    /// The trajectory's name, in the script's folder.
    file: &'a str,
    /// VMD's name of its reader.
    reader: &'a str,
    /// A file with the elements, beside it.
    topology: Option<&'a str>,
    /// Whether molecules may be cut at the faces of the cell.
    wrapped: bool,
    /// Whether there is a cell to show.
    periodic: bool,
    /// The cell, where VMD's reader does not find it.
    cell: Option<&'a Cell>,
}

/// Writes the script of the run's H5MD trajectory at `path`.
///
/// # Errors
/// [`Error::Output`] when the script exists already or cannot be written.
pub fn accompany_h5md(path: &Path, system: &System, wrapped: bool) -> Result<()> {
    let file = name(path);
    let periodic = system.cell.is_periodic();
    write(path, &Scene { file: &file, reader: "h5md", topology: None, wrapped, periodic, cell: None })
}

/// Writes the script of a trajectory in another format, and the file with its elements where it needs one.
///
/// # Errors
/// As [`accompany_h5md`].
pub fn accompany(path: &Path, system: &System, options: &TrajectoryOptions) -> Result<()> {
    let wrong = |problem: String| Error::Input(format!("{} {problem}", path.display()));
    let format = Format::of(path).map_err(wrong)?;
    let file = name(path);
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let topology = format!("{stem}-topology.xyz");
    if !format.elements {
        let atoms = options.atoms.atoms(system).map_err(wrong)?;
        let place = path.with_file_name(&topology);
        let mut writer = extxyz::Writer::new(create_new(&place)?, &place.display().to_string());
        writer.write(&extxyz::Frame::new(system.subset(&atoms)))?;
        writer.finish()?;
    }
    let periodic = system.cell.is_periodic();
    let scene = Scene {
        file: &file,
        reader: format.vmd,
        topology: (!format.elements).then_some(topology.as_str()),
        wrapped: options.wrap,
        periodic,
        // VMD's XYZ reader takes the second line for a remark.
        cell: (periodic && format.vmd == "xyz").then_some(&system.cell),
    };
    write(path, &scene)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn write(path: &Path, scene: &Scene) -> Result<()> {
    let script = path.with_extension("vmd");
    let written = create_new(&script)?.write_all(text(scene).as_bytes());
    written.map_err(|error| Error::Output(format!("{} cannot be written: {}", script.display(), reason(&error))))
}

fn text(scene: &Scene) -> String {
    let load = match scene.topology {
        None => format!(
            "set molecule [mol new [file join $folder {}] type {} waitfor all]\n",
            word(scene.file),
            scene.reader
        ),
        // The file with the elements is not a frame of the trajectory.
        Some(topology) => format!(
            "set molecule [mol new [file join $folder {}] type xyz waitfor all]\n\
             animate delete all $molecule\n\
             mol addfile [file join $folder {}] type {} waitfor all $molecule\n",
            word(topology),
            word(scene.file),
            scene.reader
        ),
    };
    // Molecules that are cut at the faces would have bonds through the whole cell: there, bonds are those of the frame.
    let styles: &[&str] =
        if scene.wrapped { &["VDW 0.2 16", "DynamicBonds 1.6 0.12 16"] } else { &["CPK 0.8 0.3 16 16"] };
    let mut script = format!(
        "# Shows {} in VMD: vmd -e {}\n\
         set folder [file dirname [file normalize [info script]]]\n{load}mol delrep 0 $molecule\n",
        scene.file.escape_debug(),
        Path::new(scene.file).with_extension("vmd").display()
    );
    for style in styles {
        script.push_str(&format!(
            "mol representation {style}\nmol color Element\nmol selection all\nmol addrep $molecule\n"
        ));
    }
    if scene.periodic {
        script.push_str("package require pbctools\n");
        if let Some(cell) = scene.cell {
            let (lengths, angles) = cell.parameters();
            let [a, b, c] = lengths;
            let [alpha, beta, gamma] = angles;
            script.push_str(&format!("pbc set {{{a:.6} {b:.6} {c:.6} {alpha:.6} {beta:.6} {gamma:.6}}} -all\n"));
        }
        script.push_str("pbc box -molid $molecule\n");
    }
    script
}

/// A name as one word of Tcl.
fn word(name: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "._-".contains(c);
    name.chars().flat_map(|c| (!plain(c)).then_some('\\').into_iter().chain([c])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_word_for_tcl() {
        assert_eq!(word("water.dcd"), "water.dcd");
        assert_eq!(word("my [water] $1.dcd"), "my\\ \\[water\\]\\ \\$1.dcd");
    }
}
