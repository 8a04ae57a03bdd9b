//! The bytes of a checkpoint.
//!
//! All numbers are little-endian, reals are float64 bit patterns, a text or list stands behind its length (u64):
//!
//! ```text
//! magic "verletCP" | version u32 | length of the content u64 | content | SHA-256 of everything before (32 bytes)
//! ```

use super::{Checkpoint, Provenance};
use crate::backend::State;
use crate::output::Position;
use crate::system::Cell;
use nalgebra::{Matrix3, Vector3};
use sha2::{Digest, Sha256};

const MAGIC: &[u8; 8] = b"verletCP";
const VERSION: u32 = 1;
/// Bytes before the content.
pub(super) const HEAD: usize = MAGIC.len() + size_of::<u32>() + size_of::<u64>();
/// Bytes behind it.
const HASH: usize = 32;

impl Checkpoint {
    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut content = Encoder(Vec::new());
        let Provenance { version, input, text, overrides, model_hash, skin, double, direct_filters } = &self.run;
        content.text(version);
        // A path that is no text is found again only by its owner: the checkpoint itself needs none.
        content.text(&input.to_string_lossy());
        content.text(text);
        content.length(overrides.len());
        overrides.iter().for_each(|text| content.text(text));
        content.text(model_hash);
        content.real(*skin);
        content.flag(*double);
        content.flag(*direct_filters);
        content.count(self.steps);
        content.bytes(&self.atomic_numbers);
        content.length(self.masses.len());
        self.masses.iter().for_each(|&mass| content.real(mass));
        self.cell.vectors().iter().for_each(|&x| content.real(x));
        self.cell.periodic().iter().for_each(|&periodic| content.flag(periodic));
        let State { step, positions, velocities, heat, kinetic, list_positions, list_rebuilds } = &self.state;
        content.count(*step);
        content.vectors(positions);
        content.vectors(velocities);
        content.real(*heat);
        content.real(*kinetic);
        content.vectors(list_positions);
        content.count(*list_rebuilds);
        content.length(self.outputs.len());
        for (name, position) in &self.outputs {
            content.text(name);
            [position.frames, position.rows, position.bytes].into_iter().for_each(|count| content.count(count));
        }
        sign(&content.0)
    }

    /// A checkpoint from a file's bytes, or the end of a sentence that begins with the file's name.
    pub fn decode(file: &[u8]) -> std::result::Result<Self, String> {
        const DAMAGED: &str = "is damaged: its content is not what its checksum says";
        if file.len() < HEAD || !file.starts_with(MAGIC) {
            return Err("is no checkpoint of verlet, or only its beginning".into());
        }
        let mut head = Decoder(&file[MAGIC.len()..]);
        let version = head.take().map(u32::from_le_bytes);
        if version != Some(VERSION) {
            return Err("was written by a version of verlet with another format; continue the run with that one".into());
        }
        if head.count().and_then(|length| usize::try_from(length).ok()) != (file.len() - HEAD).checked_sub(HASH) {
            return Err("is damaged: it has another length than it was written with".into());
        }
        let (signed, hash) = file.split_at(file.len() - HASH);
        if Sha256::digest(signed).as_slice() != hash {
            return Err(DAMAGED.into());
        }
        let mut content = Decoder(&signed[HEAD..]);
        // A right checksum over a wrong content takes intention, but costs no more than this to refuse.
        let checkpoint = content.checkpoint().filter(|checkpoint| content.0.is_empty() && checkpoint.fits_together());
        checkpoint.ok_or_else(|| DAMAGED.into())
    }

    /// Whether every list is for the same atoms.
    fn fits_together(&self) -> bool {
        let atoms = self.atomic_numbers.len();
        let State { positions, velocities, list_positions, .. } = &self.state;
        [self.masses.len(), positions.len(), velocities.len()] == [atoms; 3]
            && [0, atoms].contains(&list_positions.len())
    }
}

/// Puts head and checksum around a content.
pub(super) fn sign(content: &[u8]) -> Vec<u8> {
    let mut file = Vec::with_capacity(HEAD + content.len() + HASH);
    file.extend(MAGIC);
    file.extend(VERSION.to_le_bytes());
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

    fn checkpoint(&mut self) -> Option<Checkpoint> {
        Some(Checkpoint {
            run: Provenance {
                version: self.text()?,
                input: self.text()?.into(),
                text: self.text()?,
                overrides: {
                    let length = self.length(size_of::<u64>())?;
                    (0..length).map(|_| self.text()).collect::<Option<_>>()?
                },
                model_hash: self.text()?,
                skin: self.real()?,
                double: self.flag()?,
                direct_filters: self.flag()?,
            },
            steps: self.count()?,
            atomic_numbers: self.bytes()?,
            masses: self.reals()?,
            cell: self.cell()?,
            state: State {
                step: self.count()?,
                positions: self.vectors()?,
                velocities: self.vectors()?,
                heat: self.real()?,
                kinetic: self.real()?,
                list_positions: self.vectors()?,
                list_rebuilds: self.count()?,
            },
            outputs: {
                let length = self.length(4 * size_of::<u64>())?;
                let output = |_| {
                    let name = self.text()?;
                    Some((name, Position { frames: self.count()?, rows: self.count()?, bytes: self.count()? }))
                };
                (0..length).map(output).collect::<Option<_>>()?
            },
        })
    }
}
