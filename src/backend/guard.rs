//! A model's domain, and the repulsion that takes over below it, for the atoms of one system: what both backends share.

use super::departure::Outside;
use super::zbl::Zbl;
use crate::model::Model;
use nalgebra::{Matrix3, Vector3};

/// Part of the trained range of energies that is allowed on either side of it.
const MARGIN: f64 = 0.1;

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
    /// Derivative by it of the distance that the network sees.
    pub slope: f64,
    /// Place of the pair among all.
    pub pair: usize,
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

    /// Of two atoms at a distance of `d` Å, if they are of interest, the distance that the network sees, and its derivative.
    #[inline]
    pub fn seen(&self, i: usize, j: usize, d: f64) -> Option<(f64, f64)> {
        if d >= self.range {
            return None;
        }
        let pair = self.pair(i, j);
        (d < pair.reach()).then(|| pair.repulsion.map_or((d, 1.0), |repulsion| repulsion.seen(d)))
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

impl ElementPair {
    /// Å: closer pairs are of interest.
    fn reach(&self) -> f64 {
        self.repulsion.map_or(self.limit, |repulsion| self.limit.max(repulsion.outer))
    }
}
