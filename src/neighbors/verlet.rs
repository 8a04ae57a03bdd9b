//! A neighbour list that stays valid while atoms move little.

use super::NeighborList;
use crate::error::Result;
use crate::system::Cell;
use nalgebra::Vector3;

/// A list made with `cutoff + skin`, rebuilt when some atom has moved more than half the skin since.
///
/// Two atoms that each moved half a skin towards each other are the worst case: until then every pair inside the
/// cutoff is in the list (Verlet, Phys. Rev. 159, 98, 1967).
#[derive(Debug, Clone)]
pub struct VerletList {
    cutoff: f64,
    skin: f64,
    list: NeighborList,
    /// Positions and cell of the last build; empty before the first.
    reference: Vec<Vector3<f64>>,
    cell: Option<Cell>,
    builds: u64,
}

impl VerletList {
    /// An empty list; the first [`update`](Self::update) builds it. Lengths in Å.
    pub fn new(cutoff: f64, skin: f64) -> Self {
        VerletList { cutoff, skin, list: NeighborList::default(), reference: Vec::new(), cell: None, builds: 0 }
    }

    /// Makes the list valid for these positions; says whether it had to be rebuilt.
    ///
    /// A change of the cell or of the number of atoms always rebuilds.
    ///
    /// # Errors
    /// As [`NeighborList::build`].
    pub fn update(&mut self, positions: &[Vector3<f64>], cell: &Cell) -> Result<bool> {
        let limit = (0.5 * self.skin).powi(2);
        // Written so that a position that is not a number counts as moved.
        let valid = self.cell.as_ref() == Some(cell)
            && self.reference.len() == positions.len()
            && positions.iter().zip(&self.reference).all(|(r, old)| (r - old).norm_squared() <= limit);
        if valid {
            return Ok(false);
        }
        self.build(positions, cell)?;
        self.builds += 1;
        Ok(true)
    }

    fn build(&mut self, positions: &[Vector3<f64>], cell: &Cell) -> Result<()> {
        self.list = NeighborList::build(positions, cell, self.cutoff + self.skin)?;
        self.reference = positions.to_vec();
        self.cell = Some(cell.clone());
        Ok(())
    }

    /// Makes the list again that was built at `positions`, the last of so many rebuilds.
    ///
    /// # Errors
    /// As [`NeighborList::build`].
    pub fn restore(&mut self, positions: &[Vector3<f64>], cell: &Cell, rebuilds: u64) -> Result<()> {
        self.build(positions, cell)?;
        self.builds = rebuilds + 1;
        Ok(())
    }

    /// Positions of the last build; empty before the first.
    pub fn reference(&self) -> &[Vector3<f64>] {
        &self.reference
    }

    /// All pairs that can be inside the cutoff, and some outside.
    pub fn list(&self) -> &NeighborList {
        &self.list
    }

    /// How often the list has been rebuilt after its first build.
    pub fn rebuilds(&self) -> u64 {
        self.builds.saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::neighbors::pair_vector;
    use proptest::prelude::*;

    proptest! {
        /// Random walks: at every step every pair inside the cutoff is in the list.
        #[test]
        fn no_pair_is_ever_missing(
            start in prop::collection::vec(prop::array::uniform3(0.0..8.0f64), 2..12),
            moves in prop::collection::vec(prop::array::uniform3(-0.2..0.2f64), 60..120),
            skin in 0.0..1.5f64,
        ) {
            let cell = Cell::from_parameters([8.0; 3], [90.0, 75.0, 100.0], [true, true, false]).unwrap();
            let cutoff = 3.0;
            let mut positions: Vec<_> = start.iter().map(|&x| Vector3::from(x)).collect();
            let mut list = VerletList::new(cutoff, skin);
            for step in moves.chunks(positions.len()) {
                for (r, &d) in positions.iter_mut().zip(step) {
                    *r += Vector3::from(d);
                }
                list.update(&positions, &cell).unwrap();
                let held = list.list();
                let inside = (0..positions.len())
                    .flat_map(|i| held.row(i).map(move |p| (i, p)))
                    .filter(|&(i, p)| {
                        pair_vector(&positions, &cell, i, held.neighbors[p] as usize, held.shifts[p]).norm() < cutoff
                    })
                    .count();
                prop_assert_eq!(inside, NeighborList::build(&positions, &cell, cutoff).unwrap().len());
            }
        }
    }

    #[test]
    fn rebuilds_only_when_half_the_skin_is_passed_or_the_cell_changes() {
        let mut positions = vec![Vector3::zeros(), Vector3::new(2.0, 0.0, 0.0)];
        let mut list = VerletList::new(3.0, 1.0);
        assert!(list.update(&positions, &Cell::open()).unwrap());
        positions[0].x = 0.5;
        assert!(!list.update(&positions, &Cell::open()).unwrap());
        positions[0].x = 0.500001;
        assert!(list.update(&positions, &Cell::open()).unwrap());
        let cell = Cell::from_parameters([9.0; 3], [90.0; 3], [true; 3]).unwrap();
        assert!(list.update(&positions, &cell).unwrap());
        assert_eq!(list.rebuilds(), 2);
    }
}
