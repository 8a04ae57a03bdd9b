//! Neighbour lists: which atoms, in which periodic image, are within reach of each other.
//!
//! [`NeighborList::build`] finds pairs with a cell list; [`VerletList`] keeps such a list, made with a skin, until
//! some atom has moved so far that a pair could be missing.

mod cell_list;
mod verlet;

pub use verlet::VerletList;

use nalgebra::Vector3;

use crate::system::Cell;

/// All directed pairs (centre i, neighbour j, image) closer than some range, one row a centre.
///
/// The pair's vector is r = x_j − x_i + shift · cell with the *unwrapped* positions. Every pair is there in both
/// directions; an atom is a neighbour of its own images. Within a row pairs are ordered by (j, shift), so the list
/// depends on nothing but positions, cell and range.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NeighborList {
    /// Row i is `offsets[i]..offsets[i + 1]`; length N + 1.
    pub offsets: Vec<usize>,
    /// Neighbour j of each pair.
    pub neighbors: Vec<u32>,
    /// Lattice translation of each pair's neighbour.
    pub shifts: Vec<[i32; 3]>,
    /// Index of the same pair seen from the other end.
    pub reverse: Vec<u32>,
}

impl NeighborList {
    /// Number of directed pairs.
    pub fn len(&self) -> usize {
        self.neighbors.len()
    }

    /// Whether no two atoms are in range.
    pub fn is_empty(&self) -> bool {
        self.neighbors.is_empty()
    }

    /// Pair indices of centre `atom`.
    pub fn row(&self, atom: usize) -> std::ops::Range<usize> {
        self.offsets[atom]..self.offsets[atom + 1]
    }
}

/// The vector from atom i to its neighbour, Å. Written once so that the list, the forces and both directions of a
/// pair agree to the last bit: exchanging the atoms and negating the shift exactly negates the result.
#[inline]
pub(crate) fn pair_vector(
    positions: &[Vector3<f64>],
    cell: &Cell,
    centre: usize,
    neighbor: usize,
    shift: [i32; 3],
) -> Vector3<f64> {
    let difference = positions[neighbor] - positions[centre];
    if shift == [0; 3] { difference } else { difference + cell.translation(shift) }
}
