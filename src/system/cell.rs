//! The simulation cell: three edge vectors, and which of them repeat.

use crate::error::{Error, Result};
use nalgebra::{Matrix3, Vector3};

/// A cell with any combination of periodic directions, orthorhombic or triclinic.
///
/// Directions that do not repeat still have an edge vector (a unit vector completes the basis where
/// the input gave none), so that fractional coordinates always exist.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// Edge vectors as rows, Å.
    vectors: Matrix3<f64>,
    /// `vectors` inverted: fractional = cartesianᵀ · inverse.
    inverse: Matrix3<f64>,
    /// Which edges repeat.
    periodic: [bool; 3],
}

/// Å: longer edges are a mistake.
const LONGEST_EDGE: f64 = 1e8;

impl Cell {
    /// No periodicity at all.
    pub fn open() -> Self {
        Cell { vectors: Matrix3::identity(), inverse: Matrix3::identity(), periodic: [false; 3] }
    }

    /// A cell from its edge vectors (rows, Å) and the periodic directions.
    ///
    /// A zero vector is allowed in a direction that does not repeat.
    ///
    /// # Errors
    /// [`Error::Structure`] when a number is not finite or beyond 10⁸ Å, a periodic edge is zero, or the edges lie in a plane.
    pub fn new(mut vectors: Matrix3<f64>, periodic: [bool; 3]) -> Result<Self> {
        if vectors.iter().any(|x| !x.is_finite()) {
            return Err(Error::Structure("the cell has an edge that is not a finite number".into()));
        }
        for k in 0..3 {
            if vectors.row(k).norm() < 1e-10 {
                if periodic[k] {
                    return Err(Error::Structure(format!(
                        "the cell is periodic along {} but that edge has no length; give the edge or switch that \
                         direction off in pbc",
                        ["a", "b", "c"][k]
                    )));
                }
                vectors.row_mut(k).fill(0.0);
            }
        }
        if vectors.amax() > LONGEST_EDGE {
            return Err(Error::Structure(format!(
                "the cell has an edge of {:e} Å, beyond {LONGEST_EDGE:e} Å; check its unit",
                vectors.amax()
            )));
        }
        complete(&mut vectors);
        let longest = (0..3).map(|k| vectors.row(k).norm()).product::<f64>();
        let inverse = vectors.try_inverse();
        match inverse {
            Some(inverse) if vectors.determinant().abs() > 1e-8 * longest => Ok(Cell { vectors, inverse, periodic }),
            _ => Err(Error::Structure(format!(
                "the three edges of the cell lie in one plane, or nearly: it has a volume of {:.3} Å³; correct the edges, or \
                 leave the cell out",
                vectors.determinant().abs()
            ))),
        }
    }

    /// A cell from lengths (Å) and angles (degrees) in the usual orientation: a along x, b in the xy plane.
    pub fn from_parameters(lengths: [f64; 3], angles: [f64; 3], periodic: [bool; 3]) -> Result<Self> {
        let [a, b, c] = lengths;
        // A cosine does not tell 200° from 160°.
        if let Some(k) = angles.iter().position(|angle| !(*angle > 0.0 && *angle < 180.0)) {
            return Err(Error::Structure(format!(
                "the cell's angle {} is {} degrees; give one between 0 and 180",
                ["alpha", "beta", "gamma"][k],
                angles[k]
            )));
        }
        // Right angles must give exact zeros: cos(90°) in floating point is 6e-17.
        let cos = angles.map(|angle| if angle == 90.0 { 0.0 } else { angle.to_radians().cos() });
        let sin_gamma = (1.0 - cos[2] * cos[2]).sqrt();
        let cy = (cos[0] - cos[1] * cos[2]) / sin_gamma;
        let cz2 = 1.0 - cos[1] * cos[1] - cy * cy;
        // NaN must fail this test too.
        let possible = cz2 > 0.0 && sin_gamma > 0.0 && lengths.iter().all(|&length| length > 0.0);
        if !possible {
            return Err(Error::Structure(format!(
                "no cell has the lengths {a}, {b}, {c} Å and the angles {}, {}, {} degrees",
                angles[0], angles[1], angles[2]
            )));
        }
        let rows = Matrix3::new(a, 0.0, 0.0, b * cos[2], b * sin_gamma, 0.0, c * cos[1], c * cy, c * cz2.sqrt());
        Cell::new(rows, periodic)
    }

    /// Edge vectors as rows, Å.
    pub fn vectors(&self) -> &Matrix3<f64> {
        &self.vectors
    }

    /// Edge vector `k`, Å.
    pub fn vector(&self, k: usize) -> Vector3<f64> {
        self.vectors.row(k).transpose()
    }

    /// Lengths (Å) and angles (degrees): the inverse of [`from_parameters`](Self::from_parameters), but for orientation.
    pub fn parameters(&self) -> ([f64; 3], [f64; 3]) {
        let edges = [self.vector(0), self.vector(1), self.vector(2)];
        let angle = |k: usize| edges[(k + 1) % 3].angle(&edges[(k + 2) % 3]).to_degrees();
        (edges.map(|edge| edge.norm()), [angle(0), angle(1), angle(2)])
    }

    /// Which edges repeat.
    pub fn periodic(&self) -> [bool; 3] {
        self.periodic
    }

    /// Whether any direction repeats.
    pub fn is_periodic(&self) -> bool {
        self.periodic.contains(&true)
    }

    /// Volume, Å³ (positive also for a left-handed cell).
    pub fn volume(&self) -> f64 {
        self.vectors.determinant().abs()
    }

    /// Whether the edges form a left-handed system.
    pub fn is_left_handed(&self) -> bool {
        self.vectors.determinant() < 0.0
    }

    /// Distances between opposite faces, Å. In a triclinic cell these, not the edge lengths, bound the interaction.
    pub fn heights(&self) -> [f64; 3] {
        // Row k of the inverse transposed is the reciprocal vector of edge k; the height is 1 / its length.
        std::array::from_fn(|k| 1.0 / self.inverse.column(k).norm())
    }

    /// Fractional coordinates of a point.
    pub fn fractional(&self, position: &Vector3<f64>) -> Vector3<f64> {
        self.inverse.tr_mul(position)
    }

    /// The lattice vector `shift · edges`, Å.
    pub fn translation(&self, shift: [i32; 3]) -> Vector3<f64> {
        self.vectors.tr_mul(&Vector3::new(shift[0] as f64, shift[1] as f64, shift[2] as f64))
    }

    /// How many edges a point lies outside the cell: subtracting this lattice translation wraps it. Zero along
    /// directions that do not repeat.
    pub fn image(&self, position: &Vector3<f64>) -> [i32; 3] {
        let fractional = self.fractional(position);
        std::array::from_fn(|k| if self.periodic[k] { fractional[k].floor() as i32 } else { 0 })
    }

    /// The cell under a homogeneous strain: r → r (1 + ε).
    pub fn strained(&self, strain: &Matrix3<f64>) -> Result<Self> {
        Cell::new(self.vectors * (Matrix3::identity() + strain), self.periodic)
    }

    /// The cell `copies[k]` times as long along edge k.
    pub fn replicated(&self, copies: [usize; 3]) -> Self {
        let mut vectors = self.vectors;
        for k in 0..3 {
            vectors.row_mut(k).scale_mut(copies[k] as f64);
        }
        let inverse = vectors.try_inverse().expect("scaling edges keeps a cell invertible");
        Cell { vectors, inverse, periodic: self.periodic }
    }
}

/// Replaces zero rows by unit vectors normal to the others.
fn complete(vectors: &mut Matrix3<f64>) {
    for k in 0..3 {
        if vectors.row(k).norm() > 0.0 {
            continue;
        }
        let others = [vectors.row((k + 1) % 3).transpose(), vectors.row((k + 2) % 3).transpose()];
        let normal = match others.map(|v| v.norm() > 0.0) {
            [true, true] => others[0].cross(&others[1]),
            [true, false] => perpendicular(&others[0]),
            [false, true] => perpendicular(&others[1]),
            [false, false] => Vector3::ith(k, 1.0),
        };
        if normal.norm() > 0.0 {
            vectors.set_row(k, &normal.normalize().transpose());
        }
    }
}

/// Some vector normal to `v`.
fn perpendicular(v: &Vector3<f64>) -> Vector3<f64> {
    v.cross(&Vector3::ith(v.iamin(), 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn right_angles_give_exact_zeros() {
        let cell = Cell::from_parameters([10.0, 11.0, 12.0], [90.0; 3], [true; 3]).unwrap();
        assert_eq!(cell.vectors(), &Matrix3::from_diagonal(&Vector3::new(10.0, 11.0, 12.0)));
        assert_eq!(cell.heights(), [10.0, 11.0, 12.0]);
    }

    #[test]
    fn impossible_cells_are_refused() {
        assert!(Cell::from_parameters([1.0; 3], [60.0, 60.0, 170.0], [true; 3]).is_err());
        assert!(Cell::from_parameters([1.0, -1.0, 1.0], [90.0; 3], [true; 3]).is_err());
        for angle in [200.0, 270.0, -90.0, 359.0, -1.0, 360.5, 0.0, 180.0, f64::NAN] {
            for k in 0..3 {
                let mut angles = [90.0; 3];
                angles[k] = angle;
                let message = Cell::from_parameters([20.0; 3], angles, [true; 3]).unwrap_err().to_string();
                assert!(
                    message.contains(["alpha", "beta", "gamma"][k]) && message.contains("between 0 and 180"),
                    "{message}"
                );
            }
        }
        assert!(Cell::from_parameters([f64::NAN, 1.0, 1.0], [90.0; 3], [true; 3]).is_err());
        let flat = Matrix3::new(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0);
        assert!(Cell::new(flat, [true; 3]).is_err());
        let slab = Matrix3::new(5.0, 0.0, 0.0, 1.0, 5.0, 0.0, 0.0, 0.0, 0.0);
        assert!(Cell::new(slab, [true; 3]).is_err());
        let slab = Cell::new(slab, [true, true, false]).unwrap();
        assert!((slab.volume() - 25.0).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn fractional_and_cartesian_are_inverse(
            lengths in prop::array::uniform3(1.0..50.0f64),
            angles in prop::array::uniform3(60.0..110.0f64),
            at in prop::array::uniform3(-100.0..100.0f64),
        ) {
            let cell = Cell::from_parameters(lengths, angles, [true; 3]).unwrap();
            let position = Vector3::from(at);
            let fractional = cell.fractional(&position);
            prop_assert!((cell.vectors().tr_mul(&fractional) - position).norm() < 1e-9);
            let wrapped = position - cell.translation(cell.image(&position));
            let inside = cell.fractional(&wrapped);
            prop_assert!(inside.iter().all(|&x| (-1e-9..1.0 + 1e-9).contains(&x)));
            // volume = area of the face × height
            for k in 0..3 {
                let face = cell.vector((k + 1) % 3).cross(&cell.vector((k + 2) % 3)).norm();
                prop_assert!((cell.volume() / face / cell.heights()[k] - 1.0).abs() < 1e-9);
            }
        }
    }
}
