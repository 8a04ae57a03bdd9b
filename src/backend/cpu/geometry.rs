//! Distances and directions of the pairs inside the cutoff.

use super::aligned::Parts;
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
    /// The index in the Verlet list of the same pair in the row of j.
    reverse: u32,
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
///
/// Kernels trust that every neighbour is one of the atoms, of a shared pair one of its chunk.
#[derive(Debug, Clone)]
pub(super) struct Pairs<T> {
    /// Atoms of a chunk; the last may have fewer.
    pub chunk: usize,
    /// The pairs of atom i are those from `offsets[i]` to `offsets[i + 1]`.
    pub offsets: Vec<usize>,
    blocks: Vec<Block<T>>,
    /// Those of the pairs that somebody asked for, in their order.
    pub near: Vec<Near>,
    /// For each pair of the Verlet list its place in its row here, if it has one.
    compact: Vec<u32>,
}

/// Atoms that one task looks at.
const BLOCK: usize = 32;

/// Most atoms of a chunk: what a slice of channels needs of them stays in a processor's second cache.
const CHUNK: usize = 256;

/// What one task finds. Its memory is used again in the next step.
#[derive(Debug, Clone)]
struct Block<T> {
    /// The ends of the shared pairs of each row, and of the row.
    ends: Vec<[usize; 2]>,
    pairs: Vec<Pair<T>>,
    near: Vec<Near>,
    /// The first pair whose distance is zero or no number, and its atom.
    wrong: Option<(usize, Pair<T>)>,
}

impl<T> Default for Block<T> {
    fn default() -> Self {
        Block { ends: Vec::with_capacity(BLOCK), pairs: Vec::new(), near: Vec::new(), wrong: None }
    }
}

impl<T> Block<T> {
    fn clear(&mut self) {
        self.ends.clear();
        self.pairs.clear();
        self.near.clear();
        self.wrong = None;
    }
}

const NONE: u32 = u32::MAX;

impl<T: Real> Pairs<T> {
    /// Nothing yet, for so many atoms. Chunks depend on nothing else, and so do the orders of sums.
    pub fn new(atoms: usize) -> Self {
        Pairs {
            chunk: atoms.div_ceil(atoms.div_ceil(CHUNK).max(1)).max(1),
            offsets: Vec::new(),
            blocks: Vec::new(),
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
        self.blocks.resize_with(atoms.div_ceil(BLOCK), Block::default);
        self.compact.resize(list.len(), NONE);
        let mut compact = Parts(&mut self.compact);
        let mut tasks = Vec::with_capacity(self.blocks.len());
        for (number, block) in self.blocks.iter_mut().enumerate() {
            let rows = number * BLOCK..((number + 1) * BLOCK).min(atoms);
            let compact = compact.take(list.offsets[rows.end] - list.offsets[rows.start]);
            tasks.push((block, rows, compact));
        }
        tasks.into_par_iter().for_each(|(block, rows, compact)| {
            block.clear();
            compact.fill(NONE);
            let first_listed = list.offsets[rows.start];
            for i in rows {
                let start = block.pairs.len();
                let together = i / chunk * chunk..(i / chunk + 1) * chunk;
                let mut ends = [0; 2];
                for (shared, end) in [true, false].into_iter().zip(&mut ends) {
                    for p in list.row(i) {
                        let j = list.neighbors[p] as usize;
                        if (together.contains(&j) && i != j) != shared || (shared && j < i) {
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
                            let (atoms, pair) = ([i as u32, j as u32], block.pairs.len());
                            block.near.push(Near { atoms, both: shared, vector: r, distance: d, slope, pair });
                            network = seen;
                        }
                        let pair = Pair {
                            neighbor: list.neighbors[p],
                            reverse: list.reverse[p],
                            place: locate(network),
                            distance: T::of(network),
                            direction: [T::of(direction.x), T::of(direction.y), T::of(direction.z)],
                        };
                        // Written so that NaN fails.
                        let is_right = matches!(pair.distance.partial_cmp(&T::zero()), Some(Ordering::Greater));
                        if !is_right && block.wrong.is_none() {
                            block.wrong = Some((i, pair));
                        }
                        compact[p - first_listed] = (block.pairs.len() - start) as u32;
                        block.pairs.push(pair);
                    }
                    *end = block.pairs.len();
                }
                block.ends.push(ends);
            }
        });

        if let Some((atom, pair)) = self.blocks.iter().find_map(|block| block.wrong) {
            let problem = if pair.distance.is_nan() { "no longer have positions" } else { "are at the same place" };
            return Err(Error::Run(format!("atoms {} and {} {problem}", atom + 1, pair.neighbor + 1)));
        }
        self.offsets.clear();
        self.offsets.push(0);
        self.near.clear();
        let mut count = 0;
        for block in &self.blocks {
            self.offsets.extend(block.ends.iter().map(|[_, end]| count + end));
            self.near.extend(block.near.iter().map(|near| Near { pair: count + near.pair, ..*near }));
            count += block.pairs.len();
        }
        Ok(())
    }

    /// The pairs of an atom and some that follow, and how many of them are shared, and its own: first the one, then the
    /// others.
    #[inline(always)]
    pub fn row(&self, atom: usize) -> (&[Pair<T>], [usize; 2]) {
        let (block, n) = (&self.blocks[atom / BLOCK], atom % BLOCK);
        let start = if n == 0 { 0 } else { block.ends[n - 1][1] };
        (&block.pairs[start..], block.ends[n].map(|end| end - start))
    }

    /// All pairs in their order, some at a time.
    pub fn blocks(&self) -> impl Iterator<Item = &[Pair<T>]> {
        self.blocks.iter().map(|block| block.pairs.as_slice())
    }

    /// One of those in `near`.
    pub fn near(&self, near: &Near) -> &Pair<T> {
        let block = near.atoms[0] as usize / BLOCK;
        &self.blocks[block].pairs[near.pair - self.offsets[block * BLOCK]]
    }

    /// Of a directed pair, the index of the same pair in the row of its neighbour.
    pub fn reverse(&self, pair: &Pair<T>) -> usize {
        self.offsets[pair.neighbor as usize] + self.compact[pair.reverse as usize] as usize
    }

    /// Number of pairs, shared ones counted once.
    pub fn len(&self) -> usize {
        self.offsets.last().copied().unwrap_or(0)
    }

    /// Number of pairs, each counted in both directions.
    pub fn directed(&self) -> usize {
        let shared: usize = (0..self.offsets.len().saturating_sub(1)).map(|atom| self.row(atom).1[0]).sum();
        self.len() + shared
    }

    /// The pairs of the chunk with this first atom.
    pub fn of_chunk(&self, first: usize) -> std::ops::Range<usize> {
        let end = (first + self.chunk).min(self.offsets.len() - 1);
        self.offsets[first]..self.offsets[end]
    }
}
