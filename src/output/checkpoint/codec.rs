//! The bytes of a checkpoint.
//!
//! All numbers are little-endian, reals are float64 bit patterns, a text or list stands behind its length (u64):
//!
//! ```text
//! magic "verletCP" (of many systems "verletRP") | version u32 | length of the content u64 | content | SHA-256 of everything before (32 bytes)
//! ```

use super::set::{Member, SetCheckpoint};
use super::{Checkpoint, Provenance, Stored};
use crate::backend::{Departure, Outside, State};
use crate::config::Precision;
use crate::output::Position;
use crate::system::Cell;
use nalgebra::{Matrix3, Vector3};
use sha2::{Digest, Sha256};

/// What a file is, and how its content is laid out.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    pub magic: &'static [u8; 8],
    version: u32,
}

/// The checkpoint of one system.
pub(super) const ONE: Kind = Kind { magic: b"verletCP", version: 1 };
/// That of many; since version 2 with their departures.
pub(super) const SET: Kind = Kind { magic: b"verletRP", version: 2 };
/// Bytes before the content.
pub(super) const HEAD: usize = ONE.magic.len() + size_of::<u32>() + size_of::<u64>();
/// Bytes behind it.
const HASH: usize = 32;

impl Stored for Checkpoint {
    fn encode(&self) -> Vec<u8> {
        let mut content = Encoder(Vec::new());
        content.provenance(&self.run);
        content.count(self.steps);
        content.atoms(&self.atomic_numbers, &self.masses, &self.cell);
        content.state(&self.state);
        content.length(self.outputs.len());
        for (name, position) in &self.outputs {
            content.text(name);
            content.position(position);
        }
        sign(ONE, &content.0)
    }

    fn decode(file: &[u8]) -> std::result::Result<Self, String> {
        let mut content = opened(ONE, file)?;
        let checkpoint = content.checkpoint().filter(|checkpoint| {
            content.0.is_empty() && fit_together(&checkpoint.atomic_numbers, &checkpoint.masses, &checkpoint.state)
        });
        checkpoint.ok_or_else(|| DAMAGED.into())
    }
}

impl Stored for SetCheckpoint {
    fn encode(&self) -> Vec<u8> {
        let mut content = Encoder(Vec::new());
        content.provenance(&self.run);
        content.count(self.steps);
        content.count(self.step);
        content.length(self.members.len());
        for member in &self.members {
            content.text(&member.name);
            content.atoms(&member.atomic_numbers, &member.masses, &member.cell);
            content.state(&member.state);
            content.position(&member.output);
            content.flag(member.failure.is_some());
            if let Some((step, reason)) = &member.failure {
                content.count(*step);
                content.text(reason);
            }
            content.length(member.departures.len());
            member.departures.iter().for_each(|departure| content.departure(departure));
        }
        sign(SET, &content.0)
    }

    fn decode(file: &[u8]) -> std::result::Result<Self, String> {
        let mut content = opened(SET, file)?;
        let checkpoint = content.set().filter(|set| {
            let fits = |member: &Member| fit_together(&member.atomic_numbers, &member.masses, &member.state);
            content.0.is_empty() && set.members.iter().all(fits)
        });
        checkpoint.ok_or_else(|| DAMAGED.into())
    }
}

/// What is wrong with a file whose head is right. A right checksum over a wrong content takes intention, but costs no more
/// than this to refuse.
const DAMAGED: &str = "is damaged: its content is not what its checksum says";

/// The content of a file of this kind, or the end of a sentence that begins with the file's name.
fn opened(kind: Kind, file: &[u8]) -> std::result::Result<Decoder<'_>, String> {
    if file.len() < HEAD || !file.starts_with(kind.magic) {
        return Err("is no checkpoint of verlet, or only its beginning".into());
    }
    let mut head = Decoder(&file[kind.magic.len()..]);
    let version = head.take().map(u32::from_le_bytes);
    if version != Some(kind.version) {
        return Err("was written by a version of verlet with another format; continue the run with that one".into());
    }
    if head.count().and_then(|length| usize::try_from(length).ok()) != (file.len() - HEAD).checked_sub(HASH) {
        return Err("is damaged: it has another length than it was written with".into());
    }
    let (signed, hash) = file.split_at(file.len() - HASH);
    match Sha256::digest(signed).as_slice() == hash {
        true => Ok(Decoder(&signed[HEAD..])),
        false => Err(DAMAGED.into()),
    }
}

/// Whether every list is for the same atoms.
fn fit_together(atomic_numbers: &[u8], masses: &[f64], state: &State) -> bool {
    let atoms = atomic_numbers.len();
    let State { positions, velocities, list_positions, .. } = state;
    [masses.len(), positions.len(), velocities.len()] == [atoms; 3] && [0, atoms].contains(&list_positions.len())
}

/// Puts head and checksum around a content.
pub(super) fn sign(kind: Kind, content: &[u8]) -> Vec<u8> {
    let mut file = Vec::with_capacity(HEAD + content.len() + HASH);
    file.extend(kind.magic);
    file.extend(kind.version.to_le_bytes());
    file.extend((content.len() as u64).to_le_bytes());
    file.extend(content);
    let hash = Sha256::digest(&file);
    file.extend(hash);
    file
}

/// Writes the parts of a checkpoint one behind the other.
struct Encoder(Vec<u8>);

impl Encoder {
    fn count(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }

    fn length(&mut self, value: usize) {
        self.count(value as u64);
    }

    fn real(&mut self, value: f64) {
        self.count(value.to_bits());
    }

    fn flag(&mut self, value: bool) {
        self.0.push(value.into());
    }

    fn precision(&mut self, value: Precision) {
        self.0.push(match value {
            Precision::F32 => 0,
            Precision::F64 => 1,
            Precision::Mixed => 2,
        });
    }

    fn bytes(&mut self, value: &[u8]) {
        self.length(value.len());
        self.0.extend(value);
    }

    fn text(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    fn vectors(&mut self, vectors: &[Vector3<f64>]) {
        self.length(vectors.len());
        vectors.iter().flatten().for_each(|&x| self.real(x));
    }

    fn provenance(&mut self, run: &Provenance) {
        let Provenance { version, input, text, overrides, model_hash, skin, precision, direct_filters } = run;
        self.text(version);
        // A path that is no text is found again only by its owner: the checkpoint itself needs none.
        self.text(&input.to_string_lossy());
        self.text(text);
        self.length(overrides.len());
        overrides.iter().for_each(|text| self.text(text));
        self.text(model_hash);
        self.real(*skin);
        self.precision(*precision);
        self.flag(*direct_filters);
    }

    fn atoms(&mut self, atomic_numbers: &[u8], masses: &[f64], cell: &Cell) {
        self.bytes(atomic_numbers);
        self.length(masses.len());
        masses.iter().for_each(|&mass| self.real(mass));
        cell.vectors().iter().for_each(|&x| self.real(x));
        cell.periodic().iter().for_each(|&periodic| self.flag(periodic));
    }

    fn state(&mut self, state: &State) {
        let State { step, positions, velocities, heat, kinetic, list_positions, list_rebuilds } = state;
        self.count(*step);
        self.vectors(positions);
        self.vectors(velocities);
        self.real(*heat);
        self.real(*kinetic);
        self.vectors(list_positions);
        self.count(*list_rebuilds);
    }

    fn departure(&mut self, departure: &Departure) {
        self.count(departure.step);
        let is_energy = matches!(departure.outside, Outside::Energy { .. });
        self.flag(is_energy);
        match &departure.outside {
            Outside::Distance { atoms, elements, distance, shortest } => {
                atoms.iter().for_each(|&atom| self.length(atom));
                self.0.extend(elements);
                self.real(*distance);
                self.flag(shortest.is_some());
                shortest.iter().for_each(|&shortest| self.real(shortest));
            }
            Outside::Energy { per_atom, range } => {
                [per_atom, &range[0], &range[1]].into_iter().for_each(|&energy| self.real(energy));
            }
        }
    }

    fn position(&mut self, position: &Position) {
        [position.frames, position.rows, position.bytes].into_iter().for_each(|count| self.count(count));
    }
}

/// Reads them in the same order; `None` wherever something cannot be.
struct Decoder<'a>(&'a [u8]);

impl Decoder<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn count(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    /// The length of a list whose items take at least `size` bytes each: never more than there can be.
    fn length(&mut self, size: usize) -> Option<usize> {
        usize::try_from(self.count()?).ok().filter(|&length| length <= self.0.len() / size)
    }

    fn index(&mut self) -> Option<usize> {
        usize::try_from(self.count()?).ok()
    }

    fn real(&mut self) -> Option<f64> {
        self.count().map(f64::from_bits)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.take()? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }

    fn precision(&mut self) -> Option<Precision> {
        match self.take()? {
            [0] => Some(Precision::F32),
            [1] => Some(Precision::F64),
            [2] => Some(Precision::Mixed),
            _ => None,
        }
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let length = self.length(1)?;
        let (first, rest) = self.0.split_at(length);
        self.0 = rest;
        Some(first.to_vec())
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?).ok()
    }

    fn reals(&mut self) -> Option<Vec<f64>> {
        let length = self.length(size_of::<f64>())?;
        (0..length).map(|_| self.real()).collect()
    }

    fn vectors(&mut self) -> Option<Vec<Vector3<f64>>> {
        let length = self.length(3 * size_of::<f64>())?;
        (0..length).map(|_| Some(Vector3::new(self.real()?, self.real()?, self.real()?))).collect()
    }

    fn cell(&mut self) -> Option<Cell> {
        let mut vectors = Matrix3::zeros();
        for x in vectors.iter_mut() {
            *x = self.real()?;
        }
        Cell::new(vectors, [self.flag()?, self.flag()?, self.flag()?]).ok()
    }

    fn provenance(&mut self) -> Option<Provenance> {
        Some(Provenance {
            version: self.text()?,
            input: self.text()?.into(),
            text: self.text()?,
            overrides: {
                let length = self.length(size_of::<u64>())?;
                (0..length).map(|_| self.text()).collect::<Option<_>>()?
            },
            model_hash: self.text()?,
            skin: self.real()?,
            precision: self.precision()?,
            direct_filters: self.flag()?,
        })
    }

    fn state(&mut self) -> Option<State> {
        Some(State {
            step: self.count()?,
            positions: self.vectors()?,
            velocities: self.vectors()?,
            heat: self.real()?,
            kinetic: self.real()?,
            list_positions: self.vectors()?,
            list_rebuilds: self.count()?,
        })
    }

    fn position(&mut self) -> Option<Position> {
        Some(Position { frames: self.count()?, rows: self.count()?, bytes: self.count()? })
    }

    fn checkpoint(&mut self) -> Option<Checkpoint> {
        Some(Checkpoint {
            run: self.provenance()?,
            steps: self.count()?,
            atomic_numbers: self.bytes()?,
            masses: self.reals()?,
            cell: self.cell()?,
            state: self.state()?,
            outputs: {
                let length = self.length(4 * size_of::<u64>())?;
                let output = |_| Some((self.text()?, self.position()?));
                (0..length).map(output).collect::<Option<_>>()?
            },
        })
    }

    fn set(&mut self) -> Option<SetCheckpoint> {
        Some(SetCheckpoint {
            run: self.provenance()?,
            steps: self.count()?,
            step: self.count()?,
            members: {
                let length = self.length(size_of::<u64>())?;
                (0..length).map(|_| self.member()).collect::<Option<_>>()?
            },
        })
    }

    fn member(&mut self) -> Option<Member> {
        Some(Member {
            name: self.text()?,
            atomic_numbers: self.bytes()?,
            masses: self.reals()?,
            cell: self.cell()?,
            state: self.state()?,
            output: self.position()?,
            failure: match self.flag()? {
                false => None,
                true => Some((self.count()?, self.text()?)),
            },
            departures: {
                let length = self.length(size_of::<u64>())?;
                (0..length).map(|_| self.departure()).collect::<Option<_>>()?
            },
        })
    }

    fn departure(&mut self) -> Option<Departure> {
        let step = self.count()?;
        let outside = match self.flag()? {
            false => Outside::Distance {
                atoms: [self.index()?, self.index()?],
                elements: self.take()?,
                distance: self.real()?,
                shortest: match self.flag()? {
                    false => None,
                    true => Some(self.real()?),
                },
            },
            true => Outside::Energy { per_atom: self.real()?, range: [self.real()?, self.real()?] },
        };
        Some(Departure { step, outside })
    }
}
