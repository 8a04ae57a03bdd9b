//! How a system leaves what its model was trained on, and what is said about it.

use crate::elements;
use std::fmt::{Display, Formatter};

/// One way in which a configuration lies outside of what the model was trained on.
#[derive(Debug, Clone, PartialEq)]
pub enum Outside {
    /// Two atoms are closer than any two of their elements in training.
    Distance {
        /// The atoms, counted from 0, the lower one first; the same twice for an atom and its own periodic image.
        atoms: [usize; 2],
        /// Their atomic numbers.
        elements: [u8; 2],
        /// Å.
        distance: f64,
        /// Å; `None` when no such two were ever within the cutoff in training.
        shortest: Option<f64>,
    },
    /// The energy is beyond those of training.
    Energy {
        /// Without offsets, eV.
        per_atom: f64,
        /// What would be inside, eV.
        range: [f64; 2],
    },
}

/// The first time that a run left what its model was trained on in one way: for each pair of elements, and for the energy.
#[derive(Debug, Clone, PartialEq)]
pub struct Departure {
    /// The step.
    pub step: u64,
    /// How.
    pub outside: Outside,
}

/// What counts as one way.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Distance([u8; 2]),
    Energy,
}

impl Outside {
    fn kind(&self) -> Kind {
        match self {
            Outside::Distance { elements: [a, b], .. } => Kind::Distance([*a.min(b), *a.max(b)]),
            Outside::Energy { .. } => Kind::Energy,
        }
    }

    /// Whether `other` is of the same kind: two distances of the same two elements, or two energies.
    pub fn is_like(&self, other: &Outside) -> bool {
        self.kind() == other.kind()
    }

    /// Of two distances that of lower atoms, and of the same atoms the shorter one.
    pub(super) fn precedes(&self, other: &Outside) -> bool {
        let (
            Outside::Distance { atoms, distance, .. },
            Outside::Distance { atoms: other_atoms, distance: other_distance, .. },
        ) = (self, other)
        else {
            return false;
        };
        (atoms, distance) < (other_atoms, other_distance)
    }
}

impl Display for Outside {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Outside::Distance { atoms, elements, distance, shortest } => {
                let [a, b] = elements.map(elements::symbol);
                let [i, j] = atoms.map(|atom| atom + 1);
                match i == j {
                    true => write!(f, "atom {i} ({a}) and its own periodic image are {distance:.4} Å apart")?,
                    false => write!(f, "atoms {i} ({a}) and {j} ({b}) are {distance:.4} Å apart")?,
                }
                match shortest {
                    Some(shortest) => {
                        write!(f, ", closer than any {a} and {b} that it was trained on ({shortest:.4} Å)")
                    }
                    None => write!(f, ", and it was trained on no {a} and {b} within its cutoff"),
                }
            }
            Outside::Energy { per_atom, range: [low, high] } => write!(
                f,
                "the energy without offsets is {per_atom:.4} eV per atom, beyond the {low:.4} to {high:.4} eV that it was \
                 trained on with a margin"
            ),
        }
    }
}

impl Display for Departure {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "at step {} the run left what its model was trained on: {}", self.step, self.outside)
    }
}

/// Keeps the first of each kind.
#[derive(Debug, Default)]
pub(super) struct Watch {
    seen: Vec<Kind>,
    found: Vec<Departure>,
}

impl Watch {
    /// Looks at what was found outside at a step.
    pub fn note(&mut self, step: u64, outside: impl IntoIterator<Item = Outside>) {
        for outside in outside {
            if !self.seen.contains(&outside.kind()) {
                self.seen.push(outside.kind());
                self.found.push(Departure { step, outside });
            }
        }
    }

    /// Whether there is anything that nobody has asked for yet.
    pub fn has_found(&self) -> bool {
        !self.found.is_empty()
    }

    /// What was found since this was last asked: by steps, then by atoms, the energy last.
    pub fn take(&mut self) -> Vec<Departure> {
        let mut found = std::mem::take(&mut self.found);
        found.sort_by_key(|departure| {
            let atoms = match departure.outside {
                Outside::Distance { atoms, .. } => atoms,
                Outside::Energy { .. } => [usize::MAX; 2],
            };
            (departure.step, atoms)
        });
        found
    }
}
