//! Dense layers on blocks of atoms: a matrix product with weights packed once, for a few rows at a time.
//!
//! Every output is one sum over the inputs in rising order, whatever the number of rows: how atoms are grouped changes
//! no bit.

use super::aligned::{Aligned, zeros};
use super::real::Real;
use super::simd::{Isa, Kernel, LANES, V, Vector, dispatch, get, put};
use crate::backend::padding::Padding;
use crate::model;

/// y = A x + b, with A by panels of so many outputs as fill 64 bytes ([`Real::PANEL`]).
#[derive(Debug, Clone)]
struct Packed<T> {
    inputs: usize,
    outputs: usize,
    /// `[panel][inputs][PANEL]`; outputs beyond the last are zero.
    weight: Aligned<T>,
    /// `[panels · PANEL]`, zero where the layer has none.
    bias: Aligned<T>,
}

impl<T: Real> Packed<T> {
    /// `element(output, input)` gives the weights; `bias` has a number an output, or none at all.
    fn new(inputs: usize, outputs: usize, element: impl Fn(usize, usize) -> T, mut bias: Vec<T>) -> Self {
        let panels = outputs.div_ceil(T::PANEL);
        let mut weight = zeros(panels * inputs * T::PANEL);
        for (panel, block) in weight.chunks_exact_mut(inputs * T::PANEL).enumerate() {
            for (i, row) in block.chunks_exact_mut(T::PANEL).enumerate() {
                for (o, w) in row.iter_mut().enumerate().filter(|(o, _)| panel * T::PANEL + o < outputs) {
                    *w = element(panel * T::PANEL + o, i);
                }
            }
        }
        bias.resize(panels * T::PANEL, T::zero());
        Packed { inputs, outputs, weight, bias: bias.as_slice().into() }
    }

    /// y = A x + b, or y += A x + b when `add`: x `[rows][inputs]`, y `[rows][outputs]`.
    fn apply(&self, rows: usize, x: &[T], add: bool, y: &mut [T]) {
        assert!(x.len() >= rows * self.inputs && y.len() >= rows * self.outputs);
        dispatch(Product { layer: self, rows, x, add, y });
    }
}

struct Product<'a, T> {
    layer: &'a Packed<T>,
    rows: usize,
    x: &'a [T],
    add: bool,
    y: &'a mut [T],
}

impl<T: Real> Kernel for Product<'_, T> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Product { layer, rows, x, add, y } = self;
        for (panel, weight) in layer.weight.chunks_exact(layer.inputs * T::PANEL).enumerate() {
            let mut row = 0;
            while row < rows {
                let tile = Tile { layer, weight, panel, x: &x[row * layer.inputs..], add };
                let y = &mut y[row * layer.outputs..];
                let height = (rows - row).min(I::ROWS);
                // One vector or two: see `simd::Isa`.
                if T::PANEL == V::<I, T>::LEN {
                    tile.rows::<I, 1>(height, y)
                } else {
                    tile.rows::<I, 2>(height, y)
                }
                row += height;
            }
        }
    }
}

/// Some rows of one panel.
struct Tile<'a, T> {
    layer: &'a Packed<T>,
    /// `[inputs][PANEL]`.
    weight: &'a [T],
    panel: usize,
    /// From the first row on.
    x: &'a [T],
    add: bool,
}

impl<T: Real> Tile<'_, T> {
    /// So many rows, at most [`Isa::ROWS`] of the instruction set, with `N` vectors in a panel.
    #[inline(always)]
    fn rows<I: Isa, const N: usize>(&self, rows: usize, y: &mut [T]) {
        match rows {
            1 => self.run::<I, N, 1>(y),
            2 => self.run::<I, N, 2>(y),
            3 => self.run::<I, N, 3>(y),
            4 => self.run::<I, N, 4>(y),
            5 => self.run::<I, N, 5>(y),
            6 => self.run::<I, N, 6>(y),
            7 => self.run::<I, N, 7>(y),
            8 => self.run::<I, N, 8>(y),
            9 => self.run::<I, N, 9>(y),
            10 => self.run::<I, N, 10>(y),
            11 => self.run::<I, N, 11>(y),
            _ => self.run::<I, N, 12>(y),
        }
    }

    /// `R` rows and `N` vectors. Both are known when this is compiled: sums that might be more than there are would be set
    /// to zero in memory first, which took a twentieth of a step.
    #[inline(always)]
    fn run<I: Isa, const N: usize, const R: usize>(&self, y: &mut [T]) {
        let len = V::<I, T>::LEN;
        if R > I::ROWS || N * len != T::PANEL {
            return; // never asked for, and not worth compiling
        }
        let (inputs, outputs) = (self.layer.inputs, self.layer.outputs);
        let first = self.panel * T::PANEL;
        assert!(self.weight.len() >= inputs * T::PANEL && self.x.len() >= R * inputs);
        let bias = &self.layer.bias[first..first + T::PANEL];
        let mut sum = [[V::<I, T>::zero(); N]; R];
        for v in 0..N {
            // SAFETY: a panel of the bias has `N` vectors.
            let bias = unsafe { V::<I, T>::load(bias.as_ptr().add(v * len)) };
            for r in 0..R {
                sum[r][v] = bias;
            }
        }
        for i in 0..inputs {
            let mut w = [V::<I, T>::zero(); N];
            for v in 0..N {
                // SAFETY: i < inputs; the length of `weight` was looked at above.
                w[v] = unsafe { V::<I, T>::load(self.weight.as_ptr().add(i * T::PANEL + v * len)) };
            }
            for r in 0..R {
                // SAFETY: r < R, i < inputs; the length of `x` was looked at above.
                let a = V::<I, T>::splat(unsafe { *self.x.get_unchecked(r * inputs + i) });
                for v in 0..N {
                    sum[r][v] = a.fma(w[v], sum[r][v]);
                }
            }
        }
        let width = T::PANEL.min(outputs - first);
        for r in 0..R {
            let out = &mut y[r * outputs + first..r * outputs + first + width];
            if width == T::PANEL {
                for v in 0..N {
                    // SAFETY: `out` has `N` vectors.
                    unsafe {
                        let at = out.as_mut_ptr().add(v * len);
                        let total = if self.add { V::<I, T>::load(at).add(sum[r][v]) } else { sum[r][v] };
                        total.store(at);
                    }
                }
            } else {
                let mut total = [T::zero(); 16];
                for v in 0..N {
                    // SAFETY: a panel has at most 16 numbers.
                    unsafe { sum[r][v].store(total.as_mut_ptr().add(v * len)) };
                }
                for (out, total) in out.iter_mut().zip(total) {
                    *out = if self.add { *out + total } else { total };
                }
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
    pub fn padded(dense: &model::Dense, input_parts: usize, output_parts: usize) -> Self {
        let inputs = Padding::new(dense.inputs, input_parts, LANES);
        let outputs = Padding::new(dense.outputs, output_parts, LANES);
        let (from, to) = (|i| inputs.original(i), |o| outputs.original(o));
        Self::arranged(dense, (inputs.len(), &from), (outputs.len(), &to))
    }

    /// From a layer whose inputs are one part, and whose outputs are three that come out interleaved, as the messages take
    /// them: `[slice][3][LANES]`, where a slice is [`LANES`] of each part.
    pub fn sliced(dense: &model::Dense) -> Self {
        let inputs = Padding::new(dense.inputs, 1, LANES);
        let outputs = Padding::new(dense.outputs, 3, LANES);
        let original = |o: usize| {
            let (slice, part, lane) = (o / (3 * LANES), o / LANES % 3, o % LANES);
            outputs.original(part * (outputs.len() / 3) + slice * LANES + lane)
        };
        Self::arranged(dense, (inputs.len(), &|i| inputs.original(i)), (outputs.len(), &original))
    }

    /// From a layer whose outputs are as they are, and inputs are one padded part.
    pub fn new(dense: &model::Dense) -> Self {
        let inputs = Padding::new(dense.inputs, 1, LANES);
        Self::arranged(dense, (inputs.len(), &|i| inputs.original(i)), (dense.outputs, &Some))
    }

    /// From how many inputs and outputs there shall be, and which each of them was; what is added is zero and stays zero.
    fn arranged(
        dense: &model::Dense,
        (inputs, input): (usize, &dyn Fn(usize) -> Option<usize>),
        (outputs, output): (usize, &dyn Fn(usize) -> Option<usize>),
    ) -> Self {
        let element = |o: usize, i: usize| match (output(o), input(i)) {
            (Some(o), Some(i)) => T::of(dense.weight[o * dense.inputs + i]),
            _ => T::zero(),
        };
        let bias = match dense.bias.as_slice() {
            [] => Vec::new(),
            bias => (0..outputs).map(|o| output(o).map_or(T::zero(), |o| T::of(bias[o]))).collect(),
        };
        Dense {
            inputs,
            outputs,
            forward: Packed::new(inputs, outputs, element, bias),
            transposed: Packed::new(outputs, inputs, |i, o| element(o, i), Vec::new()),
        }
    }

    /// y = W x + b for `rows` atoms: x `[rows][inputs]`, y `[rows][outputs]`.
    pub fn forward(&self, rows: usize, x: &[T], y: &mut [T]) {
        self.forward.apply(rows, x, false, y);
    }

    /// The adjoint: g_x = Wᵀ g_y, or g_x += Wᵀ g_y when `add`; g_y `[rows][outputs]`, g_x `[rows][inputs]`.
    pub fn backward(&self, rows: usize, gy: &[T], add: bool, gx: &mut [T]) {
        self.transposed.apply(rows, gy, add, gx);
    }
}

/// y = σ(x) = x / (1 + e^−x), elementwise; whole vectors.
pub(super) fn silu<T: Real>(x: &[T], y: &mut [T]) {
    dispatch(Silu { x, y });
}

struct Silu<'a, T> {
    x: &'a [T],
    y: &'a mut [T],
}

impl<T: Real> Kernel for Silu<'_, T> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let one = V::<I, T>::splat(T::one());
        for k in (0..self.x.len()).step_by(V::<I, T>::LEN) {
            let x = get::<I, T>(self.x, k);
            put::<I, T>(x.div(V::<I, T>::zero().sub(x).exp().add(one)), self.y, k);
        }
    }
}

/// g = σ'(x) g, elementwise; whole vectors. With s = 1 / (1 + e^−x), σ' = s (1 + x (1 − s)).
pub(super) fn silu_backward<T: Real>(x: &[T], g: &mut [T]) {
    dispatch(SiluBackward { x, g });
}

struct SiluBackward<'a, T> {
    x: &'a [T],
    g: &'a mut [T],
}

impl<T: Real> Kernel for SiluBackward<'_, T> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let one = V::<I, T>::splat(T::one());
        for k in (0..self.x.len()).step_by(V::<I, T>::LEN) {
            let x = get::<I, T>(self.x, k);
            let s = one.div(V::<I, T>::zero().sub(x).exp().add(one));
            let slope = x.fma(one.sub(s), one).mul(s);
            put::<I, T>(get::<I, T>(self.g, k).mul(slope), self.g, k);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::Instructions;
    use super::*;

    /// Odd sizes, many numbers of rows, both directions, against the definition, with every instruction set.
    fn products<T: Real>(tolerance: f64) {
        let number = |n: usize| ((n * 7919 % 1000) as f64 - 500.0) / 500.0;
        for (inputs, outputs, rows) in (1..=13).map(|rows| (3 + rows, 5 + 4 * rows, rows)).chain([(40, 24, 29)]) {
            let layer = model::Dense {
                inputs,
                outputs,
                weight: (0..inputs * outputs).map(number).collect(),
                bias: (0..outputs).map(|n| number(n + 17)).collect(),
            };
            for dense in [Dense::<T>::padded(&layer, 1, 1), Dense::<T>::new(&layer)] {
                let (wide_in, wide_out) = (dense.inputs, dense.outputs);
                let at = |n: usize| if n % wide_in < inputs { number(n + 3) } else { 9.0 };
                let x: Vec<T> = (0..rows * wide_in).map(|n| T::of(at(n))).collect();
                let gy: Vec<T> = (0..rows * wide_out).map(|n| T::of(number(n + 5))).collect();
                for isa in Instructions::available() {
                    let (mut y, mut gx) = (vec![T::of(7.0); rows * wide_out], vec![T::of(0.5); rows * wide_in]);
                    isa.run(Product { layer: &dense.forward, rows, x: &x, add: false, y: &mut y });
                    isa.run(Product { layer: &dense.transposed, rows, x: &gy, add: true, y: &mut gx });
                    for r in 0..rows {
                        for o in 0..wide_out {
                            let product = |i: usize| layer.weight[o * inputs + i] * x[r * wide_in + i].wide();
                            let exact = match o < outputs {
                                true => layer.bias[o] + (0..inputs).map(product).sum::<f64>(),
                                false => 0.0,
                            };
                            assert!((y[r * wide_out + o].wide() - exact).abs() < tolerance, "{isa:?}: {rows} rows");
                        }
                        for i in 0..wide_in {
                            let product = |o: usize| layer.weight[o * inputs + i] * gy[r * wide_out + o].wide();
                            let exact = match i < inputs {
                                true => 0.5 + (0..outputs).map(product).sum::<f64>(),
                                false => 0.5,
                            };
                            assert!((gx[r * wide_in + i].wide() - exact).abs() < tolerance, "{isa:?}: {rows} rows");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn products_are_those_of_the_definition() {
        products::<f32>(1e-5);
        products::<f64>(1e-13);
    }

    #[test]
    fn the_activation_and_its_derivative() {
        let x: Vec<f32> = (-2000..2000).map(|n| n as f32 * 0.05).collect();
        for isa in Instructions::available() {
            let (mut y, mut slope) = (x.clone(), vec![1.0; x.len()]);
            isa.run(Silu { x: &x, y: &mut y });
            isa.run(SiluBackward { x: &x, g: &mut slope });
            for (n, &x) in x.iter().enumerate() {
                let x = x as f64;
                let s = 1.0 / (1.0 + (-x).exp());
                assert!((y[n] as f64 - x * s).abs() < 1e-6 * (1.0 + x.abs()), "{isa:?}: {x}");
                assert!((slope[n] as f64 - s * (1.0 + x * (1.0 - s))).abs() < 1e-6, "{isa:?}: {x}");
            }
        }
    }
}
