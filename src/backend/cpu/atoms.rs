//! What belongs to atoms one by one around the updates: what they send, and the readout.

use super::aligned::{Aligned, zeros};
use super::dense::{Dense, silu, silu_backward};
use super::real::Real;
use super::simd::LANES;
use crate::model::Model;

/// x = W2 σ(W1 q + b1) + b2, or (q, 1, 1) where the architecture sends scalars as they are.
/// `scratch` has F numbers an atom at least.
pub(super) fn send<T: Real>(
    context: Option<&[Dense<T>; 2]>,
    f: usize,
    q: &[T],
    hidden: &mut [T],
    x: &mut [T],
    scratch: &mut [T],
) {
    match context {
        Some([first, second]) => {
            let atoms = q.len() / f;
            first.forward(atoms, q, hidden);
            let active = &mut scratch[..hidden.len()];
            silu(hidden, active);
            second.forward(atoms, active, x);
        }
        None => {
            for (x, q) in x.chunks_exact_mut(3 * LANES).zip(q.chunks_exact(LANES)) {
                x[..LANES].copy_from_slice(q);
                x[LANES..].fill(T::one());
            }
        }
    }
}

/// The adjoint of [`send`]: adds to g_q `[atoms][F]` what x's gradient `[atoms][3F]` makes of it.
/// `scratch` has F numbers an atom at least.
pub(super) fn send_backward<T: Real>(
    context: Option<&[Dense<T>; 2]>,
    f: usize,
    hidden: &[T],
    gx: &[T],
    gq: &mut [T],
    scratch: &mut [T],
) {
    match context {
        Some([first, second]) => {
            let atoms = gq.len() / f;
            let gh = &mut scratch[..hidden.len()];
            second.backward(atoms, gx, false, gh);
            silu_backward(hidden, gh);
            first.backward(atoms, gh, true, gq);
        }
        None => {
            for (gq, gx) in gq.chunks_exact_mut(LANES).zip(gx.chunks_exact(3 * LANES)) {
                for (gq, gx) in gq.iter_mut().zip(gx) {
                    *gq += *gx;
                }
            }
        }
    }
}

/// Per-atom energies in the network's unit, and their gradient with respect to the final scalars.
pub(super) fn read_out<T: Real>(layers: &[Dense<T>], q: &[T], energies: &mut [T], gq: &mut [T]) {
    let atoms = energies.len();
    let deepest = layers.len() - 1;
    // Values before each activation.
    let mut hidden: Vec<Aligned<T>> = Vec::with_capacity(deepest);
    let mut input = Aligned::from(q);
    for dense in &layers[..deepest] {
        let mut h = zeros(atoms * dense.outputs);
        dense.forward(atoms, &input, &mut h);
        input = zeros(h.len());
        silu(&h, &mut input);
        hidden.push(h);
    }
    layers[deepest].forward(atoms, &input, energies);
    let mut gradient = zeros(atoms);
    gradient.fill(T::one());
    for (dense, h) in layers[1..].iter().zip(&hidden).rev() {
        let mut before = zeros(atoms * dense.inputs);
        dense.backward(atoms, &gradient, false, &mut before);
        silu_backward(h, &mut before);
        gradient = before;
    }
    layers[0].backward(atoms, &gradient, false, gq);
}

/// The readout: its hidden layers are padded like features, its single output is not.
pub(super) fn readout<T: Real>(model: &Model) -> Vec<Dense<T>> {
    let (last, hidden) = model.readout.split_last().expect("the spec asks for two layers at least");
    hidden.iter().map(|dense| Dense::padded(dense, 1, 1)).chain([Dense::new(last)]).collect()
}
