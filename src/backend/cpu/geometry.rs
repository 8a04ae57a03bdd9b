//! Distances and directions of the pairs inside the cutoff.

use super::real::Real;
use crate::error::{Error, Result};
use crate::neighbors::{NeighborList, pair_vector};
use crate::system::Cell;
use nalgebra::Vector3;
use rayon::prelude::*;
use std::cmp::Ordering;

/// One directed pair (centre i, neighbour j) inside the cutoff.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair<T> {
    /// j.
    pub neighbor: u32,
    /// Index of the same pair seen from j.
    pub reverse: u32,
    /// Interval of the filter table.
    pub interval: u32,
    /// Position in that interval, 0 to 1.
    pub fraction: T,
    /// d, Å.
    pub distance: T,
    /// û from i to j.
    pub direction: [T; 3],
}

/// All pairs inside the cutoff, a row a centre.
#[derive(Debug, Clone, Default)]
pub(super) struct Pairs<T> {
    pub offsets: Vec<usize>,
    pub pairs: Vec<Pair<T>>,
    /// For each pair of the Verlet list its index here; the list's pairs outside the cutoff have none.
    compact: Vec<u32>,
}

/// Atoms that one task looks at.
const BLOCK: usize = 32;

/// What one task finds: the ends of its rows, and each pair with its index in the Verlet list.
struct Block<T> {
    ends: Vec<usize>,
    pairs: Vec<(u32, Pair<T>)>,
}

const OUTSIDE: u32 = u32::MAX;

impl<T: Real> Pairs<T> {
    pub fn row(&self, atom: usize) -> &[Pair<T>] {
        &self.pairs[self.offsets[atom]..self.offsets[atom + 1]]
    }

    /// Collects the pairs of `list` with d < `cutoff`. Vectors are subtracted, and the cutoff decided, in float64;
    /// then they are narrowed. û = r / (d + `epsilon`); `locate` gives a distance's place in the filter table.
    ///
    /// # Errors
    /// [`Error::Run`] when two atoms are at the same place or a distance is not a number.
    pub fn update(
        &mut self,
        list: &NeighborList,
        positions: &[Vector3<f64>],
        cell: &Cell,
        cutoff: f64,
        epsilon: f64,
        locate: impl Fn(f64) -> (usize, f64) + Sync,
    ) -> Result<()> {
        let atoms = positions.len();
        let blocks: Vec<Block<T>> = (0..atoms.div_ceil(BLOCK))
            .into_par_iter()
            .map(|block| {
                let mut found = Block { ends: Vec::with_capacity(BLOCK), pairs: Vec::new() };
                let range = block * BLOCK..((block + 1) * BLOCK).min(atoms);
                found.pairs.reserve(list.offsets[range.end] - list.offsets[range.start]);
                for i in range {
                    for p in list.row(i) {
                        let j = list.neighbors[p] as usize;
                        let r = pair_vector(positions, cell, i, j, list.shifts[p]);
                        let d = r.norm();
                        // A distance that is not a number is inside, so that it is found.
                        if d >= cutoff {
                            continue;
                        }
                        let (interval, fraction) = locate(d);
                        let direction = r / (d + epsilon);
                        let pair = Pair {
                            neighbor: list.neighbors[p],
                            reverse: list.reverse[p],
                            interval: interval as u32,
                            fraction: T::of(fraction),
                            distance: T::of(d),
                            direction: [T::of(direction.x), T::of(direction.y), T::of(direction.z)],
                        };
                        found.pairs.push((p as u32, pair));
                    }
                    found.ends.push(found.pairs.len());
                }
                found
            })
            .collect();

        self.offsets.clear();
        self.offsets.push(0);
        self.pairs.clear();
        self.compact.clear();
        self.compact.resize(list.len(), OUTSIDE);
        for block in &blocks {
            let base = self.pairs.len();
            self.offsets.extend(block.ends.iter().map(|end| base + end));
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
}
