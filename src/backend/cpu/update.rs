//! The update blocks and their adjoints, on blocks of atoms. Formulas: ARCHITECTURE.md, "The networks".

use super::aligned::Parts;
use super::dense::{Dense, silu, silu_backward};
use super::real::Real;
use super::simd::{Isa, Kernel, V, Vector, dispatch, get, put};
use crate::model;

/// Numbers, times F, that an update takes of its scratch memory for an atom.
pub(super) const SCRATCH: usize = 13;

/// What the adjoint of an update needs from the forward pass, for a block of atoms.
pub(super) struct Saved<'a, T> {
    /// Mixing: (V, Y) `[atom][c][2F]`. Cartesian: μ before the update in the first 3F of each 6F.
    pub vectors: &'a mut [T],
    /// Hidden layer before its activation, `[atom][F]`.
    pub hidden: &'a mut [T],
    /// (a1, a2, a3), `[atom][3F]`.
    pub coefficients: &'a mut [T],
}

/// An update block in the network's precision.
#[derive(Debug, Clone)]
pub(super) enum Update<T> {
    Mixing { channel_mix: Dense<T>, context: [Dense<T>; 2], epsilon: T },
    Cartesian { context: [Dense<T>; 2], mixing: Option<[[T; 3]; 3]> },
}

impl<T: Real> Update<T> {
    pub fn new(update: &model::Update) -> Self {
        let pair = |context: &[model::Dense; 2]| [Dense::padded(&context[0], 2, 1), Dense::padded(&context[1], 1, 3)];
        match update {
            model::Update::Mixing { channel_mix, context, epsilon } => Update::Mixing {
                channel_mix: Dense::padded(channel_mix, 1, 2),
                context: pair(context),
                epsilon: T::of(*epsilon),
            },
            model::Update::Cartesian { context, mixing } => Update::Cartesian {
                context: pair(context),
                mixing: mixing.map(|t| std::array::from_fn(|a| std::array::from_fn(|b| T::of(t[(a, b)])))),
            },
        }
    }

    fn context(&self) -> &[Dense<T>; 2] {
        match self {
            Update::Mixing { context, .. } | Update::Cartesian { context, .. } => context,
        }
    }

    /// Updates q `[atom][F]` and μ `[atom][c][F]` of `atoms` atoms. In the last layer μ is left alone: it cannot
    /// reach the energy.
    pub fn forward(
        &self,
        atoms: usize,
        last: bool,
        q: &mut [T],
        mu: &mut [T],
        saved: &mut Saved<T>,
        scratch: &mut [T],
    ) {
        let f = q.len() / atoms;
        match self {
            Update::Mixing { channel_mix, .. } => channel_mix.forward(3 * atoms, mu, saved.vectors),
            Update::Cartesian { .. } => {
                for (kept, mu) in saved.vectors.chunks_exact_mut(6 * f).zip(mu.chunks_exact(3 * f)) {
                    kept[..3 * f].copy_from_slice(mu);
                }
            }
        }
        // [q, n], 2F an atom
        let mut scratch = Parts(scratch);
        let (input, active) = (scratch.take(2 * f * atoms), scratch.take(f * atoms));
        dispatch(Input { update: self, f, q, vectors: saved.vectors, input });
        let [first, second] = self.context();
        first.forward(atoms, input, saved.hidden);
        silu(saved.hidden, active);
        second.forward(atoms, active, saved.coefficients);
        dispatch(Apply { update: self, f, last, q, mu, saved });
    }

    /// Turns the gradients g_q `[atom][F]`, g_μ `[atom][c][F]` after the block into those before it. In the last
    /// layer g_μ is zero on entry.
    pub fn backward(&self, atoms: usize, gq: &mut [T], gmu: &mut [T], saved: &Saved<T>, scratch: &mut [T]) {
        let f = gq.len() / atoms;
        let mut scratch = Parts(scratch);
        let [ga, gh, gin, gvy] = [3, 1, 2, 6].map(|stride| scratch.take(stride * f * atoms));
        let norms = scratch.take(f);
        dispatch(Coefficients { update: self, f, gq, gmu, vectors: saved.vectors, ga });
        let [first, second] = self.context();
        second.backward(atoms, ga, false, gh);
        silu_backward(saved.hidden, gh);
        first.backward(atoms, gh, false, gin);
        dispatch(Gradients { update: self, f, gin, gq, gmu, saved, gvy, norms });
        if let Update::Mixing { channel_mix, .. } = self {
            channel_mix.backward(3 * atoms, gvy, true, gmu);
        }
    }

    /// n of one atom from its saved vectors (6F).
    #[inline(always)]
    fn norms<I: Isa>(&self, vectors: &[T], norms: &mut [T]) {
        let f = norms.len();
        let (stride, epsilon) = match self {
            Update::Mixing { epsilon, .. } => (2 * f, *epsilon),
            Update::Cartesian { .. } => (f, T::zero()),
        };
        let epsilon = V::<I, T>::splat(epsilon);
        for k in (0..f).step_by(V::<I, T>::LEN) {
            let mut square = epsilon;
            for c in 0..3 {
                let v = get::<I, T>(vectors, c * stride + k);
                square = v.fma(v, square);
            }
            put::<I, T>(square.sqrt(), norms, k);
        }
    }
}

/// The context's input [q, n] of each atom.
struct Input<'a, T> {
    update: &'a Update<T>,
    f: usize,
    q: &'a [T],
    vectors: &'a [T],
    input: &'a mut [T],
}

impl<T: Real> Kernel for Input<'_, T> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let f = self.f;
        for (atom, input) in self.input.chunks_exact_mut(2 * f).enumerate() {
            let (scalars, norms) = input.split_at_mut(f);
            scalars.copy_from_slice(&self.q[atom * f..(atom + 1) * f]);
            self.update.norms::<I>(&self.vectors[atom * 6 * f..(atom + 1) * 6 * f], norms);
        }
    }
}

/// What the coefficients do to q and μ.
struct Apply<'a, 'b, T> {
    update: &'a Update<T>,
    f: usize,
    last: bool,
    q: &'a mut [T],
    mu: &'a mut [T],
    saved: &'a Saved<'b, T>,
}

impl<T: Real> Kernel for Apply<'_, '_, T> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let f = self.f;
        for (atom, q) in self.q.chunks_exact_mut(f).enumerate() {
            let mu = &mut self.mu[atom * 3 * f..(atom + 1) * 3 * f];
            let a = &self.saved.coefficients[atom * 3 * f..(atom + 1) * 3 * f];
            let vectors = &self.saved.vectors[atom * 6 * f..(atom + 1) * 6 * f];
            match self.update {
                Update::Mixing { .. } => mix::<I, T>(a, vectors, self.last, q, mu),
                Update::Cartesian { mixing, .. } => {
                    let mixing = if self.last { None } else { *mixing };
                    turn::<I, T>(a, mixing, q, mu);
                }
            }
        }
    }
}

/// G, the gradient of the coefficients.
struct Coefficients<'a, T> {
    update: &'a Update<T>,
    f: usize,
    gq: &'a [T],
    gmu: &'a [T],
    vectors: &'a [T],
    ga: &'a mut [T],
}

impl<T: Real> Kernel for Coefficients<'_, T> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let f = self.f;
        for (atom, ga) in self.ga.chunks_exact_mut(3 * f).enumerate() {
            let gq = &self.gq[atom * f..(atom + 1) * f];
            let gmu = &self.gmu[atom * 3 * f..(atom + 1) * 3 * f];
            let vectors = &self.vectors[atom * 6 * f..(atom + 1) * 6 * f];
            match self.update {
                Update::Mixing { .. } => mix_coefficients::<I, T>(gq, gmu, vectors, ga),
                Update::Cartesian { mixing, .. } => turn_coefficients::<I, T>(gq, gmu, vectors, *mixing, ga),
            }
        }
    }
}

/// The gradients before the block, but for what passes through the channel mix: its gradient is `gvy`.
struct Gradients<'a, 'b, T> {
    update: &'a Update<T>,
    f: usize,
    /// Gradient of the context's input.
    gin: &'a [T],
    gq: &'a mut [T],
    gmu: &'a mut [T],
    saved: &'a Saved<'b, T>,
    gvy: &'a mut [T],
    /// F, for the norms of one atom.
    norms: &'a mut [T],
}

impl<T: Real> Kernel for Gradients<'_, '_, T> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let f = self.f;
        for (atom, gq) in self.gq.chunks_exact_mut(f).enumerate() {
            let gmu = &mut self.gmu[atom * 3 * f..(atom + 1) * 3 * f];
            let a = &self.saved.coefficients[atom * 3 * f..(atom + 1) * 3 * f];
            let vectors = &self.saved.vectors[atom * 6 * f..(atom + 1) * 6 * f];
            let (g_scalar, g_norm) = self.gin[atom * 2 * f..(atom + 1) * 2 * f].split_at(f);
            self.update.norms::<I>(vectors, self.norms);
            match self.update {
                Update::Mixing { .. } => {
                    let gvy = &mut self.gvy[atom * 6 * f..(atom + 1) * 6 * f];
                    mix_backward::<I, T>(a, vectors, gq, gmu, (g_norm, self.norms), gvy);
                }
                Update::Cartesian { mixing, .. } => {
                    turn_backward::<I, T>(a, vectors, *mixing, (g_norm, self.norms), gmu);
                }
            }
            for k in (0..f).step_by(V::<I, T>::LEN) {
                put::<I, T>(get::<I, T>(gq, k).add(get::<I, T>(g_scalar, k)), gq, k);
            }
        }
    }
}

// One atom each; `vectors` are the 6F that were saved, `a` the 3F coefficients.

/// q += a^q + a^qμ Σ V Y,  μ += a^μ Y; no μ in the last layer.
#[inline(always)]
fn mix<I: Isa, T: Real>(a: &[T], vectors: &[T], last: bool, q: &mut [T], mu: &mut [T]) {
    let f = q.len();
    for k in (0..f).step_by(V::<I, T>::LEN) {
        let along = get::<I, T>(a, f + k);
        let mut product = V::<I, T>::zero();
        for c in 0..3 {
            let y = get::<I, T>(vectors, (2 * c + 1) * f + k);
            product = get::<I, T>(vectors, 2 * c * f + k).fma(y, product);
            if !last {
                put::<I, T>(along.fma(y, get::<I, T>(mu, c * f + k)), mu, c * f + k);
            }
        }
        let change = get::<I, T>(a, 2 * f + k).fma(product, get::<I, T>(a, k));
        put::<I, T>(get::<I, T>(q, k).add(change), q, k);
    }
}

/// G = (g_q, Σ_c g_μ,c Y_c, g_q Σ_c V_c Y_c).
#[inline(always)]
fn mix_coefficients<I: Isa, T: Real>(gq: &[T], gmu: &[T], vectors: &[T], ga: &mut [T]) {
    let f = gq.len();
    for k in (0..f).step_by(V::<I, T>::LEN) {
        let (mut along, mut product) = (V::<I, T>::zero(), V::<I, T>::zero());
        for c in 0..3 {
            let y = get::<I, T>(vectors, (2 * c + 1) * f + k);
            product = get::<I, T>(vectors, 2 * c * f + k).fma(y, product);
            along = get::<I, T>(gmu, c * f + k).fma(y, along);
        }
        let gq = get::<I, T>(gq, k);
        put::<I, T>(gq, ga, k);
        put::<I, T>(along, ga, f + k);
        put::<I, T>(gq.mul(product), ga, 2 * f + k);
    }
}

/// g_V = g_q a^qμ Y + g_n V / n,  g_Y = g_q a^qμ V + g_μ a^μ.
#[inline(always)]
fn mix_backward<I: Isa, T: Real>(
    a: &[T],
    vectors: &[T],
    gq: &[T],
    gmu: &[T],
    (g_norm, norms): (&[T], &[T]),
    gvy: &mut [T],
) {
    let f = gq.len();
    for k in (0..f).step_by(V::<I, T>::LEN) {
        let shared = get::<I, T>(gq, k).mul(get::<I, T>(a, 2 * f + k));
        let slope = get::<I, T>(g_norm, k).div(get::<I, T>(norms, k));
        let along = get::<I, T>(a, f + k);
        for c in 0..3 {
            let (at_v, at_y) = (2 * c * f + k, (2 * c + 1) * f + k);
            let (v, y) = (get::<I, T>(vectors, at_v), get::<I, T>(vectors, at_y));
            put::<I, T>(shared.fma(y, slope.mul(v)), gvy, at_v);
            put::<I, T>(shared.fma(v, get::<I, T>(gmu, c * f + k).mul(along)), gvy, at_y);
        }
    }
}

/// (T v)_a = Σ_b T_ab v_b for vectors of features; a layer without T has none of it.
#[inline(always)]
fn turned<I: Isa, T: Real>(t: Option<[[T; 3]; 3]>, v: [V<I, T>; 3]) -> [V<I, T>; 3] {
    let mut out = [V::<I, T>::zero(); 3];
    if let Some(t) = t {
        for a in 0..3 {
            for b in 0..3 {
                out[a] = v[b].fma(V::<I, T>::splat(t[a][b]), out[a]);
            }
        }
    }
    out
}

/// The three components of F vectors from the feature `k` on.
#[inline(always)]
fn components<I: Isa, T: Real>(mu: &[T], f: usize, k: usize) -> [V<I, T>; 3] {
    [get::<I, T>(mu, k), get::<I, T>(mu, f + k), get::<I, T>(mu, 2 * f + k)]
}

/// q += a1,  μ ← μ a2 + (T μ) a3; μ stays as it is without T, which is what the last layer is given.
#[inline(always)]
fn turn<I: Isa, T: Real>(a: &[T], t: Option<[[T; 3]; 3]>, q: &mut [T], mu: &mut [T]) {
    let f = q.len();
    for k in (0..f).step_by(V::<I, T>::LEN) {
        put::<I, T>(get::<I, T>(q, k).add(get::<I, T>(a, k)), q, k);
        if t.is_some() {
            let v = components::<I, T>(mu, f, k);
            let turned = turned::<I, T>(t, v);
            let (a2, a3) = (get::<I, T>(a, f + k), get::<I, T>(a, 2 * f + k));
            for c in 0..3 {
                put::<I, T>(turned[c].fma(a3, v[c].mul(a2)), mu, c * f + k);
            }
        }
    }
}

/// G = (g_q, Σ_c g_μ,c μ_c, Σ_c g_μ,c (T μ)_c).
#[inline(always)]
fn turn_coefficients<I: Isa, T: Real>(gq: &[T], gmu: &[T], vectors: &[T], t: Option<[[T; 3]; 3]>, ga: &mut [T]) {
    let f = gq.len();
    for k in (0..f).step_by(V::<I, T>::LEN) {
        let v = components::<I, T>(vectors, f, k);
        let turned = turned::<I, T>(t, v);
        let (mut straight, mut across) = (V::<I, T>::zero(), V::<I, T>::zero());
        for c in 0..3 {
            let g = get::<I, T>(gmu, c * f + k);
            straight = g.fma(v[c], straight);
            across = g.fma(turned[c], across);
        }
        put::<I, T>(get::<I, T>(gq, k), ga, k);
        put::<I, T>(straight, ga, f + k);
        put::<I, T>(across, ga, 2 * f + k);
    }
}

/// g_μ ← g_μ a2 + Tᵀ g_μ a3 + g_n μ / |μ|, the last term 0 where μ = 0.
#[inline(always)]
fn turn_backward<I: Isa, T: Real>(
    a: &[T],
    vectors: &[T],
    t: Option<[[T; 3]; 3]>,
    (g_norm, norms): (&[T], &[T]),
    gmu: &mut [T],
) {
    let f = norms.len();
    let mut transposed = t;
    if let (Some(to), Some(t)) = (&mut transposed, t) {
        for a in 0..3 {
            for b in 0..3 {
                to[a][b] = t[b][a];
            }
        }
    }
    for k in (0..f).step_by(V::<I, T>::LEN) {
        let g = components::<I, T>(gmu, f, k);
        let turned = turned::<I, T>(transposed, g);
        let slope = get::<I, T>(g_norm, k).div_or_zero(get::<I, T>(norms, k));
        let (a2, a3) = (get::<I, T>(a, f + k), get::<I, T>(a, 2 * f + k));
        for c in 0..3 {
            let straight = slope.fma(get::<I, T>(vectors, c * f + k), g[c].mul(a2));
            put::<I, T>(turned[c].fma(a3, straight), gmu, c * f + k);
        }
    }
}
