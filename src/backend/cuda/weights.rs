//! Weights as the kernels want them: float32, features padded to a multiple of 32 channels.

use super::device::Device;
use super::kernels::{CLUSTER, Switches};
use super::layout::{FilterData, Mixing, Pointer, TilesData};
use super::memory::Buffer;
use super::radial::{Packing, Radial};
use super::tiles;
use crate::backend::padding::Padding;
use crate::error::Result;
use crate::model::{self, Architecture, FilterTable, Model, Update};
use half::f16;
use std::sync::Arc;

/// Channels of a slice.
pub(super) const SLICE: usize = 32;

/// Channels of a slice of messages in reduced precision.
pub(super) const REDUCED_SLICE: usize = 64;

/// Whole slices.
pub(super) fn padded(count: usize) -> usize {
    count.next_multiple_of(SLICE)
}

/// A whole network for the elements of one system. F: features with padding.
pub(super) struct Weights {
    pub student: bool,
    /// F.
    pub features: usize,
    pub layers: Vec<LayerWeights>,
    /// The readout's hidden layers, and its last one.
    pub readout: Vec<Dense>,
    pub last_weight: Buffer<f32>,
    pub last_bias: f32,
    /// Initial scalars of each element, `[elements][F]`.
    pub embedding: Buffer<f32>,
    /// What atoms of each element send in the first layer, `[elements][3F]`; nothing in a student, whose atoms send their
    /// scalars.
    first_sent: Buffer<f32>,
    /// The first two thirds of it as reduced precision takes them, see `kernels/reduced.cuh`.
    first_halves: Option<Buffer<u16>>,
    /// Each atom's element, as a row of those two.
    species: Buffer<i32>,
}

/// One block of message and update.
pub(super) struct LayerWeights {
    pub filter: Filter,
    /// The message context, in `painn`.
    pub context: Option<[Dense; 2]>,
    /// M, in `painn`.
    pub channel_mix: Option<Dense>,
    pub update: [Dense; 2],
    pub mixing: Mixing,
    /// ε of the norm.
    pub epsilon: f32,
}

/// A layer's filter.
pub(super) enum Filter {
    Table(Buffer<f32>),
    Radial(Radial),
}

impl Filter {
    fn new(device: &Arc<Device>, model: &Model, layer: usize, switches: &Switches) -> Result<Self> {
        Ok(if switches.radial {
            Filter::Radial(Radial::new(device, &model.filter, layer, switches.features, Packing::of(switches))?)
        } else {
            Filter::Table(Buffer::from(device, &table(model.filter_table(), layer, switches.features))?)
        })
    }

    /// For kernels that take a table; null where there is none.
    pub fn table(&self) -> Pointer {
        self.data().table
    }

    /// For kernels that take either.
    pub fn data(&self) -> FilterData {
        match self {
            Filter::Table(table) => FilterData { table: table.pointer(), ..FilterData::default() },
            Filter::Radial(radial) => radial.data(),
        }
    }
}

impl Weights {
    /// Copies them to the device for the kernels that these switches make.
    pub fn new(device: &Arc<Device>, model: &Model, switches: &Switches, atomic_numbers: &[u8]) -> Result<Self> {
        let (features, layout) = (switches.features, Layout::of(switches));
        let mut elements = atomic_numbers.to_vec();
        elements.sort_unstable();
        elements.dedup();
        let species: Vec<i32> = atomic_numbers
            .iter()
            .map(|z| elements.binary_search(z).expect("every element is among them") as i32)
            .collect();
        let f = model.features();
        let (mut embedding, mut first_sent) = (vec![0.0; elements.len() * features], Vec::new());
        for (&z, row) in elements.iter().zip(embedding.chunks_exact_mut(features)) {
            let scalars = &model.embedding[z as usize * f..(z as usize + 1) * f];
            row.iter_mut().zip(scalars).for_each(|(to, &from)| *to = from as f32);
            if let Some([first, second]) = &model.layers[0].context {
                let hidden = apply(first, scalars).into_iter().map(|h| h / (1.0 + (-h).exp())).collect::<Vec<_>>();
                let mut sent = vec![0.0; 3 * features];
                for (n, x) in apply(second, &hidden).into_iter().enumerate() {
                    sent[n / f * features + n % f] = x as f32;
                }
                first_sent.extend(sent);
            }
        }
        let (last, hidden) = model.readout.split_last().expect("a readout has layers");
        let mut last_weight: Vec<f32> = last.weight.iter().map(|&w| w as f32).collect();
        last_weight.resize(padded(last.inputs), 0.0);
        let layers = model.layers.iter().enumerate();
        Ok(Weights {
            student: model.spec.architecture == Architecture::Student,
            features,
            layers: layers
                .map(|(l, layer)| {
                    LayerWeights::new(device, layer, layout, features, Filter::new(device, model, l, switches)?)
                })
                .collect::<Result<_>>()?,
            readout: hidden
                .iter()
                .enumerate()
                .map(|(n, dense)| {
                    Dense::new(device, dense, layout, [1, 1], [if n == 0 { features } else { SLICE }, SLICE])
                })
                .collect::<Result<_>>()?,
            last_weight: Buffer::from(device, &last_weight)?,
            last_bias: last.bias[0] as f32,
            embedding: Buffer::from(device, &embedding)?,
            first_sent: Buffer::from(device, &first_sent)?,
            first_halves: switches
                .reduced
                .then(|| Buffer::from(device, &first_halves(&first_sent, features)))
                .transpose()?,
            species: Buffer::from(device, &species)?,
        })
    }

    /// What atoms of each element send in the first layer.
    pub fn first_sent(&self) -> Pointer {
        match &self.first_halves {
            Some(halves) => halves.pointer(),
            None if self.student => self.embedding.pointer(),
            None => self.first_sent.pointer(),
        }
    }

    /// `[N]`, rows of [`embedding`](Self::embedding) and [`first_sent`](Self::first_sent).
    pub fn species(&self) -> Pointer {
        self.species.pointer()
    }
}

impl LayerWeights {
    fn new(
        device: &Arc<Device>,
        layer: &model::Layer,
        layout: Layout,
        features: usize,
        filter: Filter,
    ) -> Result<Self> {
        let wide = [features, features];
        let context = match &layer.context {
            Some([a, b]) => {
                Some([Dense::new(device, a, layout, [1, 1], wide)?, Dense::new(device, b, layout, [1, 3], wide)?])
            }
            None => None,
        };
        let (channel_mix, update, mixing, epsilon) = match &layer.update {
            Update::Mixing { channel_mix, context, epsilon } => (
                Some(Dense::new(device, channel_mix, layout, [1, 2], wide)?),
                context,
                Mixing::default(),
                *epsilon as f32,
            ),
            Update::Cartesian { context, mixing } => {
                let mut t = Mixing::default();
                for (n, element) in t.t.iter_mut().enumerate() {
                    *element = mixing.map_or(0.0, |mixing| mixing[(n / 3, n % 3)] as f32);
                }
                (None, context, t, 0.0)
            }
        };
        Ok(LayerWeights {
            filter,
            context,
            channel_mix,
            update: [
                Dense::new(device, &update[0], layout, [2, 1], wide)?,
                Dense::new(device, &update[1], layout, [1, 3], wide)?,
            ],
            mixing,
            epsilon,
        })
    }
}

/// y = W x + b, where x is known for good.
fn apply(dense: &model::Dense, x: &[f64]) -> Vec<f64> {
    let rows = dense.weight.chunks_exact(dense.inputs).enumerate();
    rows.map(|(o, row)| {
        let bias = dense.bias.get(o).copied().unwrap_or(0.0);
        bias + row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>()
    })
    .collect()
}

/// What atoms of each element send in the first layer, `[elements][3F]`, in 16 bits: the first two thirds, `[elements][F / 64][2][64]`,
/// with the chunks of a row turned as those of an atom.
fn first_halves(sent: &[f32], features: usize) -> Vec<u16> {
    let place = |n: usize| {
        let (element, slice, row) = (n / (2 * features), n / 128 % (features / REDUCED_SLICE), n / REDUCED_SLICE % 2);
        let channel = (n % REDUCED_SLICE + REDUCED_SLICE - element % 4 * 16) % REDUCED_SLICE;
        (3 * element + row) * features + slice * REDUCED_SLICE + channel
    };
    (0..sent.len() / 3 * 2).map(|n| f16::from_f32(sent[place(n)]).to_bits()).collect()
}

/// `matrix[inputs][outputs]` as the network for few atoms takes it: panel by panel for each block of a cluster, see
/// kernels/few.cuh. A block has its share of each of so many equal parts of the outputs, filled up with zeros to whole
/// panels: `[block][inputs / 32][panels][4][32 lanes][4]`, the lanes' numbers as in kernels/mma.cuh.
fn panels(matrix: &[f32], outputs: usize, parts: usize) -> Vec<f32> {
    let (width, inputs) = (outputs / parts, matrix.len() / outputs);
    let own = width / CLUSTER;
    let across = (parts * own).div_ceil(16);
    let mut packed = Vec::with_capacity(CLUSTER * inputs * across * 16);
    for place in 0..CLUSTER * inputs / 32 * across {
        let (block, slab, panel) = (place / across / (inputs / 32), place / across % (inputs / 32), place % across);
        for value in 0..512 {
            let (step, lane, which) = (value / 128, value / 4 % 32, value % 4);
            let column = panel * 16 + lane / 4 + which % 2 * 8;
            let input = slab * 32 + lane % 4 * 8 + step * 2 + which / 2;
            let output = column / own * width + block * own + column % own;
            packed.push(if column < parts * own { matrix[input * outputs + output] } else { 0.0 });
        }
    }
    packed
}

/// How weights lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// `[inputs][outputs]`.
    Rows,
    /// As the network for few atoms takes them, see [`panels`].
    Panels,
    /// As tiles of atoms take them, see [`tiles::packed`]; in reduced precision without what 16 bits leave.
    Tiles { reduced: bool },
    /// Not here: the network for clusters that keep all weights packs its own.
    Elsewhere,
}

impl Layout {
    fn of(switches: &Switches) -> Self {
        match switches {
            Switches { resident: Some(_), .. } => Layout::Elsewhere,
            Switches { few: true, .. } => Layout::Panels,
            Switches { tiled: true, reduced, .. } => Layout::Tiles { reduced: *reduced },
            _ => Layout::Rows,
        }
    }
}

/// Weights in one direction.
enum Matrix {
    Numbers(Buffer<f32>),
    /// Over a unit.
    Tiles(Buffer<u16>, f32),
}

impl Matrix {
    /// From `[inputs][outputs]`; the outputs consist of so many equal parts.
    fn new(device: &Arc<Device>, matrix: &[f32], layout: Layout, outputs: usize, parts: usize) -> Result<Self> {
        Ok(match layout {
            Layout::Rows => Matrix::Numbers(Buffer::from(device, matrix)?),
            Layout::Elsewhere => Matrix::Numbers(Buffer::zeros(device, 0)?),
            Layout::Panels => Matrix::Numbers(Buffer::from(device, &panels(matrix, outputs, parts))?),
            Layout::Tiles { reduced } => {
                let unit = tiles::unit(matrix.iter().map(|&weight| weight as f64));
                Matrix::Tiles(Buffer::from(device, &tiles::packed(matrix, outputs, unit, reduced))?, unit as f32)
            }
        })
    }

    fn pointer(&self) -> Pointer {
        match self {
            Matrix::Numbers(numbers) => numbers.pointer(),
            Matrix::Tiles(tiles, _) => tiles.pointer(),
        }
    }

    fn tiles(&self, bias: Pointer, outputs: i32) -> TilesData {
        let Matrix::Tiles(tiles, unit) = self else { panic!("these weights are not in tiles") };
        TilesData { data: tiles.pointer(), bias, unit: *unit, outputs }
    }
}

/// A dense layer for both directions. Inputs and outputs are padded; what is added is zero and stays zero.
pub(super) struct Dense {
    pub inputs: i32,
    pub outputs: i32,
    forward: Matrix,
    backward: Matrix,
    bias: Option<Buffer<f32>>,
}

impl Dense {
    /// From a layer whose inputs and outputs consist of so many equal parts, each of which is padded to whole units.
    fn new(
        device: &Arc<Device>,
        dense: &model::Dense,
        layout: Layout,
        parts: [usize; 2],
        units: [usize; 2],
    ) -> Result<Self> {
        let (from, to) =
            (Padding::new(dense.inputs, parts[0], units[0]), Padding::new(dense.outputs, parts[1], units[1]));
        let (inputs, outputs) = (from.len(), to.len());
        let mut forward = vec![0.0; inputs * outputs];
        let mut backward = vec![0.0; inputs * outputs];
        for o in 0..dense.outputs {
            for i in 0..dense.inputs {
                let weight = dense.weight[o * dense.inputs + i] as f32;
                forward[from.place(i) * outputs + to.place(o)] = weight;
                backward[to.place(o) * inputs + from.place(i)] = weight;
            }
        }
        let bias = (!dense.bias.is_empty()).then(|| {
            let mut bias = vec![0.0; outputs];
            for (o, b) in dense.bias.iter().enumerate() {
                bias[to.place(o)] = *b as f32;
            }
            bias
        });
        Ok(Dense {
            inputs: inputs as i32,
            outputs: outputs as i32,
            forward: Matrix::new(device, &forward, layout, outputs, parts[1])?,
            backward: Matrix::new(device, &backward, layout, inputs, parts[0])?,
            bias: bias.map(|bias| Buffer::from(device, &bias)).transpose()?,
        })
    }

    /// `[inputs][outputs]`, or its panels.
    pub fn forward(&self) -> Pointer {
        self.forward.pointer()
    }

    /// `[outputs][inputs]`, or its panels.
    pub fn backward(&self) -> Pointer {
        self.backward.pointer()
    }

    /// For tiles of atoms.
    pub fn forward_tiles(&self) -> TilesData {
        self.forward.tiles(self.bias(), self.outputs)
    }

    /// For tiles of gradients: there is no bias.
    pub fn backward_tiles(&self) -> TilesData {
        self.backward.tiles(0, self.inputs)
    }

    /// `[outputs]`, or null.
    pub fn bias(&self) -> Pointer {
        self.bias.as_ref().map_or(0, Buffer::pointer)
    }
}

/// One layer's filter table as `[slice][intervals + 3][3][32]`, `wide` channels in all.
fn table(table: &FilterTable, layer: usize, wide: usize) -> Vec<f32> {
    let features = table.width / 3;
    let rows = table.intervals + 3;
    let mut packed = vec![0.0; wide * 3 * rows];
    for (k, row) in table.coefficients[layer].chunks_exact(table.width).enumerate() {
        for (third, values) in row.chunks_exact(features).enumerate() {
            for (channel, value) in values.iter().enumerate() {
                let (slice, lane) = (channel / SLICE, channel % SLICE);
                packed[((slice * rows + k) * 3 + third) * SLICE + lane] = *value as f32;
            }
        }
    }
    packed
}
