//! Dense layers on blocks of atoms: a matrix product with weights packed once, for a few rows at a time.
//!
//! Every output is one sum over the inputs in rising order, whatever the number of rows: how atoms are grouped changes
//! no bit.

use super::real::Real;
use super::simd::{Isa, fma, padded};
use crate::model;

/// Outputs computed together: with six rows, twelve vector registers of eight float32 accumulate.
const PANEL: usize = 16;
/// Rows computed together.
const ROWS: usize = 6;

/// y = A x + b, with A by panels of 16 outputs.
#[derive(Debug, Clone)]
struct Packed<T> {
    inputs: usize,
    outputs: usize,
    /// `[panel][inputs][16]`; outputs beyond the last are zero.
    weight: Vec<T>,
    /// `[panels · 16]`, or empty.
    bias: Vec<T>,
}

impl<T: Real> Packed<T> {
    /// `element(output, input)` and `bias(output)` give the numbers.
    fn new(inputs: usize, outputs: usize, element: impl Fn(usize, usize) -> T, bias: Vec<T>) -> Self {
        let panels = outputs.div_ceil(PANEL);
        let mut weight = vec![T::zero(); panels * inputs * PANEL];
        for (panel, block) in weight.chunks_exact_mut(inputs * PANEL).enumerate() {
            for (i, row) in block.chunks_exact_mut(PANEL).enumerate() {
                for (o, w) in row.iter_mut().enumerate().filter(|(o, _)| panel * PANEL + o < outputs) {
                    *w = element(panel * PANEL + o, i);
                }
            }
        }
        let mut bias = bias;
        if !bias.is_empty() {
            bias.resize(panels * PANEL, T::zero());
        }
        Packed { inputs, outputs, weight, bias }
    }

    /// y = A x + b, or y += A x when `add`: x `[rows][inputs]`, y `[rows][outputs]`.
    #[inline(always)]
    fn apply<I: Isa>(&self, rows: usize, x: &[T], add: bool, y: &mut [T]) {
        for (panel, weight) in self.weight.chunks_exact(self.inputs * PANEL).enumerate() {
            let first = panel * PANEL;
            let mut row = 0;
            while row < rows {
                let x = &x[row * self.inputs..];
                let y = &mut y[row * self.outputs..];
                match rows - row {
                    1 => self.tile::<I, 1>(weight, first, x, add, y),
                    2 => self.tile::<I, 2>(weight, first, x, add, y),
                    3 => self.tile::<I, 3>(weight, first, x, add, y),
                    4 => self.tile::<I, 4>(weight, first, x, add, y),
                    5 => self.tile::<I, 5>(weight, first, x, add, y),
                    _ => self.tile::<I, ROWS>(weight, first, x, add, y),
                }
                row += ROWS;
            }
        }
    }

    /// `R` rows of one panel.
    #[inline(always)]
    fn tile<I: Isa, const R: usize>(&self, weight: &[T], first: usize, x: &[T], add: bool, y: &mut [T]) {
        let mut rows: [&[T]; R] = [&[]; R];
        for r in 0..R {
            rows[r] = &x[r * self.inputs..(r + 1) * self.inputs];
        }
        let mut sum = [[T::zero(); PANEL]; R];
        for (i, w) in weight.as_chunks::<PANEL>().0.iter().enumerate().take(self.inputs) {
            for r in 0..R {
                let a = rows[r][i];
                for o in 0..PANEL {
                    sum[r][o] = fma::<I, T>(a, w[o], sum[r][o]);
                }
            }
        }
        let width = PANEL.min(self.outputs - first);
        for r in 0..R {
            let out = &mut y[r * self.outputs + first..r * self.outputs + first + width];
            for (o, out) in out.iter_mut().enumerate() {
                let start = if add { *out } else { self.bias.get(first + o).copied().unwrap_or(T::zero()) };
                *out = start + sum[r][o];
            }
        }
    }
}

/// A dense layer and its adjoint.
#[derive(Debug, Clone)]
pub(super) struct Dense<T> {
    pub inputs: usize,
    pub outputs: usize,
    forward: Packed<T>,
    transposed: Packed<T>,
}

impl<T: Real> Dense<T> {
    /// From a layer whose inputs and outputs consist of so many equal parts, each of which is padded to whole blocks.
    /// What is added is zero and stays zero.
    pub fn padded(dense: &model::Dense, input_parts: usize, output_parts: usize) -> Self {
        let inputs = Padding::new(dense.inputs, input_parts);
        let outputs = Padding::new(dense.outputs, output_parts);
        let element = |o: usize, i: usize| match (outputs.original(o), inputs.original(i)) {
            (Some(o), Some(i)) => T::of(dense.weight[o * dense.inputs + i]),
            _ => T::zero(),
        };
        let bias = match dense.bias.as_slice() {
            [] => Vec::new(),
            bias => (0..outputs.len()).map(|o| outputs.original(o).map_or(T::zero(), |o| T::of(bias[o]))).collect(),
        };
        Dense {
            inputs: inputs.len(),
            outputs: outputs.len(),
            forward: Packed::new(inputs.len(), outputs.len(), element, bias),
            transposed: Packed::new(outputs.len(), inputs.len(), |i, o| element(o, i), Vec::new()),
        }
    }

    /// From a layer whose outputs are as they are, and inputs are one padded part.
    pub fn new(dense: &model::Dense) -> Self {
        let inputs = Padding::new(dense.inputs, 1);
        let element =
            |o: usize, i: usize| inputs.original(i).map_or(T::zero(), |i| T::of(dense.weight[o * dense.inputs + i]));
        let bias = dense.bias.iter().map(|&x| T::of(x)).collect();
        Dense {
            inputs: inputs.len(),
            outputs: dense.outputs,
            forward: Packed::new(inputs.len(), dense.outputs, element, bias),
            transposed: Packed::new(dense.outputs, inputs.len(), |i, o| element(o, i), Vec::new()),
        }
    }

    /// y = W x + b for `rows` atoms: x `[rows][inputs]`, y `[rows][outputs]`.
    #[inline(always)]
    pub fn forward<I: Isa>(&self, rows: usize, x: &[T], y: &mut [T]) {
        self.forward.apply::<I>(rows, x, false, y);
    }

    /// The adjoint: g_x = Wᵀ g_y, or g_x += Wᵀ g_y when `add`; g_y `[rows][outputs]`, g_x `[rows][inputs]`.
    #[inline(always)]
    pub fn backward<I: Isa>(&self, rows: usize, gy: &[T], add: bool, gx: &mut [T]) {
        self.transposed.apply::<I>(rows, gy, add, gx);
    }
}

/// Equal parts, each padded to whole blocks.
struct Padding {
    parts: usize,
    part: usize,
}

impl Padding {
    fn new(count: usize, parts: usize) -> Self {
        Padding { parts, part: count / parts }
    }

    fn len(&self) -> usize {
        self.parts * padded(self.part)
    }

    /// Where a padded index stood before, if it did.
    fn original(&self, index: usize) -> Option<usize> {
        let (part, within) = (index / padded(self.part), index % padded(self.part));
        (within < self.part).then_some(part * self.part + within)
    }
}

/// σ(x) = x / (1 + e^−x) and its derivative.
#[inline(always)]
fn silu_at<T: Real>(x: T) -> (T, T) {
    let s = T::one() / (T::one() + (-x).exponential());
    (x * s, s * (T::one() + x * (T::one() - s)))
}

/// y = σ(x), elementwise.
#[inline(always)]
pub(super) fn silu<T: Real>(x: &[T], y: &mut [T]) {
    for (x, y) in x.iter().zip(y) {
        *y = silu_at(*x).0;
    }
}

/// g = σ'(x) g, elementwise.
#[inline(always)]
pub(super) fn silu_backward<T: Real>(x: &[T], g: &mut [T]) {
    for (x, g) in x.iter().zip(g) {
        *g *= silu_at(*x).1;
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::{Fused, Kernel, Plain, dispatch};
    use super::*;

    /// Odd sizes, every number of rows, both directions, against the definition; and with and without fused
    /// multiply-add.
    #[test]
    fn products_are_those_of_the_definition() {
        struct Run<'a>(&'a Dense<f32>, usize, &'a [f32], &'a mut [f32], &'a [f32], &'a mut [f32]);
        impl Kernel for Run<'_> {
            #[inline(always)]
            fn run<I: Isa>(self) {
                self.0.forward::<I>(self.1, self.2, self.3);
                self.0.backward::<I>(self.1, self.4, true, self.5);
            }
        }
        let number = |n: usize| ((n * 7919 % 1000) as f64 - 500.0) / 500.0;
        for (inputs, outputs, rows) in [(3, 5, 1), (8, 16, 6), (20, 33, 7), (40, 24, 13)] {
            let layer = model::Dense {
                inputs,
                outputs,
                weight: (0..inputs * outputs).map(number).collect(),
                bias: (0..outputs).map(|n| number(n + 17)).collect(),
            };
            let dense = Dense::<f32>::padded(&layer, 1, 1);
            let (wide_in, wide_out) = (dense.inputs, dense.outputs);
            let x: Vec<f32> =
                (0..rows * wide_in).map(|n| if n % wide_in < inputs { number(n + 3) as f32 } else { 9.0 }).collect();
            let gy: Vec<f32> = (0..rows * wide_out).map(|n| number(n + 5) as f32).collect();
            let run = |which: u8| {
                let (mut y, mut gx) = (vec![7.0; rows * wide_out], vec![0.5; rows * wide_in]);
                let kernel = Run(&dense, rows, &x, &mut y, &gy, &mut gx);
                match which {
                    0 => dispatch(kernel),
                    1 => kernel.run::<Plain>(),
                    _ => kernel.run::<Fused>(),
                }
                (y, gx)
            };
            for which in 0..3 {
                let (y, gx) = run(which);
                for r in 0..rows {
                    for o in 0..wide_out {
                        let exact: f64 = if o < outputs {
                            layer.bias[o]
                                + (0..inputs)
                                    .map(|i| layer.weight[o * inputs + i] * x[r * wide_in + i] as f64)
                                    .sum::<f64>()
                        } else {
                            0.0
                        };
                        assert!((y[r * wide_out + o] as f64 - exact).abs() < 1e-5);
                    }
                    for i in 0..wide_in {
                        let exact: f64 = if i < inputs {
                            0.5 + (0..outputs)
                                .map(|o| layer.weight[o * inputs + i] * gy[r * wide_out + o] as f64)
                                .sum::<f64>()
                        } else {
                            0.5
                        };
                        assert!((gx[r * wide_in + i] as f64 - exact).abs() < 1e-5);
                    }
                }
            }
        }
    }

    #[test]
    fn the_activation_and_its_derivative() {
        for n in -200..200 {
            let x = n as f64 * 0.1;
            let s = 1.0 / (1.0 + (-x).exp());
            let (value, slope) = silu_at(x as f32);
            assert!((value as f64 - x * s).abs() < 1e-6 * (1.0 + x.abs()));
            assert!((slope as f64 - s * (1.0 + x * (1.0 - s))).abs() < 1e-6);
        }
    }
}
