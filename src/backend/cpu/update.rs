//! The update blocks and their adjoints, on blocks of atoms. Formulas: ARCHITECTURE.md, "The networks".

use super::dense::{Dense, silu, silu_backward};
use super::real::Real;
use super::simd::Isa;
use crate::model;

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
    #[inline(always)]
    pub fn forward<I: Isa>(&self, atoms: usize, last: bool, q: &mut [T], mu: &mut [T], saved: &mut Saved<T>) {
        let f = q.len() / atoms;
        match self {
            Update::Mixing { channel_mix, .. } => channel_mix.forward::<I>(3 * atoms, mu, saved.vectors),
            Update::Cartesian { .. } => {
                for (kept, mu) in saved.vectors.chunks_exact_mut(6 * f).zip(mu.chunks_exact(3 * f)) {
                    kept[..3 * f].copy_from_slice(mu);
                }
            }
        }
        // [q, n], 2F an atom
        let mut input = vec![T::zero(); 2 * f * atoms];
        for (atom, input) in input.chunks_exact_mut(2 * f).enumerate() {
            let (scalars, norms) = input.split_at_mut(f);
            scalars.copy_from_slice(&q[atom * f..(atom + 1) * f]);
            self.norms(&saved.vectors[atom * 6 * f..(atom + 1) * 6 * f], norms);
        }
        let [first, second] = self.context();
        first.forward::<I>(atoms, &input, saved.hidden);
        let mut active = vec![T::zero(); f * atoms];
        silu(saved.hidden, &mut active);
        second.forward::<I>(atoms, &active, saved.coefficients);

        for atom in 0..atoms {
            let q = &mut q[atom * f..(atom + 1) * f];
            let mu = &mut mu[atom * 3 * f..(atom + 1) * 3 * f];
            let a = &saved.coefficients[atom * 3 * f..(atom + 1) * 3 * f];
            match self {
                // q += a^q + a^qμ Σ V Y,  μ += a^μ Y
                Update::Mixing { .. } => {
                    let vy = &saved.vectors[atom * 6 * f..(atom + 1) * 6 * f];
                    for k in 0..f {
                        let s = (0..3).map(|c| vy[2 * c * f + k] * vy[(2 * c + 1) * f + k]).sum::<T>();
                        q[k] += a[k] + a[2 * f + k] * s;
                    }
                    for c in (0..3).filter(|_| !last) {
                        for k in 0..f {
                            mu[c * f + k] += a[f + k] * vy[(2 * c + 1) * f + k];
                        }
                    }
                }
                // q += a1,  μ ← μ a2 + (T μ) a3
                Update::Cartesian { mixing, .. } => {
                    for k in 0..f {
                        q[k] += a[k];
                    }
                    if let (Some(t), false) = (mixing, last) {
                        for k in 0..f {
                            let v: [T; 3] = std::array::from_fn(|c| mu[c * f + k]);
                            for c in 0..3 {
                                let turned = t[c][0] * v[0] + t[c][1] * v[1] + t[c][2] * v[2];
                                mu[c * f + k] = v[c] * a[f + k] + turned * a[2 * f + k];
                            }
                        }
                    }
                }
            }
        }
    }

    /// n of one atom from its saved vectors (6F).
    #[inline(always)]
    fn norms(&self, vectors: &[T], norms: &mut [T]) {
        let f = norms.len();
        let (stride, epsilon) = match self {
            Update::Mixing { epsilon, .. } => (2 * f, *epsilon),
            Update::Cartesian { .. } => (f, T::zero()),
        };
        for (k, n) in norms.iter_mut().enumerate() {
            let square = (0..3).map(|c| vectors[c * stride + k] * vectors[c * stride + k]).sum::<T>();
            *n = (square + epsilon).sqrt();
        }
    }

    /// Turns the gradients g_q `[atom][F]`, g_μ `[atom][c][F]` after the block into those before it. In the last
    /// layer g_μ is zero on entry.
    #[inline(always)]
    pub fn backward<I: Isa>(&self, atoms: usize, gq: &mut [T], gmu: &mut [T], saved: &Saved<T>) {
        let f = gq.len() / atoms;
        let zeros = |n: usize| vec![T::zero(); n * atoms];
        // G = gradient of the coefficients
        let mut ga = zeros(3 * f);
        for atom in 0..atoms {
            let (gq, gmu) = (&gq[atom * f..(atom + 1) * f], &gmu[atom * 3 * f..(atom + 1) * 3 * f]);
            let ga = &mut ga[atom * 3 * f..(atom + 1) * 3 * f];
            let v = &saved.vectors[atom * 6 * f..(atom + 1) * 6 * f];
            for k in 0..f {
                let g: [T; 3] = std::array::from_fn(|c| gmu[c * f + k]);
                ga[k] = gq[k];
                match self {
                    Update::Mixing { .. } => {
                        let y: [T; 3] = std::array::from_fn(|c| v[(2 * c + 1) * f + k]);
                        let s = (0..3).map(|c| v[2 * c * f + k] * y[c]).sum::<T>();
                        ga[f + k] = (0..3).map(|c| g[c] * y[c]).sum::<T>();
                        ga[2 * f + k] = gq[k] * s;
                    }
                    Update::Cartesian { mixing, .. } => {
                        let m: [T; 3] = std::array::from_fn(|c| v[c * f + k]);
                        ga[f + k] = (0..3).map(|c| g[c] * m[c]).sum::<T>();
                        ga[2 * f + k] = mixing.map_or(T::zero(), |t| {
                            (0..3).map(|c| g[c] * (t[c][0] * m[0] + t[c][1] * m[1] + t[c][2] * m[2])).sum::<T>()
                        });
                    }
                }
            }
        }
        let [first, second] = self.context();
        let mut gh = zeros(f);
        second.backward::<I>(atoms, &ga, false, &mut gh);
        silu_backward(saved.hidden, &mut gh);
        let mut gin = zeros(2 * f);
        first.backward::<I>(atoms, &gh, false, &mut gin);

        let mut norms = vec![T::zero(); f];
        let mut gvy = match self {
            Update::Mixing { .. } => zeros(6 * f),
            Update::Cartesian { .. } => Vec::new(),
        };
        for atom in 0..atoms {
            let (gq, gmu) = (&mut gq[atom * f..(atom + 1) * f], &mut gmu[atom * 3 * f..(atom + 1) * 3 * f]);
            let a = &saved.coefficients[atom * 3 * f..(atom + 1) * 3 * f];
            let v = &saved.vectors[atom * 6 * f..(atom + 1) * 6 * f];
            let (g_scalar, g_norm) = gin[atom * 2 * f..(atom + 1) * 2 * f].split_at(f);
            self.norms(v, &mut norms);
            match self {
                // g_V = g_q a^qμ Y + g_n V / n,  g_Y = g_q a^qμ V + g_μ a^μ
                Update::Mixing { .. } => {
                    let gvy = &mut gvy[atom * 6 * f..(atom + 1) * 6 * f];
                    for c in 0..3 {
                        for k in 0..f {
                            let (at_v, at_y) = (2 * c * f + k, (2 * c + 1) * f + k);
                            let shared = gq[k] * a[2 * f + k];
                            gvy[at_v] = shared * v[at_y] + g_norm[k] * v[at_v] / norms[k];
                            gvy[at_y] = shared * v[at_v] + gmu[c * f + k] * a[f + k];
                        }
                    }
                }
                // g_μ ← g_μ a2 + Tᵀ g_μ a3 + g_n μ / |μ|, the last term 0 where μ = 0
                Update::Cartesian { mixing, .. } => {
                    for k in 0..f {
                        let g: [T; 3] = std::array::from_fn(|c| gmu[c * f + k]);
                        let slope = if norms[k] > T::zero() { g_norm[k] / norms[k] } else { T::zero() };
                        for c in 0..3 {
                            let turned = mixing.map_or(T::zero(), |t| t[0][c] * g[0] + t[1][c] * g[1] + t[2][c] * g[2]);
                            gmu[c * f + k] = g[c] * a[f + k] + turned * a[2 * f + k] + slope * v[c * f + k];
                        }
                    }
                }
            }
            for k in 0..f {
                gq[k] += g_scalar[k];
            }
        }
        if let Update::Mixing { channel_mix, .. } = self {
            channel_mix.backward::<I>(3 * atoms, &gvy, true, gmu);
        }
    }
}
