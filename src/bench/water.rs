//! Water to time: droplets and periodic boxes of any size, made from the 64 molecules that come with the program.

use crate::error::{Error, Result};
use crate::system::{Cell, System, extxyz};
use nalgebra::{Matrix3, Vector3};

/// Liquid water: 64 molecules, oxygen first, in a periodic cube.
const LIQUID: &str = include_str!("../../inputs/structures/water64.xyz");
/// Atoms per Å³ of a box.
const DENSITY: f64 = 0.1;
/// A box is at most so many times longer than it is wide.
const LONGEST: usize = 3;

/// A molecule: where its oxygen is, and from there its three atoms, Å.
type Molecule = (Vector3<f64>, [Vector3<f64>; 3]);

/// Water of so many atoms, rounded up to whole molecules: below 192 a droplet in vacuum, from there on a periodic box
/// with 0.1 atoms per Å³.
///
/// A droplet is cut out of the liquid. A box is built of copies of it; where they hold more molecules than asked for,
/// some are left out, evenly, and the others move closer together, so that the liquid starts some ten kelvin too warm.
///
/// # Errors
/// [`Error::Structure`] when the memory has no room for so many atoms.
pub fn water(atoms: usize) -> Result<System> {
    if atoms > u32::MAX as usize {
        return Err(Error::Structure(format!("there cannot be {atoms} atoms: the most are {}", u32::MAX)));
    }
    let liquid = extxyz::Reader::new(LIQUID.as_bytes(), "water").next().expect("the file has a frame")?.system;
    let wanted = atoms.div_ceil(3).max(1);
    if wanted < liquid.len() / 3 { droplet(&liquid, wanted) } else { periodic_box(&liquid, wanted) }
}

/// The molecules of a box, whole.
fn molecules(liquid: &System) -> Vec<Molecule> {
    liquid
        .positions
        .chunks_exact(3)
        .map(|atoms| (atoms[0], [0, 1, 2].map(|k| nearest_image(liquid, atoms[k] - atoms[0]))))
        .collect()
}

/// The shortest of a vector's periodic images, in a cube.
fn nearest_image(liquid: &System, vector: Vector3<f64>) -> Vector3<f64> {
    let cell = &liquid.cell;
    let half = (cell.vector(0) + cell.vector(1) + cell.vector(2)) / 2.0;
    vector - cell.translation(cell.image(&(vector + half)))
}

/// The molecules around the first one.
fn droplet(liquid: &System, wanted: usize) -> Result<System> {
    let mut all = molecules(liquid);
    let middle = all[0].0;
    for (oxygen, _) in &mut all {
        *oxygen = nearest_image(liquid, *oxygen - middle);
    }
    all.sort_by(|(a, _), (b, _)| a.norm_squared().total_cmp(&b.norm_squared()));
    build(all.into_iter().take(wanted), Cell::open())
}

fn periodic_box(liquid: &System, wanted: usize) -> Result<System> {
    let copies = copies(wanted.div_ceil(liquid.len() / 3));
    let whole = liquid.replicated(copies)?;
    let there = whole.len() / 3;
    let scale = (3.0 * wanted as f64 / DENSITY / whole.cell.volume()).cbrt();
    let vectors: Matrix3<f64> = whole.cell.vectors() * scale;
    // Molecules keep their shape; only the distances between them change.
    let shapes = molecules(liquid);
    let kept = (0..there).filter(|k| (k + 1) * wanted / there > k * wanted / there);
    let placed = kept.map(|k| (whole.positions[3 * k] * scale, shapes[k % shapes.len()].1));
    build(placed, Cell::new(vectors, [true; 3])?)
}

/// The smallest block of at least so many copies that is not too long.
fn copies(least: usize) -> [usize; 3] {
    let mut best: Option<[usize; 3]> = None;
    for c in (1..).take_while(|c| (c - 1) * (c - 1) * (c - 1) < least) {
        for b in c..=LONGEST * c {
            let a = least.div_ceil(b * c).max(b);
            let size = |[a, b, c]: [usize; 3]| (a * b * c, a - c);
            if a <= LONGEST * c && best.is_none_or(|best| size([a, b, c]) < size(best)) {
                best = Some([a, b, c]);
            }
        }
    }
    best.expect("a cube is never too long")
}

fn build(molecules: impl Iterator<Item = Molecule>, cell: Cell) -> Result<System> {
    let positions: Vec<_> = molecules.flat_map(|(oxygen, atoms)| atoms.map(|atom| oxygen + atom)).collect();
    System::new([8, 1, 1].repeat(positions.len() / 3), positions, cell)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::neighbors::NeighborList;

    #[test]
    fn sizes_are_rounded_up_to_molecules_and_boxes_have_their_density() {
        for (asked, atoms, periodic) in
            [(1, 3, false), (10, 12, false), (100, 102, false), (191, 192, true), (192, 192, true), (1023, 1023, true)]
        {
            let system = water(asked).unwrap();
            assert_eq!((system.len(), system.cell.is_periodic()), (atoms, periodic), "{asked}");
            assert_eq!(system.elements(), [1, 8]);
            if periodic {
                assert!((atoms as f64 / system.cell.volume() - DENSITY).abs() < 1e-12);
            }
        }
    }

    /// Two hydrogens to an oxygen, near it, and nobody else's atoms so near.
    #[test]
    fn molecules_are_whole_and_apart() {
        for asked in [12, 51, 189, 192, 600, 1023, 3072] {
            let system = water(asked).unwrap();
            let bonds = NeighborList::build(&system.positions, &system.cell, 1.2).unwrap();
            for atom in 0..system.len() {
                let own: Vec<_> = bonds.row(atom).map(|pair| bonds.neighbors[pair] as usize / 3).collect();
                let count = if atom % 3 == 0 { 2 } else { 1 };
                assert_eq!(own, vec![atom / 3; count], "{asked}: atom {atom}");
            }
        }
    }

    #[test]
    fn a_block_of_copies_is_as_small_and_as_short_as_can_be() {
        assert_eq!(copies(1), [1, 1, 1]);
        assert_eq!(copies(2), [2, 1, 1]);
        assert_eq!(copies(6), [3, 2, 1]);
        assert_eq!(copies(8), [2, 2, 2]);
        assert_eq!(copies(54), [6, 3, 3]);
        for least in 1..600 {
            let [a, b, c] = copies(least);
            let many = a * b * c;
            assert!(a >= b && b >= c && a <= LONGEST * c && many >= least && many * 3 < least * 4 + 9, "{least}");
        }
    }
}
