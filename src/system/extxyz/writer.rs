//! Writing extended XYZ.

use super::comment::{append, letter, write_array, write_real, write_text};
use super::{Column, ColumnData, Frame, ase_momentum_unit};
use crate::elements;
use crate::error::{Error, Result, reason};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Writes frames one after the other.
///
/// `Lattice` is left out for a system without a cell, `pbc` is always written. A system with velocities gets three
/// columns: `masses` (u) and `momenta` (√(u eV)), from which ASE has its velocities, and `vel` (Å/fs), which is exact.
/// Without velocities `masses` are written only where they differ from the standard atomic weights.
///
/// ```
/// use verlet::system::{Cell, System, extxyz};
/// # fn main() -> verlet::Result<()> {
/// let helium = System::new(vec![2], vec![nalgebra::Vector3::zeros()], Cell::open())?;
/// let mut frame = extxyz::Frame::new(helium);
/// frame.set_info("energy", -78.9);
/// frame.set_column(extxyz::Column::scalars("energies", vec![-78.9]));
/// let mut writer = extxyz::Writer::new(Vec::new(), "memory");
/// writer.write(&frame)?;
/// let text = String::from_utf8(writer.finish()?).unwrap();
/// assert_eq!(
///     text,
///     "1\nProperties=species:S:1:pos:R:3:energies:R:1 pbc=\"F F F\" energy=-78.9\nHe 0.0 0.0 0.0 -78.9\n"
/// );
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Writer<W> {
    output: W,
    name: String,
    text: String,
}

impl Writer<BufWriter<File>> {
    /// Creates a file, or empties it if there is one.
    ///
    /// # Errors
    /// [`Error::Output`] when the file cannot be created.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path)
            .map_err(|error| Error::Output(format!("{} cannot be written: {}", path.display(), reason(&error))))?;
        Ok(Writer::new(BufWriter::new(file), &path.display().to_string()))
    }
}

impl<W: Write> Writer<W> {
    /// Writes to anything; `name` stands for the file in messages.
    pub fn new(output: W, name: &str) -> Self {
        Writer { output, name: name.to_owned(), text: String::new() }
    }

    /// Appends one frame.
    ///
    /// # Errors
    /// [`Error::Output`] when the output does not take it, or when the frame cannot be expressed: a column whose length
    /// is not atoms times width, an empty or blank-containing name or word, a key or column that is written from the
    /// system, two keys or columns of one name. Nothing of such a frame is written.
    pub fn write(&mut self, frame: &Frame) -> Result<()> {
        let motion = motion(frame);
        let columns: Vec<&Column> = motion.iter().chain(&frame.columns).collect();
        check(frame, &columns).map_err(|problem| Error::Output(format!("{}: {problem}", self.name)))?;
        self.text.clear();
        append(&mut self.text, frame.system.len());
        self.text.push('\n');
        write_comment(&mut self.text, frame, &columns);
        for atom in 0..frame.system.len() {
            self.text.push('\n');
            self.text.push_str(elements::symbol(frame.system.atomic_numbers[atom]));
            for &x in &frame.system.positions[atom] {
                self.text.push(' ');
                write_real(&mut self.text, x);
            }
            for column in &columns {
                write_cells(&mut self.text, column, atom);
            }
            // A frame of millions of atoms need not lie in memory as text.
            if self.text.len() > 1 << 16 {
                self.flush_text()?;
            }
        }
        self.text.push('\n');
        self.flush_text()
    }

    /// Flushes, and gives the output back.
    ///
    /// # Errors
    /// [`Error::Output`] when the last bytes cannot be written.
    pub fn finish(mut self) -> Result<W> {
        self.output
            .flush()
            .map_err(|error| Error::Output(format!("{} cannot be written: {}", self.name, reason(&error))))?;
        Ok(self.output)
    }

    fn flush_text(&mut self) -> Result<()> {
        let result = self.output.write_all(self.text.as_bytes());
        self.text.clear();
        result.map_err(|error| Error::Output(format!("{} cannot be written: {}", self.name, reason(&error))))
    }
}

/// The columns that say how heavy the atoms are and how they move.
fn motion(frame: &Frame) -> Vec<Column> {
    let system = &frame.system;
    let mut columns = Vec::new();
    let standard = || system.atomic_numbers.iter().zip(&system.masses).all(|(&z, &mass)| mass == elements::mass(z));
    if system.velocities.is_some() || !standard() {
        columns.push(Column::scalars("masses", system.masses.clone()));
    }
    if let Some(velocities) = &system.velocities {
        let momenta: Vec<_> =
            system.masses.iter().zip(velocities).map(|(mass, v)| v * *mass * ase_momentum_unit()).collect();
        columns.push(Column::vectors("momenta", &momenta));
        columns.push(Column::vectors("vel", velocities));
    }
    columns
}

/// Says why a frame cannot be written, if it cannot.
fn check(frame: &Frame, columns: &[&Column]) -> std::result::Result<(), String> {
    for (index, (key, _)) in frame.info.iter().enumerate() {
        if key.is_empty() {
            return Err("a value of the frame has no key".into());
        }
        if ["lattice", "pbc", "properties"].contains(&key.to_ascii_lowercase().as_str()) {
            return Err(format!("'{key}' is written from the system and cannot be a key of the frame"));
        }
        if frame.info[..index].iter().any(|(other, _)| other == key) {
            return Err(format!("the frame has two values for '{key}'"));
        }
    }
    for (index, column) in columns.iter().enumerate() {
        let name = &column.name;
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control() || ":=\"'\\[]{}".contains(c))
        {
            return Err(format!(
                "'{name}' cannot be the name of a column: it is empty, or has white space or one of : = \" ' \\ [ ] {{ }}"
            ));
        }
        let taken = super::reader::FROM_SYSTEM.contains(&name.to_ascii_lowercase().as_str());
        let own = index < columns.len() - frame.columns.len();
        if (taken && !own) || columns[..index].iter().any(|other| other.name == *name) {
            return Err(format!("a column '{name}' is written from the system, or the frame has two of them"));
        }
        if column.width == 0 || column.len() != column.width * frame.system.len() {
            return Err(format!(
                "column '{name}' has {} values, which is not {} for each of {} atoms",
                column.len(),
                column.width,
                frame.system.len()
            ));
        }
        if let ColumnData::Texts(words) = &column.data {
            let unfit =
                |word: &&String| word.is_empty() || word.contains(|c: char| c.is_whitespace() || c.is_control());
            if let Some(word) = words.iter().find(unfit) {
                return Err(format!("column '{name}' has the text '{word}', which is not one word without blanks"));
            }
        }
    }
    Ok(())
}

/// The second line, without its end.
fn write_comment(line: &mut String, frame: &Frame, columns: &[&Column]) {
    let cell = &frame.system.cell;
    if *cell != crate::system::Cell::open() {
        line.push_str("Lattice=");
        let edges: Vec<f64> = (0..3).flat_map(|k| cell.vector(k).data.0[0]).collect();
        write_array(line, &edges, |line, &x| write_real(line, x));
        line.push(' ');
    }
    line.push_str("Properties=species:S:1:pos:R:3");
    for column in columns {
        let kind = match column.data {
            ColumnData::Reals(_) => 'R',
            ColumnData::Integers(_) => 'I',
            ColumnData::Logicals(_) => 'L',
            ColumnData::Texts(_) => 'S',
        };
        append(line, format_args!(":{}:{kind}:{}", column.name, column.width));
    }
    line.push_str(" pbc=");
    write_array(line, &cell.periodic(), |line, &periodic| line.push(letter(periodic)));
    for (key, value) in &frame.info {
        line.push(' ');
        write_text(line, key);
        line.push('=');
        value.write(line);
    }
}

/// One atom's values of a column, each after a blank.
fn write_cells(line: &mut String, column: &Column, atom: usize) {
    let cells = atom * column.width..(atom + 1) * column.width;
    for cell in cells {
        line.push(' ');
        match &column.data {
            ColumnData::Reals(values) => write_real(line, values[cell]),
            ColumnData::Integers(values) => append(line, values[cell]),
            ColumnData::Logicals(values) => line.push(letter(values[cell])),
            ColumnData::Texts(values) => line.push_str(&values[cell]),
        }
    }
}
