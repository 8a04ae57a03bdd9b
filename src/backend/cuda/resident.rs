//! The network for few atoms where clusters of blocks keep all weights in their shared memory: a kernel of whole steps, see
//! `kernels/resident.cuh`.

use super::device::Device;
use super::few::What;
use super::graph::Handle;
use super::kernels::ResidentSizes;
use super::launch::{Kernel, Sink, launch};
use super::layout::{Contact, Control, Parameters, ResidentData};
use super::memory::Buffer;
use super::program::Program;
use super::radial;
use super::weights::Weights;
use crate::error::Result;
use crate::model::{self, Architecture, Model, Update};
use std::sync::Arc;

/// Blocks of the cluster: more than every device with clusters runs.
pub(super) const CLUSTER: usize = 16;
/// Channels of a block: columns of a product on tensor cores.
pub(super) const OWN: usize = 8;
/// F, of all networks that come here.
const FEATURES: usize = OWN * CLUSTER;
/// Threads of a block.
pub(super) const THREADS: usize = 512;
/// Clusters, at most.
const CLUSTERS: usize = 7;
/// Atoms of a cluster, at most: each has a warp for its messages.
const GROUP: usize = 16;
/// Numbers that an atom's channel leaves for the way back in each layer.
const KEPT: usize = 16;
/// Bytes of a pair in shared memory.
const PAIR_BYTES: usize = 28;
/// What the kernel has of shared memory by itself, at most, bytes.
const FIXED: usize = 1024;

/// See the module.
pub(super) struct Resident {
    network: ResidentData,
    steps: Kernel,
    /// Held for as long as the network points to them.
    _memory: ([Buffer<f32>; 6], Buffer<u32>),
}

impl Resident {
    /// What the kernel is compiled for, where it is made for so many atoms of this model, none of which has images.
    pub fn takes(device: &Device, model: &Model, atoms: usize) -> Option<ResidentSizes> {
        let made_for = model.spec.architecture == Architecture::Painn
            && model.features() == FEATURES
            && model.layers.len() <= ResidentData::LAYERS
            && radial::takes(&model.filter)
            && matches!(&model.readout[..], [hidden, _] if hidden.outputs <= FEATURES);
        // A system of one atom has no pairs.
        if !device.clusters || !made_for || atoms < 2 {
            return None;
        }
        Self::sizes(device, model, atoms, CLUSTERS.min(atoms))
    }

    /// The same for so many clusters, if they can have so many atoms.
    fn sizes(device: &Device, model: &Model, atoms: usize, clusters: usize) -> Option<ResidentSizes> {
        if clusters == 0 || atoms.div_ceil(clusters) > GROUP {
            return None;
        }
        let hidden = model.readout[0].outputs.next_multiple_of(OWN);
        let sizes = ResidentSizes { atoms, clusters, pairs: 0, layers: model.layers.len(), hidden };
        let left = device.shared_memory.checked_sub(shared_bytes(&sizes, model) + FIXED)?;
        Some(ResidentSizes { pairs: (left / PAIR_BYTES).min(pairs(&sizes)), ..sizes })
    }

    /// As many clusters as the device runs at the same time; they are compiled for in `program`, which has been asked first.
    pub fn fitting(
        device: &Device,
        program: &mut Program,
        model: &Model,
        sizes: ResidentSizes,
    ) -> Result<Option<ResidentSizes>> {
        let clusters = kernel(program, model, &sizes)?.clusters_at_once(CLUSTER as u32)?;
        Ok(if clusters >= sizes.clusters { Some(sizes) } else { Self::sizes(device, model, sizes.atoms, clusters) })
    }

    /// Copies the weights and reserves memory. `weights` has what elements decide, and the filters.
    pub fn new(
        device: &Arc<Device>,
        program: &mut Program,
        model: &Model,
        weights: &Weights,
        sizes: &ResidentSizes,
    ) -> Result<Self> {
        let packed = packed(model, sizes);
        assert_eq!(packed.len(), CLUSTER * weight_floats(sizes), "all weights are there");
        let packed = Buffer::from(device, &packed)?;
        let blocks = sizes.clusters * CLUSTER;
        let kept = Buffer::zeros(device, blocks * sizes.layers * KEPT * THREADS)?;
        let sums = Buffer::zeros(device, blocks * (sizes.layers - 1) * pairs(sizes) * 4)?;
        let outside = if sizes.pairs < pairs(sizes) { blocks * pairs(sizes) } else { 0 };
        let (directions, distances) = (Buffer::zeros(device, 4 * outside)?, Buffer::zeros(device, 3 * outside)?);
        let words = Buffer::zeros(device, 4 * words(sizes))?;
        let evaluations = Buffer::zeros(device, 1)?;
        let mut network = ResidentData {
            weights: packed.pointer(),
            embedding: weights.embedding.pointer(),
            sent: weights.first_sent(),
            kept: kept.pointer(),
            sums: sums.pointer(),
            pairs: directions.pointer(),
            distances: distances.pointer(),
            words: words.pointer(),
            evaluations: evaluations.pointer(),
            last_bias: weights.last_bias,
            ..ResidentData::default()
        };
        for (l, layer) in weights.layers.iter().enumerate() {
            (network.filters[l], network.epsilons[l]) = (layer.filter.data(), layer.epsilon);
        }
        let steps = kernel(program, model, sizes)?;
        Ok(Resident { network, steps, _memory: ([packed, kept, sums, directions, distances, words], evaluations) })
    }

    /// Pairs, energies and forces, and `what` else. A graph goes round with `again`, 0 outside of one.
    pub fn record(&self, sink: &mut impl Sink, p: &Parameters, what: What, again: Handle) -> Result<()> {
        launch!(sink, self.steps, *p, self.network, what as i32, again)
    }
}

fn kernel(program: &mut Program, model: &Model, sizes: &ResidentSizes) -> Result<Kernel> {
    let (name, shared) = ("resident_steps", shared_bytes(sizes, model));
    Ok(Kernel {
        name,
        function: program.large_cluster(name, shared)?,
        grid: ((sizes.clusters * CLUSTER) as u32, 1),
        threads: THREADS as u32,
        shared: shared as u32,
        // One cluster runs at the same time by itself.
        together: sizes.clusters > 1,
    })
}

/// Atoms of a cluster, at most.
fn group(sizes: &ResidentSizes) -> usize {
    sizes.atoms.div_ceil(sizes.clusters)
}

/// Pairs whose first atom is a cluster's, at most.
fn pairs(sizes: &ResidentSizes) -> usize {
    group(sizes) * (sizes.atoms - 1)
}

/// Words that clusters tell each other, as in kernels/resident_words.cuh.
fn words(sizes: &ResidentSizes) -> usize {
    let atoms = sizes.atoms;
    (2 * sizes.layers - 1) * CLUSTER * atoms * 2 * OWN + atoms * atoms + 4 * atoms
}

/// Numbers of a block's weights: M, U1 and U2 have 2, 2 and 3 tiles for every eight channels, W1 and W2 of all layers but the first
/// 1 and 3, the readout has one; then biases.
fn weight_floats(sizes: &ResidentSizes) -> usize {
    let tiles = CLUSTER * (7 * sizes.layers + 4 * (sizes.layers - 1)) + sizes.hidden / OWN;
    tiles * OWN * OWN + sizes.layers * 8 * OWN + 2 * OWN
}

/// Shared memory of a block, as kernels/resident.cuh and, behind that, `prepare` in kernels/resident.cu have it.
fn shared_bytes(sizes: &ResidentSizes, model: &Model) -> usize {
    let (atoms, group) = (sizes.atoms, group(sizes));
    let rows = group.div_ceil(2);
    let warps = THREADS / 32;
    let exchanged = (4 * CLUSTER + 12) * rows * 2 * OWN;
    // Three tiles of sums for each warp, or what all atoms send.
    let parts = (warps * 3 * 128).max(56 * atoms);
    let filters = sizes.layers * (3 * 48 * 4 + 2 * radial::FUNCTIONS);
    let of_atoms = 6 * OWN * (warps + group - 1 + group) + 4 * group + 1 + warps;
    let floats =
        4 + weight_floats(sizes) + exchanged + parts + filters + (of_atoms + 7 * sizes.pairs).next_multiple_of(4);
    let floats = floats + (6 * atoms).next_multiple_of(4);
    // Elements of the model: a system has no more.
    let contacts = model.spec.elements.len().pow(2) * size_of::<Contact>();
    let energies = atoms.next_multiple_of(2) * size_of::<f32>();
    let positions = (15 * atoms + 5) * size_of::<f64>() + 3 * atoms * size_of::<i32>() + energies;
    floats * size_of::<f32>() + contacts + positions + size_of::<Control>() + size_of::<Parameters>()
}

/// All weights: one block's after the other's, each as kernels/resident.cuh has it in shared memory.
fn packed(model: &Model, sizes: &ResidentSizes) -> Vec<f32> {
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
