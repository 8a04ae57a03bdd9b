//! The message block and its adjoint, one atom at a time: each atom gathers from its neighbours, so no two tasks write
//! the same number and every sum has a fixed order.
//!
//! Notation as in ARCHITECTURE.md: x = (x^q, x^R, x^μ) is what a neighbour sends, W = (W^q, W^R, W^μ) the filter at
//! the pair's distance, û the direction from centre to neighbour. F is padded to blocks of eight; arrays of vectors are
//! `[atom][c][F]`.

use super::filters::{PairFilter, Source, compute, spline};
use super::geometry::Pair;
use super::real::Real;
use super::simd::{Isa, LANES, Lanes, blocks, blocks_mut};

/// Gradients of the energy with respect to a directed pair's distance and direction, summed over layers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PairGradient<T> {
    pub distance: T,
    pub direction: [T; 3],
}

/// The pairs of one atom in one layer.
pub(super) struct Row<'a, T> {
    pub filters: &'a Source<T>,
    pub layer: usize,
    pub pairs: &'a [Pair<T>],
}

/// Adds the messages of all neighbours to one atom's q (F) and μ (3F):
///
/// q_i += Σ_j W^q x^q_j,  μ_i,c += Σ_j W^R x^R_j û_c + W^μ x^μ_j μ_j,c.
///
/// `x` holds 3F numbers an atom, `mu` likewise; `None` in the first layer, where every μ is zero.
#[inline(always)]
pub(super) fn forward<I: Isa, T: Real>(row: &Row<T>, x: &[T], mu: Option<&[T]>, q_out: &mut [T], mu_out: &mut [T]) {
    let width = 3 * q_out.len();
    match row.filters {
        Source::Table { coefficients, per_angstrom, .. } => {
            let coefficients = &coefficients[row.layer];
            for pair in row.pairs {
                let filter = spline(coefficients, width, *per_angstrom, pair);
                forward_pair::<I, T>(&filter, pair, x, mu, q_out, mu_out);
            }
        }
        Source::Direct { filter } => {
            for pair in row.pairs {
                forward_pair::<I, T>(&compute(filter, row.layer, pair), pair, x, mu, q_out, mu_out);
            }
        }
    }
}

#[inline(always)]
fn forward_pair<I: Isa, T: Real>(
    filter: &impl PairFilter<T>,
    pair: &Pair<T>,
    x: &[T],
    mu: Option<&[T]>,
    q_out: &mut [T],
    mu_out: &mut [T],
) {
    let f = q_out.len();
    let j = pair.neighbor as usize;
    let count = f / LANES;
    let [xq, xr, xm] = thirds(&x[j * 3 * f..(j + 1) * 3 * f]);
    let q_out = &mut blocks_mut(q_out)[..count];
    let [out_x, out_y, out_z] = thirds_mut(mu_out);
    let u = pair.direction;
    match mu {
        None => {
            for k in 0..count {
                q_out[k] = filter.value::<I>(k).fma::<I>(Lanes(xq[k]), Lanes(q_out[k])).0;
                let radial = filter.value::<I>(count + k).times(Lanes(xr[k]));
                out_x[k] = radial.scale_add::<I>(u[0], Lanes(out_x[k])).0;
                out_y[k] = radial.scale_add::<I>(u[1], Lanes(out_y[k])).0;
                out_z[k] = radial.scale_add::<I>(u[2], Lanes(out_z[k])).0;
            }
        }
        Some(mu) => {
            let [mx, my, mz] = thirds(&mu[j * 3 * f..(j + 1) * 3 * f]);
            for k in 0..count {
                q_out[k] = filter.value::<I>(k).fma::<I>(Lanes(xq[k]), Lanes(q_out[k])).0;
                let radial = filter.value::<I>(count + k).times(Lanes(xr[k]));
                let turned = filter.value::<I>(2 * count + k).times(Lanes(xm[k]));
                out_x[k] = turned.fma::<I>(Lanes(mx[k]), radial.scale_add::<I>(u[0], Lanes(out_x[k]))).0;
                out_y[k] = turned.fma::<I>(Lanes(my[k]), radial.scale_add::<I>(u[1], Lanes(out_y[k]))).0;
                out_z[k] = turned.fma::<I>(Lanes(mz[k]), radial.scale_add::<I>(u[2], Lanes(out_z[k]))).0;
            }
        }
    }
}

/// What one atom j sends, seen by the adjoint.
pub(super) struct Sender<'a, T> {
    /// x_j, 3F.
    pub x: &'a [T],
    /// μ_j, 3F; `None` in the first layer.
    pub mu: Option<&'a [T]>,
}

/// The adjoint at the sender j: gathers the gradients g_q, g_μ (of all atoms) of the centres i that j sends to.
///
/// - `gx` (3F) receives Σ_i (W^q g_q,i, W^R (û·g_μ,i), W^μ (μ_j·g_μ,i));
/// - `gmu_out` (3F), which holds j's own g_μ, gains Σ_i W^μ x^μ_j g_μ,i;
/// - each pair's gradient gains ∂E/∂d and ∂E/∂û of the directed pair (i ← j).
///
/// In the first layer `gx` and `gmu_out` are left alone: no position reaches the embedding.
///
/// Row entries of j point from j to i; the directed pair's û points from i to j, hence the sign.
#[inline(always)]
pub(super) fn backward<I: Isa, T: Real>(
    row: &Row<T>,
    sender: &Sender<T>,
    centres: (&[T], &[T]),
    gx: &mut [T],
    gmu_out: &mut [T],
    gradients: &mut [PairGradient<T>],
) {
    let width = sender.x.len();
    gx.fill(T::zero());
    match row.filters {
        Source::Table { coefficients, per_angstrom, .. } => {
            let coefficients = &coefficients[row.layer];
            for (pair, gradient) in row.pairs.iter().zip(gradients) {
                let filter = spline(coefficients, width, *per_angstrom, pair);
                backward_pair::<I, T>(&filter, pair, sender, centres, gx, gmu_out, gradient);
            }
        }
        Source::Direct { filter } => {
            for (pair, gradient) in row.pairs.iter().zip(gradients) {
                let filter = compute(filter, row.layer, pair);
                backward_pair::<I, T>(&filter, pair, sender, centres, gx, gmu_out, gradient);
            }
        }
    }
}

#[inline(always)]
fn backward_pair<I: Isa, T: Real>(
    filter: &impl PairFilter<T>,
    pair: &Pair<T>,
    sender: &Sender<T>,
    (gq, gmu): (&[T], &[T]),
    gx: &mut [T],
    gmu_out: &mut [T],
    gradient: &mut PairGradient<T>,
) {
    let f = sender.x.len() / 3;
    let count = f / LANES;
    let i = pair.neighbor as usize;
    let [xq, xr, xm] = thirds(sender.x);
    let gq = &blocks(&gq[i * f..(i + 1) * f])[..count];
    let [gx_i, gy_i, gz_i] = thirds(&gmu[i * 3 * f..(i + 1) * 3 * f]);
    let u = pair.direction.map(|x| -x);
    let mut along = Lanes::zero();
    let mut across = [Lanes::zero(); 3];
    match sender.mu {
        None => {
            for k in 0..count {
                let g = [Lanes(gx_i[k]), Lanes(gy_i[k]), Lanes(gz_i[k])];
                let ug = g[2].scale_add::<I>(u[2], g[1].scale_add::<I>(u[1], g[0].scale(u[0])));
                let (_, dq) = filter.value_and_derivative::<I>(k);
                let (wr, dr) = filter.value_and_derivative::<I>(count + k);
                along = dq.times(Lanes(xq[k])).fma::<I>(Lanes(gq[k]), along);
                along = dr.times(Lanes(xr[k])).fma::<I>(ug, along);
                let radial = wr.times(Lanes(xr[k]));
                for c in 0..3 {
                    across[c] = radial.fma::<I>(g[c], across[c]);
                }
            }
        }
        Some(mu) => {
            let [mx, my, mz] = thirds(mu);
            let [gxq, gxr, gxm] = thirds_mut(gx);
            let [out_x, out_y, out_z] = thirds_mut(gmu_out);
            for k in 0..count {
                let g = [Lanes(gx_i[k]), Lanes(gy_i[k]), Lanes(gz_i[k])];
                let ug = g[2].scale_add::<I>(u[2], g[1].scale_add::<I>(u[1], g[0].scale(u[0])));
                let mg = g[2].fma::<I>(Lanes(mz[k]), g[1].fma::<I>(Lanes(my[k]), g[0].times(Lanes(mx[k]))));
                let (wq, dq) = filter.value_and_derivative::<I>(k);
                gxq[k] = wq.fma::<I>(Lanes(gq[k]), Lanes(gxq[k])).0;
                along = dq.times(Lanes(xq[k])).fma::<I>(Lanes(gq[k]), along);
                let (wr, dr) = filter.value_and_derivative::<I>(count + k);
                gxr[k] = wr.fma::<I>(ug, Lanes(gxr[k])).0;
                along = dr.times(Lanes(xr[k])).fma::<I>(ug, along);
                let radial = wr.times(Lanes(xr[k]));
                for c in 0..3 {
                    across[c] = radial.fma::<I>(g[c], across[c]);
                }
                let (wm, dm) = filter.value_and_derivative::<I>(2 * count + k);
                gxm[k] = wm.fma::<I>(mg, Lanes(gxm[k])).0;
                along = dm.times(Lanes(xm[k])).fma::<I>(mg, along);
                let turned = wm.times(Lanes(xm[k]));
                out_x[k] = turned.fma::<I>(g[0], Lanes(out_x[k])).0;
                out_y[k] = turned.fma::<I>(g[1], Lanes(out_y[k])).0;
                out_z[k] = turned.fma::<I>(g[2], Lanes(out_z[k])).0;
            }
        }
    }
    gradient.distance += along.sum();
    for c in 0..3 {
        gradient.direction[c] += across[c].sum();
    }
}

/// 3F numbers as three parts in blocks of eight: (q, R, μ) or (x, y, z). The lengths are said once, so that no index
/// needs a check.
#[inline(always)]
fn thirds<T>(x: &[T]) -> [&[[T; LANES]]; 3] {
    let f = x.len() / 3;
    let part = |c: usize| &blocks(&x[c * f..(c + 1) * f])[..f / LANES];
    [part(0), part(1), part(2)]
}

#[inline(always)]
fn thirds_mut<T>(x: &mut [T]) -> [&mut [[T; LANES]]; 3] {
    let f = x.len() / 3;
    let (a, rest) = x.split_at_mut(f);
    let (b, c) = rest.split_at_mut(f);
    [&mut blocks_mut(a)[..f / LANES], &mut blocks_mut(b)[..f / LANES], &mut blocks_mut(c)[..f / LANES]]
}
