//! The network on the device: weights, what the forward pass keeps, and the order of the kernels.

use super::device::Device;
use super::kernels::Switches;
use super::launch::{Kernel, Sink, launch};
use super::layout::{Mixing, Parameters, Pointer};
use super::memory::Buffer;
use super::program::Program;
use super::weights::{Dense, SLICE, padded, table};
use crate::error::Result;
use crate::model::{Architecture, Model, Update};
use std::sync::Arc;

/// One block of message and update.
struct Layer {
    table: Buffer<f32>,
    /// The message context, in `painn`.
    context: Option<[Dense; 2]>,
    /// M, in `painn`.
    channel_mix: Option<Dense>,
    update: [Dense; 2],
    mixing: Mixing,
    /// ε of the norm.
    epsilon: f32,
    /// What the adjoint needs. What atoms send, `[N][3F]`, in a student their q, `[N][F]`.
    sent: Buffer<f32>,
    /// Hidden layer of the context, `[N][F]`.
    context_hidden: Buffer<f32>,
    /// μ after the layer, `[N][3][F]`.
    mu: Buffer<f32>,
    /// (V, Y) `[N][3][2F]`; in a student μ before the update, `[N][3][F]`.
    vectors: Buffer<f32>,
    /// Hidden layer of the update, `[N][F]`, and its result, `[N][3F]`.
    hidden: Buffer<f32>,
    coefficients: Buffer<f32>,
}

/// A hidden layer of the readout, with its values and their gradient, `[N][width]`.
struct Readout {
    dense: Dense,
    hidden: Buffer<f32>,
    gradient: Buffer<f32>,
}

/// The kernels that it needs. Matrix products get their grid with the launch.
struct Kernels {
    dense: Kernel,
    dense_add: Kernel,
    dense_silu: Kernel,
    dense_slope: Kernel,
    dense_norm: Kernel,
    dense_gradient: Kernel,
    messages: [Kernel; 2],
    adjoint: [Kernel; 2],
    update: Kernel,
    update_adjoint: Kernel,
    readout: Kernel,
}

/// See the module.
pub(super) struct Network {
    atoms: i32,
    features: i32,
    tile: (u32, u32),
    student: bool,
    layers: Vec<Layer>,
    readout: Vec<Readout>,
    last_weight: Buffer<f32>,
    last_bias: f32,
    /// Initial scalars, `[N][F]`.
    embedding: Buffer<f32>,
    /// Scalars after the last layer, in `painn` after every layer.
    scalars: Buffer<f32>,
    /// Gradients of scalars and vectors, of this layer and of the one before.
    gq: [Buffer<f32>; 2],
    gmu: [Buffer<f32>; 2],
    /// Gradients of a hidden layer `[N][F]` and of [q, n] `[N][2F]`. Those of (V, Y) and of what was sent lie where the
    /// layer's vectors were, which are then no longer needed.
    gh: Buffer<f32>,
    gin: Buffer<f32>,
    kernels: Kernels,
}

impl Network {
    /// Which constants the kernels need for so many atoms.
    pub fn switches(device: &Device, model: &Model, atoms: usize, langevin: bool) -> Switches {
        let table = shared_bytes(model);
        Switches {
            features: padded(model.features()),
            student: model.spec.architecture == Architecture::Student,
            // Filling the shared memory of every multiprocessor pays when many atoms then read from it.
            table_shared: table <= device.shared_memory && atoms >= 4096,
            large: atoms >= 2048,
            few: atoms <= 512,
            langevin,
            conditional: device.has_conditional_nodes(),
        }
    }

    /// Copies the weights and reserves memory.
    pub fn new(
        device: &Arc<Device>,
        program: &mut Program,
        switches: &Switches,
        model: &Model,
        atomic_numbers: &[u8],
    ) -> Result<Self> {
        let (f, wide, atoms) = (model.features(), switches.features, atomic_numbers.len());
        let zeros = |width: usize| Buffer::<f32>::zeros(device, atoms * width);
        let mut embedding = vec![0.0; atoms * wide];
        for (&z, row) in atomic_numbers.iter().zip(embedding.chunks_exact_mut(wide)) {
            for (to, &from) in row.iter_mut().zip(&model.embedding[z as usize * f..(z as usize + 1) * f]) {
                *to = from as f32;
            }
        }
        let filters = model.filter_table();
        let student = switches.student;
        let mut layers = Vec::new();
        for (l, layer) in model.layers.iter().enumerate() {
            let context = match &layer.context {
                Some([a, b]) => Some([Dense::new(device, a, 1, 1)?, Dense::new(device, b, 1, 3)?]),
                None => None,
            };
            let (channel_mix, update, mixing, epsilon) = match &layer.update {
                Update::Mixing { channel_mix, context, epsilon } => {
                    (Some(Dense::new(device, channel_mix, 1, 2)?), context, Mixing::default(), *epsilon as f32)
                }
                Update::Cartesian { context, mixing } => {
                    let mut t = Mixing::default();
                    for (n, element) in t.t.iter_mut().enumerate() {
                        *element = mixing.map_or(0.0, |mixing| mixing[(n / 3, n % 3)] as f32);
                    }
                    (None, context, t, 0.0)
                }
            };
            // A student's first layer sends the embedding.
            let sent = match (student, l) {
                (true, 0) => Buffer::from(device, &embedding)?,
                (true, _) => zeros(wide)?,
                (false, _) => zeros(3 * wide)?,
            };
            layers.push(Layer {
                table: Buffer::from(device, &table(filters, l))?,
                context,
                channel_mix,
                update: [Dense::new(device, &update[0], 2, 1)?, Dense::new(device, &update[1], 1, 3)?],
                mixing,
                epsilon,
                sent,
                context_hidden: zeros(if student { 0 } else { wide })?,
                mu: zeros(3 * wide)?,
                vectors: zeros(if student { 3 * wide } else { 6 * wide })?,
                hidden: zeros(wide)?,
                coefficients: zeros(3 * wide)?,
            });
        }
        let (last, hidden) = model.readout.split_last().expect("a readout has layers");
        let mut readout = Vec::new();
        for dense in hidden {
            let dense = Dense::new(device, dense, 1, 1)?;
            let width = dense.outputs as usize;
            readout.push(Readout { dense, hidden: zeros(width)?, gradient: zeros(width)? });
        }
        let mut last_weight: Vec<f32> = last.weight.iter().map(|&w| w as f32).collect();
        last_weight.resize(padded(last.inputs), 0.0);
        let (rows, columns, _) = switches.tile();
        let none = |unused: bool, width: usize| zeros(if unused { 0 } else { width });
        let network = Network {
            atoms: atoms as i32,
            features: wide as i32,
            tile: (rows, columns),
            student,
            layers,
            readout,
            last_weight: Buffer::from(device, &last_weight)?,
            last_bias: last.bias[0] as f32,
            embedding: Buffer::from(device, &embedding)?,
            scalars: zeros(wide)?,
            gq: [zeros(wide)?, none(!student, wide)?],
            gmu: [zeros(3 * wide)?, zeros(3 * wide)?],
            gh: zeros(wide)?,
            gin: zeros(2 * wide)?,
            kernels: Kernels::new(device, program, switches, model, atoms)?,
        };
        Ok(network)
    }

    /// What the first layer sends comes from the elements alone and is computed once.
    pub fn prepare(&self, sink: &mut impl Sink, p: &Parameters) -> Result<()> {
        if let Some(context) = &self.layers[0].context {
            self.send(sink, p, &self.layers[0], context, self.embedding.pointer())?;
        }
        Ok(())
    }

    /// From pairs to energies and the gradients of pairs.
    pub fn record(&self, sink: &mut impl Sink, p: &Parameters) -> Result<()> {
        self.forward(sink, p)?;
        self.read_out(sink, p)?;
        self.backward(sink, p)
    }

    /// x = W2 σ(W1 q + b1) + b2.
    fn send(
        &self,
        sink: &mut impl Sink,
        p: &Parameters,
        layer: &Layer,
        context: &[Dense; 2],
        q: Pointer,
    ) -> Result<()> {
        let hidden = layer.context_hidden.pointer();
        self.dense(sink, p, self.atoms, &context[0], q, hidden)?;
        self.dense_silu(sink, p, &context[1], hidden, layer.sent.pointer())
    }

    fn forward(&self, sink: &mut impl Sink, p: &Parameters) -> Result<()> {
        let k = &self.kernels;
        for (l, layer) in self.layers.iter().enumerate() {
            let scalars = self.scalars.pointer();
            let (q, q_out) = if self.student {
                (layer.sent.pointer(), self.layers.get(l + 1).map_or(scalars, |next| next.sent.pointer()))
            } else {
                (if l == 0 { self.embedding.pointer() } else { scalars }, scalars)
            };
            if let (Some(context), true) = (&layer.context, l > 0) {
                self.send(sink, p, layer, context, q)?;
            }
            let before = if l == 0 { 0 } else { self.layers[l - 1].mu.pointer() };
            let after = if self.student { layer.vectors.pointer() } else { layer.mu.pointer() };
            let (filters, sent) = (layer.table.pointer(), layer.sent.pointer());
            launch!(sink, k.messages[(l > 0) as usize], *p, filters, sent, before, q, q_out, after)?;

            let (mu, vectors) = (layer.mu.pointer(), layer.vectors.pointer());
            if let Some(mix) = &layer.channel_mix {
                self.dense(sink, p, 3 * self.atoms, mix, mu, vectors)?;
            }
            let (hidden, coefficients) = (layer.hidden.pointer(), layer.coefficients.pointer());
            let [first, second] = &layer.update;
            let norm = self.tiled(&k.dense_norm, self.atoms, self.features);
            launch!(sink, norm, *p, first.forward(), first.bias(), q_out, vectors, layer.epsilon, hidden)?;
            self.dense_silu(sink, p, second, hidden, coefficients)?;
            let last = (l + 1 == self.layers.len()) as i32;
            launch!(sink, k.update, *p, layer.mixing, coefficients, vectors, q_out, mu, last)?;
        }
        Ok(())
    }

    /// Energies, and the gradient of the final scalars.
    fn read_out(&self, sink: &mut impl Sink, p: &Parameters) -> Result<()> {
        let mut input = self.scalars.pointer();
        for (n, layer) in self.readout.iter().enumerate() {
            let hidden = layer.hidden.pointer();
            if n == 0 {
                self.dense(sink, p, self.atoms, &layer.dense, input, hidden)?;
            } else {
                self.dense_silu(sink, p, &layer.dense, input, hidden)?;
            }
            input = hidden;
        }
        let deepest = self.readout.last().expect("check_model asks for a hidden layer");
        let (width, weight, gradient) = (deepest.dense.outputs, self.last_weight.pointer(), deepest.gradient.pointer());
        launch!(sink, self.kernels.readout, *p, width, weight, self.last_bias, input, gradient)?;
        for pair in self.readout.windows(2).rev() {
            let [before, layer] = pair else { unreachable!("windows of two") };
            let hidden = before.hidden.pointer();
            self.dense_slope(sink, p, &layer.dense, layer.gradient.pointer(), hidden, before.gradient.pointer())?;
        }
        let first = &self.readout[0];
        self.dense_back(sink, p, self.atoms, &first.dense, first.gradient.pointer(), self.gq[0].pointer())
    }

    fn backward(&self, sink: &mut impl Sink, p: &Parameters) -> Result<()> {
        let k = &self.kernels;
        let mut gq = [self.gq[0].pointer(), self.gq[1].pointer()];
        let mut gmu = [self.gmu[0].pointer(), self.gmu[1].pointer()];
        let (gh, gin) = (self.gh.pointer(), self.gin.pointer());
        for (l, layer) in self.layers.iter().enumerate().rev() {
            let last = (l + 1 == self.layers.len()) as i32;
            let (vectors, hidden, coefficients) =
                (layer.vectors.pointer(), layer.hidden.pointer(), layer.coefficients.pointer());
            let (gvy, gx) = (vectors, vectors);
            let [first, second] = &layer.update;
            let gradient = self.tiled(&k.dense_gradient, self.atoms, self.features);
            let weights = second.backward();
            launch!(sink, gradient, *p, layer.mixing, weights, gq[0], gmu[0], vectors, hidden, gh, last)?;
            self.dense_back(sink, p, self.atoms, first, gh, gin)?;
            let epsilon = layer.epsilon;
            launch!(
                sink,
                k.update_adjoint,
                *p,
                layer.mixing,
                coefficients,
                vectors,
                gin,
                epsilon,
                gq[0],
                gmu[0],
                gvy,
                last
            )?;
            match &layer.channel_mix {
                Some(mix) if last != 0 => self.dense_back(sink, p, 3 * self.atoms, mix, gvy, gmu[0])?,
                Some(mix) => self.dense_add(sink, p, 3 * self.atoms, mix, gvy, gmu[0])?,
                None => {}
            }

            let before = if l == 0 { 0 } else { self.layers[l - 1].mu.pointer() };
            let (filters, sent, add) = (layer.table.pointer(), layer.sent.pointer(), 1 - last);
            let adjoint = &k.adjoint[(l > 0) as usize];
            launch!(sink, *adjoint, *p, filters, sent, before, gq[0], gmu[0], gx, gq[1], gmu[1], add)?;
            gmu.swap(0, 1);
            match &layer.context {
                Some([first, second]) if l > 0 => {
                    self.dense_slope(sink, p, second, gx, layer.context_hidden.pointer(), gh)?;
                    self.dense_add(sink, p, self.atoms, first, gh, gq[0])?;
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
    fn dense(
        &self,
        sink: &mut impl Sink,
        p: &Parameters,
        rows: i32,
        dense: &Dense,
        x: Pointer,
        y: Pointer,
    ) -> Result<()> {
        let kernel = self.tiled(&self.kernels.dense, rows, dense.outputs);
        launch!(sink, kernel, *p, rows, dense.inputs, dense.outputs, dense.forward(), dense.bias(), x, y)
    }

    /// y = W σ(x) + b.
    fn dense_silu(&self, sink: &mut impl Sink, p: &Parameters, dense: &Dense, x: Pointer, y: Pointer) -> Result<()> {
        let kernel = self.tiled(&self.kernels.dense_silu, self.atoms, dense.outputs);
        launch!(sink, kernel, *p, self.atoms, dense.inputs, dense.outputs, dense.forward(), dense.bias(), x, y)
    }

    /// g_x = Wᵀ g_y.
    fn dense_back(
        &self,
        sink: &mut impl Sink,
        p: &Parameters,
        rows: i32,
        dense: &Dense,
        gy: Pointer,
        gx: Pointer,
    ) -> Result<()> {
        let kernel = self.tiled(&self.kernels.dense, rows, dense.inputs);
        let no_bias: Pointer = 0;
        launch!(sink, kernel, *p, rows, dense.outputs, dense.inputs, dense.backward(), no_bias, gy, gx)
    }

    /// g_x += Wᵀ g_y.
    fn dense_add(
        &self,
        sink: &mut impl Sink,
        p: &Parameters,
        rows: i32,
        dense: &Dense,
        gy: Pointer,
        gx: Pointer,
    ) -> Result<()> {
        let kernel = self.tiled(&self.kernels.dense_add, rows, dense.inputs);
        launch!(sink, kernel, *p, rows, dense.outputs, dense.inputs, dense.backward(), gy, gx)
    }

    /// g_h = σ'(h) Wᵀ g_y.
    fn dense_slope(
        &self,
        sink: &mut impl Sink,
        p: &Parameters,
        dense: &Dense,
        gy: Pointer,
        h: Pointer,
        gh: Pointer,
    ) -> Result<()> {
        let kernel = self.tiled(&self.kernels.dense_slope, self.atoms, dense.inputs);
        launch!(sink, kernel, *p, self.atoms, dense.outputs, dense.inputs, dense.backward(), gy, h, gh)
    }
}

/// Bytes of the filter table of one slice.
fn shared_bytes(model: &Model) -> usize {
    (model.filter_table().intervals + 3) * 3 * SLICE * size_of::<f32>()
}

impl Kernels {
    fn new(device: &Device, program: &mut Program, switches: &Switches, model: &Model, atoms: usize) -> Result<Self> {
        let mut kernel = |name, grid: u32, threads, shared: usize| {
            let function = program.function(name, shared)?;
            Ok(Kernel { name, function, grid: (grid, 1), threads, shared: shared as u32 })
        };
        let (_, _, tile) = switches.tile();
        let slices = (switches.features / SLICE) as u32;
        // With the table in shared memory a block stays on its multiprocessor and walks over atoms.
        let (grid, threads, shared) = if switches.table_shared {
            ((device.multiprocessors / slices).max(1) * slices, 384, shared_bytes(model))
        } else {
            ((atoms as u32).div_ceil(4) * slices, 128, 0)
        };
        let channels = (atoms * switches.features).div_ceil(256) as u32;
        Ok(Kernels {
            dense: kernel("dense", 1, tile, 0)?,
            dense_add: kernel("dense_add", 1, tile, 0)?,
            dense_silu: kernel("dense_silu", 1, tile, 0)?,
            dense_slope: kernel("dense_slope", 1, tile, 0)?,
            dense_norm: kernel("dense_norm", 1, tile, 0)?,
            dense_gradient: kernel("dense_gradient", 1, tile, 0)?,
            messages: [
                kernel("messages_first", grid, threads, shared)?,
                kernel("messages_next", grid, threads, shared)?,
            ],
            adjoint: [kernel("adjoint_first", grid, threads, shared)?, kernel("adjoint_next", grid, threads, shared)?],
            update: kernel("update", channels, 256, 0)?,
            update_adjoint: kernel("update_adjoint", channels, 256, 0)?,
            readout: kernel("readout", (atoms as u32).div_ceil(4), 128, 0)?,
        })
    }
}
