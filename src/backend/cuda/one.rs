//! The network for so few atoms that one cluster of blocks takes them all: a kernel of whole steps that keeps all weights in shared
//! memory, see `kernels/one.cuh`.

use super::device::Device;
use super::few::What;
use super::graph::Handle;
use super::kernels::OneSizes;
use super::launch::{Kernel, Sink, launch};
use super::layout::{Contact, Control, OneNetworkData, Parameters};
use super::memory::Buffer;
use super::program::Program;
use super::weights::Weights;
use crate::error::Result;
use crate::model::{self, Architecture, Model, Update};
use std::sync::Arc;

/// Blocks of the cluster: more than every device with clusters runs.
pub(super) const CLUSTER: usize = 16;
/// Channels of a block: columns of a product on tensor cores.
const OWN: usize = 8;
/// F, of all networks that come here.
const FEATURES: usize = OWN * CLUSTER;
/// Threads of a block.
pub(super) const THREADS: usize = 512;
/// Atoms, at most: of more, rows of products come in twice as many eights and messages take twice as many turns, and many clusters are
/// faster.
const ATOMS: usize = 16;
/// Numbers that an atom's channel leaves for the way back in each layer.
const KEPT: usize = 16;
/// What the kernel has of shared memory by itself, at most, bytes.
const FIXED: usize = 1024;

/// See the module.
pub(super) struct One {
    network: OneNetworkData,
    steps: Kernel,
    /// Held for as long as the network points to them.
    _memory: [Buffer<f32>; 3],
}

impl One {
    /// What the kernel is compiled for, where it is made for so many atoms of this model, none of which has images.
    pub fn takes(device: &Device, model: &Model, atoms: usize) -> Option<OneSizes> {
        let made_for = model.spec.architecture == Architecture::Painn
            && model.features() == FEATURES
            && model.layers.len() <= OneNetworkData::LAYERS
            && matches!(&model.readout[..], [hidden, _] if hidden.outputs <= FEATURES);
        // A system of one atom has no pairs.
        if !device.clusters || !made_for || !(2..=ATOMS).contains(&atoms) {
            return None;
        }
        let hidden = model.readout[0].outputs.next_multiple_of(OWN);
        let sizes = OneSizes { atoms, layers: model.layers.len(), hidden };
        Some(sizes).filter(|sizes| shared_bytes(sizes, model) + FIXED <= device.shared_memory)
    }

    /// Whether the device runs such a cluster.
    pub fn fits(program: &mut Program, model: &Model, sizes: &OneSizes) -> Result<bool> {
        Ok(kernel(program, model, sizes)?.clusters_at_once(CLUSTER as u32)? > 0)
    }

    /// Copies the weights and reserves memory. `weights` has what elements decide, and the filters.
    pub fn new(
        device: &Arc<Device>,
        program: &mut Program,
        model: &Model,
        weights: &Weights,
        sizes: &OneSizes,
    ) -> Result<Self> {
        let packed = packed(model, sizes);
        assert_eq!(packed.len(), CLUSTER * weight_floats(sizes), "all weights are there");
        let packed = Buffer::from(device, &packed)?;
        let filters = Buffer::zeros(device, CLUSTER * sizes.layers * 2 * 3 * OWN * pairs(sizes.atoms))?;
        let kept = Buffer::zeros(device, CLUSTER * sizes.layers * KEPT * THREADS)?;
        let mut network = OneNetworkData {
            weights: packed.pointer(),
            embedding: weights.embedding.pointer(),
            sent: weights.first_sent(),
            filters: filters.pointer(),
            kept: kept.pointer(),
            last_bias: weights.last_bias,
            ..OneNetworkData::default()
        };
        for (l, layer) in weights.layers.iter().enumerate() {
            (network.tables[l], network.epsilons[l]) = (layer.filter.table(), layer.epsilon);
        }
        let steps = kernel(program, model, sizes)?;
        Ok(One { network, steps, _memory: [packed, filters, kept] })
    }

    /// Pairs, energies and forces, and `what` else. A graph goes round with `again`, 0 outside of one.
    pub fn record(&self, sink: &mut impl Sink, p: &Parameters, what: What, again: Handle) -> Result<()> {
        launch!(sink, self.steps, *p, self.network, what as i32, again)
    }
}

fn kernel(program: &mut Program, model: &Model, sizes: &OneSizes) -> Result<Kernel> {
    let (name, shared) = ("one_steps", shared_bytes(sizes, model));
    Ok(Kernel {
        name,
        function: program.large_cluster(name, shared)?,
        grid: (CLUSTER as u32, 1),
        threads: THREADS as u32,
        shared: shared as u32,
        // One cluster runs at the same time by itself.
        together: false,
    })
}

/// Pairs of atoms.
fn pairs(atoms: usize) -> usize {
    atoms * (atoms - 1) / 2
}

/// Numbers of a block's weights: M, U1 and U2 have 2, 2 and 3 tiles for every eight channels, W1 and W2 of all layers but the first
/// 1 and 3, the readout has one; then biases.
fn weight_floats(sizes: &OneSizes) -> usize {
    let tiles = CLUSTER * (7 * sizes.layers + 4 * (sizes.layers - 1)) + sizes.hidden / OWN;
    tiles * OWN * OWN + sizes.layers * 8 * OWN + 2 * OWN
}

/// Shared memory of a block, as kernels/one.cuh and, behind that, `prepare` in kernels/one.cu have it.
fn shared_bytes(sizes: &OneSizes, model: &Model) -> usize {
    let atoms = sizes.atoms;
    let (rows, pairs) = (atoms.div_ceil(2), pairs(atoms));
    let exchanged = (4 * CLUSTER + 12) * rows * 2 * OWN;
    // Three tiles of sums for each warp, or filters of all pairs.
    let parts = (THREADS / 32 * 3 * 128).max(3 * OWN * pairs);
    let of_atoms = (6 * OWN + 56 + 40 + 12) * atoms + 4 * atoms * atoms + 2 * rows;
    let of_pairs = 4 * pairs + 2 * pairs.next_multiple_of(2);
    let floats = 4 + weight_floats(sizes) + exchanged + parts + of_atoms + of_pairs;
    // Elements of the model: a system has no more.
    let contacts = model.spec.elements.len().pow(2) * size_of::<Contact>();
    let positions = (15 * atoms + 5) * size_of::<f64>() + 3 * atoms * size_of::<i32>() + 2 * rows * size_of::<f32>();
    floats * size_of::<f32>() + contacts + positions + size_of::<Control>() + size_of::<Parameters>()
}

/// All weights: one block's after the other's, each as kernels/one.cuh has it in shared memory.
fn packed(model: &Model, sizes: &OneSizes) -> Vec<f32> {
    let mut packed = Vec::new();
    for block in 0..CLUSTER {
        for (l, layer) in model.layers.iter().enumerate() {
            let Update::Mixing { channel_mix, context, .. } = &layer.update else {
                panic!("only a painn comes here");
            };
            gathered(&mut packed, channel_mix, block, 2);
            spread(&mut packed, &context[0], block, 2, FEATURES);
            gathered(&mut packed, &context[1], block, 3);
            if let Some([first, second]) = model.layers.get(l + 1).and_then(|next| next.context.as_ref()) {
                spread(&mut packed, first, block, 1, FEATURES);
                gathered(&mut packed, second, block, 3);
            }
        }
        spread(&mut packed, &model.readout[0], block, 1, sizes.hidden);
        for (l, layer) in model.layers.iter().enumerate() {
            let Update::Mixing { context, .. } = &layer.update else { unreachable!("seen above") };
            let next = model.layers.get(l + 1).and_then(|next| next.context.as_ref());
            let mut add = |bias: Option<&Vec<f64>>, parts: usize| {
                for n in 0..parts * OWN {
                    let at = n / OWN * FEATURES + block * OWN + n % OWN;
                    packed.push(bias.map_or(0.0, |bias| bias[at] as f32));
                }
            };
            add(Some(&context[0].bias), 1);
            add(Some(&context[1].bias), 3);
            add(next.map(|context| &context[0].bias), 1);
            add(next.map(|context| &context[1].bias), 3);
        }
        for numbers in [&model.readout[0].bias, &model.readout[1].weight] {
            packed.extend((0..OWN).map(|n| numbers.get(block * OWN + n).map_or(0.0, |&number| number as f32)));
        }
    }
    packed
}

/// A layer whose outputs the block owns, eight of each of so many parts: tiles [inputs / 8][parts] of [8 inputs][8 own].
fn gathered(packed: &mut Vec<f32>, dense: &model::Dense, block: usize, parts: usize) {
    for place in 0..dense.inputs / OWN * parts * OWN * OWN {
        let (tile, part) = (place / (OWN * OWN) / parts, place / (OWN * OWN) % parts);
        let (input, own) = (tile * OWN + place / OWN % OWN, place % OWN);
        packed.push(dense.weight[(part * FEATURES + block * OWN + own) * dense.inputs + input] as f32);
    }
}

/// A layer whose inputs the block owns, eight of each of so many parts: tiles [outputs / 8][parts] of [8 outputs][8 own]. Outputs
/// that the layer does not have are zero.
fn spread(packed: &mut Vec<f32>, dense: &model::Dense, block: usize, parts: usize, outputs: usize) {
    for place in 0..outputs / OWN * parts * OWN * OWN {
        let (tile, part) = (place / (OWN * OWN) / parts, place / (OWN * OWN) % parts);
        let (output, own) = (tile * OWN + place / OWN % OWN, place % OWN);
        let input = part * FEATURES + block * OWN + own;
        packed.push(if output < dense.outputs { dense.weight[output * dense.inputs + input] as f32 } else { 0.0 });
    }
}
