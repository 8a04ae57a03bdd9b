//! Radial filters of one pair, from a table or evaluated directly.

use super::geometry::Pair;
use super::real::Real;
use super::simd::{Isa, LANES, Lanes, blocks, padded};
use crate::model::{Grid, Model, RadialFilter, spline_weights};

/// How radial filters are evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filters {
    /// From the radial functions, in float64: the oracle.
    Direct,
    /// From a cubic B-spline table, see [`crate::model::FilterTable`].
    Table,
}

/// The filters of all layers, in the network's precision, each third padded to whole blocks.
pub(super) enum Source<T> {
    Direct {
        filter: RadialFilter,
    },
    Table {
        /// A layer each: `[intervals + 3][3F]`.
        coefficients: Vec<Vec<T>>,
        grid: Grid,
        per_angstrom: T,
    },
}

/// The filter of one pair: 3F values W and derivatives W', asked for in blocks of eight.
pub(super) trait PairFilter<T> {
    fn value<I: Isa>(&self, block: usize) -> Lanes<T>;
    fn value_and_derivative<I: Isa>(&self, block: usize) -> (Lanes<T>, Lanes<T>);
}

/// Spline coefficients of the pair's interval with their weights.
pub(super) struct Spline<'a, T> {
    coefficients: [&'a [[T; LANES]]; 4],
    weights: [T; 4],
    /// Of the differences of neighbouring coefficients.
    slopes: [T; 3],
}

/// Values that have been computed.
pub(super) struct Computed<T> {
    values: Vec<[T; LANES]>,
    derivatives: Vec<[T; LANES]>,
}

impl<T: Real> Source<T> {
    pub fn new(model: &Model, how: Filters) -> Self {
        match how {
            Filters::Direct => Source::Direct { filter: model.filter.clone() },
            Filters::Table => {
                let table = model.filter_table();
                let narrow = |c: &Vec<f64>| c.chunks_exact(table.width).flat_map(pad_thirds).collect();
                Source::Table {
                    coefficients: table.coefficients.iter().map(narrow).collect(),
                    grid: table.grid(),
                    per_angstrom: T::of(1.0 / table.spacing),
                }
            }
        }
    }

    /// A distance's interval in the table and its place there.
    pub fn locate(&self, d: f64) -> (usize, f64) {
        match self {
            Source::Direct { .. } => (0, 0.0),
            Source::Table { grid, .. } => grid.locate(d),
        }
    }
}

/// The filter of a pair from a table.
#[inline(always)]
pub(super) fn spline<'a, T: Real>(
    coefficients: &'a [T],
    width: usize,
    per_angstrom: T,
    pair: &Pair<T>,
) -> Spline<'a, T> {
    let start = pair.interval as usize * width;
    let rows = &coefficients[start..start + 4 * width];
    let (weights, [a, b, c]) = spline_weights(pair.fraction);
    let row = |m: usize| blocks(&rows[m * width..(m + 1) * width]);
    Spline {
        coefficients: [row(0), row(1), row(2), row(3)],
        weights,
        slopes: [a * per_angstrom, b * per_angstrom, c * per_angstrom],
    }
}

/// The filter of a pair from the radial functions.
pub(super) fn compute<T: Real>(filter: &RadialFilter, layer: usize, pair: &Pair<T>) -> Computed<T> {
    let (mut w, mut dw) = (vec![0.0; filter.width()], vec![0.0; filter.width()]);
    filter.evaluate(layer, pair.distance.wide(), &mut w, &mut dw);
    let blocked = |x: &[f64]| blocks(&pad_thirds(x)).to_vec();
    Computed { values: blocked(&w), derivatives: blocked(&dw) }
}

/// 3F numbers with each third padded by zeros.
fn pad_thirds<T: Real>(x: &[f64]) -> Vec<T> {
    let f = x.len() / 3;
    x.chunks_exact(f)
        .flat_map(|third| third.iter().map(|&x| T::of(x)).chain(std::iter::repeat_n(T::zero(), padded(f) - f)))
        .collect()
}

impl<T: Real> PairFilter<T> for Spline<'_, T> {
    #[inline(always)]
    fn value<I: Isa>(&self, block: usize) -> Lanes<T> {
        let mut sum = Lanes(self.coefficients[0][block]).scale(self.weights[0]);
        for m in 1..4 {
            sum = Lanes(self.coefficients[m][block]).scale_add::<I>(self.weights[m], sum);
        }
        sum
    }

    #[inline(always)]
    fn value_and_derivative<I: Isa>(&self, block: usize) -> (Lanes<T>, Lanes<T>) {
        let [c0, c1, c2, c3] = self.coefficients;
        let c = [Lanes(c0[block]), Lanes(c1[block]), Lanes(c2[block]), Lanes(c3[block])];
        let mut value = c[0].scale(self.weights[0]);
        let mut slope = c[1].minus(c[0]).scale(self.slopes[0]);
        for m in 1..4 {
            value = c[m].scale_add::<I>(self.weights[m], value);
        }
        for m in 1..3 {
            slope = c[m + 1].minus(c[m]).scale_add::<I>(self.slopes[m], slope);
        }
        (value, slope)
    }
}

impl<T: Real> PairFilter<T> for Computed<T> {
    #[inline(always)]
    fn value<I: Isa>(&self, block: usize) -> Lanes<T> {
        Lanes(self.values[block])
    }

    #[inline(always)]
    fn value_and_derivative<I: Isa>(&self, block: usize) -> (Lanes<T>, Lanes<T>) {
        (Lanes(self.values[block]), Lanes(self.derivatives[block]))
    }
}
