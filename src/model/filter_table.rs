//! Radial filters as tables.
//!
//! A filter depends on the distance alone, so a cubic B-spline on a uniform grid replaces the evaluation of the
//! radial functions and their map. The spline is twice continuously differentiable and its gradient is its own, so
//! the tabulated energy is exactly conservative.

use super::RadialFilter;
use num_traits::Float;
use rayon::prelude::*;

/// Relative errors that a table must reach: of W against the largest |W|, of W' against the largest |W'|. Both are
/// below the rounding of float32.
const TARGET: (f64, f64) = (3e-8, 1e-6);
/// Smallest and largest number of intervals tried.
const INTERVALS: (usize, usize) = (512, 8192);
/// Å: no bond is shorter. W and W' are larger at shorter distances, those made of Bessel functions many times, so the
/// errors are compared with the largest values from here on, where they matter.
const SHORTEST: f64 = 0.7;

/// Cubic B-spline coefficients of all filters.
///
/// On the interval k, with u the position in it from 0 to 1,
/// W(d) = Σ_m B_m(u) c[k + m], m = 0…3; see [`spline_weights`] for the derivative.
#[derive(Debug, Clone)]
pub struct FilterTable {
    /// Intervals between 0 and the cutoff.
    pub intervals: usize,
    /// Width of an interval, Å.
    pub spacing: f64,
    /// 3F.
    pub width: usize,
    /// A layer each: `[intervals + 3][3F]`, row-major.
    pub coefficients: Vec<Vec<f64>>,
    /// Largest deviations from the direct evaluation found at the points between the knots.
    pub error: TableError,
}

/// The knots of a table.
#[derive(Debug, Clone, Copy)]
pub struct Grid {
    /// Intervals between 0 and the cutoff.
    pub intervals: usize,
    /// Width of an interval, Å.
    pub spacing: f64,
}

impl Grid {
    /// Interval and position in it of a distance below the cutoff.
    #[inline]
    pub fn locate(&self, d: f64) -> (usize, f64) {
        let x = d / self.spacing;
        // d < cutoff, but d / spacing may round up to the last knot.
        let k = (x as usize).min(self.intervals - 1);
        (k, x - k as f64)
    }
}

/// How far a table is from the filters it stands for.
#[derive(Debug, Clone, Copy, Default)]
pub struct TableError {
    /// max |ΔW|.
    pub value: f64,
    /// max |ΔW'|, 1/Å.
    pub derivative: f64,
    /// max |W| from 0.7 Å on.
    pub value_scale: f64,
    /// max |W'| from 0.7 Å on, 1/Å.
    pub derivative_scale: f64,
}

impl TableError {
    fn max(self, other: Self) -> Self {
        TableError {
            value: self.value.max(other.value),
            derivative: self.derivative.max(other.derivative),
            value_scale: self.value_scale.max(other.value_scale),
            derivative_scale: self.derivative_scale.max(other.derivative_scale),
        }
    }

    fn acceptable(&self) -> bool {
        self.value <= TARGET.0 * self.value_scale && self.derivative <= TARGET.1 * self.derivative_scale
    }
}

/// The four cubic B-spline weights at u ∈ [0, 1], and the three quadratic ones that make the derivative out of
/// differences of neighbouring coefficients: W'(d) = Σ_m e_m (c[k + m + 1] − c[k + m]) / h. Written like this nothing
/// cancels but the differences themselves, which float32 needs.
#[inline]
pub fn spline_weights<T: Float>(u: T) -> ([T; 4], [T; 3]) {
    let number = |x: f64| T::from(x).expect("a small number exists in every precision");
    let (half, sixth, two_thirds) = (number(0.5), number(1.0 / 6.0), number(2.0 / 3.0));
    let v = T::one() - u;
    (
        [
            v * v * v * sixth,
            u * u * (half * u - T::one()) + two_thirds,
            v * v * (half * v - T::one()) + two_thirds,
            u * u * u * sixth,
        ],
        [half * v * v, half + u * v, half * u * u],
    )
}

impl FilterTable {
    /// Tabulates with the fewest intervals (a power of two from 512 to 8192) that bring the relative errors of W and
    /// W', measured in the middle and at the first quarter of every interval, below 3e-8 and 1e-6.
    pub fn new(filter: &RadialFilter) -> Self {
        let mut intervals = INTERVALS.0;
        loop {
            let table = Self::with_intervals(filter, intervals);
            if table.error.acceptable() || intervals == INTERVALS.1 {
                return table;
            }
            intervals *= 2;
        }
    }

    /// Tabulates with a given number of intervals.
    pub fn with_intervals(filter: &RadialFilter, intervals: usize) -> Self {
        let spacing = filter.cutoff() / intervals as f64;
        let width = filter.width();
        let mut coefficients: Vec<_> =
            (0..filter.distinct()).map(|layer| interpolate(filter, layer, intervals, spacing)).collect();
        coefficients.resize(filter.layers(), coefficients[0].clone());
        let error = TableError::default();
        let mut table = FilterTable { intervals, spacing, width, coefficients, error };
        table.error = table.measure(filter);
        table
    }

    /// The knots alone.
    pub fn grid(&self) -> Grid {
        Grid { intervals: self.intervals, spacing: self.spacing }
    }

    fn measure(&self, filter: &RadialFilter) -> TableError {
        let intervals = (0..filter.distinct()).flat_map(|layer| (0..self.intervals).map(move |k| (layer, k)));
        let intervals: Vec<_> = intervals.collect();
        intervals
            .par_chunks(64)
            .map(|chunk| {
                let mut error = TableError::default();
                let (mut w, mut dw) = (vec![0.0; self.width], vec![0.0; self.width]);
                for &(layer, k) in chunk {
                    for u in [0.25f64, 0.5] {
                        let d = (k as f64 + u) * self.spacing;
                        filter.evaluate(layer, d, &mut w, &mut dw);
                        let (b, e) = spline_weights(u);
                        for f in 0..self.width {
                            let c = |m: usize| self.coefficients[layer][(k + m) * self.width + f];
                            let value: f64 = (0..4).map(|m| b[m] * c(m)).sum();
                            let slope: f64 = (0..3).map(|m| e[m] * (c(m + 1) - c(m))).sum::<f64>() / self.spacing;
                            error = error.max(TableError {
                                value: (value - w[f]).abs(),
                                derivative: (slope - dw[f]).abs(),
                                value_scale: if d < SHORTEST { 0.0 } else { w[f].abs() },
                                derivative_scale: if d < SHORTEST { 0.0 } else { dw[f].abs() },
                            });
                        }
                    }
                }
                error
            })
            .reduce(TableError::default, TableError::max)
    }
}

/// The clamped interpolating spline: through W at every knot, with the exact W' at both ends.
fn interpolate(filter: &RadialFilter, layer: usize, intervals: usize, h: f64) -> Vec<f64> {
    let width = filter.width();
    let n = intervals;
    // c[i + 1] belongs to knot i; the right-hand sides are solved in place.
    let mut c = vec![0.0; (n + 3) * width];
    let mut slopes = [vec![0.0; width], vec![0.0; width]];
    c[width..(n + 2) * width]
        .par_chunks_mut(width)
        .enumerate()
        .for_each_init(|| vec![0.0; width], |dw, (i, w)| filter.evaluate(layer, i as f64 * h, w, dw));
    let mut unused = vec![0.0; width];
    filter.evaluate(layer, 0.0, &mut unused, &mut slopes[0]);
    filter.evaluate(layer, filter.cutoff(), &mut unused, &mut slopes[1]);
    // (c[i−1] + 4 c[i] + c[i+1]) / 6 = W_i, with the outermost c eliminated by (c[i+1] − c[i−1]) / 2h = W'_i:
    // tridiagonal with off-diagonals 1 (2 in the first and last row) and diagonal 4, on 6 W.
    for f in 0..width {
        c[width + f] += h * slopes[0][f] / 3.0;
        c[(n + 1) * width + f] -= h * slopes[1][f] / 3.0;
    }
    let mut upper = vec![0.0; n + 1];
    for i in 0..=n {
        let (below, above) = (if i == n { 2.0 } else { 1.0 }, if i == 0 { 2.0 } else { 1.0 });
        let pivot = if i == 0 { 4.0 } else { 4.0 - below * upper[i - 1] };
        upper[i] = above / pivot;
        for f in 0..width {
            let previous = if i == 0 { 0.0 } else { below * c[i * width + f] };
            let here = &mut c[(i + 1) * width + f];
            *here = (6.0 * *here - previous) / pivot;
        }
    }
    for i in (0..n).rev() {
        for f in 0..width {
            c[(i + 1) * width + f] -= upper[i] * c[(i + 2) * width + f];
        }
    }
    for f in 0..width {
        c[f] = c[2 * width + f] - 2.0 * h * slopes[0][f];
        c[(n + 2) * width + f] = c[n * width + f] + 2.0 * h * slopes[1][f];
    }
    c
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Dense, RadialBasis, RadialMap};

    /// A filter of each kind.
    fn filters() -> [RadialFilter; 3] {
        [filter(false, false), filter(true, false), filter(false, true)]
    }

    fn filter(hidden: bool, bessel: bool) -> RadialFilter {
        let wave = |n: usize, scale: f64| (0..n).map(|i| scale * (1.7 * i as f64).sin()).collect::<Vec<_>>();
        let dense = |i: usize, o: usize| Dense { inputs: i, outputs: o, weight: wave(i * o, 0.6), bias: wave(o, 0.3) };
        let map = if hidden {
            RadialMap::with_hidden_layer(&dense(8, 5), &dense(5, 6))
        } else {
            RadialMap::linear(&dense(8, 6))
        };
        let basis = if bessel {
            let frequencies = (1..9).map(|k| k as f64 * std::f64::consts::PI / 5.0).collect();
            RadialBasis::Bessel { frequencies, scale: 1.0 }
        } else {
            RadialBasis::Gaussian { centers: (0..8).map(|k| k as f64 * 5.0 / 7.0).collect(), gammas: vec![1.0; 8] }
        };
        RadialFilter::new(5.0, basis, vec![map.clone(), map], 2)
    }

    #[test]
    fn direct_derivatives_are_those_of_the_values() {
        for filter in filters() {
            let at = |d: f64| {
                let (mut w, mut dw) = (vec![0.0; 6], vec![0.0; 6]);
                filter.evaluate(1, d, &mut w, &mut dw);
                (w, dw)
            };
            for d in [0.1, 0.9, 2.3, 4.99] {
                let h = 1e-5;
                let (plus, minus, slope) = (at(d + h).0, at(d - h).0, at(d).1);
                for f in 0..6 {
                    assert!(((plus[f] - minus[f]) / (2.0 * h) - slope[f]).abs() < 1e-8);
                }
            }
        }
    }

    #[test]
    fn spline_weights_are_a_partition_of_one() {
        for u in [0.0f64, 0.3, 1.0] {
            let (b, e) = spline_weights(u);
            assert!((b.iter().sum::<f64>() - 1.0).abs() < 1e-15);
            assert!((e.iter().sum::<f64>() - 1.0).abs() < 1e-15);
        }
    }

    /// The clamped cubic spline converges with the fourth power of the spacing, its slope with the third
    /// (de Boor, A Practical Guide to Splines, ch. V).
    #[test]
    fn tables_converge_at_the_order_of_a_cubic_spline() {
        for filter in filters() {
            let errors = [32, 64, 128].map(|n| FilterTable::with_intervals(&filter, n).error);
            for pair in errors.windows(2) {
                let (value, slope) = (pair[0].value / pair[1].value, pair[0].derivative / pair[1].derivative);
                assert!((12.0..21.0).contains(&value), "{value}");
                assert!((6.0..10.5).contains(&slope), "{slope}");
            }
            assert!(FilterTable::new(&filter).error.acceptable());
        }
    }

    #[test]
    fn the_last_distance_before_the_cutoff_is_in_the_table() {
        let grid = FilterTable::with_intervals(&filter(false, false), 512).grid();
        assert_eq!(grid.locate(5.0f64.next_down()).0, 511);
        assert_eq!(grid.locate(0.0), (0, 0.0));
    }
}
