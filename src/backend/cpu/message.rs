//! The message block and its adjoint, one atom at a time: each atom gathers from its neighbours, so no two tasks write
//! the same number and every sum has a fixed order.
//!
//! Notation as in ARCHITECTURE.md: x = (x^q, x^R, x^μ) is what a neighbour sends, W = (W^q, W^R, W^μ) the filter at
//! the pair's distance, û the direction from centre to neighbour. F is padded to whole vectors; arrays of vectors are
//! `[atom][c][F]`.

use super::filters::{PairFilter, Source, compute, spline};
use super::geometry::Pair;
use super::real::Real;
use super::simd::{Isa, Kernel, V, Vector, dispatch};

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
pub(super) fn forward<T: Real>(row: &Row<T>, x: &[T], mu: Option<&[T]>, q_out: &mut [T], mu_out: &mut [T]) {
    dispatch(Forward { row, x, mu, q_out, mu_out });
}

struct Forward<'a, T> {
    row: &'a Row<'a, T>,
    x: &'a [T],
    mu: Option<&'a [T]>,
    q_out: &'a mut [T],
    mu_out: &'a mut [T],
}

impl<T: Real> Kernel for Forward<'_, T> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Forward { row, x, mu, q_out, mu_out } = self;
        match q_out.len() {
            64 => forward_row::<I, T, 64>(row, x, mu, q_out, mu_out),
            128 => forward_row::<I, T, 128>(row, x, mu, q_out, mu_out),
            256 => forward_row::<I, T, 256>(row, x, mu, q_out, mu_out),
            _ => forward_row::<I, T, 0>(row, x, mu, q_out, mu_out),
        }
    }
}

/// `F` is the number of features, or 0 where it is known at run time alone. The addresses of the many arrays that a
/// kernel reads are then constants, for which the processor has not enough registers otherwise.
#[inline(always)]
fn forward_row<I: Isa, T: Real, const F: usize>(
    row: &Row<T>,
    x: &[T],
    mu: Option<&[T]>,
    q_out: &mut [T],
    mu_out: &mut [T],
) {
    let width = 3 * if F > 0 { F } else { q_out.len() };
    match row.filters {
        Source::Table { coefficients, per_angstrom, .. } => {
            let coefficients = &coefficients[row.layer];
            for pair in row.pairs {
                let filter = spline::<I, T>(coefficients, width, *per_angstrom, pair);
                forward_pair::<I, T, F>(&filter, pair, x, mu, q_out, mu_out);
            }
        }
        Source::Direct { filter } => {
            for pair in row.pairs {
                forward_pair::<I, T, F>(&compute(filter, row.layer, pair), pair, x, mu, q_out, mu_out);
            }
        }
    }
}

#[inline(always)]
fn forward_pair<I: Isa, T: Real, const F: usize>(
    filter: &impl PairFilter<I, T>,
    pair: &Pair<T>,
    x: &[T],
    mu: Option<&[T]>,
    q_out: &mut [T],
    mu_out: &mut [T],
) {
    let f = if F > 0 { F } else { q_out.len() };
    let q_out = &mut q_out[..f];
    let j = pair.neighbor as usize;
    let x = &x[j * 3 * f..(j + 1) * 3 * f];
    let mu = mu.map(|mu| &mu[j * 3 * f..(j + 1) * 3 * f]);
    let mu_out = &mut mu_out[..3 * f];
    let u =
        [V::<I, T>::splat(pair.direction[0]), V::<I, T>::splat(pair.direction[1]), V::<I, T>::splat(pair.direction[2])];
    let load = V::<I, T>::load;
    for k in (0..f).step_by(V::<I, T>::LEN) {
        // SAFETY: k is a vector's place in F numbers, a multiple of every vector's length; the slices hold F (q) and
        // 3F numbers (all others).
        unsafe {
            let q = q_out.as_mut_ptr().add(k);
            filter.value(k).fma(load(x.as_ptr().add(k)), load(q)).store(q);
            let radial = filter.value(f + k).mul(load(x.as_ptr().add(f + k)));
            match mu {
                None => {
                    for c in 0..3 {
                        let out = mu_out.as_mut_ptr().add(c * f + k);
                        radial.fma(u[c], load(out)).store(out);
                    }
                }
                Some(mu) => {
                    let turned = filter.value(2 * f + k).mul(load(x.as_ptr().add(2 * f + k)));
                    for c in 0..3 {
                        let out = mu_out.as_mut_ptr().add(c * f + k);
                        turned.fma(load(mu.as_ptr().add(c * f + k)), radial.fma(u[c], load(out))).store(out);
                    }
                }
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
pub(super) fn backward<T: Real>(
    row: &Row<T>,
    sender: &Sender<T>,
    centres: (&[T], &[T]),
    gx: &mut [T],
    gmu_out: &mut [T],
    gradients: &mut [PairGradient<T>],
) {
    gx.fill(T::zero());
    dispatch(Backward { row, sender, centres, gx, gmu_out, gradients });
}

struct Backward<'a, T> {
    row: &'a Row<'a, T>,
    sender: &'a Sender<'a, T>,
    centres: (&'a [T], &'a [T]),
    gx: &'a mut [T],
    gmu_out: &'a mut [T],
    gradients: &'a mut [PairGradient<T>],
}

impl<T: Real> Kernel for Backward<'_, T> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Backward { row, sender, centres, gx, gmu_out, gradients } = self;
        match sender.x.len() / 3 {
            64 => backward_row::<I, T, 64>(row, sender, centres, gx, gmu_out, gradients),
            128 => backward_row::<I, T, 128>(row, sender, centres, gx, gmu_out, gradients),
            256 => backward_row::<I, T, 256>(row, sender, centres, gx, gmu_out, gradients),
            _ => backward_row::<I, T, 0>(row, sender, centres, gx, gmu_out, gradients),
        }
    }
}

/// `F` as in [`forward_row`].
#[inline(always)]
fn backward_row<I: Isa, T: Real, const F: usize>(
    row: &Row<T>,
    sender: &Sender<T>,
    centres: (&[T], &[T]),
    gx: &mut [T],
    gmu_out: &mut [T],
    gradients: &mut [PairGradient<T>],
) {
    let width = if F > 0 { 3 * F } else { sender.x.len() };
    match row.filters {
        Source::Table { coefficients, per_angstrom, .. } => {
            let coefficients = &coefficients[row.layer];
            for (pair, gradient) in row.pairs.iter().zip(gradients) {
                let filter = spline::<I, T>(coefficients, width, *per_angstrom, pair);
                backward_pair::<I, T, F>(&filter, pair, sender, centres, gx, gmu_out, gradient);
            }
        }
        Source::Direct { filter } => {
            for (pair, gradient) in row.pairs.iter().zip(gradients) {
                let filter = compute(filter, row.layer, pair);
                backward_pair::<I, T, F>(&filter, pair, sender, centres, gx, gmu_out, gradient);
            }
        }
    }
}

#[inline(always)]
fn backward_pair<I: Isa, T: Real, const F: usize>(
    filter: &impl PairFilter<I, T>,
    pair: &Pair<T>,
    sender: &Sender<T>,
    (gq, gmu): (&[T], &[T]),
    gx: &mut [T],
    gmu_out: &mut [T],
    gradient: &mut PairGradient<T>,
) {
    let f = if F > 0 { F } else { sender.x.len() / 3 };
    let i = pair.neighbor as usize;
    let x = &sender.x[..3 * f];
    let mu = sender.mu.map(|mu| &mu[..3 * f]);
    let gq = &gq[i * f..(i + 1) * f];
    let gmu = &gmu[i * 3 * f..(i + 1) * 3 * f];
    let (gx, gmu_out) = (&mut gx[..3 * f], &mut gmu_out[..3 * f]);
    let u = [
        V::<I, T>::splat(-pair.direction[0]),
        V::<I, T>::splat(-pair.direction[1]),
        V::<I, T>::splat(-pair.direction[2]),
    ];
    let load = V::<I, T>::load;
    let mut along = V::<I, T>::zero();
    let mut across = [V::<I, T>::zero(); 3];
    for k in (0..f).step_by(V::<I, T>::LEN) {
        // SAFETY: k is a vector's place in F numbers, a multiple of every vector's length; the slices hold F (gq) and
        // 3F numbers (all others).
        unsafe {
            let g = [load(gmu.as_ptr().add(k)), load(gmu.as_ptr().add(f + k)), load(gmu.as_ptr().add(2 * f + k))];
            let ug = g[2].fma(u[2], g[1].fma(u[1], g[0].mul(u[0])));
            let gq = load(gq.as_ptr().add(k));
            let (wq, dq) = filter.value_and_derivative(k);
            along = dq.mul(load(x.as_ptr().add(k))).fma(gq, along);
            let (wr, dr) = filter.value_and_derivative(f + k);
            let xr = load(x.as_ptr().add(f + k));
            along = dr.mul(xr).fma(ug, along);
            let radial = wr.mul(xr);
            for c in 0..3 {
                across[c] = radial.fma(g[c], across[c]);
            }
            if let Some(mu) = mu {
                let gxq = gx.as_mut_ptr().add(k);
                wq.fma(gq, load(gxq)).store(gxq);
                let gxr = gx.as_mut_ptr().add(f + k);
                wr.fma(ug, load(gxr)).store(gxr);
                let m = [load(mu.as_ptr().add(k)), load(mu.as_ptr().add(f + k)), load(mu.as_ptr().add(2 * f + k))];
                let mg = g[2].fma(m[2], g[1].fma(m[1], g[0].mul(m[0])));
                let (wm, dm) = filter.value_and_derivative(2 * f + k);
                let gxm = gx.as_mut_ptr().add(2 * f + k);
                wm.fma(mg, load(gxm)).store(gxm);
                let xm = load(x.as_ptr().add(2 * f + k));
                along = dm.mul(xm).fma(mg, along);
                let turned = wm.mul(xm);
                for c in 0..3 {
                    let out = gmu_out.as_mut_ptr().add(c * f + k);
                    turned.fma(g[c], load(out)).store(out);
                }
            }
        }
    }
    gradient.distance += along.sum();
    for c in 0..3 {
        gradient.direction[c] += across[c].sum();
    }
}
