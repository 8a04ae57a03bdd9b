//! Distances and directions of the pairs inside the cutoff.

use super::filters::Place;
use super::real::Real;
use crate::backend::guard::Near;
use crate::error::{Error, Result};
use crate::neighbors::{NeighborList, pair_vector};
use crate::system::Cell;
use nalgebra::Vector3;
use rayon::prelude::*;
use std::cmp::Ordering;

/// A pair inside the cutoff, in the row of its atom i.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair<T> {
    /// j.
    pub neighbor: u32,
    /// Of a directed pair: the index of the same pair in the row of j.
    pub reverse: u32,
    /// Where d stands in the filter table.
    pub place: Place<T>,
    /// The distance that the network sees, Å: d, but for some of the pairs in [`Pairs::near`].
    pub distance: T,
    /// û from i to j.
    pub direction: [T; 3],
}

/// All pairs inside the cutoff, a row an atom.
///
/// Atoms are worked on in chunks of neighbouring indices. A pair of two atoms of one chunk stands once, in the row of the
/// first: it is *shared*. All others, also those of an atom with its own images, are *directed*: they stand in both rows.
#[derive(Debug, Clone)]
pub(super) struct Pairs<T> {
    /// Atoms of a chunk; the last may have fewer.
    pub chunk: usize,
    /// Row i is `offsets[i]..offsets[i + 1]`.
    pub offsets: Vec<usize>,
    /// Up to there the pairs of row i are shared.
    pub shared: Vec<usize>,
    pub pairs: Vec<Pair<T>>,
    /// Those of them that somebody asked for, in their order.
    pub near: Vec<Near>,
    /// For each pair of the Verlet list its index here, if it has one.
    compact: Vec<u32>,
}

/// Atoms that one task looks at.
const BLOCK: usize = 32;

/// Most atoms of a chunk: what a slice of channels needs of them stays in a processor's second cache.
const CHUNK: usize = 256;

/// What one task finds: the ends of the shared pairs of its rows, and of its rows; each pair with its index in the Verlet
/// list.
struct Block<T> {
    ends: Vec<[usize; 2]>,
    pairs: Vec<(u32, Pair<T>)>,
    near: Vec<Near>,
}

const NONE: u32 = u32::MAX;

impl<T: Real> Pairs<T> {
    /// Nothing yet, for so many atoms. Chunks depend on nothing else, and so do the orders of sums.
    pub fn new(atoms: usize) -> Self {
        Pairs {
            chunk: atoms.div_ceil(atoms.div_ceil(CHUNK).max(1)).max(1),
            offsets: Vec::new(),
            shared: Vec::new(),
            pairs: Vec::new(),
            near: Vec::new(),
            compact: Vec::new(),
        }
    }

    /// Collects the pairs of `list` with d < `cutoff`. Vectors are subtracted, and the cutoff decided, in float64;
    /// then they are narrowed. û = r / (d + `epsilon`); `locate` gives a distance's place in the filter table; `seen`
    /// says of two atoms and their distance whether the pair is to be kept in `near`, too, and then what distance the network
    /// sees and its derivative.
    ///
    /// # Errors
    /// [`Error::Run`] when two atoms are at the same place or a distance is not a number.
    #[allow(clippy::too_many_arguments)]
    pub fn update(
        &mut self,
        list: &NeighborList,
        positions: &[Vector3<f64>],
        cell: &Cell,
        cutoff: f64,
        epsilon: f64,
        locate: impl Fn(f64) -> Place<T> + Sync,
        seen: impl Fn(usize, usize, f64) -> Option<(f64, f64)> + Sync,
    ) -> Result<()> {
        let (atoms, chunk) = (positions.len(), self.chunk);
        let blocks: Vec<Block<T>> = (0..atoms.div_ceil(BLOCK))
            .into_par_iter()
            .map(|block| {
                let mut found = Block { ends: Vec::with_capacity(BLOCK), pairs: Vec::new(), near: Vec::new() };
                let range = block * BLOCK..((block + 1) * BLOCK).min(atoms);
                // With a skin of 1 Å beyond 5 Å, this is the part that is inside the cutoff and stands once.
                found.pairs.reserve((list.offsets[range.end] - list.offsets[range.start]) * 3 / 10);
                for i in range {
                    let mut ends = [0; 2];
                    for (shared, end) in [true, false].into_iter().zip(&mut ends) {
                        for p in list.row(i) {
                            let j = list.neighbors[p] as usize;
                            let together = i / chunk == j / chunk && i != j;
                            if together != shared || (shared && j < i) {
                                continue;
                            }
                            let r = pair_vector(positions, cell, i, j, list.shifts[p]);
                            let d = r.norm();
                            // A distance that is not a number is inside, so that it is found.
                            if d >= cutoff {
                                continue;
                            }
                            let direction = r / (d + epsilon);
                            let mut network = d;
                            // Atoms at the same place stay so, to be found below.
                            if let Some((seen, slope)) = seen(i, j, d).filter(|_| d > 0.0) {
                                let (atoms, pair) = ([i as u32, j as u32], found.pairs.len());
                                found.near.push(Near { atoms, both: shared, vector: r, distance: d, slope, pair });
                                network = seen;
                            }
                            let pair = Pair {
                                neighbor: list.neighbors[p],
                                reverse: list.reverse[p],
                                place: locate(network),
                                distance: T::of(network),
                                direction: [T::of(direction.x), T::of(direction.y), T::of(direction.z)],
                            };
                            found.pairs.push((p as u32, pair));
                        }
                        *end = found.pairs.len();
                    }
                    found.ends.push(ends);
                }
                found
            })
            .collect();

        self.offsets.clear();
        self.offsets.push(0);
        self.shared.clear();
        self.pairs.clear();
        self.near.clear();
        self.compact.clear();
        self.compact.resize(list.len(), NONE);
        for block in &blocks {
            let base = self.pairs.len();
            self.shared.extend(block.ends.iter().map(|[shared, _]| base + shared));
            self.offsets.extend(block.ends.iter().map(|[_, end]| base + end));
            self.near.extend(block.near.iter().map(|near| Near { pair: base + near.pair, ..*near }));
            for (p, pair) in &block.pairs {
                self.compact[*p as usize] = self.pairs.len() as u32;
                self.pairs.push(*pair);
            }
        }
        // Written so that NaN fails.
        if let Some(p) =
            self.pairs.iter().position(|pair| !matches!(pair.distance.partial_cmp(&T::zero()), Some(Ordering::Greater)))
        {
            let problem =
                if self.pairs[p].distance.is_nan() { "no longer have positions" } else { "are at the same place" };
            return Err(Error::Run(format!(
                "atoms {} and {} {problem}",
                self.offsets.partition_point(|&offset| offset <= p),
                self.pairs[p].neighbor + 1
            )));
        }
        for pair in &mut self.pairs {
            pair.reverse = self.compact[pair.reverse as usize];
        }
        Ok(())
    }

    /// Number of pairs, each counted in both directions.
    pub fn directed(&self) -> usize {
        self.pairs.iter().map(|pair| if pair.reverse == NONE { 2 } else { 1 }).sum()
    }

    /// The pairs of the chunk with this first atom.
    pub fn of_chunk(&self, first: usize) -> std::ops::Range<usize> {
        let end = (first + self.chunk).min(self.offsets.len() - 1);
        self.offsets[first]..self.offsets[end]
    }
}
