//! What host and device both know: the same structures as in `kernels/common.cuh`, field by field.

/// An address on the device.
pub(super) type Pointer = u64;

/// Why nothing more may happen on the device.
pub(super) mod status {
    pub const GOOD: i32 = 0;
    pub const CAPACITY: i32 = 1;
    pub const FAST: i32 = 2;
    pub const OVERLAP: i32 = 3;
    pub const POSITION: i32 = 4;
    /// [`FAST`], in a step before.
    pub const STOPPED: i32 = 5;
    /// No failure: a step left what the model was trained on, and is the last one.
    pub const OUTSIDE: i32 = 6;
}

/// Where a run is.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Control {
    pub heat: f64,
    pub kinetic: f64,
    pub network: f64,
    pub full_step: f64,
    pub origin: [f64; 3],
    pub extent: [f64; 3],
    pub step: i64,
    pub target: i64,
    pub rebuilds: i64,
    pub needed: i64,
    pub next_frame: i64,
    pub counts: [i32; 3],
    pub reach: [i32; 3],
    pub rebuild: i32,
    pub status: i32,
    pub atom: i32,
    pub samples: i32,
    pub frames: i32,
    pub close: i32,
    pub noted: [i32; 2],
    pub surely_in: f32,
    pub surely_out: f32,
}

impl Control {
    /// At step 0 before the first list, which is to be made and not counted.
    pub fn new() -> Self {
        Control { rebuilds: -1, rebuild: 1, atom: i32::MAX, ..Control::default() }
    }
}

/// What the device says of a step: a row of the energy log, or what belongs to a frame, or both.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct DeviceSample {
    pub step: i64,
    pub rebuilds: i64,
    pub kinetic: f64,
    pub network: f64,
    pub full_step: f64,
    pub heat: f64,
    pub logged: i32,
    pub framed: i32,
}

/// What holds for two elements.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ElementPair {
    pub limit: f64,
    pub inner: f64,
    pub outer: f64,
    pub strength: f64,
    pub length: f64,
}

/// The first two atoms of two elements that were too close.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Contact {
    pub key: u64,
    pub step: i64,
    pub distance: f64,
}

/// No atoms.
impl Default for Contact {
    fn default() -> Self {
        Contact { key: u64::MAX, step: 0, distance: 0.0 }
    }
}

impl Contact {
    /// Bits of an atom's index in a key: more atoms than that fit no device, and twelve bits are left for a step.
    pub const ATOM_BITS: usize = 26;

    /// The two atoms, if there are any: the lower one first.
    pub fn atoms(&self) -> Option<[usize; 2]> {
        let index = |key: u64| (key & ((1 << Self::ATOM_BITS) - 1)) as usize;
        (self.key != u64::MAX).then(|| [index(self.key >> Self::ATOM_BITS), index(self.key)])
    }
}

/// One of many systems.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Replica {
    pub cell: [f64; 9],
    pub inverse: [f64; 9],
    pub heights: [f64; 3],
    pub temperature: f64,
    pub final_temperature: f64,
    pub total_mass: f64,
    pub lowest: f64,
    pub highest: f64,
    pub seed: [u32; 2],
    pub periodic: [i32; 3],
    pub first: i32,
    pub atoms: i32,
    pub room: i32,
}

/// Everything about a system that no layer decides; goes to every kernel by value.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Parameters {
    pub control: Pointer,
    pub samples: Pointer,
    pub positions: Pointer,
    pub velocities: Pointer,
    pub forces: Pointer,
    pub reference: Pointer,
    pub masses: Pointer,
    pub half_kick: Pointer,
    pub species: Pointer,
    pub order: Pointer,
    pub place: Pointer,
    pub kinds: Pointer,
    pub partials: Pointer,
    pub strain: Pointer,
    pub images: Pointer,
    pub found: Pointer,
    pub spread: Pointer,
    pub bin_of: Pointer,
    pub bin_start: Pointer,
    pub bin_next: Pointer,
    pub bin_atoms: Pointer,
    pub spots: Pointer,
    pub sums: Pointer,
    pub rows: Pointer,
    pub entries: Pointer,
    pub reverse: Pointer,
    pub pairs: Pointer,
    pub inside: Pointer,
    pub gradients: Pointer,
    pub energies: Pointer,
    pub element_pairs: Pointer,
    pub contacts: Pointer,
    pub repulsion: Pointer,
    pub frames: Pointer,
    pub frame_intervals: Pointer,
    pub replicas: Pointer,
    pub system_of: Pointer,
    pub cell: [f64; 9],
    pub inverse: [f64; 9],
    pub heights: [f64; 3],
    pub cutoff: f64,
    pub range: f64,
    pub half_skin2: f64,
    pub epsilon: f64,
    pub spacing: f64,
    pub watched: f64,
    pub repelled: f64,
    pub lowest: f64,
    pub highest: f64,
    pub energy_unit: f64,
    pub half_step: f64,
    pub fastest2: f64,
    pub mass_velocity2: f64,
    pub boltzmann: f64,
    pub c1: f64,
    pub c2: f64,
    pub temperature: f64,
    pub final_temperature: f64,
    pub total_mass: f64,
    pub ramp_steps: i64,
    pub log_interval: i64,
    pub capacity: i64,
    pub seed: [u32; 2],
    pub atoms: i32,
    pub bins: i32,
    pub intervals: i32,
    pub samples_capacity: i32,
    pub periodic: [i32; 3],
    pub remove_centre_of_mass: i32,
    pub elements: i32,
    pub stop_outside: i32,
    pub frames_capacity: i32,
    pub frame_intervals_count: i32,
}

/// The student's mixing matrix T, row-major; zeros where there is none.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mixing {
    pub t: [f32; 9],
}

/// A layer's filter for the network for many atoms, as in `kernels/message.cuh`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FilterData {
    pub table: Pointer,
    pub weights: Pointer,
    pub functions: Pointer,
    pub unit: f32,
}

/// A dense layer for tiles of atoms, as in `kernels/tile.cuh`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TilesData {
    pub data: Pointer,
    pub bias: Pointer,
    pub unit: f32,
    pub outputs: i32,
}

/// An update block's weights, as in `kernels/between.cu`: M, U1, U2 and their transposes in this order.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct UpdateData {
    pub forward: [TilesData; 3],
    pub backward: [TilesData; 3],
    pub epsilon: f32,
}

/// The context's: W1, W2 and their transposes.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ContextData {
    pub forward: [TilesData; 2],
    pub backward: [TilesData; 2],
}

/// The readout's.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TiledReadoutData {
    pub layers: [TilesData; Self::LAYERS],
    pub back: [TilesData; Self::LAYERS],
    pub last_weight: Pointer,
    pub last_bias: f32,
    pub count: i32,
}

impl TiledReadoutData {
    /// Most hidden layers.
    pub const LAYERS: usize = 3;
}

/// One layer of the network for few atoms, as in `kernels/few.cuh`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LayerData {
    pub table: Pointer,
    pub context: [Pointer; 2],
    pub context_bias: [Pointer; 2],
    pub context_back: [Pointer; 2],
    pub mix: Pointer,
    pub mix_back: Pointer,
    pub update: [Pointer; 2],
    pub update_bias: [Pointer; 2],
    pub update_back: [Pointer; 2],
    pub sent: Pointer,
    pub mu: Pointer,
    pub mixing: Mixing,
    pub epsilon: f32,
}

/// Its readout.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ReadoutData {
    pub weights: [Pointer; Self::LAYERS],
    pub bias: [Pointer; Self::LAYERS],
    pub back: [Pointer; Self::LAYERS],
    pub last_weight: Pointer,
    pub last_bias: f32,
    pub layers: i32,
    pub widths: [i32; Self::LAYERS],
}

impl ReadoutData {
    /// Most hidden layers.
    pub const LAYERS: usize = 4;
}

/// The whole network for few atoms.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct NetworkData {
    pub layers: [LayerData; Self::LAYERS],
    pub readout: ReadoutData,
    pub embedding: Pointer,
    pub gradients: [[Pointer; 2]; 2],
    pub barrier: Pointer,
    pub count: i32,
    pub group: i32,
    pub members: i32,
    pub room: i32,
}

impl NetworkData {
    /// Most layers.
    pub const LAYERS: usize = 6;
}

/// The network for clusters that keep all weights, as in `kernels/resident.cuh`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ResidentData {
    pub filters: [FilterData; Self::LAYERS],
    pub epsilons: [f32; Self::LAYERS],
    pub weights: Pointer,
    pub embedding: Pointer,
    pub sent: Pointer,
    pub kept: Pointer,
    pub sums: Pointer,
    pub pairs: Pointer,
    pub distances: Pointer,
    pub words: Pointer,
    pub evaluations: Pointer,
    pub last_bias: f32,
}

impl ResidentData {
    /// Most layers.
    pub const LAYERS: usize = NetworkData::LAYERS;
}

/// Bytes of a pair inside the cutoff.
pub(super) const PAIR_BYTES: usize = 32;
/// Bits of each component of the translation in a pair of the list; the neighbour is above all three.
pub(super) const SHIFT_BITS: usize = 12;
