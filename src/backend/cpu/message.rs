//! The message block and its adjoint: a task is one chunk of atoms (see [`Pairs`]) and one slice of [`LANES`] channels.
//!
//! What a task needs of the filter table and of the atoms stays in the processor's second cache. Both ends of a shared
//! pair are served at once, so that its filter is evaluated once; a directed pair serves the atom of its row. A task
//! writes to its own atoms alone and in the order of their rows, so every sum has a fixed order.
//!
//! Inside a row the atom's own numbers and sums stay in registers, and arrays are reached through pointers: looking at the
//! bounds of a dozen slices for every pair took a third of the time. Lengths are looked at once a task; that pairs lead
//! to atoms that there are is what [`Pairs`] promises.
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

/// The pairs of an atom.
struct Row<'a, T> {
    /// Index of the first among the chunk's.
    start: usize,
    /// They, and some that follow.
    pairs: &'a [Pair<T>],
    /// So many of them are shared.
    shared: usize,
    len: usize,
}

impl<T> Row<'_, T> {
    /// A pair that comes soon after the pair `n`.
    #[inline(always)]
    fn soon(&self, n: usize) -> &Pair<T> {
        // SAFETY: n being one of them, there is a last one.
        unsafe { self.pairs.get_unchecked((n + AHEAD).min(self.pairs.len() - 1)) }
    }
}

/// What a pass does with the pairs of one atom.
trait Rows<T: Real> {
    fn row<I: Isa>(&mut self, filters: &impl RowFilters<I, T>, atom: usize, row: &Row<T>);
}

impl<T: Real> Task<'_, T> {
    /// Goes through the rows of the chunk's atoms.
    #[inline(always)]
    fn each_row<I: Isa>(&self, atoms: usize, pass: &mut impl Rows<T>) {
        let offsets = &self.pairs.offsets;
        for atom in self.first..self.first + atoms {
            let (pairs, [shared, len]) = self.pairs.row(atom);
            let row = Row { start: offsets[atom] - offsets[self.first], pairs, shared, len };
            match self.filters {
                Source::Table(table) => pass.row::<I>(&table.slice(self.layer, self.slice), atom, &row),
                Source::Direct(filters) => {
                    pass.row::<I>(&Computed::new(&filters[self.slice], self.layer, &pairs[..len]), atom, &row);
                }
            }
        }
    }

    /// Where this slice begins of what all atoms send.
    fn sent(&self, x: &[T]) -> *const T {
        assert_eq!(x.len(), 3 * self.features * (self.pairs.offsets.len() - 1));
        x[3 * self.slice * LANES..].as_ptr()
    }

    /// Where this slice begins of the scalars (one part) or vectors (three parts) of all atoms.
    fn channels(&self, numbers: &[T], parts: usize) -> *const T {
        assert_eq!(numbers.len(), parts * self.features * (self.pairs.offsets.len() - 1));
        numbers[self.slice * LANES..].as_ptr()
    }

    /// Asks for what atoms send, their vectors if there are any and, on the way back, their gradients.
    #[inline(always)]
    fn prefetch<const MU: bool>(
        &self,
        atom: usize,
        (x, mu): (*const T, *const T),
        gradients: Option<(*const T, *const T)>,
    ) {
        let f = self.features;
        for part in 0..3 {
            prefetch(x.wrapping_add(3 * f * atom + part * LANES));
            if MU {
                prefetch(mu.wrapping_add((3 * atom + part) * f));
            }
        }
        if let Some((gq, gmu)) = gradients {
            prefetch(gq.wrapping_add(f * atom));
            for part in 0..3 {
                prefetch(gmu.wrapping_add((3 * atom + part) * f));
            }
        }
    }
}

/// Some channels of what an atom sends, and of its vectors: zero where there are none.
#[derive(Clone, Copy)]
struct Sender<V> {
    x: [V; 3],
    mu: [V; 3],
}

impl<V: Copy> Sender<V> {
    /// # Safety
    /// From `x` on there are 2 [`LANES`] numbers and a vector; from `mu` on, if `MU`, 2 F and a vector.
    #[inline(always)]
    unsafe fn load<I: Isa, T: Real<Vector<I> = V>, const MU: bool>(x: *const T, mu: *const T, f: usize) -> Self
    where
        V: Vector<T>,
    {
        // SAFETY: the caller's promise.
        unsafe {
            let mu = if MU { three::<I, T>(mu, f) } else { [V::zero(); 3] };
            Sender { x: three::<I, T>(x, LANES), mu }
        }
    }
}

/// Some channels of three parts, so far apart.
///
/// # Safety
/// They are there.
#[inline(always)]
unsafe fn three<I: Isa, T: Real>(from: *const T, apart: usize) -> [V<I, T>; 3] {
    // SAFETY: the caller's promise.
    unsafe { [V::<I, T>::load(from), V::<I, T>::load(from.add(apart)), V::<I, T>::load(from.add(2 * apart))] }
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
    let (task, x) = (&task, task.sent(x));
    match mu {
        Some(mu) => dispatch(Forward::<_, true> { task, x, mu: task.channels(mu, 3), out }),
        None => dispatch(Forward::<_, false> { task, x, mu: x, out }),
    }
}

/// `MU`: there are vectors; otherwise nobody looks at `mu`.
struct Forward<'a, T, const MU: bool> {
    task: &'a Task<'a, T>,
    x: *const T,
    mu: *const T,
    out: &'a mut [T],
}

impl<T: Real, const MU: bool> Kernel for Forward<'_, T, MU> {
    #[inline(always)]
    fn run<I: Isa>(mut self) {
        align_stack();
        self.out.fill(T::zero());
        let (task, atoms) = (self.task, self.out.len() / FORWARD);
        task.each_row::<I>(atoms, &mut self);
    }
}

impl<T: Real, const MU: bool> Rows<T> for Forward<'_, T, MU> {
    #[inline(always)]
    fn row<I: Isa>(&mut self, filters: &impl RowFilters<I, T>, atom: usize, row: &Row<T>) {
        let (len, own, f) = (V::<I, T>::LEN, (atom - self.task.first) * FORWARD, self.task.features);
        // As many sums as there are registers for.
        let together = (LANES / len).min(2);
        for first in (0..LANES).step_by(together * len) {
            let zero = V::<I, T>::zero();
            let (mut sums, mut sender) = ([[zero; 4]; 2], [Sender { x: [zero; 3], mu: [zero; 3] }; 2]);
            for v in 0..together {
                let k = first + v * len;
                for s in 0..4 {
                    sums[v][s] = get::<I, T>(self.out, own + s * LANES + k);
                }
                let at = 3 * f * atom + k;
                // SAFETY: there is this atom, and k is a vector's place in a slice.
                sender[v] = unsafe { Sender::load::<I, T, MU>(self.x.add(at), self.mu.wrapping_add(at), f) };
            }
            for n in 0..row.shared {
                self.pair::<I, true>(filters, (row, n), (first, together), &sender, &mut sums);
            }
            for n in row.shared..row.len {
                self.pair::<I, false>(filters, (row, n), (first, together), &sender, &mut sums);
            }
            for v in 0..together {
                for s in 0..4 {
                    put::<I, T>(sums[v][s], self.out, own + s * LANES + first + v * len);
                }
            }
        }
    }
}

impl<T: Real, const MU: bool> Forward<'_, T, MU> {
    /// The message of the row's pair `n` to the row's atom, for some vectors from the channel `first` on, and the message
    /// back, of what the atom itself sends, if the pair is shared.
    #[inline(always)]
    fn pair<I: Isa, const SHARED: bool>(
        &mut self,
        filters: &impl RowFilters<I, T>,
        (row, n): (&Row<T>, usize),
        (first, together): (usize, usize),
        own: &[Sender<V<I, T>>; 2],
        sums: &mut [[V<I, T>; 4]; 2],
    ) {
        let f = self.task.features;
        self.task.prefetch::<MU>(row.soon(n).neighbor as usize, (self.x, self.mu), None);

        // SAFETY: pairs have neighbours that there are, of shared ones in this chunk; n is one of the row's pairs; k is a
        // vector's place in a slice, and so long are the parts of all arrays here.
        unsafe {
            let pair = row.pairs.get_unchecked(n);
            let j = pair.neighbor as usize;
            debug_assert!(!SHARED || (j >= self.task.first && (j - self.task.first + 1) * FORWARD <= self.out.len()));
            let at = 3 * f * j;
            let filter = filters.of(n, pair);
            let u = splat::<I, T>(pair.direction);
            let out = self.out.as_mut_ptr().wrapping_add(j.wrapping_sub(self.task.first).wrapping_mul(FORWARD));
            for v in 0..together {
                let k = first + v * V::<I, T>::LEN;
                let (x, mu, to) = (self.x.add(at + k), self.mu.wrapping_add(at + k), out.wrapping_add(k));
                let w = filter.value(k);
                sums[v][0] = w.fma(V::<I, T>::load(x), sums[v][0]);
                if SHARED {
                    gather::<I, T>(w, own[v].x[0], to);
                }
                let w = filter.value(LANES + k);
                let radial = w.mul(V::<I, T>::load(x.add(LANES)));
                let back = w.mul(own[v].x[1]);
                let mut sent = [V::<I, T>::zero(); 3];
                for c in 0..3 {
                    sums[v][1 + c] = radial.fma(u[c], sums[v][1 + c]);
                    if SHARED {
                        sent[c] = back.fnma(u[c], V::<I, T>::load(to.add((1 + c) * LANES)));
                    }
                }
                if MU {
                    let w = filter.value(2 * LANES + k);
                    let turned = w.mul(V::<I, T>::load(x.add(2 * LANES)));
                    let back = w.mul(own[v].x[2]);
                    for c in 0..3 {
                        sums[v][1 + c] = turned.fma(V::<I, T>::load(mu.add(c * f)), sums[v][1 + c]);
                        if SHARED {
                            sent[c] = back.fma(own[v].mu[c], sent[c]);
                        }
                    }
                }
                if SHARED {
                    for c in 0..3 {
                        sent[c].store(to.add((1 + c) * LANES));
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
    let (task, x) = (&task, task.sent(x));
    let (gq, gmu) = (task.channels(centres.0, 1), task.channels(centres.1, 3));
    assert_eq!(gradients.len(), task.pairs.of_chunk(task.first).len());
    assert_eq!(out.len(), if mu.is_some() { atoms * BACKWARD } else { 0 });
    match mu {
        Some(mu) => dispatch(Backward::<_, true> { task, x, mu: task.channels(mu, 3), gq, gmu, atoms, out, gradients }),
        None => dispatch(Backward::<_, false> { task, x, mu: x, gq, gmu, atoms, out, gradients }),
    }
}

/// `MU`: there are vectors; otherwise nobody looks at `mu` and `out`.
struct Backward<'a, T, const MU: bool> {
    task: &'a Task<'a, T>,
    x: *const T,
    mu: *const T,
    gq: *const T,
    gmu: *const T,
    atoms: usize,
    out: &'a mut [T],
    gradients: &'a mut [PairGradient<T>],
}

/// Some channels of what an atom brings to its pairs on the way back.
#[derive(Clone, Copy)]
struct End<V> {
    sender: Sender<V>,
    gq: V,
    gmu: [V; 3],
}

/// Most vectors of a slice.
const MOST: usize = 4;

impl<T: Real, const MU: bool> Kernel for Backward<'_, T, MU> {
    #[inline(always)]
    fn run<I: Isa>(mut self) {
        align_stack();
        self.out.fill(T::zero());
        let (task, atoms) = (self.task, self.atoms);
        task.each_row::<I>(atoms, &mut self);
    }
}

impl<T: Real, const MU: bool> Rows<T> for Backward<'_, T, MU> {
    #[inline(always)]
    fn row<I: Isa>(&mut self, filters: &impl RowFilters<I, T>, atom: usize, row: &Row<T>) {
        let (len, at, f) = (V::<I, T>::LEN, (atom - self.task.first) * BACKWARD, self.task.features);
        let zero = V::<I, T>::zero();
        let sender = Sender { x: [zero; 3], mu: [zero; 3] };
        let mut own = [End { sender, gq: zero, gmu: [zero; 3] }; MOST];
        let mut sums = [[zero; 6]; MOST];
        for v in 0..LANES / len {
            let (k, vectors) = (v * len, 3 * f * atom + v * len);
            // SAFETY: there is this atom, and k is a vector's place in a slice.
            own[v] = unsafe {
                End {
                    sender: Sender::load::<I, T, MU>(self.x.add(vectors), self.mu.wrapping_add(vectors), f),
                    gq: V::<I, T>::load(self.gq.add(f * atom + k)),
                    gmu: three::<I, T>(self.gmu.add(vectors), f),
                }
            };
            for s in 0..if MU { 6 } else { 0 } {
                sums[v][s] = get::<I, T>(self.out, at + s * LANES + k);
            }
        }
        for n in 0..row.shared {
            self.pair::<I, true>(filters, (row, n), &own, &mut sums);
        }
        for n in row.shared..row.len {
            self.pair::<I, false>(filters, (row, n), &own, &mut sums);
        }
        for v in 0..LANES / len {
            for s in 0..if MU { 6 } else { 0 } {
                put::<I, T>(sums[v][s], self.out, at + s * LANES + v * len);
            }
        }
    }
}

impl<T: Real, const MU: bool> Backward<'_, T, MU> {
    /// The row's pair `n` as a message from the row's atom j, and back if the pair is shared. Its û points from j to the
    /// neighbour i, against that of the message from j to i.
    #[inline(always)]
    fn pair<I: Isa, const SHARED: bool>(
        &mut self,
        filters: &impl RowFilters<I, T>,
        (row, n): (&Row<T>, usize),
        own: &[End<V<I, T>>; MOST],
        sums: &mut [[V<I, T>; 6]; MOST],
    ) {
        let f = self.task.features;
        self.task.prefetch::<MU>(row.soon(n).neighbor as usize, (self.x, self.mu), Some((self.gq, self.gmu)));

        // SAFETY: pairs have neighbours that there are, of shared ones in this chunk; n is one of the row's pairs, of which
        // each has a gradient; k is a vector's place in a slice, and so long are the parts of all arrays here.
        unsafe {
            let pair = row.pairs.get_unchecked(n);
            let i = pair.neighbor as usize;
            debug_assert!(!SHARED || (i >= self.task.first && i - self.task.first < self.atoms));
            let at = f * i;
            let filter = filters.of(n, pair);
            let u = splat::<I, T>(pair.direction);
            let out = self.out.as_mut_ptr().wrapping_add(i.wrapping_sub(self.task.first).wrapping_mul(BACKWARD));
            let zero = V::<I, T>::zero();
            let (mut along, mut across) = ([zero; 3], [zero; 3]);
            for v in 0..LANES / V::<I, T>::LEN {
                let k = v * V::<I, T>::LEN;
                let (own, send, sums, out) = (&own[v], &own[v].sender, &mut sums[v], out.wrapping_add(k));
                let (x, mu) = (self.x.add(3 * at + k), self.mu.wrapping_add(3 * at + k));
                let g = three::<I, T>(self.gmu.add(3 * at + k), f);
                let ug = dot::<I, T>(u, g);
                let mut own_ug = zero;

                let y = if SHARED {
                    own_ug = dot::<I, T>(u, own.gmu);
                    send.x[1].fnma(ug, V::<I, T>::load(x.add(LANES)).mul(own_ug))
                } else {
                    send.x[1].fnma(ug, zero)
                };
                let w = filter.value_and_slope(LANES + k, y, &mut along);
                let radial = w.mul(send.x[1]);
                for c in 0..3 {
                    across[c] = radial.fnma(g[c], across[c]);
                }
                if SHARED {
                    let radial = w.mul(V::<I, T>::load(x.add(LANES)));
                    for c in 0..3 {
                        across[c] = radial.fma(own.gmu[c], across[c]);
                    }
                }
                if MU {
                    sums[1] = w.fnma(ug, sums[1]);
                    if SHARED {
                        gather::<I, T>(w, own_ug, out.add(LANES));
                    }
                }

                let gq = V::<I, T>::load(self.gq.add(at + k));
                let mut y = send.x[0].mul(gq);
                if SHARED {
                    y = V::<I, T>::load(x).fma(own.gq, y);
                }
                let w = filter.value_and_slope(k, y, &mut along);
                if MU {
                    sums[0] = w.fma(gq, sums[0]);
                    if SHARED {
                        gather::<I, T>(w, own.gq, out);
                    }

                    let mg = dot::<I, T>(send.mu, g);
                    let mut own_mg = zero;
                    let mut y = send.x[2].mul(mg);
                    if SHARED {
                        own_mg = dot::<I, T>(three::<I, T>(mu, f), own.gmu);
                        y = V::<I, T>::load(x.add(2 * LANES)).fma(own_mg, y);
                    }
                    let w = filter.value_and_slope(2 * LANES + k, y, &mut along);
                    sums[2] = w.fma(mg, sums[2]);
                    let turned = w.mul(send.x[2]);
                    for c in 0..3 {
                        sums[3 + c] = turned.fma(g[c], sums[3 + c]);
                    }
                    if SHARED {
                        gather::<I, T>(w, own_mg, out.add(2 * LANES));
                        let turned = w.mul(V::<I, T>::load(x.add(2 * LANES)));
                        for c in 0..3 {
                            gather::<I, T>(turned, own.gmu[c], out.add((3 + c) * LANES));
                        }
                    }
                }
            }
            let ends = V::<I, T>::sums([filter.along(along), across[0], across[1], across[2]]);
            let gradient = self.gradients.get_unchecked_mut(row.start + n);
            gradient.distance += ends[0];
            for c in 0..3 {
                gradient.direction[c] += ends[1 + c];
            }
        }
    }
}
