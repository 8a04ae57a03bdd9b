//! The message block and its adjoint: a task is one chunk of atoms (see [`Pairs`]) and one slice of [`LANES`] channels.
//!
//! What a task needs of the filter table and of the atoms stays in the processor's second cache. Both ends of a shared
//! pair are served at once, so that its filter is evaluated once; a directed pair serves the atom of its row. A task
//! writes to its own atoms alone and in the order of their rows, so every sum has a fixed order.
//!
//! Notation as in ARCHITECTURE.md: x = (x^q, x^R, x^μ) is what an atom sends, W = (W^q, W^R, W^μ) the filter at the
//! pair's distance, û the direction from i to j. What all atoms send lies as `[atom][slice][3][LANES]` (see
//! [`Dense::sliced`](super::dense::Dense::sliced)), vectors as `[atom][c][F]`. F is padded to whole slices.

use super::filters::{Computed, PairFilter, RowFilters, Source};
use super::geometry::{Pair, Pairs};
use super::real::Real;
use super::simd::{Isa, Kernel, LANES, V, Vector, align_stack, dispatch, get, prefetch, put};

/// Gradients of the energy with respect to a pair's distance and direction, summed over layers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PairGradient<T> {
    pub distance: T,
    pub direction: [T; 3],
}

/// A chunk of atoms and a slice of channels in one layer.
#[derive(Clone, Copy)]
pub(super) struct Task<'a, T> {
    /// F.
    pub features: usize,
    pub filters: &'a Source<T>,
    pub layer: usize,
    pub slice: usize,
    pub pairs: &'a Pairs<T>,
    /// The chunk's first atom.
    pub first: usize,
}

/// Numbers an atom that a task of [`forward`] writes: what messages add to q, then to μ.
pub(super) const FORWARD: usize = 4 * LANES;

/// Numbers an atom that a task of [`backward`] writes: the gradient of x, then what messages add to that of μ.
pub(super) const BACKWARD: usize = 6 * LANES;

/// So many pairs ahead memory is asked for.
const AHEAD: usize = 2;

/// A row of pairs.
struct Row<'a, T> {
    /// Index of the first.
    start: usize,
    pairs: &'a [Pair<T>],
    /// So many of them are shared.
    shared: usize,
}

/// What a pass does with the pairs of one atom.
trait Rows<T: Real> {
    fn row<I: Isa>(&mut self, filters: &impl RowFilters<I, T>, atom: usize, row: &Row<T>);
}

impl<T: Real> Task<'_, T> {
    /// Goes through the rows of the chunk's atoms.
    #[inline(always)]
    fn each_row<I: Isa>(&self, atoms: usize, pass: &mut impl Rows<T>) {
        for atom in self.first..self.first + atoms {
            let row = self.row(atom);
            match self.filters {
                Source::Table(table) => pass.row::<I>(&table.slice(self.layer, self.slice), atom, &row),
                Source::Direct(filters) => {
                    pass.row::<I>(&Computed::new(&filters[self.slice], self.layer, row.pairs), atom, &row);
                }
            }
        }
    }

    /// The row of an atom.
    #[inline(always)]
    fn row(&self, atom: usize) -> Row<'_, T> {
        let start = self.pairs.offsets[atom];
        let pairs = &self.pairs.pairs[start..self.pairs.offsets[atom + 1]];
        Row { start, pairs, shared: self.pairs.shared[atom] - start }
    }

    /// A pair that comes soon after one.
    #[inline(always)]
    fn soon(&self, pair: usize) -> &Pair<T> {
        &self.pairs.pairs[(pair + AHEAD).min(self.pairs.pairs.len() - 1)]
    }

    /// What an atom sends in this slice, of what all atoms send.
    #[inline(always)]
    fn sent<'b>(&self, x: &'b [T], atom: usize) -> &'b [T] {
        &x[(atom * self.features + self.slice * LANES) * 3..][..3 * LANES]
    }

    /// An atom's scalars in this slice.
    #[inline(always)]
    fn scalars<'b>(&self, q: &'b [T], atom: usize) -> &'b [T] {
        &q[atom * self.features + self.slice * LANES..][..LANES]
    }

    /// An atom's vectors from this slice on, `[c][F]`.
    #[inline(always)]
    fn vectors<'b>(&self, mu: &'b [T], atom: usize) -> &'b [T] {
        &mu[atom * 3 * self.features + self.slice * LANES..][..2 * self.features + LANES]
    }

    /// Asks for what [`sent`](Self::sent) and [`vectors`](Self::vectors) will give.
    #[inline(always)]
    fn prefetch(&self, scalars: (&[T], usize), vectors: Option<&[T]>, atom: usize) {
        let (x, lines) = scalars;
        for line in 0..lines {
            prefetch(x, (atom * self.features + self.slice * LANES) * lines + line * LANES);
        }
        if let Some(mu) = vectors {
            for c in 0..3 {
                prefetch(mu, (atom * 3 + c) * self.features + self.slice * LANES);
            }
        }
    }
}

/// The three components of vectors from the channel `k` of a slice on.
///
/// # Safety
/// `vectors`, as [`Task::vectors`] gives them, reach so far: k and a vector's length make no more than [`LANES`].
#[inline(always)]
unsafe fn components<I: Isa, T: Real>(vectors: &[T], f: usize, k: usize) -> [V<I, T>; 3] {
    // SAFETY: the caller's promise.
    unsafe {
        let from = vectors.as_ptr().add(k);
        [V::<I, T>::load(from), V::<I, T>::load(from.add(f)), V::<I, T>::load(from.add(2 * f))]
    }
}

/// Some channels of the part `part` of a slice.
///
/// # Safety
/// The slice has so many parts, and k and a vector's length make no more than [`LANES`].
#[inline(always)]
unsafe fn part<I: Isa, T: Real>(slice: &[T], part: usize, k: usize) -> V<I, T> {
    // SAFETY: the caller's promise.
    unsafe { V::<I, T>::load(slice.as_ptr().add(part * LANES + k)) }
}

/// a · b.
#[inline(always)]
fn dot<I: Isa, T: Real>(a: [V<I, T>; 3], b: [V<I, T>; 3]) -> V<I, T> {
    a[2].fma(b[2], a[1].fma(b[1], a[0].mul(b[0])))
}

#[inline(always)]
fn splat<I: Isa, T: Real>(u: [T; 3]) -> [V<I, T>; 3] {
    [V::<I, T>::splat(u[0]), V::<I, T>::splat(u[1]), V::<I, T>::splat(u[2])]
}

/// Adds a · b to what stands there.
///
/// # Safety
/// A vector can be read and written at `to`.
#[inline(always)]
unsafe fn gather<I: Isa, T: Real>(a: V<I, T>, b: V<I, T>, to: *mut T) {
    // SAFETY: the caller's promise.
    unsafe { a.fma(b, V::<I, T>::load(to)).store(to) }
}

/// What the messages of all neighbours add to q and μ of a chunk's atoms, `[atom][FORWARD]`:
///
/// q_i += Σ_j W^q x^q_j,  μ_i,c += Σ_j W^R x^R_j û_c + W^μ x^μ_j μ_j,c.
///
/// `x` and `mu` are those of all atoms; `mu` is `None` in the first layer, where every μ is zero.
pub(super) fn forward<T: Real>(task: Task<T>, x: &[T], mu: Option<&[T]>, out: &mut [T]) {
    dispatch(Forward { task, x, mu, out });
}

struct Forward<'a, T> {
    task: Task<'a, T>,
    x: &'a [T],
    mu: Option<&'a [T]>,
    out: &'a mut [T],
}

impl<T: Real> Kernel for Forward<'_, T> {
    #[inline(always)]
    fn run<I: Isa>(mut self) {
        align_stack();
        self.out.fill(T::zero());
        let (task, atoms) = (self.task, self.out.len() / FORWARD);
        task.each_row::<I>(atoms, &mut self);
    }
}

impl<T: Real> Rows<T> for Forward<'_, T> {
    #[inline(always)]
    fn row<I: Isa>(&mut self, filters: &impl RowFilters<I, T>, atom: usize, row: &Row<T>) {
        let (len, own) = (V::<I, T>::LEN, (atom - self.task.first) * FORWARD);
        // As many sums as there are registers for.
        let together = (LANES / len).min(2);
        for first in (0..LANES).step_by(together * len) {
            let mut sums = [[V::<I, T>::zero(); 4]; 2];
            for v in 0..together {
                for s in 0..4 {
                    sums[v][s] = get::<I, T>(self.out, own + s * LANES + first + v * len);
                }
            }
            for n in 0..row.shared {
                self.pair::<I, true>(filters, (atom, row, n), (first, together), &mut sums);
            }
            for n in row.shared..row.pairs.len() {
                self.pair::<I, false>(filters, (atom, row, n), (first, together), &mut sums);
            }
            for v in 0..together {
                for s in 0..4 {
                    put::<I, T>(sums[v][s], self.out, own + s * LANES + first + v * len);
                }
            }
        }
    }
}

impl<T: Real> Forward<'_, T> {
    /// The message of the row's pair `n` to the row's atom, for some vectors from the channel `first` on, and the message
    /// back if the pair is shared.
    #[inline(always)]
    fn pair<I: Isa, const SHARED: bool>(
        &mut self,
        filters: &impl RowFilters<I, T>,
        (atom, row, n): (usize, &Row<T>, usize),
        (first, together): (usize, usize),
        sums: &mut [[V<I, T>; 4]; 2],
    ) {
        let (task, f) = (&self.task, self.task.features);
        let soon = task.soon(row.start + n);
        filters.prefetch(soon);
        task.prefetch((self.x, 3), self.mu, soon.neighbor as usize);

        let pair = &row.pairs[n];
        let j = pair.neighbor as usize;
        let filter = filters.of(n, pair);
        let (x, own) = (task.sent(self.x, j), task.sent(self.x, atom));
        let mu = self.mu.map(|mu| (task.vectors(mu, j), task.vectors(mu, atom)));
        let u = splat::<I, T>(pair.direction);
        let out = if SHARED { &mut self.out[(j - task.first) * FORWARD..][..FORWARD] } else { &mut [] };
        for v in 0..together {
            let k = first + v * V::<I, T>::LEN;
            // SAFETY: k is a vector's place in a slice, and so long are the parts of all arrays here.
            unsafe {
                let to = out.as_mut_ptr().wrapping_add(k);
                let w = filter.value(k);
                sums[v][0] = w.fma(part::<I, T>(x, 0, k), sums[v][0]);
                if SHARED {
                    gather::<I, T>(w, part::<I, T>(own, 0, k), to);
                }
                let w = filter.value(LANES + k);
                let radial = w.mul(part::<I, T>(x, 1, k));
                for c in 0..3 {
                    sums[v][1 + c] = radial.fma(u[c], sums[v][1 + c]);
                }
                if SHARED {
                    let radial = w.mul(part::<I, T>(own, 1, k));
                    for c in 0..3 {
                        let to = to.add((1 + c) * LANES);
                        radial.fnma(u[c], V::<I, T>::load(to)).store(to);
                    }
                }
                if let Some((mu, own_mu)) = mu {
                    let w = filter.value(2 * LANES + k);
                    let (m, turned) = (components::<I, T>(mu, f, k), w.mul(part::<I, T>(x, 2, k)));
                    for c in 0..3 {
                        sums[v][1 + c] = turned.fma(m[c], sums[v][1 + c]);
                    }
                    if SHARED {
                        let m = components::<I, T>(own_mu, f, k);
                        let turned = w.mul(part::<I, T>(own, 2, k));
                        for c in 0..3 {
                            gather::<I, T>(turned, m[c], to.add((1 + c) * LANES));
                        }
                    }
                }
            }
        }
    }
}

/// The adjoint for a chunk's atoms j as senders, `[atom][BACKWARD]`: gathers the gradients g_q, g_μ (of all atoms,
/// `centres`) of the centres i that j sends to.
///
/// - x's gradient is Σ_i (W^q g_q,i, W^R (û·g_μ,i), W^μ (μ_j·g_μ,i));
/// - j's g_μ gains Σ_i W^μ x^μ_j g_μ,i;
/// - each pair's gradient gains ∂E/∂d and ∂E/∂û, of a directed pair its half alone: that of the message from the row's
///   atom. `gradients` are those of the chunk's pairs.
///
/// `x` and `mu` are those of all atoms. In the first layer, where `mu` is `None`, nothing but pairs has gradients: no
/// position reaches the embedding; `atoms` says how many there are.
pub(super) fn backward<T: Real>(
    task: Task<T>,
    (x, mu): (&[T], Option<&[T]>),
    centres: (&[T], &[T]),
    atoms: usize,
    out: &mut [T],
    gradients: &mut [PairGradient<T>],
) {
    dispatch(Backward { task, x, mu, centres, atoms, out, gradients });
}

struct Backward<'a, T> {
    task: Task<'a, T>,
    x: &'a [T],
    mu: Option<&'a [T]>,
    centres: (&'a [T], &'a [T]),
    atoms: usize,
    out: &'a mut [T],
    gradients: &'a mut [PairGradient<T>],
}

impl<T: Real> Kernel for Backward<'_, T> {
    #[inline(always)]
    fn run<I: Isa>(mut self) {
        align_stack();
        self.out.fill(T::zero());
        let (task, atoms) = (self.task, self.atoms);
        task.each_row::<I>(atoms, &mut self);
    }
}

impl<T: Real> Rows<T> for Backward<'_, T> {
    #[inline(always)]
    fn row<I: Isa>(&mut self, filters: &impl RowFilters<I, T>, atom: usize, row: &Row<T>) {
        for n in 0..row.shared {
            self.pair::<I, true>(filters, atom, row, n);
        }
        for n in row.shared..row.pairs.len() {
            self.pair::<I, false>(filters, atom, row, n);
        }
    }
}

impl<T: Real> Backward<'_, T> {
    /// The row's pair `n` as a message from the row's atom j, and back if the pair is shared. Its û points from j to the
    /// neighbour i, against that of the message from j to i.
    #[inline(always)]
    fn pair<I: Isa, const SHARED: bool>(
        &mut self,
        filters: &impl RowFilters<I, T>,
        atom: usize,
        row: &Row<T>,
        n: usize,
    ) {
        let (task, f) = (&self.task, self.task.features);
        let soon = task.soon(row.start + n);
        filters.prefetch(soon);
        task.prefetch((self.centres.0, 1), Some(self.centres.1), soon.neighbor as usize);

        let pair = &row.pairs[n];
        let i = pair.neighbor as usize;
        let filter = filters.of(n, pair);
        let (gq, own_gq) = (task.scalars(self.centres.0, i), task.scalars(self.centres.0, atom));
        let (gmu, own_gmu) = (task.vectors(self.centres.1, i), task.vectors(self.centres.1, atom));
        let (x, own_x) = (task.sent(self.x, i), task.sent(self.x, atom));
        let mu = self.mu.map(|mu| (task.vectors(mu, i), task.vectors(mu, atom)));
        let u = splat::<I, T>(pair.direction);
        let (mut out, mut own_out) = (std::ptr::null_mut(), std::ptr::null_mut());
        if mu.is_some() {
            own_out = self.out[(atom - task.first) * BACKWARD..][..BACKWARD].as_mut_ptr();
            if SHARED {
                out = self.out[(i - task.first) * BACKWARD..][..BACKWARD].as_mut_ptr();
            }
        }
        let mut along = [V::<I, T>::zero(); 3];
        let mut across = [V::<I, T>::zero(); 3];
        for k in (0..LANES).step_by(V::<I, T>::LEN) {
            // SAFETY: k is a vector's place in a slice, and so long are the parts of all arrays here; `out` and `own_out`
            // are used where there is a μ, and then point to BACKWARD numbers of two atoms.
            unsafe {
                let g = components::<I, T>(gmu, f, k);
                let own_g = components::<I, T>(own_gmu, f, k);
                let ug = dot::<I, T>(u, g);
                let own_ug = dot::<I, T>(u, own_g);

                let (xr, own_xr) = (part::<I, T>(x, 1, k), part::<I, T>(own_x, 1, k));
                let mut y = V::<I, T>::zero().sub(own_xr.mul(ug));
                if SHARED {
                    y = xr.fma(own_ug, y);
                }
                let w = filter.value_and_slope(LANES + k, y, &mut along);
                let radial = w.mul(own_xr);
                for c in 0..3 {
                    across[c] = radial.fnma(g[c], across[c]);
                }
                if SHARED {
                    let radial = w.mul(xr);
                    for c in 0..3 {
                        across[c] = radial.fma(own_g[c], across[c]);
                    }
                }
                if mu.is_some() {
                    let to = own_out.add(LANES + k);
                    w.fnma(ug, V::<I, T>::load(to)).store(to);
                    if SHARED {
                        gather::<I, T>(w, own_ug, out.add(LANES + k));
                    }
                }

                let (gq, own_gq) = (part::<I, T>(gq, 0, k), part::<I, T>(own_gq, 0, k));
                let mut y = part::<I, T>(own_x, 0, k).mul(gq);
                if SHARED {
                    y = part::<I, T>(x, 0, k).fma(own_gq, y);
                }
                let w = filter.value_and_slope(k, y, &mut along);
                if let Some((mu, own_mu)) = mu {
                    gather::<I, T>(w, gq, own_out.add(k));
                    if SHARED {
                        gather::<I, T>(w, own_gq, out.add(k));
                    }

                    let (xm, own_xm) = (part::<I, T>(x, 2, k), part::<I, T>(own_x, 2, k));
                    let mg = dot::<I, T>(components::<I, T>(own_mu, f, k), g);
                    let own_mg = dot::<I, T>(components::<I, T>(mu, f, k), own_g);
                    let mut y = own_xm.mul(mg);
                    if SHARED {
                        y = xm.fma(own_mg, y);
                    }
                    let w = filter.value_and_slope(2 * LANES + k, y, &mut along);
                    gather::<I, T>(w, mg, own_out.add(2 * LANES + k));
                    let turned = w.mul(own_xm);
                    for c in 0..3 {
                        gather::<I, T>(turned, g[c], own_out.add((3 + c) * LANES + k));
                    }
                    if SHARED {
                        gather::<I, T>(w, own_mg, out.add(2 * LANES + k));
                        let turned = w.mul(xm);
                        for c in 0..3 {
                            gather::<I, T>(turned, own_g[c], out.add((3 + c) * LANES + k));
                        }
                    }
                }
            }
        }
        let ends = V::<I, T>::sums([filter.along(along), across[0], across[1], across[2]]);
        let gradient = &mut self.gradients[row.start + n - self.task.pairs.offsets[self.task.first]];
        gradient.distance += ends[0];
        for c in 0..3 {
            gradient.direction[c] += ends[1 + c];
        }
    }
}
