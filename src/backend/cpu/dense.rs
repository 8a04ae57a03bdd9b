//! Dense layers on blocks of atoms.

use super::real::Real;
use crate::model;

/// A dense layer y = W x + b in the network's precision.
#[derive(Debug, Clone)]
pub(super) struct Dense<T> {
    pub inputs: usize,
    pub outputs: usize,
    /// `[outputs][inputs]`.
    weight: Vec<T>,
    bias: Vec<T>,
}

impl<T: Real> Dense<T> {
    pub fn new(dense: &model::Dense) -> Self {
        Dense {
            inputs: dense.inputs,
            outputs: dense.outputs,
            weight: dense.weight.iter().map(|&x| T::of(x)).collect(),
            bias: dense.bias.iter().map(|&x| T::of(x)).collect(),
        }
    }

    /// y = W x + b for `rows` atoms: x `[rows][inputs]`, y `[rows][outputs]`.
    pub fn forward(&self, rows: usize, x: &[T], y: &mut [T]) {
        let beta = if self.bias.is_empty() {
            T::zero()
        } else {
            for row in y[..rows * self.outputs].chunks_exact_mut(self.outputs) {
                row.copy_from_slice(&self.bias);
            }
            T::one()
        };
        T::matmul([rows, self.outputs, self.inputs], x, &self.weight, true, beta, y);
    }

    /// The adjoint: g_x = Wᵀ g_y + β g_x, with g_y `[rows][outputs]` and g_x `[rows][inputs]`.
    pub fn backward(&self, rows: usize, gy: &[T], beta: T, gx: &mut [T]) {
        T::matmul([rows, self.inputs, self.outputs], gy, &self.weight, false, beta, gx);
    }
}

/// y = σ(x), elementwise.
pub(super) fn silu<T: Real>(x: &[T], y: &mut [T]) {
    for (x, y) in x.iter().zip(y) {
        *y = model::silu(*x).0;
    }
}

/// g = σ'(x) g, elementwise.
pub(super) fn silu_backward<T: Real>(x: &[T], g: &mut [T]) {
    for (x, g) in x.iter().zip(g) {
        *g *= model::silu(*x).1;
    }
}
