//! The message block and its adjoint, one atom at a time: each atom gathers from its neighbours, so no two tasks write
//! the same number and every sum has a fixed order.
//!
//! Notation as in ARCHITECTURE.md: x = (x^q, x^R, x^μ) is what a neighbour sends, W = (W^q, W^R, W^μ) the filter at
//! the pair's distance, û the direction from centre to neighbour. Arrays of vectors are `[atom][c][F]`.

use super::geometry::Pair;
use super::real::Real;

/// Fills the filter of a pair (3F) and, when asked, its derivative.
pub(super) trait FilterSource<T>: Sync {
    fn fill(&self, layer: usize, pair: &Pair<T>, w: &mut [T], dw: Option<&mut [T]>);
}

/// Gradients of the energy with respect to a directed pair's distance and direction, summed over layers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PairGradient<T> {
    pub distance: T,
    pub direction: [T; 3],
}

/// The pairs of one atom in one layer.
pub(super) struct Row<'a, T, S> {
    pub filters: &'a S,
    pub layer: usize,
    pub pairs: &'a [Pair<T>],
}

/// Adds the messages of all neighbours to one atom's q (F) and μ (3F):
///
/// q_i += Σ_j W^q x^q_j,  μ_i,c += Σ_j W^R x^R_j û_c + W^μ x^μ_j μ_j,c.
///
/// `x` holds 3F numbers an atom, `mu` likewise; `None` in the first layer, where every μ is zero.
pub(super) fn forward<T: Real>(
    row: &Row<T, impl FilterSource<T>>,
    x: &[T],
    mu: Option<&[T]>,
    q_out: &mut [T],
    mu_out: &mut [T],
    w: &mut [T],
) {
    let f = q_out.len();
    for pair in row.pairs {
        row.filters.fill(row.layer, pair, w, None);
        let j = pair.neighbor as usize;
        let (wq, wr, wm) = thirds(w, f);
        let (xq, xr, xm) = thirds(&x[j * 3 * f..(j + 1) * 3 * f], f);
        for k in 0..f {
            q_out[k] += wq[k] * xq[k];
        }
        for c in 0..3 {
            let out = &mut mu_out[c * f..(c + 1) * f];
            let u = pair.direction[c];
            for k in 0..f {
                out[k] += wr[k] * xr[k] * u;
            }
            if let Some(mu) = mu {
                let mu_j = &mu[(3 * j + c) * f..(3 * j + c + 1) * f];
                for k in 0..f {
                    out[k] += wm[k] * xm[k] * mu_j[k];
                }
            }
        }
    }
}

/// Work space of [`backward`].
#[derive(Debug, Clone, Default)]
pub(super) struct Scratch<T> {
    w: Vec<T>,
    dw: Vec<T>,
    ug: Vec<T>,
    mg: Vec<T>,
    products: Vec<T>,
}

impl<T: Real> Scratch<T> {
    pub fn new(f: usize) -> Self {
        let zeros = |n| vec![T::zero(); n];
        Scratch { w: zeros(3 * f), dw: zeros(3 * f), ug: zeros(f), mg: zeros(f), products: zeros(f) }
    }

    /// Room for one filter.
    pub fn filter(&mut self) -> &mut [T] {
        &mut self.w
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
/// Row entries of j point from j to i; the directed pair's û points from i to j, hence the sign.
pub(super) fn backward<T: Real>(
    row: &Row<T, impl FilterSource<T>>,
    sender: &Sender<T>,
    (gq, gmu): (&[T], &[T]),
    gx: &mut [T],
    gmu_out: &mut [T],
    gradients: &mut [PairGradient<T>],
    scratch: &mut Scratch<T>,
) {
    let f = gx.len() / 3;
    let (xq, xr, xm) = thirds(sender.x, f);
    gx.fill(T::zero());
    let (gxq, rest) = gx.split_at_mut(f);
    let (gxr, gxm) = rest.split_at_mut(f);
    let Scratch { w, dw, ug, mg, products } = scratch;
    for (pair, gradient) in row.pairs.iter().zip(gradients) {
        row.filters.fill(row.layer, pair, w, Some(dw));
        let (wq, wr, wm) = thirds(w, f);
        let (dq, dr, dm) = thirds(dw, f);
        let i = pair.neighbor as usize;
        let gq_i = &gq[i * f..(i + 1) * f];
        let gmu_i: [&[T]; 3] = std::array::from_fn(|c| &gmu[(3 * i + c) * f..(3 * i + c + 1) * f]);
        let u = pair.direction.map(|x| -x);

        for k in 0..f {
            ug[k] = u[0] * gmu_i[0][k] + u[1] * gmu_i[1][k] + u[2] * gmu_i[2][k];
        }
        for k in 0..f {
            gxq[k] += wq[k] * gq_i[k];
            gxr[k] += wr[k] * ug[k];
            products[k] = dq[k] * xq[k] * gq_i[k] + dr[k] * xr[k] * ug[k];
        }
        if let Some(mu) = sender.mu {
            let mu: [&[T]; 3] = std::array::from_fn(|c| &mu[c * f..(c + 1) * f]);
            for k in 0..f {
                mg[k] = mu[0][k] * gmu_i[0][k] + mu[1][k] * gmu_i[1][k] + mu[2][k] * gmu_i[2][k];
            }
            for k in 0..f {
                gxm[k] += wm[k] * mg[k];
                products[k] += dm[k] * xm[k] * mg[k];
            }
            for c in 0..3 {
                let out = &mut gmu_out[c * f..(c + 1) * f];
                for k in 0..f {
                    out[k] += wm[k] * xm[k] * gmu_i[c][k];
                }
            }
        }
        gradient.distance += sum(products);
        for c in 0..3 {
            for k in 0..f {
                products[k] = wr[k] * xr[k] * gmu_i[c][k];
            }
            gradient.direction[c] += sum(products);
        }
    }
}

/// Splits 3F numbers in (q, R, μ).
fn thirds<T>(x: &[T], f: usize) -> (&[T], &[T], &[T]) {
    (&x[..f], &x[f..2 * f], &x[2 * f..3 * f])
}

/// A sum in eight interleaved parts: a fixed order that vector units can follow.
fn sum<T: Real>(values: &[T]) -> T {
    let mut parts = [T::zero(); 8];
    let (blocks, rest) = values.as_chunks::<8>();
    for block in blocks {
        for (part, value) in parts.iter_mut().zip(block) {
            *part += *value;
        }
    }
    for (part, value) in parts.iter_mut().zip(rest) {
        *part += *value;
    }
    let [a, b, c, d, e, f, g, h] = parts;
    ((a + e) + (b + f)) + ((c + g) + (d + h))
}
