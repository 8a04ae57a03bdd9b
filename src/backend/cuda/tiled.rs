//! The network of a `painn` for many atoms: messages, and between two exchanges of them one kernel that takes atoms through all
//! dense layers, tile by tile. Its memory is what limits the size of a system: gradients lie where the numbers were that they
//! are of.

use super::device::Device;
use super::kernels::Switches;
use super::launch::{Kernel, Sink, launch};
use super::layout::{ContextData, Parameters, TiledReadoutData, UpdateData};
use super::memory::Buffer;
use super::messages::{Messages, Sent};
use super::program::Program;
use super::weights::{Dense, LayerWeights, Weights};
use crate::error::Result;
use std::sync::Arc;

/// As in `kernels/tile.cuh`: atoms of a tile, in reduced precision where they fit, warps of a block, sums that they share, numbers between rows.
pub(super) const TILE: usize = 16;
const REDUCED_TILE: usize = 32;
/// Warps of a block; twice as many share the channels of a tile that has a multiprocessor to itself.
pub(super) const WARPS: usize = 8;
/// Sums that a warp gives another one, four numbers a lane.
const SHARED_SUMS: usize = 3;
const ROW_PADDING: usize = 8;
/// Numbers of a channel that threads keep for themselves, as in `kernels/between.cu`.
const KEPT: usize = 10;
/// Shared memory that is left to the driver, bytes.
const RESERVED: usize = 1024;

/// What a layer keeps, row by row in spatial order. The first one keeps no more than the first two.
struct Layer {
    /// q before the messages, then behind them, then its gradient, `[N][F]`.
    scalars: Buffer<f32>,
    /// μ behind the messages, then its gradient, `[N][3][F]`.
    vectors: Buffer<f32>,
    /// μ before them, then its gradient, `[N][3][F]`.
    mu: Buffer<f32>,
    /// What atoms send, then its gradient, `[N][3F]`. In reduced precision μ too, both in 16 bits, see `kernels/reduced.cuh`.
    sent: Buffer<f32>,
    /// Hidden layer of the context, `[N][F]`.
    hidden: Buffer<f32>,
}

/// See the module.
pub(super) struct Tiled {
    layers: Vec<Layer>,
    /// What blocks leave for themselves.
    room: Buffer<f32>,
    /// In reduced precision the gradients of q and μ behind a layer's messages, as atoms are sent them, `[N][slices][4][32]`.
    gradients: Option<Buffer<u16>>,
    readout: TiledReadoutData,
    messages: Messages,
    between: Kernel,
    turn: Kernel,
    between_back: Kernel,
}

/// Shared memory of a block of eight warps, bytes.
fn shared_bytes(features: usize, tile: usize) -> usize {
    tile * (6 * features + 5 * ROW_PADDING + 5) * size_of::<f32>()
}

/// Blocks of eight warps on a multiprocessor, as in the kernels.
fn at_once(features: usize) -> usize {
    if features <= 128 { 2 } else { 1 }
}

/// Warps of a block for so many atoms: sixteen for 128 channels where there are no more tiles than multiprocessors, which such a block
/// fills.
pub(super) fn warps(device: &Device, features: usize, atoms: usize) -> usize {
    let alone = atoms.div_ceil(TILE) <= device.multiprocessors as usize;
    if alone && features == 16 * WARPS { 2 * WARPS } else { WARPS }
}

/// Atoms of a tile in reduced precision: as many as the shared memory of a multiprocessor has room for.
pub(super) fn reduced_tile(device: &Device, features: usize) -> usize {
    let bytes = at_once(features) * (shared_bytes(features, REDUCED_TILE) + RESERVED);
    if bytes <= device.shared_memory { REDUCED_TILE } else { TILE }
}

/// Whether the kernels take a network of so many features whose readout's hidden layers are so wide, on this device.
pub(super) fn takes(device: &Device, features: usize, readout: &[usize]) -> bool {
    device.capability >= (8, 0)
        && readout.len() <= TiledReadoutData::LAYERS
        && readout.iter().all(|&width| width <= features)
        && shared_bytes(features, TILE) + RESERVED <= device.shared_memory
}

/// Numbers of an atom in the arrays of [`Layer`] l, in their order.
fn widths(features: usize, l: usize) -> [usize; 5] {
    let inner = if l > 0 { features } else { 0 };
    [features, 3 * features, 3 * inner, 3 * inner, inner]
}

/// Numbers that so many layers keep of an atom.
pub(super) fn numbers_an_atom(features: usize, layers: usize) -> usize {
    (0..layers).flat_map(|l| widths(features, l)).sum()
}

impl Tiled {
    /// Reserves memory. A slice's filter table has so many bytes.
    pub fn new(
        device: &Arc<Device>,
        program: &mut Program,
        switches: &Switches,
        table_bytes: usize,
        weights: &Weights,
        atoms: usize,
    ) -> Result<Self> {
        let f = weights.features;
        let layer = |l: usize| {
            let [scalars, vectors, mu, sent, hidden] =
                widths(f, l).map(|width| Buffer::<f32>::zeros(device, atoms * width));
            Ok(Layer { scalars: scalars?, vectors: vectors?, mu: mu?, sent: sent?, hidden: hidden? })
        };
        // Channels are rounded up to what eight warps share evenly.
        let (warps, mut at_once, mut shared) = (switches.tile_warps, at_once(f), shared_bytes(f, switches.tile));
        if warps > WARPS {
            at_once = 1;
            shared += warps * SHARED_SUMS * 32 * 4 * size_of::<f32>();
        }
        let blocks = atoms.div_ceil(switches.tile).min(at_once * device.multiprocessors as usize);
        let columns = f.next_multiple_of(8 * 16);
        let mut kernel = |name| program.kernel(name, blocks as u32, 32 * warps as u32, shared);
        Ok(Tiled {
            layers: (0..weights.layers.len()).map(layer).collect::<Result<_>>()?,
            room: Buffer::zeros(device, blocks * KEPT * switches.tile * columns)?,
            gradients: switches.reduced.then(|| Buffer::zeros(device, atoms * 4 * f)).transpose()?,
            readout: readout(weights),
            between: kernel("between")?,
            turn: kernel("turn")?,
            between_back: kernel("between_back")?,
            messages: Messages::new(device, program, switches, table_bytes, atoms)?,
        })
    }

    /// From pairs to energies and the gradients of pairs.
    pub fn record(&self, sink: &mut impl Sink, p: &Parameters, weights: &Weights) -> Result<()> {
        let (last, room) = (self.layers.len() - 1, self.room.pointer());
        let gradients = self.gradients.as_ref().map_or(0, Buffer::pointer);
        for (l, layer) in self.layers.iter().enumerate() {
            let (scalars, vectors) = (layer.scalars.pointer(), layer.vectors.pointer());
            let before = if l == 0 { weights.embedding.pointer() } else { scalars };
            self.messages.forward(sink, p, self.sent(weights, l), before, scalars, vectors)?;
            let own = update(&weights.layers[l]);
            if l == last {
                launch!(sink, self.turn, *p, own, self.readout, scalars, vectors, gradients, room)?;
            } else {
                let (next, after) = (context(&weights.layers[l + 1]), &self.layers[l + 1]);
                let [q, mu, hidden, sent] =
                    [&after.scalars, &after.mu, &after.hidden, &after.sent].map(Buffer::pointer);
                launch!(sink, self.between, *p, own, next, scalars, vectors, q, mu, hidden, sent, room)?;
            }
        }
        for (l, layer) in self.layers.iter().enumerate().rev() {
            let [gq, gvectors, mu, sent, hidden] =
                [&layer.scalars, &layer.vectors, &layer.mu, &layer.sent, &layer.hidden].map(Buffer::pointer);
            if self.gradients.is_some() {
                self.messages.adjoint_reduced(
                    sink,
                    p,
                    self.sent(weights, l),
                    gradients,
                    gvectors,
                    sent,
                    mu,
                    l == last,
                )?;
            } else {
                self.messages.adjoint(sink, p, self.sent(weights, l), [gq, gvectors], sent, 0, mu, l == last)?;
            }
            if l > 0 {
                let (own, next) = (update(&weights.layers[l - 1]), context(&weights.layers[l]));
                let [q, vectors] = [&self.layers[l - 1].scalars, &self.layers[l - 1].vectors].map(Buffer::pointer);
                launch!(sink, self.between_back, *p, own, next, sent, hidden, gq, mu, q, vectors, gradients, room)?;
            }
        }
        Ok(())
    }

    fn sent(&self, weights: &Weights, l: usize) -> Sent {
        let (layer, first) = (&self.layers[l], l == 0);
        Sent {
            first,
            filter: weights.layers[l].filter.data(),
            sent: if first { weights.first_sent() } else { layer.sent.pointer() },
            mu: if first { 0 } else { layer.mu.pointer() },
        }
    }
}

fn update(layer: &LayerWeights) -> UpdateData {
    let mix = layer.channel_mix.as_ref().expect("a painn mixes channels");
    let [first, second] = &layer.update;
    UpdateData {
        forward: [mix, first, second].map(Dense::forward_tiles),
        backward: [mix, first, second].map(Dense::backward_tiles),
        epsilon: layer.epsilon,
    }
}

fn context(layer: &LayerWeights) -> ContextData {
    let [first, second] = layer.context.as_ref().expect("a painn has a context");
    ContextData {
        forward: [first, second].map(Dense::forward_tiles),
        backward: [first, second].map(Dense::backward_tiles),
    }
}

fn readout(weights: &Weights) -> TiledReadoutData {
    let mut data = TiledReadoutData {
        last_weight: weights.last_weight.pointer(),
        last_bias: weights.last_bias,
        count: weights.readout.len() as i32,
        ..TiledReadoutData::default()
    };
    for (n, dense) in weights.readout.iter().enumerate() {
        (data.layers[n], data.back[n]) = (dense.forward_tiles(), dense.backward_tiles());
    }
    data
}
