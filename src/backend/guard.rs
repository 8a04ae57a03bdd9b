//! Where a system leaves what its model was trained on, and the repulsion that takes over there: what both backends share.

use super::zbl::Zbl;
use crate::elements;
use crate::model::Model;
use nalgebra::{Matrix3, Vector3};
use std::fmt::{Display, Formatter};

/// Part of the trained range of energies that is allowed on either side of it.
const MARGIN: f64 = 0.1;

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

/// What holds for two elements.
#[derive(Debug, Clone, Copy)]
pub(super) struct ElementPair {
    /// Å: closer atoms are outside; 0 where nothing is known.
    pub limit: f64,
    /// None of them in training: the limit is the cutoff.
    never: bool,
    pub repulsion: Option<Zbl>,
}

/// A pair of atoms, or of an atom and an image, so close that something must be done about it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Near {
    pub atoms: [u32; 2],
    /// Stands for both directions; else the second atom has this pair in its row, too.
    pub both: bool,
    /// From the first to the second atom, Å.
    pub vector: Vector3<f64>,
    pub distance: f64,
}

/// A model's domain and repulsion for the atoms of a system.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    /// Atomic numbers that there are, rising.
    elements: Vec<u8>,
    /// Each atom's place among them.
    species: Vec<u8>,
    /// `[elements][elements]`.
    pairs: Vec<ElementPair>,
    /// Å: pairs from there on are of no interest.
    range: f64,
    /// What the network's energy must lie between for so many atoms, eV.
    energies: Option<[f64; 2]>,
}

impl Guard {
    pub fn new(model: &Model, atomic_numbers: &[u8]) -> Self {
        let mut elements = atomic_numbers.to_vec();
        elements.sort_unstable();
        elements.dedup();
        let place = |z: &u8| elements.binary_search(z).expect("every element is among them") as u8;
        let domain = model.spec.domain.as_ref();
        let distances = domain.filter(|domain| domain.knows_distances());
        let of = |a: u8, b: u8| {
            let shortest = distances.map(|domain| domain.shortest(a, b));
            let repulsion = model.spec.repulsion.as_ref().and_then(|repulsion| repulsion.range(a, b));
            ElementPair {
                limit: shortest.map_or(0.0, |shortest| shortest.unwrap_or(model.cutoff())),
                never: shortest == Some(None),
                repulsion: repulsion.map(|range| Zbl::new(a, b, range)),
            }
        };
        let pairs: Vec<_> = elements.iter().flat_map(|&a| elements.iter().map(move |&b| of(a, b))).collect();
        let energies = domain.and_then(|domain| domain.energy_per_atom()).map(|[low, high]| {
            let (margin, atoms) = (MARGIN * (high - low), atomic_numbers.len() as f64);
            [(low - margin) * atoms, (high + margin) * atoms]
        });
        Guard {
            species: atomic_numbers.iter().map(place).collect(),
            range: pairs.iter().map(ElementPair::reach).fold(0.0, f64::max),
            pairs,
            energies,
            elements,
        }
    }

    /// What holds for each two elements, `[elements][elements]` by rising atomic numbers.
    pub fn pairs(&self) -> &[ElementPair] {
        &self.pairs
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.elements.len()
    }

    /// What the network's energy must lie between, eV.
    pub fn energies(&self) -> Option<[f64; 2]> {
        self.energies
    }

    fn pair(&self, i: usize, j: usize) -> &ElementPair {
        &self.pairs[self.species[i] as usize * self.elements.len() + self.species[j] as usize]
    }

    /// Whether two atoms at a distance of `d` Å are of interest.
    #[inline]
    pub fn is_near(&self, i: usize, j: usize, d: f64) -> bool {
        d < self.range && d < self.pair(i, j).reach()
    }

    /// Of each pair of elements that is too close the first two atoms at their shortest distance.
    pub fn too_close(&self, near: &[Near]) -> Vec<Outside> {
        let mut found: Vec<Outside> = Vec::new();
        for pair in near {
            let [i, j] = pair.atoms.map(|atom| atom as usize);
            if pair.distance >= self.pair(i, j).limit {
                continue;
            }
            let outside = self.distance([i.min(j), i.max(j)], pair.distance);
            match found.iter_mut().find(|other| other.is_like(&outside)) {
                None => found.push(outside),
                Some(other) => {
                    if outside.precedes(other) {
                        *other = outside;
                    }
                }
            }
        }
        found
    }

    /// Two atoms, the lower one first, that are too close.
    pub fn distance(&self, atoms: [usize; 2], distance: f64) -> Outside {
        let pair = self.pair(atoms[0], atoms[1]);
        Outside::Distance {
            atoms,
            elements: atoms.map(|atom| self.elements[self.species[atom] as usize]),
            distance,
            shortest: (!pair.never).then_some(pair.limit),
        }
    }

    /// The network's energy in eV, repulsion included and offsets not, if it is outside.
    pub fn beyond(&self, network: f64) -> Option<Outside> {
        let [low, high] = self.energies?;
        let atoms = self.species.len() as f64;
        let outside = || Outside::Energy { per_atom: network / atoms, range: [low / atoms, high / atoms] };
        (!(low..=high).contains(&network)).then(outside)
    }

    /// Adds the repulsion: energies of atoms (eV), half of a pair's to each of its two, forces (eV/Å) and the strain
    /// derivative (eV). Returns the sum of the energies. One pair after the other: there are few.
    pub fn repel(
        &self,
        near: &[Near],
        energies: &mut [f64],
        forces: &mut [Vector3<f64>],
        strain: &mut Matrix3<f64>,
    ) -> f64 {
        let mut total = 0.0;
        for pair in near {
            let [i, j] = pair.atoms.map(|atom| atom as usize);
            let Some(repulsion) = &self.pair(i, j).repulsion else { continue };
            let (energy, slope) = repulsion.energy(pair.distance);
            let gradient = pair.vector * (slope / pair.distance);
            let directions = if pair.both { 2.0 } else { 1.0 };
            energies[i] += 0.5 * energy;
            forces[i] += gradient;
            if pair.both {
                energies[j] += 0.5 * energy;
                forces[j] -= gradient;
            }
            total += 0.5 * directions * energy;
            *strain += pair.vector * gradient.transpose() * (0.5 * directions);
        }
        total
    }
}

impl Outside {
    /// Of two distances that of lower atoms, and of the same atoms the shorter one.
    fn precedes(&self, other: &Outside) -> bool {
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

impl ElementPair {
    /// Å: closer pairs are of interest.
    fn reach(&self) -> f64 {
        self.repulsion.map_or(self.limit, |repulsion| self.limit.max(repulsion.outer))
    }
}
