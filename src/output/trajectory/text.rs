//! Text formats: chemfiles makes the text of a frame in memory, the file is ours.
//!
//! So a frame is there as soon as it is written, a full disk is an error like any other, and a file can be cut and
//! continued anywhere between two frames.

use super::foreign::Template;
use super::{Format, Record, Sink, TrajectoryOptions};
use crate::error::reason;
use crate::system::System;
use crate::system::structure::{quietly, tilt_range};
use std::fs::File;
use std::io::{Seek, Write};

pub(super) struct Text {
    file: File,
    template: Template,
    format: &'static Format,
    frames: u64,
}

impl Text {
    /// Writes where the file stands; `frames` are in it already.
    pub fn new(file: File, format: &'static Format, system: System, options: &TrajectoryOptions, frames: u64) -> Self {
        Text { file, template: Template::new(&system, options), format, frames }
    }

    fn text(&mut self, record: &Record) -> Result<String, String> {
        let frame = self.template.fill(record)?;
        quietly(|| {
            let mut memory = chemfiles::Trajectory::memory_writer(self.format.name)?;
            memory.write(frame)?;
            memory.memory_buffer().map(str::to_owned)
        })
    }
}

impl Sink for Text {
    fn write(&mut self, record: &Record) -> Result<(), String> {
        let text = self.text(record)?;
        let periodic = record.cell.is_periodic();
        let text = match self.format.name {
            "PDB" => pdb_model(&text, self.frames + 1, periodic),
            "LAMMPS" => lammps_box(&text, periodic),
            _ => text,
        };
        self.frames += 1;
        self.file.write_all(text.as_bytes()).map_err(|error| format!("the file cannot be written: {}", reason(&error)))
    }

    fn commit(&mut self) -> Result<u64, String> {
        let length = self.file.sync_all().and_then(|()| self.file.stream_position());
        length.map_err(|error| format!("cannot be written: {}", reason(&error)))
    }

    fn finish(&mut self) -> Result<(), String> {
        if self.format.name == "PDB" {
            self.file.write_all(b"END\n").map_err(|error| format!("cannot be written: {}", reason(&error)))?;
        }
        self.commit().map(drop)
    }
}

/// Numbers the model, which chemfiles always takes for the first, and takes out a cell of no size.
fn pdb_model(text: &str, number: u64, periodic: bool) -> String {
    let after_line = |text: &str| text.split_once('\n').map_or(String::new(), |(_, rest)| rest.to_owned());
    let rest = after_line(text);
    format!("MODEL {number:>4}\n{}", if periodic { rest } else { after_line(&rest) })
}

/// Writes the box as LAMMPS defines it. The bounds of a tilted one are those of the box around it: chemfiles writes those
/// of the box without its tilt, in which other programs find a smaller cell. And what has no cell does not repeat.
fn lammps_box(text: &str, periodic: bool) -> String {
    if !periodic {
        return text.replacen("BOX BOUNDS pp pp pp", "BOX BOUNDS ff ff ff", 1);
    }
    let title = "ITEM: BOX BOUNDS xy xz yz pp pp pp\n";
    let Some((before, tilted)) = text.split_once(title) else { return text.to_owned() };
    let mut lines = tilted.splitn(4, '\n');
    let mut length_and_tilt = || -> Option<[f64; 2]> {
        let mut numbers = lines.next()?.split_whitespace().skip(1).map(|word| word.parse().ok());
        Some([numbers.next()??, numbers.next()??])
    };
    let rows = [length_and_tilt(), length_and_tilt(), length_and_tilt()];
    let [Some([lx, xy]), Some([ly, xz]), Some([lz, yz])] = rows else { return text.to_owned() };
    let [low_x, high_x] = tilt_range(&[xy, xz, xy + xz]);
    let [low_y, high_y] = tilt_range(&[yz]);
    let bounds = format!(
        "{low_x:.12e} {:.12e} {xy:.12e}\n{low_y:.12e} {:.12e} {xz:.12e}\n{:.12e} {lz:.12e} {yz:.12e}\n",
        lx + high_x,
        ly + high_y,
        0.0
    );
    format!("{before}{title}{bounds}{}", lines.next().unwrap_or_default())
}
