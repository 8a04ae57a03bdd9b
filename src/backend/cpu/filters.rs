//! Radial filters of one pair, from a table or evaluated directly.

use super::geometry::Pair;
use super::real::Real;
use super::simd::{Isa, V, Vector, padded};
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

/// The filter of one pair: 3F values W and derivatives W', asked for in vectors.
pub(super) trait PairFilter<I: Isa, T: Real> {
    /// W from the number `at` on.
    ///
    /// # Safety
    /// `at` and a vector's length make no more than 3F.
    unsafe fn value(&self, at: usize) -> V<I, T>;

    /// W and W' from the number `at` on.
    ///
    /// # Safety
    /// As [`value`](Self::value).
    unsafe fn value_and_derivative(&self, at: usize) -> (V<I, T>, V<I, T>);
}

/// Spline coefficients of the pair's interval with their weights.
pub(super) struct Spline<'a, I: Isa, T: Real> {
    /// `[4][3F]`.
    coefficients: &'a [T],
    width: usize,
    /// Of the coefficients.
    weights: [V<I, T>; 4],
    /// Of the differences of neighbouring coefficients, for the derivative.
    slopes: [V<I, T>; 3],
}

/// Values that have been computed.
pub(super) struct Computed<T> {
    values: Vec<T>,
    derivatives: Vec<T>,
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

/// The filter of a pair from a table with rows of `width` numbers.
#[inline(always)]
pub(super) fn spline<'a, I: Isa, T: Real>(
    coefficients: &'a [T],
    width: usize,
    per_angstrom: T,
    pair: &Pair<T>,
) -> Spline<'a, I, T> {
    let start = pair.interval as usize * width;
    let ([a, b, c, d], [e, f, g]) = spline_weights(pair.fraction);
    Spline {
        coefficients: &coefficients[start..start + 4 * width],
        width,
        weights: [V::<I, T>::splat(a), V::<I, T>::splat(b), V::<I, T>::splat(c), V::<I, T>::splat(d)],
        slopes: [
            V::<I, T>::splat(e * per_angstrom),
            V::<I, T>::splat(f * per_angstrom),
            V::<I, T>::splat(g * per_angstrom),
        ],
    }
}

/// The filter of a pair from the radial functions.
pub(super) fn compute<T: Real>(filter: &RadialFilter, layer: usize, pair: &Pair<T>) -> Computed<T> {
    let (mut w, mut dw) = (vec![0.0; filter.width()], vec![0.0; filter.width()]);
    filter.evaluate(layer, pair.distance.wide(), &mut w, &mut dw);
    Computed { values: pad_thirds(&w), derivatives: pad_thirds(&dw) }
}

/// 3F numbers with each third padded by zeros.
fn pad_thirds<T: Real>(x: &[f64]) -> Vec<T> {
    let f = x.len() / 3;
    x.chunks_exact(f)
        .flat_map(|third| third.iter().map(|&x| T::of(x)).chain(std::iter::repeat_n(T::zero(), padded(f) - f)))
        .collect()
}

impl<I: Isa, T: Real> Spline<'_, I, T> {
    /// Coefficients of the row `m` of four.
    ///
    /// # Safety
    /// As [`PairFilter::value`].
    #[inline(always)]
    unsafe fn row(&self, m: usize, at: usize) -> V<I, T> {
        // SAFETY: there are four rows, and the caller stays inside one.
        unsafe { V::<I, T>::load(self.coefficients.as_ptr().add(m * self.width + at)) }
    }
}

impl<I: Isa, T: Real> PairFilter<I, T> for Spline<'_, I, T> {
    #[inline(always)]
    unsafe fn value(&self, at: usize) -> V<I, T> {
        // SAFETY: the caller's promise.
        unsafe {
            let mut sum = self.row(0, at).mul(self.weights[0]);
            for m in 1..4 {
                sum = self.row(m, at).fma(self.weights[m], sum);
            }
            sum
        }
    }

    #[inline(always)]
    unsafe fn value_and_derivative(&self, at: usize) -> (V<I, T>, V<I, T>) {
        // SAFETY: the caller's promise.
        let c = unsafe { [self.row(0, at), self.row(1, at), self.row(2, at), self.row(3, at)] };
        let mut value = c[0].mul(self.weights[0]);
        let mut slope = c[1].sub(c[0]).mul(self.slopes[0]);
        for m in 1..4 {
            value = c[m].fma(self.weights[m], value);
        }
        for m in 1..3 {
            slope = c[m + 1].sub(c[m]).fma(self.slopes[m], slope);
        }
        (value, slope)
    }
}

impl<I: Isa, T: Real> PairFilter<I, T> for Computed<T> {
    #[inline(always)]
    unsafe fn value(&self, at: usize) -> V<I, T> {
        // SAFETY: the caller's promise.
        unsafe { V::<I, T>::load(self.values.as_ptr().add(at)) }
    }

    #[inline(always)]
    unsafe fn value_and_derivative(&self, at: usize) -> (V<I, T>, V<I, T>) {
        // SAFETY: the caller's promise; there are as many derivatives as values.
        unsafe { (V::<I, T>::load(self.values.as_ptr().add(at)), V::<I, T>::load(self.derivatives.as_ptr().add(at))) }
    }
}
