//! Radial filters of pairs, from a table or evaluated directly, [`LANES`] channels at a time.

use super::aligned::Aligned;
use super::geometry::Pair;
use super::real::Real;
use super::simd::{Isa, LANES, V, Vector, padded};
use crate::model::{Grid, Model, RadialFilter, spline_weights};

/// How radial filters are evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filters {
    /// From the radial functions, in float64: the oracle.
    Direct,
    /// From a cubic B-spline table, see [`crate::model::FilterTable`].
    Table,
}

/// The filters of all layers, a slice of [`LANES`] channels at a time.
pub(super) enum Source<T> {
    /// A filter a slice, with [`SLICE`] outputs.
    Direct(Vec<RadialFilter>),
    Table(Table<T>),
}

/// A distance's place in the filter table.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place<T> {
    interval: u32,
    /// Of the coefficients.
    weights: [T; 4],
    /// Of the last two of them together.
    upper: T,
    /// Of the differences of neighbouring coefficients in the derivative, 1/Å.
    slopes: [T; 3],
}

impl<T: Real> Source<T> {
    pub fn new(model: &Model, how: Filters) -> Self {
        match how {
            Filters::Direct => {
                Source::Direct(sliced(model.filter.width()).map(|of| model.filter.select(&of)).collect())
            }
            Filters::Table => Source::Table(Table::new(model)),
        }
    }

    /// A distance's place in the table, if there is one.
    pub fn locate(&self, d: f64) -> Place<T> {
        match self {
            Source::Direct(_) => Place::default(),
            Source::Table(table) => {
                let (interval, fraction) = table.grid.locate(d);
                let (weights, slopes) = spline_weights(T::of(fraction));
                let slopes = slopes.map(|slope| slope * table.per_angstrom);
                Place { interval: interval as u32, weights, upper: weights[2] + weights[3], slopes }
            }
        }
    }
}

/// The filters of a row of pairs in one slice of channels.
pub(super) trait RowFilters<I: Isa, T: Real> {
    /// The filter of the row's pair `n`.
    fn of<'a>(&'a self, n: usize, pair: &'a Pair<T>) -> impl PairFilter<I, T> + 'a;
}

/// The filter of one pair in one slice: values W and derivatives W' of three times [`LANES`] channels.
///
/// Of W' nothing but sums over channels is asked for: a spline leaves its weights out until the end.
pub(super) trait PairFilter<I: Isa, T: Real> {
    /// W from the channel `at` on.
    ///
    /// # Safety
    /// `at` and a vector's length make no more than 3 [`LANES`].
    unsafe fn value(&self, at: usize) -> V<I, T>;

    /// W from the channel `at` on; adds y W' to `along`, up to what [`along`](Self::along) does to the sum over channels.
    ///
    /// # Safety
    /// As [`value`](Self::value).
    unsafe fn value_and_slope(&self, at: usize, y: V<I, T>, along: &mut [V<I, T>; 3]) -> V<I, T>;

    /// The sum of y W' that has been gathered.
    fn along(&self, sums: [V<I, T>; 3]) -> V<I, T>;
}

/// Numbers of a filter in one slice.
const SLICE: usize = 3 * LANES;

/// The [`SLICE`] numbers of each slice: which they were of 3F (three parts of F each), if any, where F is rounded up to
/// whole slices.
fn sliced(width: usize) -> impl Iterator<Item = Vec<Option<usize>>> {
    let f = width / 3;
    (0..padded(f)).step_by(LANES).map(move |first| {
        let channel = |n: usize| Some(first + n % LANES).filter(|&channel| channel < f);
        (0..SLICE).map(|n| channel(n).map(|channel| n / LANES * f + channel)).collect()
    })
}

/// A [`crate::model::FilterTable`] in the network's precision.
pub(super) struct Table<T> {
    /// A layer each: `[F / LANES][intervals + 3][SLICE]`.
    coefficients: Vec<Aligned<T>>,
    /// Numbers of a slice.
    stride: usize,
    grid: Grid,
    per_angstrom: T,
}

impl<T: Real> Table<T> {
    fn new(model: &Model) -> Self {
        let table = model.filter_table();
        let slices: Vec<_> = sliced(table.width).collect();
        let layer = |coefficients: &Vec<f64>| {
            let rows = || coefficients.chunks_exact(table.width);
            let pick = |row: &[f64], of: &Option<usize>| of.map_or(T::zero(), |of| T::of(row[of]));
            let numbers = slices.iter().flat_map(|slice| rows().flat_map(|row| slice.iter().map(|of| pick(row, of))));
            Aligned::from(numbers.collect::<Vec<T>>().as_slice())
        };
        Table {
            coefficients: table.coefficients.iter().map(layer).collect(),
            stride: (table.intervals + 3) * SLICE,
            grid: table.grid(),
            per_angstrom: T::of(1.0 / table.spacing),
        }
    }

    #[inline(always)]
    pub fn slice(&self, layer: usize, slice: usize) -> TableSlice<'_, T> {
        TableSlice { coefficients: &self.coefficients[layer][slice * self.stride..(slice + 1) * self.stride] }
    }
}

/// One layer's table for one slice of channels.
pub(super) struct TableSlice<'a, T> {
    /// `[intervals + 3][SLICE]`.
    coefficients: &'a [T],
}

impl<I: Isa, T: Real> RowFilters<I, T> for TableSlice<'_, T> {
    #[inline(always)]
    fn of<'b>(&'b self, _: usize, pair: &'b Pair<T>) -> impl PairFilter<I, T> + 'b {
        let place = &pair.place;
        let first = place.interval as usize * SLICE;
        debug_assert!(first + 4 * SLICE <= self.coefficients.len());
        // SAFETY: a place is one in this table, which has three knots more than intervals.
        Spline { coefficients: unsafe { self.coefficients.get_unchecked(first..first + 4 * SLICE) }, place }
    }
}

/// Spline coefficients of a pair's interval, and the pair with their weights.
struct Spline<'a, T> {
    /// `[4][SLICE]`.
    coefficients: &'a [T],
    place: &'a Place<T>,
}

impl<T: Real> Spline<'_, T> {
    /// Some channels of the coefficient `m`.
    ///
    /// # Safety
    /// As [`PairFilter::value`], with m < 4.
    #[inline(always)]
    unsafe fn row<I: Isa>(&self, m: usize, at: usize) -> V<I, T> {
        // SAFETY: there are four rows, and the caller stays inside one.
        unsafe { V::<I, T>::load(self.coefficients.as_ptr().add(m * SLICE + at)) }
    }
}

impl<I: Isa, T: Real> PairFilter<I, T> for Spline<'_, T> {
    #[inline(always)]
    unsafe fn value(&self, at: usize) -> V<I, T> {
        let w = &self.place.weights;
        // SAFETY: the caller's promise.
        unsafe {
            let mut sum = self.row::<I>(0, at).mul(V::<I, T>::splat(w[0]));
            for m in 1..4 {
                sum = self.row::<I>(m, at).fma(V::<I, T>::splat(w[m]), sum);
            }
            sum
        }
    }

    /// The weights' sum being one, W is the second coefficient and what the differences add to it.
    #[inline(always)]
    unsafe fn value_and_slope(&self, at: usize, y: V<I, T>, along: &mut [V<I, T>; 3]) -> V<I, T> {
        let w = &self.place.weights;
        // SAFETY: the caller's promise.
        unsafe {
            let (b, c) = (self.row::<I>(1, at), self.row::<I>(2, at));
            let (before, between, after) = (b.sub(self.row::<I>(0, at)), c.sub(b), c.sub(self.row::<I>(3, at)));
            along[0] = before.fma(y, along[0]);
            along[1] = between.fma(y, along[1]);
            along[2] = after.fma(y, along[2]);
            let value = between.fma(V::<I, T>::splat(self.place.upper), b);
            after.fnma(V::<I, T>::splat(w[3]), before.fnma(V::<I, T>::splat(w[0]), value))
        }
    }

    #[inline(always)]
    fn along(&self, sums: [V<I, T>; 3]) -> V<I, T> {
        let s = &self.place.slopes;
        let most = sums[1].fma(V::<I, T>::splat(s[1]), sums[0].mul(V::<I, T>::splat(s[0])));
        sums[2].fnma(V::<I, T>::splat(s[2]), most)
    }
}

/// The filters of a row of pairs in one slice, from the radial functions.
pub(super) struct Computed<T> {
    /// `[pair][SLICE]`.
    values: Vec<T>,
    derivatives: Vec<T>,
}

impl<T: Real> Computed<T> {
    /// `filter`: that of the slice.
    pub fn new(filter: &RadialFilter, layer: usize, pairs: &[Pair<T>]) -> Self {
        let (mut w, mut dw) = ([0.0; SLICE], [0.0; SLICE]);
        let (mut values, mut derivatives) = (Vec::new(), Vec::new());
        for pair in pairs {
            filter.evaluate(layer, pair.distance.wide(), &mut w, &mut dw);
            values.extend(w.map(T::of));
            derivatives.extend(dw.map(T::of));
        }
        Computed { values, derivatives }
    }
}

impl<I: Isa, T: Real> RowFilters<I, T> for Computed<T> {
    #[inline(always)]
    fn of<'b>(&'b self, n: usize, _: &'b Pair<T>) -> impl PairFilter<I, T> + 'b {
        let numbers = n * SLICE..(n + 1) * SLICE;
        Known { values: &self.values[numbers.clone()], derivatives: &self.derivatives[numbers] }
    }
}

/// A filter that has been computed.
struct Known<'a, T> {
    values: &'a [T],
    derivatives: &'a [T],
}

impl<I: Isa, T: Real> PairFilter<I, T> for Known<'_, T> {
    #[inline(always)]
    unsafe fn value(&self, at: usize) -> V<I, T> {
        // SAFETY: the caller's promise.
        unsafe { V::<I, T>::load(self.values.as_ptr().add(at)) }
    }

    #[inline(always)]
    unsafe fn value_and_slope(&self, at: usize, y: V<I, T>, along: &mut [V<I, T>; 3]) -> V<I, T> {
        // SAFETY: the caller's promise; there are as many derivatives as values.
        unsafe {
            along[0] = V::<I, T>::load(self.derivatives.as_ptr().add(at)).fma(y, along[0]);
            V::<I, T>::load(self.values.as_ptr().add(at))
        }
    }

    #[inline(always)]
    fn along(&self, sums: [V<I, T>; 3]) -> V<I, T> {
        sums[0]
    }
}
