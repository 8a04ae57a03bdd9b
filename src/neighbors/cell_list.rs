//! Finding pairs in linear time: atoms are sorted into bins, and only near bins are searched.

use super::{NeighborList, pair_vector};
use crate::error::{Error, Result};
use crate::memory;
use crate::system::{Cell, FARTHEST};
use nalgebra::Vector3;
use rayon::prelude::*;

/// As many as an index of 32 bits counts.
const MOST_PAIRS: u32 = u32::MAX;
/// What a pair takes in the list and in what the CPU backend makes of it, while both grow.
const BYTES_A_PAIR: f64 = 100.0;
/// Atoms searched by one task.
const CHUNK: usize = 32;

/// Atoms sorted into bins along fractional coordinates.
struct Bins {
    /// Bins along each edge.
    counts: [usize; 3],
    /// How many bins to look at on each side of an atom's own.
    reach: [i64; 3],
    periodic: [bool; 3],
    /// Bin of each atom, along each edge.
    of_atom: Vec<[usize; 3]>,
    /// Whole cells by which each atom is outside the cell.
    images: Vec<[i32; 3]>,
    /// Atoms of bin b are `atoms[starts[b]..starts[b + 1]]`, in rising order.
    starts: Vec<usize>,
    atoms: Vec<u32>,
    /// How many pairs there would be if the atoms were spread evenly.
    expected_pairs: f64,
}

impl Bins {
    fn new(positions: &[Vector3<f64>], cell: &Cell, range: f64) -> Self {
        let periodic = cell.periodic();
        let images: Vec<[i32; 3]> = positions.iter().map(|r| cell.image(r)).collect();
        let fractional: Vec<[f64; 3]> = positions
            .iter()
            .zip(&images)
            .map(|(r, &image)| cell.fractional(&(r - cell.translation(image))).into())
            .collect();

        // The margin is far above the rounding of fractional coordinates and far below any skin: no pair at the
        // very edge of the range may fall between two bins.
        let search = range * (1.0 + 1e-9) + 1e-9;
        let heights = cell.heights();
        let mut origin = [0.0; 3];
        let mut extent = [1.0; 3];
        for k in (0..3).filter(|&k| !periodic[k]) {
            let (low, high) =
                fractional.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(x[k]), b.max(x[k])));
            origin[k] = low;
            extent[k] = (high - low).max(1e-9);
        }
        let mut counts: [usize; 3] =
            std::array::from_fn(|k| ((extent[k] * heights[k] / search).floor().min(1e6) as usize).max(1));
        // A few atoms far apart must not ask for millions of empty bins.
        let most = 4 * positions.len() + 64;
        while counts.iter().product::<usize>() > most {
            let longest = (0..3).max_by_key(|&k| counts[k]).expect("three directions");
            counts[longest] = counts[longest].div_ceil(2);
        }
        let width: [f64; 3] = std::array::from_fn(|k| extent[k] * heights[k] / counts[k] as f64);
        let reach: [i64; 3] = std::array::from_fn(|k| {
            let reach = (search * counts[k] as f64 / (extent[k] * heights[k])).ceil() as i64;
            // Atoms in one plane have next to no extent across it; there is nothing beyond the last bin.
            if periodic[k] { reach } else { reach.min(counts[k] as i64) }
        });

        // What a row is searched in, in units of all the bins; of that the share within the range.
        let searched = |k: usize| {
            let bins = 2.0 * reach[k] as f64 + 1.0;
            if periodic[k] { bins } else { bins.min(counts[k] as f64) }
        };
        let volume: f64 = (0..3).map(|k| searched(k) * width[k]).product();
        let whole: f64 = (0..3).map(|k| counts[k] as f64 * width[k]).product();
        let sphere = 4.0 / 3.0 * std::f64::consts::PI * range.powi(3);
        let expected_pairs = (positions.len() as f64).powi(2) * volume.min(sphere) / whole;

        let of_atom: Vec<[usize; 3]> = fractional
            .iter()
            .map(|x| {
                std::array::from_fn(|k| {
                    let bin = ((x[k] - origin[k]) / extent[k] * counts[k] as f64).floor();
                    (bin.max(0.0) as usize).min(counts[k] - 1)
                })
            })
            .collect();
        let mut starts = vec![0; counts.iter().product::<usize>() + 1];
        let index = |bin: &[usize; 3]| (bin[0] * counts[1] + bin[1]) * counts[2] + bin[2];
        for bin in &of_atom {
            starts[index(bin) + 1] += 1;
        }
        for b in 1..starts.len() {
            starts[b] += starts[b - 1];
        }
        let mut next = starts.clone();
        let mut atoms = vec![0; positions.len()];
        for (atom, bin) in of_atom.iter().enumerate() {
            let slot = &mut next[index(bin)];
            atoms[*slot] = atom as u32;
            *slot += 1;
        }
        Bins { counts, reach, periodic, of_atom, images, starts, atoms, expected_pairs }
    }

    /// The bins near `bin` along edge k, each with the lattice shift that leads there.
    fn near(&self, k: usize, bin: usize) -> impl Iterator<Item = (usize, i32)> {
        let count = self.counts[k] as i64;
        let periodic = self.periodic[k];
        (-self.reach[k]..=self.reach[k]).filter_map(move |offset| {
            let target = bin as i64 + offset;
            if periodic {
                Some((target.rem_euclid(count) as usize, target.div_euclid(count) as i32))
            } else {
                (0..count).contains(&target).then_some((target as usize, 0))
            }
        })
    }

    /// Appends the row of one atom, in order.
    fn row(&self, positions: &[Vector3<f64>], cell: &Cell, range: f64, atom: usize, row: &mut Vec<(u32, [i32; 3])>) {
        let first = row.len();
        let own = self.of_atom[atom];
        for (x, shift_x) in self.near(0, own[0]) {
            for (y, shift_y) in self.near(1, own[1]) {
                for (z, shift_z) in self.near(2, own[2]) {
                    let bin = (x * self.counts[1] + y) * self.counts[2] + z;
                    for &neighbor in &self.atoms[self.starts[bin]..self.starts[bin + 1]] {
                        let other = neighbor as usize;
                        // The bins hold wrapped positions; the list speaks of unwrapped ones.
                        let shift = std::array::from_fn(|k| {
                            [shift_x, shift_y, shift_z][k] + self.images[atom][k] - self.images[other][k]
                        });
                        if other == atom && shift == [0; 3] {
                            continue;
                        }
                        if pair_vector(positions, cell, atom, other, shift).norm_squared() < range * range {
                            row.push((neighbor, shift));
                        }
                    }
                }
            }
        }
        row[first..].sort_unstable();
    }
}

fn too_many(pairs: f64, range: f64, problem: &str) -> Error {
    Error::Run(format!(
        "the system has about {pairs:.2e} neighbour pairs within {range} Å: {problem}; check the cell, the coordinates, the \
         skin and the model's cutoff, or use a smaller system"
    ))
}

/// The ends of some atoms' rows, and the pairs (neighbour, shift) in them.
type Rows = (Vec<usize>, Vec<(u32, [i32; 3])>);

impl NeighborList {
    /// All pairs closer than `range` Å.
    ///
    /// Any cell works: triclinic, smaller than the range (several images of one atom are separate pairs), periodic in
    /// some directions only, with atoms outside.
    ///
    /// # Errors
    /// [`Error::Run`] when a position is not finite or beyond 10⁸ Å, or when there are more than 2³² pairs or more than fit the memory.
    pub fn build(positions: &[Vector3<f64>], cell: &Cell, range: f64) -> Result<Self> {
        if let Some(atom) = positions.iter().position(|r| !r.iter().all(|x| x.is_finite())) {
            return Err(Error::Run(format!("the position of atom {} is no longer a finite number", atom + 1)));
        }
        // Images are counted in 32 bits, and differences of two must fit.
        let far = |r: &Vector3<f64>| r.amax() > FARTHEST || cell.image(r).iter().any(|n| n.unsigned_abs() > 1 << 29);
        if let Some(atom) = positions.iter().position(far) {
            return Err(Error::Run(format!(
                "atom {} has the coordinate {:e} Å, too far away from the cell or from the origin; move it closer",
                atom + 1,
                positions[atom][positions[atom].icamax()]
            )));
        }
        let bins = Bins::new(positions, cell, range);
        let absurd = bins.expected_pairs > MOST_PAIRS as f64 * 1.5;
        // Asking how much memory there is takes longer than a small list.
        let large = bins.expected_pairs > 1e7;
        let fits = if large && !absurd { memory::check(bins.expected_pairs * BYTES_A_PAIR) } else { Ok(()) };
        fits.map_err(|problem| too_many(bins.expected_pairs, range, &problem))?;
        if absurd {
            return Err(too_many(bins.expected_pairs, range, &format!("the most are {MOST_PAIRS}")));
        }
        let chunks: Vec<Rows> = (0..positions.len().div_ceil(CHUNK))
            .into_par_iter()
            .map(|chunk| {
                let mut ends = Vec::with_capacity(CHUNK);
                let mut pairs = Vec::new();
                for atom in chunk * CHUNK..((chunk + 1) * CHUNK).min(positions.len()) {
                    bins.row(positions, cell, range, atom, &mut pairs);
                    ends.push(pairs.len());
                }
                (ends, pairs)
            })
            .collect();

        let total = chunks.iter().map(|(_, pairs)| pairs.len()).sum::<usize>();
        if u32::try_from(total).is_err() {
            return Err(too_many(total as f64, range, &format!("the most are {MOST_PAIRS}")));
        }
        let mut list = NeighborList {
            offsets: Vec::with_capacity(positions.len() + 1),
            neighbors: Vec::with_capacity(total),
            shifts: Vec::with_capacity(total),
            reverse: Vec::new(),
        };
        list.offsets.push(0);
        for (ends, pairs) in chunks {
            let base = list.neighbors.len();
            list.offsets.extend(ends.iter().map(|end| base + end));
            list.neighbors.extend(pairs.iter().map(|(neighbor, _)| *neighbor));
            list.shifts.extend(pairs.iter().map(|(_, shift)| *shift));
        }
        list.reverse = (0..positions.len())
            .into_par_iter()
            .flat_map_iter(|atom| {
                let list = &list;
                list.row(atom).map(move |pair| list.find_reverse(atom, pair))
            })
            .collect();
        Ok(list)
    }

    /// Where `pair` of centre `atom` stands in its neighbour's row.
    fn find_reverse(&self, atom: usize, pair: usize) -> u32 {
        let row = self.row(self.neighbors[pair] as usize);
        let wanted = (atom as u32, self.shifts[pair].map(|s| -s));
        let (mut low, mut high) = (row.start, row.end);
        while low < high {
            let middle = (low + high) / 2;
            if (self.neighbors[middle], self.shifts[middle]) < wanted { low = middle + 1 } else { high = middle }
        }
        debug_assert_eq!((self.neighbors[low], self.shifts[low]), wanted, "pair_vector is antisymmetric to the bit");
        low as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nalgebra::Matrix3;
    use proptest::prelude::*;

    /// Every pair by trying every image that could be in range.
    fn brute_force(positions: &[Vector3<f64>], cell: &Cell, range: f64) -> Vec<(usize, u32, [i32; 3])> {
        let heights = cell.heights();
        let fractional: Vec<_> = positions.iter().map(|r| cell.fractional(r)).collect();
        let mut pairs = Vec::new();
        for i in 0..positions.len() {
            for j in 0..positions.len() {
                let bounds: [(i32, i32); 3] = std::array::from_fn(|k| {
                    if !cell.periodic()[k] {
                        return (0, 0);
                    }
                    let centre = fractional[i][k] - fractional[j][k];
                    let reach = range / heights[k] + 1.0;
                    ((centre - reach).floor() as i32, (centre + reach).ceil() as i32)
                });
                for a in bounds[0].0..=bounds[0].1 {
                    for b in bounds[1].0..=bounds[1].1 {
                        for c in bounds[2].0..=bounds[2].1 {
                            let itself = i == j && [a, b, c] == [0; 3];
                            if !itself && pair_vector(positions, cell, i, j, [a, b, c]).norm_squared() < range * range {
                                pairs.push((i, j as u32, [a, b, c]));
                            }
                        }
                    }
                }
            }
        }
        pairs.sort_unstable();
        pairs
    }

    fn check(positions: &[Vector3<f64>], cell: &Cell, range: f64) {
        let list = NeighborList::build(positions, cell, range).unwrap();
        let found: Vec<_> = (0..positions.len())
            .flat_map(|i| list.row(i).map(|p| (i, list.neighbors[p], list.shifts[p])).collect::<Vec<_>>())
            .collect();
        assert_eq!(found, brute_force(positions, cell, range));
        for (p, &(i, j, shift)) in found.iter().enumerate() {
            assert_eq!(found[list.reverse[p] as usize], (j as usize, i as u32, shift.map(|s| -s)));
        }
    }

    proptest! {
        // The field's usual mistakes are all in reach of these ranges: several images of one atom, own images,
        // skewed cells whose heights are much shorter than their edges, atoms many cells away.
        #![proptest_config(ProptestConfig { cases: 10_000, ..ProptestConfig::default() })]
        #[test]
        fn equals_brute_force(
            lengths in prop::array::uniform3(2.0..12.0f64),
            angles in prop::array::uniform3(50.0..130.0f64),
            periodic in prop::array::uniform3(any::<bool>()),
            left_handed in any::<bool>(),
            relative_range in 0.1..2.5f64,
            atoms in prop::collection::vec(prop::array::uniform3(-2.5..3.5f64), 1..10),
        ) {
            let Ok(cell) = Cell::from_parameters(lengths, angles, periodic) else { return Ok(()) };
            let mut vectors: Matrix3<f64> = *cell.vectors();
            if left_handed {
                vectors.swap_rows(0, 1);
            }
            let cell = Cell::new(vectors, periodic).unwrap();
            // Very flat cells have thousands of images in range and prove nothing more.
            let shortest = cell.heights().into_iter().fold(f64::INFINITY, f64::min);
            let range = (relative_range * lengths.into_iter().fold(f64::INFINITY, f64::min)).min(4.0 * shortest);
            let positions: Vec<_> = atoms.iter().map(|&x| cell.vectors().tr_mul(&Vector3::from(x))).collect();
            check(&positions, &cell, range);
        }
    }

    /// A dense box with many bins, which the random cells above are too small to have.
    #[test]
    fn many_bins_equal_brute_force() {
        let mut state = 1u64;
        let mut uniform = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        for (angles, periodic) in
            [([90.0; 3], [true; 3]), ([70.0, 110.0, 95.0], [true, false, true]), ([90.0, 60.0, 90.0], [false; 3])]
        {
            let cell = Cell::from_parameters([21.0, 17.0, 25.0], angles, periodic).unwrap();
            let positions: Vec<_> = (0..400)
                .map(|_| cell.vectors().tr_mul(&Vector3::new(uniform(), uniform(), uniform()).map(|x| 2.0 * x - 0.5)))
                .collect();
            check(&positions, &cell, 4.2);
        }
    }

    #[test]
    fn lattice_points_on_bin_edges_are_found() {
        // Neighbours exactly one bin apart, just inside the range.
        let cell = Cell::from_parameters([12.0; 3], [90.0; 3], [true; 3]).unwrap();
        let positions: Vec<_> =
            (0..64).map(|n| Vector3::new((n % 4) as f64, (n / 4 % 4) as f64, (n / 16) as f64) * 3.0).collect();
        let list = NeighborList::build(&positions, &cell, 3.0 + 1e-12).unwrap();
        assert_eq!(list.len(), 64 * 6);
        check(&positions, &cell, 3.0 + 1e-12);
    }

    #[test]
    fn one_and_two_atoms() {
        let open = Cell::open();
        assert!(NeighborList::build(&[Vector3::zeros()], &open, 5.0).unwrap().is_empty());
        let two = [Vector3::zeros(), Vector3::new(4.999, 0.0, 0.0)];
        assert_eq!(NeighborList::build(&two, &open, 5.0).unwrap().len(), 2);
        let far = [Vector3::zeros(), Vector3::new(5e7, 0.0, 0.0)];
        assert!(NeighborList::build(&far, &open, 5.0).unwrap().is_empty());
    }

    #[test]
    fn a_position_that_is_no_number_is_an_error() {
        let error = NeighborList::build(&[Vector3::new(f64::NAN, 0.0, 0.0)], &Cell::open(), 5.0).unwrap_err();
        assert_eq!(error.to_string(), "the position of atom 1 is no longer a finite number");
    }
}
