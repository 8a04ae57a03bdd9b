//! The network as one kernel after the other, each for all atoms: of a student, and of a `painn` that no tile fits. Its memory is what limits the size of a system, so
//! what the backward pass makes lies where the forward pass kept what is no longer needed.

use super::device::Device;
use super::kernels::Switches;
use super::launch::{Kernel, Sink, launch};
use super::layout::{Parameters, Pointer};
use super::memory::Buffer;
use super::messages::{Messages, Sent};
use super::program::Program;
use super::weights::{Dense, Weights};
use crate::error::Result;
use std::sync::Arc;

/// What a layer keeps for its adjoint.
struct Layer {
    /// What atoms send, `[N][3F]`, in a student their q, `[N][F]`; empty in the first layer, where elements decide it.
    sent: Buffer<f32>,
    /// Hidden layer of the context, `[N][F]`, then its gradient; not in the first layer, nor in a student.
    context_hidden: Buffer<f32>,
    /// μ after the layer, `[N][3][F]`; the last layer's stands where its coefficients come later.
    mu: Buffer<f32>,
    /// (V, Y) `[N][3][2F]`, then their gradient, then that of what was sent, `[N][3F]`, and that of μ before the layer,
    /// `[N][3][F]`. In a student μ before the update, `[N][3][F]`, then the gradient of μ before the layer.
    vectors: Buffer<f32>,
    /// Hidden layer of the update, `[N][F]`, then its gradient.
    hidden: Buffer<f32>,
    /// What the update multiplies with, `[N][3F]`; in the last layer then the gradient of μ after it, `[N][3][F]`.
    coefficients: Buffer<f32>,
}

/// The kernels that it needs. Matrix products get their grid with the launch.
struct Kernels {
    dense: Kernel,
    dense_add: Kernel,
    dense_silu: Kernel,
    dense_slope: Kernel,
    dense_norm: Kernel,
    dense_gradient: Kernel,
    update: Kernel,
    update_adjoint: Kernel,
    readout: Kernel,
}

/// See the module.
pub(super) struct Many {
    atoms: i32,
    tile: (u32, u32),
    layers: Vec<Layer>,
    /// Hidden layers of the readout, `[N][width]`, then their gradients.
    readout: Vec<Buffer<f32>>,
    /// Scalars after the last layer, in `painn` after every layer, `[N][F]`; then their gradient.
    scalars: Buffer<f32>,
    /// A student's gradient of scalars goes back and forth between there and here.
    other_gradient: Buffer<f32>,
    /// Gradient of [q, n], `[N][2F]`.
    norm_gradient: Buffer<f32>,
    messages: Messages,
    kernels: Kernels,
}

impl Many {
    /// Reserves memory. A slice's filter table has so many bytes.
    pub fn new(
        device: &Arc<Device>,
        program: &mut Program,
        switches: &Switches,
        table_bytes: usize,
        weights: &Weights,
        atoms: usize,
    ) -> Result<Self> {
        let (f, student) = (weights.features, weights.student);
        let some = |wanted: bool, width: usize| Buffer::<f32>::zeros(device, if wanted { atoms * width } else { 0 });
        let layer = |l: usize| {
            Ok(Layer {
                sent: some(l > 0, if student { f } else { 3 * f })?,
                context_hidden: some(l > 0 && !student, f)?,
                mu: some(l + 1 < weights.layers.len(), 3 * f)?,
                vectors: some(true, if student { 3 * f } else { 6 * f })?,
                hidden: some(true, f)?,
                coefficients: some(true, 3 * f)?,
            })
        };
        let (rows, columns, _) = switches.dense_tile();
        Ok(Many {
            atoms: atoms as i32,
            tile: (rows, columns),
            layers: (0..weights.layers.len()).map(layer).collect::<Result<_>>()?,
            readout: weights.readout.iter().map(|dense| some(true, dense.outputs as usize)).collect::<Result<_>>()?,
            scalars: some(true, f)?,
            other_gradient: some(student, f)?,
            norm_gradient: some(true, 2 * f)?,
            messages: Messages::new(device, program, switches, table_bytes, atoms)?,
            kernels: Kernels::new(program, switches, atoms)?,
        })
    }

    /// From pairs to energies and the gradients of pairs.
    pub fn record(&self, sink: &mut impl Sink, p: &Parameters, weights: &Weights) -> Result<()> {
        self.forward(sink, p, weights)?;
        self.read_out(sink, p, weights)?;
        self.backward(sink, p, weights)
    }

    /// What atoms send into layer l.
    fn sent(&self, weights: &Weights, l: usize) -> Pointer {
        if l == 0 { weights.first_sent() } else { self.layers[l].sent.pointer() }
    }

    fn messages_of(&self, weights: &Weights, l: usize) -> Sent {
        Sent {
            first: l == 0,
            filter: weights.layers[l].filter.data(),
            sent: self.sent(weights, l),
            mu: if l == 0 { 0 } else { self.mu(l - 1) },
        }
    }

    /// μ after layer l.
    fn mu(&self, l: usize) -> Pointer {
        let layer = &self.layers[l];
        if l + 1 < self.layers.len() { layer.mu.pointer() } else { layer.coefficients.pointer() }
    }

    fn forward(&self, sink: &mut impl Sink, p: &Parameters, weights: &Weights) -> Result<()> {
        let k = &self.kernels;
        for (l, (layer, own)) in self.layers.iter().zip(&weights.layers).enumerate() {
            let scalars = self.scalars.pointer();
            let before = if l == 0 { weights.embedding.pointer() } else { scalars };
            let (q, q_out) = if weights.student {
                (self.sent(weights, l), self.layers.get(l + 1).map_or(scalars, |next| next.sent.pointer()))
            } else {
                (before, scalars)
            };
            // x = W2 σ(W1 q + b1) + b2
            if let (Some([first, second]), true) = (&own.context, l > 0) {
                let hidden = layer.context_hidden.pointer();
                self.dense(sink, p, self.atoms, first, q, hidden)?;
                self.dense_silu(sink, p, second, hidden, layer.sent.pointer())?;
            }
            let (mu, vectors) = (self.mu(l), layer.vectors.pointer());
            let after = if weights.student { vectors } else { mu };
            self.messages.forward(sink, p, self.messages_of(weights, l), q, q_out, after)?;

            if let Some(mix) = &own.channel_mix {
                self.dense(sink, p, 3 * self.atoms, mix, mu, vectors)?;
            }
            let (hidden, coefficients) = (layer.hidden.pointer(), layer.coefficients.pointer());
            let [first, second] = &own.update;
            let norm = self.tiled(&k.dense_norm, self.atoms, first.outputs);
            launch!(sink, norm, *p, first.forward(), first.bias(), q_out, vectors, own.epsilon, hidden)?;
            self.dense_silu(sink, p, second, hidden, coefficients)?;
            let last = (l + 1 == self.layers.len()) as i32;
            launch!(sink, k.update, *p, own.mixing, coefficients, vectors, q_out, mu, last)?;
        }
        Ok(())
    }

    /// Energies, and the gradient of the final scalars.
    fn read_out(&self, sink: &mut impl Sink, p: &Parameters, weights: &Weights) -> Result<()> {
        let mut input = self.scalars.pointer();
        for (n, (dense, hidden)) in weights.readout.iter().zip(&self.readout).enumerate() {
            let hidden = hidden.pointer();
            if n == 0 {
                self.dense(sink, p, self.atoms, dense, input, hidden)?;
            } else {
                self.dense_silu(sink, p, dense, input, hidden)?;
            }
            input = hidden;
        }
        let deepest = weights.readout.last().expect("check_model asks for a hidden layer");
        let (width, weight, bias) = (deepest.outputs, weights.last_weight.pointer(), weights.last_bias);
        launch!(sink, self.kernels.readout, *p, width, weight, bias, input)?;
        for n in (1..weights.readout.len()).rev() {
            let [before, gradient] = [n - 1, n].map(|n| self.readout[n].pointer());
            self.dense_slope(sink, p, &weights.readout[n], gradient, before)?;
        }
        self.dense_back(sink, p, self.atoms, &weights.readout[0], self.readout[0].pointer(), self.scalars.pointer())
    }

    fn backward(&self, sink: &mut impl Sink, p: &Parameters, weights: &Weights) -> Result<()> {
        let k = &self.kernels;
        let mut gq = [self.scalars.pointer(), self.other_gradient.pointer()];
        let mut gmu = self.mu(self.layers.len() - 1);
        let gin = self.norm_gradient.pointer();
        for (l, (layer, own)) in self.layers.iter().zip(&weights.layers).enumerate().rev() {
            let last = (l + 1 == self.layers.len()) as i32;
            let (vectors, hidden, coefficients) =
                (layer.vectors.pointer(), layer.hidden.pointer(), layer.coefficients.pointer());
            let [first, second] = &own.update;
            let gradient = self.tiled(&k.dense_gradient, self.atoms, second.inputs);
            launch!(sink, gradient, *p, own.mixing, second.backward(), gq[0], gmu, vectors, hidden, last)?;
            self.dense_back(sink, p, self.atoms, first, hidden, gin)?;
            let epsilon = own.epsilon;
            launch!(sink, k.update_adjoint, *p, own.mixing, coefficients, vectors, gin, epsilon, gq[0], gmu, last)?;
            match &own.channel_mix {
                Some(mix) if last != 0 => self.dense_back(sink, p, 3 * self.atoms, mix, vectors, gmu)?,
                Some(mix) => self.dense_add(sink, p, 3 * self.atoms, mix, vectors, gmu)?,
                None => {}
            }

            // Behind the gradient of what was sent, where there is one.
            let sent_gradient = if weights.student { 0 } else { 3 * weights.features * p.atoms as usize };
            let gmu_before = vectors + (sent_gradient * size_of::<f32>()) as Pointer;
            let from = self.messages_of(weights, l);
            self.messages.adjoint(sink, p, from, [gq[0], gmu], vectors, gq[1], gmu_before, last != 0)?;
            gmu = gmu_before;
            match &own.context {
                Some([first, second]) if l > 0 => {
                    let hidden = layer.context_hidden.pointer();
                    self.dense_slope(sink, p, second, vectors, hidden)?;
                    self.dense_add(sink, p, self.atoms, first, hidden, gq[0])?;
                }
                Some(_) => {}
                None => gq.swap(0, 1),
            }
        }
        Ok(())
    }

    /// A matrix product's kernel with the grid for a result of this size.
    fn tiled(&self, kernel: &Kernel, rows: i32, columns: i32) -> Kernel {
        let (tall, wide) = self.tile;
        Kernel { grid: ((rows as u32).div_ceil(tall), (columns as u32).div_ceil(wide)), ..*kernel }
    }

    /// y = W x + b.
    fn dense(&self, sink: &mut impl Sink, p: &Parameters, rows: i32, w: &Dense, x: Pointer, y: Pointer) -> Result<()> {
        let kernel = self.tiled(&self.kernels.dense, rows, w.outputs);
        launch!(sink, kernel, *p, rows, w.inputs, w.outputs, w.forward(), w.bias(), x, y)
    }

    /// y = W σ(x) + b.
    fn dense_silu(&self, sink: &mut impl Sink, p: &Parameters, w: &Dense, x: Pointer, y: Pointer) -> Result<()> {
        let kernel = self.tiled(&self.kernels.dense_silu, self.atoms, w.outputs);
        launch!(sink, kernel, *p, self.atoms, w.inputs, w.outputs, w.forward(), w.bias(), x, y)
    }

    /// g_x = Wᵀ g_y.
    fn dense_back(
        &self,
        sink: &mut impl Sink,
        p: &Parameters,
        rows: i32,
        w: &Dense,
        gy: Pointer,
        gx: Pointer,
    ) -> Result<()> {
        let kernel = self.tiled(&self.kernels.dense, rows, w.inputs);
        let no_bias: Pointer = 0;
        launch!(sink, kernel, *p, rows, w.outputs, w.inputs, w.backward(), no_bias, gy, gx)
    }

    /// g_x += Wᵀ g_y.
    fn dense_add(
        &self,
        sink: &mut impl Sink,
        p: &Parameters,
        rows: i32,
        w: &Dense,
        gy: Pointer,
        gx: Pointer,
    ) -> Result<()> {
        let kernel = self.tiled(&self.kernels.dense_add, rows, w.inputs);
        launch!(sink, kernel, *p, rows, w.outputs, w.inputs, w.backward(), gy, gx)
    }

    /// h becomes σ'(h) Wᵀ g_y.
    fn dense_slope(&self, sink: &mut impl Sink, p: &Parameters, w: &Dense, gy: Pointer, h: Pointer) -> Result<()> {
        let kernel = self.tiled(&self.kernels.dense_slope, self.atoms, w.inputs);
        launch!(sink, kernel, *p, self.atoms, w.outputs, w.inputs, w.backward(), gy, h)
    }
}

impl Kernels {
    fn new(program: &mut Program, switches: &Switches, atoms: usize) -> Result<Self> {
        let mut kernel = |name, grid: usize, threads| program.kernel(name, grid as u32, threads, 0);
        let (_, _, tile) = switches.dense_tile();
        let channels = (atoms * switches.features).div_ceil(256);
        Ok(Kernels {
            dense: kernel("dense", 1, tile)?,
            dense_add: kernel("dense_add", 1, tile)?,
            dense_silu: kernel("dense_silu", 1, tile)?,
            dense_slope: kernel("dense_slope", 1, tile)?,
            dense_norm: kernel("dense_norm", 1, tile)?,
            dense_gradient: kernel("dense_gradient", 1, tile)?,
            update: kernel("update", channels, 256)?,
            update_adjoint: kernel("update_adjoint", channels, 256)?,
            readout: kernel("readout", atoms.div_ceil(4), 128)?,
        })
    }
}
