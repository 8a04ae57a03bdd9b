//! Reading extended XYZ, one frame at a time.

use super::comment::{entries, logical, real};
use super::{Column, ColumnData, Frame, Value, ase_momentum_unit};
use crate::elements;
use crate::error::{Error, Result, reason};
use crate::system::{Cell, System};
use nalgebra::{Matrix3, Vector3};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// Columns (lower case) that become part of the system.
pub(super) const FROM_SYSTEM: [&str; 12] = [
    "species",
    "z",
    "numbers",
    "atomic_numbers",
    "pos",
    "positions",
    "masses",
    "mass",
    "vel",
    "velo",
    "velocities",
    "momenta",
];

/// Longer lines mean that this is not a text file.
const LONGEST_LINE: u64 = 1 << 26;

/// Iterates over the frames of a file, which is never in memory as a whole.
///
/// Windows line ends, blank lines between frames and at the end, and a missing last line end are fine. After an error
/// the iteration ends. A file without any frame is an error.
///
/// ```no_run
/// # fn main() -> verlet::Result<()> {
/// for frame in verlet::system::extxyz::Reader::open("water.xyz".as_ref())? {
///     let frame = frame?;
///     println!("{} {:?}", frame.system.formula(), frame.info("energy"));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    name: String,
    /// The current line without its end, and its number counted from 1.
    line: Vec<u8>,
    number: usize,
    /// Whether the current line is the first of the next frame.
    ahead: bool,
    frames: usize,
    finished: bool,
}

impl Reader<BufReader<File>> {
    /// Opens a file.
    ///
    /// # Errors
    /// [`Error::Structure`] when the file cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path)
            .map_err(|error| Error::Structure(format!("{} cannot be opened: {}", path.display(), reason(&error))))?;
        Ok(Reader::new(BufReader::with_capacity(1 << 16, file), &path.display().to_string()))
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Frame>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.finished {
            return None;
        }
        let frame = self.frame().transpose();
        self.frames += 1;
        self.finished = !matches!(frame, Some(Ok(_)));
        frame
    }
}

impl<R: BufRead> Reader<R> {
    /// Reads from anything; `name` stands for the file in messages.
    pub fn new(input: R, name: &str) -> Self {
        Reader { input, name: name.to_owned(), line: Vec::new(), number: 0, ahead: false, frames: 0, finished: false }
    }

    /// The next frame, or `None` at the end of the file.
    fn frame(&mut self) -> Result<Option<Frame>> {
        let Some(atoms) = self.count()? else { return Ok(None) };
        let announced = self.number;
        if !self.next_line()? {
            return Err(self.error(format!("the file ends where frame {} should have its comment", self.frames + 1)));
        }
        let header = Header::parse(&self.text()).map_err(|problem| self.error(problem))?;
        let mut body = Body::new(&header.fields);
        for atom in 0..atoms {
            if !self.next_line()? {
                return Err(self.error(format!(
                    "the file ends after {atom} of the {atoms} atoms that line {announced} announces for frame {}",
                    self.frames + 1
                )));
            }
            let result = body.push(&header, &self.text());
            result.map_err(|problem| {
                self.error(format!("atom {} of {atoms} in frame {} {problem}", atom + 1, self.frames + 1))
            })?;
        }
        let cell = match header.lattice == Matrix3::zeros() && header.periodic == [false; 3] {
            true => Cell::open(),
            false => Cell::new(header.lattice, header.periodic).map_err(|error| self.at(announced + 1, error))?,
        };
        let system = System::new(body.atomic_numbers, body.positions, cell).map_err(|e| self.at(announced, e))?;
        let mut frame = Frame { system, info: header.info, columns: body.columns };
        let is_charge = |key: &str| ["charge", "total_charge"].iter().any(|known| key.eq_ignore_ascii_case(known));
        let charge = frame.info.iter().find(|(key, _)| is_charge(key)).and_then(|(_, value)| value.as_real());
        frame.system.charge = charge.unwrap_or(0.0);
        take_masses(&mut frame)
            .and_then(|()| take_velocities(&mut frame))
            .map_err(|(line, problem)| self.at(announced + line, problem))?;
        self.check_end(atoms, announced)?;
        Ok(Some(frame))
    }

    /// The number of atoms of the next frame; `None` at the end of the file.
    fn count(&mut self) -> Result<Option<usize>> {
        if !self.seek_next_frame()? {
            if self.frames == 0 {
                return Err(Error::Structure(format!(
                    "{} holds no frame; an XYZ file begins with the number of atoms",
                    self.name
                )));
            }
            return Ok(None);
        }
        self.ahead = false;
        match self.announced() {
            Some(0) => Err(self.error("the frame has no atoms")),
            Some(atoms) => Ok(Some(atoms)),
            None => Err(self.error(format!(
                "expected the number of atoms of frame {}, found '{}'; an XYZ file begins with that number",
                self.frames + 1,
                clip(&self.text())
            ))),
        }
    }

    /// A frame that is followed by something else than a frame has more atoms than it says.
    fn check_end(&mut self, atoms: usize, announced: usize) -> Result<()> {
        if !self.seek_next_frame()? || self.announced().is_some() {
            return Ok(());
        }
        Err(self.error(format!(
            "frame {} ends before this line, '{}', if it has as many atoms as line {announced} announces, {atoms}; correct \
             that number",
            self.frames + 1,
            clip(&self.text())
        )))
    }

    /// Moves to the first line of the next frame, past blank lines; false at the end of the file.
    fn seek_next_frame(&mut self) -> Result<bool> {
        while !self.ahead {
            if !self.next_line()? {
                return Ok(false);
            }
            self.ahead = !first_line(&self.text()).is_empty();
        }
        Ok(true)
    }

    /// The number of atoms in the current line.
    fn announced(&self) -> Option<usize> {
        first_line(&self.text()).parse().ok()
    }

    /// Moves to the next line; false at the end of the file.
    fn next_line(&mut self) -> Result<bool> {
        self.line.clear();
        let result = self.input.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut self.line);
        let length =
            result.map_err(|error| Error::Structure(format!("{} cannot be read: {}", self.name, reason(&error))))?;
        self.number += 1;
        if length as u64 == LONGEST_LINE {
            return Err(self.error("the line is longer than 64 MiB; this is no XYZ file"));
        }
        Ok(length > 0)
    }

    /// The current line. Bytes that are not UTF-8 (an Å of an older program in the comment) do no harm.
    fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(self.line.trim_ascii_end())
    }

    fn error(&self, problem: impl std::fmt::Display) -> Error {
        self.at(self.number, problem)
    }

    fn at(&self, line: usize, problem: impl std::fmt::Display) -> Error {
        Error::Structure(format!("{}, line {line}: {problem}", self.name))
    }
}

/// The first line of a frame without what may stand around the number.
fn first_line(text: &str) -> &str {
    text.trim_start_matches('\u{feff}').trim()
}

/// One entry of `Properties`.
struct Field {
    name: String,
    kind: char,
    width: usize,
    role: Role,
}

#[derive(PartialEq, Clone, Copy)]
enum Role {
    Element,
    Position,
    Other,
}

/// What the comment line says.
struct Header {
    /// Rows are the edges; zero without `Lattice`.
    lattice: Matrix3<f64>,
    periodic: [bool; 3],
    fields: Vec<Field>,
    /// Whether the file describes its columns: then each line must have exactly those.
    described: bool,
    info: Vec<(String, Value)>,
}

impl Header {
    fn parse(line: &str) -> std::result::Result<Self, String> {
        let mut lattice = None;
        let mut periodic = None;
        let mut properties = None;
        let mut info: Vec<(String, Value)> = Vec::new();
        let entries = entries(line);
        // A plain XYZ file's comment is for people: what has no value in it is no key.
        let described = entries.iter().any(|(key, text)| key.eq_ignore_ascii_case("properties") && text.is_some());
        for (key, text) in entries {
            match (key.to_ascii_lowercase().as_str(), text) {
                ("lattice", Some(text)) => lattice = Some(parse_lattice(&text)?),
                ("pbc", Some(text)) => periodic = Some(parse_periodic(&text)?),
                ("properties", Some(text)) => properties = Some(parse_properties(&text)?),
                (_, None) if !described => {}
                (_, text) => {
                    let value = text.map_or(Value::Logical(true), |text| Value::parse(&text));
                    info.retain(|(other, _)| *other != key);
                    info.push((key, value));
                }
            }
        }
        Ok(Header {
            periodic: periodic.unwrap_or([lattice.is_some(); 3]),
            lattice: lattice.unwrap_or_else(Matrix3::zeros),
            described,
            fields: match properties {
                Some(fields) => fields,
                None => parse_properties("species:S:1:pos:R:3")?,
            },
            info,
        })
    }

    /// The columns as they would stand in `Properties`.
    fn columns(&self) -> String {
        let fields: Vec<_> = self.fields.iter().map(|f| format!("{}:{}:{}", f.name, f.kind, f.width)).collect();
        fields.join(":")
    }
}

fn parse_lattice(text: &str) -> std::result::Result<Matrix3<f64>, String> {
    let numbers: Option<Vec<f64>> = text
        .split(|c: char| c.is_whitespace() || c == ',')
        .filter(|word| !word.is_empty())
        .map(|word| real(word).filter(|x| x.is_finite()))
        .collect();
    numbers.filter(|numbers| numbers.len() == 9).map(|numbers| Matrix3::from_row_slice(&numbers)).ok_or_else(|| {
        format!("Lattice must be nine numbers in quotes, \"ax ay az bx by bz cx cy cz\" in Å, not '{}'", clip(text))
    })
}

fn parse_periodic(text: &str) -> std::result::Result<[bool; 3], String> {
    let flags: Option<Vec<bool>> = text
        .split(|c: char| c.is_whitespace() || c == ',')
        .filter(|word| !word.is_empty())
        .map(|word| match word {
            "1" => Some(true),
            "0" => Some(false),
            word => logical(word),
        })
        .collect();
    match flags.as_deref() {
        Some(&[a, b, c]) => Ok([a, b, c]),
        Some(&[all]) => Ok([all; 3]),
        _ => Err(format!("pbc must be three of T and F in quotes, such as \"T T F\", not '{}'", clip(text))),
    }
}

fn parse_properties(text: &str) -> std::result::Result<Vec<Field>, String> {
    let parts: Vec<&str> = text.split(':').collect();
    if !parts.len().is_multiple_of(3) {
        return Err(format!(
            "Properties must be name:type:columns repeated, such as species:S:1:pos:R:3, not '{}'",
            clip(text)
        ));
    }
    let mut fields: Vec<Field> = Vec::new();
    for part in parts.chunks_exact(3) {
        let name = part[0];
        let kind = match part[1] {
            "R" | "r" => 'R',
            "I" | "i" => 'I',
            "S" | "s" => 'S',
            "L" | "l" => 'L',
            other => {
                return Err(format!(
                    "Properties gives '{name}' the unknown type '{}'; known are S (text), R (real), I (integer), L (T or F)",
                    clip(other)
                ));
            }
        };
        let Some(width) = part[2].parse().ok().filter(|width| (1..=65_536).contains(width)) else {
            return Err(format!("Properties gives '{name}' '{}' columns, which is no count", clip(part[2])));
        };
        if fields.iter().any(|field| field.name.eq_ignore_ascii_case(name)) {
            return Err(format!("Properties names '{}' twice", clip(name)));
        }
        fields.push(Field { name: name.to_owned(), kind, width, role: Role::Other });
    }
    // ASE writes symbols; numbers alone are as good.
    let element = find(&fields, &["species", "z", "numbers", "atomic_numbers"]);
    let Some(element) = element.filter(|&index| fields[index].width == 1 && matches!(fields[index].kind, 'S' | 'I'))
    else {
        return Err(format!("Properties needs the elements as species:S:1 or Z:I:1, but is '{}'", clip(text)));
    };
    let Some(position) =
        find(&fields, &["pos", "positions"]).filter(|&i| fields[i].width == 3 && fields[i].kind == 'R')
    else {
        return Err(format!("Properties needs the positions as pos:R:3, but is '{}'", clip(text)));
    };
    fields[element].role = Role::Element;
    fields[position].role = Role::Position;
    Ok(fields)
}

/// The first of `names` that is a field.
fn find(fields: &[Field], names: &[&str]) -> Option<usize> {
    names.iter().find_map(|name| fields.iter().position(|field| field.name.eq_ignore_ascii_case(name)))
}

/// The atoms of a frame, as far as they have been read.
struct Body {
    atomic_numbers: Vec<u8>,
    positions: Vec<Vector3<f64>>,
    /// One for each field that is neither element nor position.
    columns: Vec<Column>,
}

impl Body {
    // Nothing is reserved: a file may announce more atoms than there is memory.
    fn new(fields: &[Field]) -> Self {
        let others = fields.iter().filter(|field| field.role == Role::Other);
        let columns = others.map(|field| Column {
            name: field.name.clone(),
            width: field.width,
            data: match field.kind {
                'R' => ColumnData::Reals(Vec::new()),
                'I' => ColumnData::Integers(Vec::new()),
                'L' => ColumnData::Logicals(Vec::new()),
                _ => ColumnData::Texts(Vec::new()),
            },
        });
        Body { atomic_numbers: Vec::new(), positions: Vec::new(), columns: columns.collect() }
    }

    /// Adds the atom of a line; the error completes the sentence "atom 3 …".
    fn push(&mut self, header: &Header, line: &str) -> std::result::Result<(), String> {
        let mut words = line.split_whitespace();
        let mut word =
            || words.next().ok_or_else(|| format!("has too few columns for {}: '{}'", header.columns(), clip(line)));
        let mut columns = self.columns.iter_mut();
        for field in &header.fields {
            match field.role {
                Role::Element => self.atomic_numbers.push(element(word()?)?),
                Role::Position => {
                    let mut position = Vector3::zeros();
                    for x in &mut position {
                        let word = word()?;
                        let parsed = real(word).ok_or_else(|| not_a(word, "a number", &field.name))?;
                        *x = Some(parsed)
                            .filter(|x| x.is_finite())
                            .ok_or_else(|| not_a(word, "a finite number", &field.name))?;
                    }
                    self.positions.push(position);
                }
                Role::Other => {
                    let Some(column) = columns.next() else { continue };
                    for _ in 0..field.width {
                        push_word(&mut column.data, word()?, &field.name)?;
                    }
                }
            }
        }
        match words.next() {
            Some(_) if header.described => Err(format!("has more columns than {}: '{}'", header.columns(), clip(line))),
            _ => Ok(()),
        }
    }
}

/// Appends a word of an atom's line to its column.
fn push_word(data: &mut ColumnData, word: &str, name: &str) -> std::result::Result<(), String> {
    match data {
        ColumnData::Reals(values) => values.push(real(word).ok_or_else(|| not_a(word, "a number", name))?),
        ColumnData::Integers(values) => values.push(word.parse().map_err(|_| not_a(word, "an integer", name))?),
        ColumnData::Logicals(values) => values.push(logical(word).ok_or_else(|| not_a(word, "T or F", name))?),
        ColumnData::Texts(values) => values.push(word.to_owned()),
    }
    Ok(())
}

fn not_a(word: &str, what: &str, column: &str) -> String {
    format!("has '{}' in column {}, where {what} was expected", clip(word), clip(column))
}

/// The atomic number of a symbol or a number.
fn element(word: &str) -> std::result::Result<u8, String> {
    let number = word.parse().ok().filter(|z| (1..=118).contains(z));
    number.or_else(|| elements::atomic_number(word)).ok_or_else(|| {
        format!("is the unknown element '{}'; give a symbol such as Cl or an atomic number up to 118", clip(word))
    })
}

/// Moves the masses out of the columns into the system; an error comes with its line behind the first of the frame.
fn take_masses(frame: &mut Frame) -> std::result::Result<(), (usize, String)> {
    for name in ["masses", "mass"] {
        let Some(column) = take(frame, name, 1)? else { continue };
        if let Some(atom) = column.iter().position(|&mass| !(mass > 0.0 && mass.is_finite())) {
            return Err((
                atom + 2,
                format!("atom {} has the mass {} u, which is not positive", atom + 1, column[atom]),
            ));
        }
        frame.system.masses = column;
    }
    Ok(())
}

/// Moves the velocities, or else the momenta, out of the columns into the system.
fn take_velocities(frame: &mut Frame) -> std::result::Result<(), (usize, String)> {
    for name in ["momenta", "velocities", "velo", "vel"] {
        let Some(column) = take(frame, name, 3)? else { continue };
        if let Some(index) = column.iter().position(|x| !x.is_finite()) {
            return Err((
                index / 3 + 2,
                format!("atom {} has {} in {name}, not a finite number", index / 3 + 1, column[index]),
            ));
        }
        let mut vectors: Vec<_> = column.chunks_exact(3).map(Vector3::from_column_slice).collect();
        if name == "momenta" {
            for (vector, mass) in vectors.iter_mut().zip(&frame.system.masses) {
                *vector /= mass * ase_momentum_unit();
            }
        }
        frame.system.velocities = Some(vectors);
    }
    Ok(())
}

/// Takes a column of reals out of the frame, if it has it.
fn take(frame: &mut Frame, name: &str, width: usize) -> std::result::Result<Option<Vec<f64>>, (usize, String)> {
    let Some(index) = frame.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name)) else {
        return Ok(None);
    };
    match frame.columns.remove(index) {
        Column { width: found, data: ColumnData::Reals(values), .. } if found == width => Ok(Some(values)),
        Column { width: found, data: ColumnData::Integers(values), .. } if found == width => {
            Ok(Some(values.into_iter().map(|x| x as f64).collect()))
        }
        _ => Err((1, format!("column {name} must be {name}:R:{width} in Properties"))),
    }
}

/// The beginning of a text, short enough for a message, without what would upset a terminal.
fn clip(text: &str) -> String {
    let text = text.trim();
    let shown = |text: &str| text.replace(char::is_control, "\u{fffd}");
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", shown(&text[..end])),
        None => shown(text),
    }
}
