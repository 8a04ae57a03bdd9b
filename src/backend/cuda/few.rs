//! The network for few atoms: one kernel between two exchanges of messages, each for clusters of blocks.

use super::device::Device;
use super::kernels::CLUSTER;
use super::launch::{Kernel, Sink, launch};
use super::layout::{LayerData, Parameters, Pointer, ReadoutData};
use super::memory::Buffer;
use super::program::Program;
use super::weights::{Dense, Weights};
use crate::error::Result;
use std::sync::Arc;

/// Shared memory that every device with clusters gives a block, bytes.
const SHARED: usize = 96 * 1024;
/// Clusters that a large device runs at the same time, a block on each multiprocessor.
const CLUSTERS: usize = 15;

/// See the module.
pub(super) struct Few {
    /// Atoms of a cluster.
    group: i32,
    layers: Vec<LayerData>,
    readout: ReadoutData,
    embedding: Pointer,
    /// `[N][F]`, in `painn` after every layer but the last; a student's are what its layers send.
    scalars: Buffer<f32>,
    /// Gradients of scalars and vectors, of this layer and of the one before.
    gradients: [[Buffer<f32>; 2]; 2],
    forward: Kernel,
    backward: Kernel,
    /// Held for as long as the layers point to them.
    _memory: Vec<Buffer<f32>>,
}

impl Few {
    /// Whether so many atoms are few: all clusters run at the same time. `readout`: widths of the readout's hidden layers.
    pub fn takes(features: usize, atoms: usize, readout: impl ExactSizeIterator<Item = usize>) -> bool {
        let made_for = readout.len() <= ReadoutData::LAYERS && { readout }.all(|width| width <= features);
        made_for && atoms <= CLUSTERS * most(features)
    }

    /// Reserves memory.
    pub fn new(device: &Arc<Device>, program: &mut Program, weights: &Weights, atoms: usize) -> Result<Self> {
        let (f, count) = (weights.features, weights.layers.len());
        let mut memory = Vec::new();
        let mut some = |wanted: bool, width: usize| -> Result<Pointer> {
            let buffer = Buffer::zeros(device, if wanted { atoms * width } else { 0 })?;
            let pointer = buffer.pointer();
            memory.push(buffer);
            Ok(pointer)
        };
        let mut layers = Vec::new();
        for (l, own) in weights.layers.iter().enumerate() {
            let dense = |dense: Option<&Dense>, what: fn(&Dense) -> Pointer| dense.map_or(0, what);
            let context = |what| [0, 1].map(|n| dense(own.context.as_ref().map(|context| &context[n]), what));
            let update = |what| [0, 1].map(|n| dense(Some(&own.update[n]), what));
            let kept = l + 1 < count;
            layers.push(LayerData {
                table: own.filter.table(),
                context: context(Dense::forward),
                context_bias: context(Dense::bias),
                context_back: context(Dense::backward),
                mix: dense(own.channel_mix.as_ref(), Dense::forward),
                mix_back: dense(own.channel_mix.as_ref(), Dense::backward),
                update: update(Dense::forward),
                update_bias: update(Dense::bias),
                update_back: update(Dense::backward),
                sent: if l == 0 { weights.first_sent() } else { some(true, if weights.student { f } else { 3 * f })? },
                context_hidden: some(l > 0 && !weights.student, f)?,
                mu: some(kept, 3 * f)?,
                vectors: some(kept, if weights.student { 3 * f } else { 6 * f })?,
                hidden: some(kept, f)?,
                coefficients: some(kept, 3 * f)?,
                mixing: own.mixing,
                epsilon: own.epsilon,
            });
        }
        let mut readout = ReadoutData {
            last_weight: weights.last_weight.pointer(),
            last_bias: weights.last_bias,
            layers: weights.readout.len() as i32,
            ..ReadoutData::default()
        };
        for (n, dense) in weights.readout.iter().enumerate() {
            (readout.weights[n], readout.bias[n], readout.back[n]) = (dense.forward(), dense.bias(), dense.backward());
            readout.widths[n] = dense.outputs;
        }
        let group = atoms.div_ceil(CLUSTERS);
        let mut kernel = |name| {
            let (grid, shared) = ((atoms.div_ceil(group) * CLUSTER) as u32, shared_bytes(f, group));
            let function = program.function(name, shared)?;
            Ok(Kernel { name, function, grid: (grid, 1), threads: threads(f) as u32, shared: shared as u32 })
        };
        let zeros = |width: usize| Buffer::zeros(device, atoms * width);
        Ok(Few {
            group: group as i32,
            layers,
            readout,
            embedding: weights.embedding.pointer(),
            scalars: zeros(f)?,
            gradients: [[zeros(f)?, zeros(3 * f)?], [zeros(f)?, zeros(3 * f)?]],
            forward: kernel("few_forward")?,
            backward: kernel("few_backward")?,
            _memory: memory,
        })
    }

    /// From pairs to energies and the gradients of pairs.
    pub fn record(&self, sink: &mut impl Sink, p: &Parameters, student: bool) -> Result<()> {
        let pointers = |n: usize| self.gradients[n].each_ref().map(Buffer::pointer);
        let ([gq, gmu], none) = (pointers(0), LayerData::default());
        let scalars = self.scalars.pointer();
        for (l, layer) in self.layers.iter().enumerate() {
            let next = self.layers.get(l + 1);
            let mu = if l == 0 { 0 } else { self.layers[l - 1].mu };
            let q = match (student, l) {
                (true, _) => layer.sent,
                (false, 0) => self.embedding,
                (false, _) => scalars,
            };
            let q_out = next.filter(|_| student).map_or(scalars, |next| next.sent);
            let (first, last) = ((l == 0) as i32, next.is_none() as i32);
            let next = next.unwrap_or(&none);
            let readout = &self.readout;
            launch!(sink, self.forward, *p, self.group, *layer, *next, *readout, q, mu, q_out, gq, gmu, first, last)?;
        }
        for (n, (l, layer)) in self.layers.iter().enumerate().rev().enumerate() {
            let ([gq, gmu], [gq_out, gmu_out]) = (pointers(n % 2), pointers(1 - n % 2));
            let before = if l == 0 { &none } else { &self.layers[l - 1] };
            let (first, more) = ((l == 0) as i32, (n > 0) as i32);
            launch!(sink, self.backward, *p, self.group, *layer, *before, gq, gmu, gq_out, gmu_out, first, more)?;
        }
        Ok(())
    }
}

/// Threads of a block.
pub(super) fn threads(features: usize) -> usize {
    if features < 128 { 2 * features } else { 512 }
}

/// Most atoms of a cluster: they fit into the shared memory, and no thread has channels of two atoms.
fn most(features: usize) -> usize {
    (1..=threads(features) * CLUSTER / features)
        .rev()
        .find(|&group| shared_bytes(features, group) <= SHARED)
        .unwrap_or(0)
}

/// Shared memory of a block: two barriers, rows of features, and partial sums as in kernels/few.cuh.
fn shared_bytes(features: usize, group: usize) -> usize {
    let own = features / CLUSTER;
    // The channel mix has the most: a sum of each 32 inputs for three rows of an atom and twice the channels. A readout
    // has no more than that of one row. Warps of an atom gather up to six values.
    let parts = (features / 32 * 6 * group * own).max((threads(features) / 32).max(group) * 6 * own);
    16 + (12 * group * features + parts) * size_of::<f32>()
}
