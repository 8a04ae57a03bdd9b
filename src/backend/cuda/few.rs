//! The network for few atoms: one kernel, of clusters of blocks, that takes whole steps.

use super::device::Device;
use super::graph::Handle;
use super::kernels::CLUSTER;
use super::launch::{Kernel, Sink, launch};
use super::layout::{Control, LayerData, NetworkData, PAIR_BYTES, Parameters, Pointer, ReadoutData};
use super::memory::Buffer;
use super::program::Program;
use super::weights::{Dense, Weights};
use crate::error::{Error, Result};
use std::cmp::Reverse;
use std::sync::Arc;

/// Clusters that a large device runs at the same time, a block on each multiprocessor.
const CLUSTERS: usize = 15;
/// What the kernel has of shared memory by itself, at most, bytes.
const FIXED: usize = 9 * 1024;
/// Pairs of an atom for which shared memory is taken where there is enough of it.
const PAIRS: usize = 96;

/// Pairs of an atom inside the cutoff, as in water at 5 Å.
const TYPICAL_PAIRS: usize = 48;

/// What the kernel is to do, as in `kernels/few_step.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(i32)]
pub(super) enum What {
    OnlyForces,
    OneStep,
    /// As many steps as the launch has and the list holds.
    AllSteps,
}

/// See the module.
pub(super) struct Few {
    network: NetworkData,
    steps: Kernel,
    /// Held for as long as the network points to them.
    _memory: (Vec<Buffer<f32>>, Buffer<u32>),
}

impl Few {
    /// Whether so many atoms are few: all clusters run at the same time. `readout`: widths of the readout's hidden layers.
    pub fn takes(device: &Device, features: usize, layers: usize, atoms: usize, readout: &[usize]) -> bool {
        let made_for = layers <= NetworkData::LAYERS
            && readout.len() <= ReadoutData::LAYERS
            && readout.iter().all(|&width| width <= features);
        device.clusters && made_for && Plan::new(device, features, layers, atoms).is_some()
    }

    /// Whether the device runs all clusters of this network at the same time, as [`takes`](Self::takes) has guessed.
    pub fn fits(device: &Device, program: &mut Program, features: usize, layers: usize, atoms: usize) -> Result<bool> {
        let Some(plan) = Plan::new(device, features, layers, atoms) else { return Ok(false) };
        let clusters = atoms.div_ceil(plan.group);
        Ok(plan.kernel(program, features, clusters)?.clusters_at_once(CLUSTER as u32)? >= clusters)
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
        let mut layers = [LayerData::default(); NetworkData::LAYERS];
        for (l, own) in weights.layers.iter().enumerate() {
            let dense = |dense: Option<&Dense>, what: fn(&Dense) -> Pointer| dense.map_or(0, what);
            let context = |what| [0, 1].map(|n| dense(own.context.as_ref().map(|context| &context[n]), what));
            let update = |what| [0, 1].map(|n| dense(Some(&own.update[n]), what));
            let kept = l + 1 < count;
            layers[l] = LayerData {
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
                mu: some(kept, 3 * f)?,
                mixing: own.mixing,
                epsilon: own.epsilon,
            };
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
        let plan = Plan::new(device, f, count, atoms).expect("only few atoms come here");
        let steps = plan.kernel(program, f, atoms.div_ceil(plan.group))?;
        let mut gradients = || Ok::<_, Error>([some(true, f)?, some(true, 3 * f)?]);
        let gradients = [gradients()?, gradients()?];
        let barrier = Buffer::zeros(device, 1)?;
        let network = NetworkData {
            layers,
            readout,
            embedding: weights.embedding.pointer(),
            gradients,
            barrier: barrier.pointer(),
            count: count as i32,
            group: plan.group as i32,
            members: plan.members as i32,
            room: plan.room as i32,
        };
        Ok(Few { network, steps, _memory: (memory, barrier) })
    }

    /// Pairs, energies and forces, and `what` else. A graph goes round with `again`, 0 outside of one.
    pub fn record(&self, sink: &mut impl Sink, p: &Parameters, what: What, again: Handle) -> Result<()> {
        launch!(sink, self.steps, *p, self.network, what as i32, again)
    }
}

/// Threads of a block: with more of them the registers of a whole step would not do.
pub(super) fn threads(features: usize) -> usize {
    if features < 128 { 2 * features } else { 384 }
}

/// How atoms are shared out, and what a block has in its shared memory.
struct Plan {
    /// Atoms of a cluster, as few as the device's clusters allow.
    group: usize,
    /// Warps that share an atom's pairs.
    members: usize,
    /// Pairs for which there is room.
    room: usize,
    /// Bytes.
    shared: usize,
}

impl Plan {
    /// None where there are too many atoms.
    fn new(device: &Device, features: usize, layers: usize, atoms: usize) -> Option<Self> {
        // Not every multiprocessor has seven neighbours that are free.
        let clusters = (device.multiprocessors as usize / CLUSTER).saturating_sub(1).min(CLUSTERS);
        let group = atoms.checked_div(clusters).map(|_| atoms.div_ceil(clusters))?;
        let fixed = shared_bytes(features, layers, atoms, group);
        let left = device.shared_memory.checked_sub(fixed + FIXED)?;
        // No thread has channels of two atoms.
        if group > threads(features) * CLUSTER / features {
            return None;
        }
        let pair = PAIR_BYTES + size_of::<[f32; 4]>();
        // What is left is the first-level cache, which counts for more than anything that could be kept there by hand.
        let room = (PAIRS * group).min(left / pair);
        let members = members(features, group);
        Some(Plan { group, members, room, shared: fixed + room * pair })
    }

    fn kernel(&self, program: &mut Program, features: usize, clusters: usize) -> Result<Kernel> {
        let name = "few_steps";
        Ok(Kernel {
            name,
            function: program.function(name, self.shared)?,
            grid: ((clusters * CLUSTER) as u32, 1),
            threads: threads(features) as u32,
            shared: self.shared as u32,
            together: true,
        })
    }
}

/// Warps that share an atom's pairs: as many as need the fewest turns of all warps, counting those for sums and the way there.
fn members(features: usize, group: usize) -> usize {
    let own = features / CLUSTER;
    let warps = threads(features) / 32;
    // Lanes for an eighth of the channels, four each, share a pair: no more warps than take 64 pairs at once.
    let at_once = 32 / (own / 4);
    // Sums over warps lie where dense layers have their own.
    let room = (features / 32).max(warps / group);
    let turns = |members: usize| {
        let rounds = group.div_ceil(warps / members);
        (rounds * (TYPICAL_PAIRS.div_ceil(members * at_once) + 1), rounds, Reverse(members))
    };
    (1..=warps.min(own / 2).min(room)).min_by_key(|&members| turns(members)).unwrap_or(1)
}

/// Shared memory of a block but for pairs, as `make_team` in kernels/few.cuh and `own_copy` in kernels/few_step.cu have it: two
/// barriers, rows of features, partial sums, what layers leave for the way back, where pairs begin; and the whole system.
fn shared_bytes(features: usize, layers: usize, atoms: usize, group: usize) -> usize {
    let own = features / CLUSTER;
    // The channel mix has the most: a sum of each 32 inputs for three rows of an atom and twice the channels. A readout
    // has no more than that of one row. Warps of an atom gather up to six values.
    let parts = (features / 32 * 6 * group * own).max((threads(features) / 32).max(group) * 6 * own);
    let kept = 10 * layers * group * own;
    let rows = (2 * group).next_multiple_of(4);
    let positions = (11 * atoms + 5) * size_of::<f64>() + 3 * atoms * size_of::<i32>();
    let system = positions + size_of::<Control>() + size_of::<Parameters>();
    16 + (12 * group * features + parts + kept + rows) * size_of::<f32>() + system
}
