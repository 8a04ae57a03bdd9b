//! The kernels' sources and the constants that they are compiled with.

use super::layout::{
    Contact, ContextData, Control, DeviceSample, FilterData, LayerData, NetworkData, Parameters, ReadoutData, Replica,
    ResidentData, SHIFT_BITS, TiledReadoutData, UpdateData,
};
use super::weights::SLICE;
use super::{few, resident};

/// Blocks of a cluster: the most that every device with clusters runs.
pub(super) const CLUSTER: usize = 8;

/// A file's name and text.
type Source = (&'static str, &'static str);

/// In this order they are one program, with one of the networks behind them.
const COMMON: &[Source] = &[
    ("common.cuh", include_str!("../../../kernels/common.cuh")),
    ("guard.cuh", include_str!("../../../kernels/guard.cuh")),
    ("integrate.cu", include_str!("../../../kernels/integrate.cu")),
    ("neighbors.cu", include_str!("../../../kernels/neighbors.cu")),
    ("pairs.cu", include_str!("../../../kernels/pairs.cu")),
    ("update.cuh", include_str!("../../../kernels/update.cuh")),
    ("message.cuh", include_str!("../../../kernels/message.cuh")),
    ("mma.cuh", include_str!("../../../kernels/mma.cuh")),
];
const LIST: &[Source] = &[("bins.cu", include_str!("../../../kernels/bins.cu"))];
const FEW_LIST: &[Source] = &[("few_list.cu", include_str!("../../../kernels/few_list.cu"))];
const TABLES: &[Source] = &[
    ("table.cuh", include_str!("../../../kernels/table.cuh")),
    ("message.cu", include_str!("../../../kernels/message.cu")),
];
const RADIAL: &[Source] = &[
    ("rows.cuh", include_str!("../../../kernels/rows.cuh")),
    ("radial.cuh", include_str!("../../../kernels/radial.cuh")),
    ("message_radial.cu", include_str!("../../../kernels/message_radial.cu")),
];
const REDUCED: &[Source] = &[
    ("rows.cuh", include_str!("../../../kernels/rows.cuh")),
    ("reduced.cuh", include_str!("../../../kernels/reduced.cuh")),
    ("message_reduced.cu", include_str!("../../../kernels/message_reduced.cu")),
    ("adjoint_reduced.cu", include_str!("../../../kernels/adjoint_reduced.cu")),
];
const MANY: &[Source] = &[
    ("dense.cu", include_str!("../../../kernels/dense.cu")),
    ("update.cu", include_str!("../../../kernels/update.cu")),
    ("readout.cu", include_str!("../../../kernels/readout.cu")),
];
const TILED: &[Source] = &[
    ("tile.cuh", include_str!("../../../kernels/tile.cuh")),
    ("between.cu", include_str!("../../../kernels/between.cu")),
];
const REPLICAS: &[Source] = &[("replicas.cu", include_str!("../../../kernels/replicas.cu"))];
const FEW: &[Source] = &[
    ("table.cuh", include_str!("../../../kernels/table.cuh")),
    ("cluster.cuh", include_str!("../../../kernels/cluster.cuh")),
    ("few.cuh", include_str!("../../../kernels/few.cuh")),
    ("few_messages.cuh", include_str!("../../../kernels/few_messages.cuh")),
    ("few.cu", include_str!("../../../kernels/few.cu")),
    ("few_ends.cuh", include_str!("../../../kernels/few_ends.cuh")),
    ("few_step.cu", include_str!("../../../kernels/few_step.cu")),
];
const RESIDENT: &[Source] = &[
    ("rows.cuh", include_str!("../../../kernels/rows.cuh")),
    ("radial.cuh", include_str!("../../../kernels/radial.cuh")),
    ("cluster.cuh", include_str!("../../../kernels/cluster.cuh")),
    ("resident.cuh", include_str!("../../../kernels/resident.cuh")),
    ("resident_words.cuh", include_str!("../../../kernels/resident_words.cuh")),
    ("resident_messages.cuh", include_str!("../../../kernels/resident_messages.cuh")),
    ("few_ends.cuh", include_str!("../../../kernels/few_ends.cuh")),
    ("resident.cu", include_str!("../../../kernels/resident.cu")),
];

/// The kernels as one program. A message of the compiler names file and line as they are in `kernels/`.
pub fn source(switches: &Switches) -> String {
    let mut program = String::new();
    let messages: &[Source] = match switches {
        Switches { few: true, .. } => &[],
        Switches { reduced: true, .. } => REDUCED,
        Switches { radial: true, .. } => RADIAL,
        Switches { radial: false, .. } => TABLES,
    };
    let layers = match switches {
        Switches { resident: Some(_), .. } => RESIDENT,
        Switches { few: true, .. } => FEW,
        Switches { tiled: true, .. } => TILED,
        _ => MANY,
    };
    let replicas = if switches.replicas { REPLICAS } else { &[] };
    let list: &[Source] = match switches {
        Switches { few: true, .. } => FEW_LIST,
        Switches { replicas: true, .. } => &[],
        _ => LIST,
    };
    for (name, text) in COMMON.iter().chain(list).chain(messages).chain(layers).chain(replicas) {
        program.push_str(&format!("#line 1 \"{name}\"\n"));
        for line in text.lines() {
            // Every file is there once, in the order in which they need each other.
            let included = line.starts_with("#include \"") || line.starts_with("#pragma once");
            program.push_str(if included { "" } else { line });
            program.push('\n');
        }
    }
    program
}

/// What the network in clusters that keep all weights is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResidentSizes {
    /// Atoms of the system.
    pub atoms: usize,
    /// Clusters, which share them.
    pub clusters: usize,
    /// Pairs of a cluster for which there is room in shared memory.
    pub pairs: usize,
    /// Layers of the network.
    pub layers: usize,
    /// Width of the readout's hidden layer, a multiple of 8.
    pub hidden: usize,
}

/// What the kernels are compiled for; kernels/common.cuh says what each means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switches {
    /// F, a multiple of 32.
    pub features: usize,
    /// The architecture `student`, else `painn`.
    pub student: bool,
    /// The filter table in shared memory.
    pub table_shared: bool,
    /// Filters straight from the radial functions, on tensor cores; with `few` only where there is `resident`, never with `table_shared`.
    pub radial: bool,
    /// A block of messages has one slice of the channels; only with `radial`, never with `few` or `reduced`.
    pub sliced: bool,
    /// Tiles of atoms go through all dense layers between two exchanges of messages; else dense layers are kernels of their
    /// own. Only of a `painn`, never with `few`.
    pub tiled: bool,
    /// Dense layers as kernels of their own have tiles for many atoms.
    pub large: bool,
    /// The network for few atoms, which needs clusters; never with `large`, `split` or `table_shared`.
    pub few: bool,
    /// So few that clusters with all weights take them; only with `few`, of a `painn` with 128 features.
    pub resident: Option<ResidentSizes>,
    /// Few atoms in the network for many: latency counts; never with `large` or `table_shared`.
    pub split: bool,
    /// With a heat bath.
    pub langevin: bool,
    /// With conditional graph nodes.
    pub conditional: bool,
    /// With a look at what the model was trained on.
    pub watch: bool,
    /// With a repulsion at short distances.
    pub repulsion: bool,
    /// Atoms of a tile, 16, or 32 in reduced precision where they fit.
    pub tile: usize,
    /// Warps that take a tile through dense layers: 8, or 16 where a multiprocessor has but one tile.
    pub tile_warps: usize,
    /// Reduced precision; only with `radial` and `tiled`.
    pub reduced: bool,
    /// Many systems side by side; never with `few`.
    pub replicas: bool,
}

impl Switches {
    /// In so many parts a pair's gradients are made: as in kernels/common.cuh.
    pub(super) fn gradient_parts(&self) -> usize {
        match self {
            Switches { resident: Some(_), .. } => 1,
            Switches { few: true, .. } => CLUSTER,
            Switches { radial: true, sliced: false, .. } => 1,
            _ => self.features / SLICE,
        }
    }

    /// Threads of a block that has all of few atoms.
    pub(super) fn few_threads(&self) -> usize {
        if self.resident.is_some() { resident::THREADS } else { few::threads(self.features) }
    }

    /// Rows and columns of a tile of a matrix product, and the threads that make it: as in kernels/dense.cu.
    pub(super) fn dense_tile(&self) -> (u32, u32, u32) {
        match (self.large, self.split) {
            (true, _) => (128, 64, 256),
            (false, true) => (16, 32, 512),
            (false, false) => (16, 32, 128),
        }
    }
}

/// The compiler's options for an architecture such as `sm_90`.
pub fn compile_options(architecture: &str, switches: &Switches) -> Vec<String> {
    let mut options: Vec<String> =
        vec![format!("--gpu-architecture={architecture}"), "--std=c++17".into(), "--fmad=false".into()];
    let defines = [
        ("FEATURES", switches.features),
        ("STUDENT", switches.student as usize),
        ("TABLE_SHARED", switches.table_shared as usize),
        ("RADIAL", switches.radial as usize),
        ("SLICED", switches.sliced as usize),
        ("LARGE", switches.large as usize),
        ("SPLIT", switches.split as usize),
        ("FEW", switches.few as usize),
        ("RESIDENT", switches.resident.is_some() as usize),
        ("FEW_THREADS", switches.few_threads()),
        ("CLUSTER", if switches.resident.is_some() { resident::CLUSTER } else { CLUSTER }),
        ("LANGEVIN", switches.langevin as usize),
        ("CONDITIONAL", switches.conditional as usize),
        ("WATCH", switches.watch as usize),
        ("REPULSION", switches.repulsion as usize),
        ("REDUCED", switches.reduced as usize),
        ("REPLICAS", switches.replicas as usize),
        ("ATOM_BITS", Contact::ATOM_BITS),
        ("SHIFT_BITS", SHIFT_BITS),
        ("CONTROL_BYTES", size_of::<Control>()),
        ("SAMPLE_BYTES", size_of::<DeviceSample>()),
        ("PARAMETER_BYTES", size_of::<Parameters>()),
        ("REPLICA_BYTES", size_of::<Replica>()),
        ("FILTER_BYTES", size_of::<FilterData>()),
        ("LAYER_BYTES", size_of::<LayerData>()),
        ("READOUT_BYTES", size_of::<ReadoutData>()),
        ("NETWORK_BYTES", size_of::<NetworkData>()),
        ("RESIDENT_BYTES", size_of::<ResidentData>()),
        ("UPDATE_BYTES", size_of::<UpdateData>()),
        ("CONTEXT_BYTES", size_of::<ContextData>()),
        ("TILED_READOUT_BYTES", size_of::<TiledReadoutData>()),
        ("MOST_LAYERS", NetworkData::LAYERS),
        ("TILE", switches.tile),
        ("TILE_WARPS", switches.tile_warps),
    ];
    let sizes = switches.resident.map(|sizes| {
        let ResidentSizes { atoms, clusters, pairs, layers, hidden } = sizes;
        [("ATOMS", atoms), ("CLUSTERS", clusters), ("PAIRS_INSIDE", pairs), ("LAYERS", layers), ("HIDDEN", hidden)]
    });
    let defines = defines.into_iter().chain(sizes.into_iter().flatten());
    options.extend(defines.map(|(name, value)| format!("-D{name}={value}")));
    options
}
