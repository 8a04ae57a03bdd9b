//! The screened repulsion of two nuclei below the distances that a network was trained on.
//!
//! Ziegler, Biersack & Littmark, "The Stopping and Range of Ions in Solids" (1985), the universal potential:
//!
//! E(d) = e²/4πε₀ · Z₁ Z₂ / d · φ(d/a),  a = 0.46850 Å / (Z₁^0.23 + Z₂^0.23),  φ(x) = Σ_k c_k exp(−b_k x)
//!
//! times a switch: 1 up to `inner`, 0 from `outer` on, and between them the quintic polynomial whose first and second
//! derivatives vanish at both ends.
//!
//! It could not hold against a network that was never asked about such distances and says anything there. So the network
//! does not see them: from `outer` down the distance that it sees falls ever more slowly, and from `inner` on it rests in the
//! middle between the two,
//!
//! s(d) = outer − (outer − inner) (u − u³ + u⁴/2),  u = (outer − d) / (outer − inner) from 0 to 1,
//!
//! whose first and second derivatives have no jump at either end.

use crate::units::COULOMB;

/// c_k and b_k of φ.
pub(super) const SCREENING: [[f64; 2]; 4] =
    [[0.18175, 3.19980], [0.50986, 0.94229], [0.28022, 0.40290], [0.02817, 0.20162]];

/// The repulsion of two elements.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Zbl {
    /// e²/4πε₀ Z₁ Z₂, eV Å.
    pub strength: f64,
    /// a, Å.
    pub length: f64,
    /// Å.
    pub inner: f64,
    /// Å.
    pub outer: f64,
}

impl Zbl {
    /// For two atomic numbers, whole below `inner` and nothing above `outer`, Å.
    pub fn new(a: u8, b: u8, [inner, outer]: [f64; 2]) -> Self {
        let (a, b) = (f64::from(a), f64::from(b));
        Zbl { strength: COULOMB * a * b, length: 0.46850 / (a.powf(0.23) + b.powf(0.23)), inner, outer }
    }

    /// s(d), the distance in Å that the network sees, and its derivative, 1 from `outer` on and 0 below `inner`.
    pub fn seen(&self, d: f64) -> (f64, f64) {
        if d >= self.outer {
            return (d, 1.0);
        }
        let width = self.outer - self.inner;
        let u = ((self.outer - d) / width).min(1.0);
        (self.outer - width * u * (1.0 - u * u * (1.0 - 0.5 * u)), 1.0 - u * u * (3.0 - 2.0 * u))
    }

    /// E(d) in eV and its derivative in eV/Å; both are zero from `outer` on.
    pub fn energy(&self, d: f64) -> (f64, f64) {
        if d >= self.outer {
            return (0.0, 0.0);
        }
        let (mut screening, mut slope) = (0.0, 0.0);
        for [c, b] in SCREENING {
            let term = c * (-b * (d / self.length)).exp();
            screening += term;
            slope -= b / self.length * term;
        }
        let energy = self.strength / d * screening;
        let derivative = self.strength / d * (slope - screening / d);
        if d <= self.inner {
            return (energy, derivative);
        }
        let width = self.outer - self.inner;
        let t = (self.outer - d) / width;
        let switch = t * t * t * (10.0 + t * (6.0 * t - 15.0));
        let fall = 30.0 * t * t * (1.0 - t) * (1.0 - t) / width;
        (energy * switch, derivative * switch - energy * fall)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The unswitched potential, written as a product of exponentials of logarithms, with e²/4πε₀ from α ħ c.
    fn universal(z: [f64; 2], d: f64) -> f64 {
        let screening_length = 0.8854 * 0.529_177_210_903 / z.map(|z| (0.23 * z.ln()).exp()).iter().sum::<f64>();
        let x = d / screening_length;
        let terms = [0.1818f64.ln() - 3.2 * x, 0.5099f64.ln() - 0.9423 * x, 0.2802f64.ln() - 0.4029 * x];
        let phi = terms.iter().map(|t| t.exp()).sum::<f64>() + 0.02817 * (-0.2016 * x).exp();
        1_973.269_804_59 / 137.035_999_084 * z[0] * z[1] * phi / d
    }

    /// Of the published four digits: the program's five must agree with them to that.
    #[test]
    fn it_is_the_universal_potential() {
        for (a, b) in [(1, 1), (1, 8), (6, 17), (14, 14), (92, 6)] {
            for d in [0.01, 0.1, 0.3, 0.7, 1.0] {
                let (energy, _) = Zbl::new(a, b, [2.0, 3.0]).energy(d);
                let published = universal([f64::from(a), f64::from(b)], d);
                assert!((energy / published - 1.0).abs() < 2e-3, "{a} {b} {d}: {energy} {published}");
            }
        }
        // Computed once with 50 decimal digits: two carbons at 0.5 Å, a hydrogen and an oxygen at 0.4 Å.
        for (a, b, d, expected) in [(6, 6, 0.5, 119.908_063_568_026_08), (1, 8, 0.4, 55.997_879_265_950_274)] {
            let (energy, _) = Zbl::new(a, b, [2.0, 3.0]).energy(d);
            assert!((energy / expected - 1.0).abs() < 1e-12, "{energy} {expected}");
        }
    }

    #[test]
    fn the_slope_is_the_derivative_everywhere() {
        let zbl = Zbl::new(6, 8, [0.7, 1.1]);
        for n in 0..200 {
            let (d, h) = (0.2 + 0.005 * n as f64, 1e-5);
            // Richardson's extrapolation of central differences: an error of h⁴.
            let central = |h: f64| (zbl.energy(d + h).0 - zbl.energy(d - h).0) / (2.0 * h);
            let numerical = (4.0 * central(h / 2.0) - central(h)) / 3.0;
            let (energy, slope) = zbl.energy(d);
            assert!((numerical - slope).abs() < 1e-8 * (1.0 + energy), "{d}: {numerical} {slope}");
        }
    }

    /// It is the distance itself where the repulsion ends, rests where it is whole, and has no jump in two derivatives.
    #[test]
    fn what_the_network_sees_comes_to_rest() {
        let zbl = Zbl::new(6, 8, [0.8, 1.1]);
        assert_eq!([zbl.seen(1.1), zbl.seen(1.7)], [(1.1, 1.0), (1.7, 1.0)]);
        for d in [0.8, 0.4, 1e-9] {
            let (seen, slope) = zbl.seen(d);
            assert!((seen - 0.95).abs() < 1e-15 && slope.abs() < 1e-15, "{d}: {seen} {slope}");
        }
        let h = 1e-6;
        for n in 0..80 {
            let d = 0.7 + 0.0057 * n as f64;
            let (seen, slope) = zbl.seen(d);
            let numerical = (zbl.seen(d + h).0 - zbl.seen(d - h).0) / (2.0 * h);
            assert!((numerical - slope).abs() < 1e-8, "{d}: {numerical} {slope}");
            let least = d.max(0.95) - 1e-12;
            assert!((0.0..=1.0).contains(&slope) && (least..=d.max(1.1)).contains(&seen), "{d}: {seen} {slope}");
        }
        for end in [0.8, 1.1] {
            let slopes = [end - h, end, end + h].map(|d| zbl.seen(d).1);
            assert!(slopes.windows(2).all(|pair| (pair[1] - pair[0]).abs() < 1e-9), "{end}: {slopes:?}");
        }
    }

    /// Energy, force and its slope go on without a jump, and the energy only falls.
    #[test]
    fn both_ends_of_the_switch_are_smooth() {
        let zbl = Zbl::new(8, 8, [0.9, 1.4]);
        let whole = Zbl { inner: 5.0, outer: 6.0, ..zbl };
        let curvature = |zbl: &Zbl, d: f64, h: f64| (zbl.energy(d + h).1 - zbl.energy(d).1) / h;
        let h = 1e-6;
        let (energy, slope) = zbl.energy(0.9 + h);
        assert!((energy - whole.energy(0.9 + h).0).abs() < 1e-12 * energy);
        assert!((slope - whole.energy(0.9 + h).1).abs() < 1e-8 * energy);
        assert!((curvature(&zbl, 0.9, h) - curvature(&whole, 0.9, h)).abs() < 1e-2 * curvature(&whole, 0.9, h));
        let (energy, slope) = zbl.energy(1.4 - h);
        assert!(energy > 0.0 && energy < 1e-12 && slope < 0.0 && slope > -1e-8, "{energy} {slope}");
        assert!(curvature(&zbl, 1.4 - h, h).abs() < 1e-2);
        assert_eq!([zbl.energy(1.4), zbl.energy(2.0)], [(0.0, 0.0); 2]);
        for n in 1..140 {
            assert!(zbl.energy(0.01 * n as f64).1 < 0.0, "it attracts at {n}");
        }
    }
}
