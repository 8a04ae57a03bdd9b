//! Filters straight from the radial functions, as `kernels/radial.cuh` takes them: weights split into two 16-bit numbers, in
//! the order in which the lanes of a warp hold them.

use super::device::Device;
use super::kernels::Switches;
use super::layout::{FilterData, Pointer};
use super::memory::Buffer;
use super::tiles::{split, unit};
use super::weights::{REDUCED_SLICE, SLICE};
use crate::error::Result;
use crate::model::{GaussianFilter, RadialFilter};
use half::f16;
use std::sync::Arc;

/// Most radial functions.
pub(super) const FUNCTIONS: usize = 20;

/// Bytes of one layer's weights for one slice of channels, and of the radial functions.
pub(super) const SLICE_BYTES: usize = 12 * 48 * 16 + FUNCTIONS * 8;

/// The same for the adjoint in reduced precision.
pub(super) const REDUCED_SLICE_BYTES: usize = 12 * 24 * 16 + FUNCTIONS * 8;

/// For which kernels weights lie as they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    /// Of many atoms: slices of 32 channels.
    Slices,
    /// The same in reduced precision.
    Reduced,
    /// Of few atoms whose blocks own eight channels each.
    Eights,
}

impl Packing {
    pub fn of(switches: &Switches) -> Self {
        match switches {
            Switches { resident: Some(_), .. } => Packing::Eights,
            Switches { reduced: true, .. } => Packing::Reduced,
            _ => Packing::Slices,
        }
    }
}

/// One layer's filter on the device.
pub(super) struct Radial {
    /// Of slices `[slice][3][4 tiles]` of `[32 lanes][8]` and `[32 lanes][4]`, of eights with one tile for each eight channels; of
    /// reduced precision see [`reduced_weights`].
    weights: Buffer<u16>,
    /// `[FUNCTIONS]` of centre (Å) and γ / ln 2 (Å⁻²).
    functions: Buffer<f32>,
    unit: f32,
}

/// Whether all filters can be made this way.
pub(super) fn takes(filter: &RadialFilter) -> bool {
    (0..filter.layers()).all(|layer| filter.gaussian(layer).is_some_and(|f| f.centers.len() <= FUNCTIONS))
}

impl Radial {
    /// `wide`: channels with padding. The filter is one that [`takes`] has seen.
    pub fn new(
        device: &Arc<Device>,
        filter: &RadialFilter,
        layer: usize,
        wide: usize,
        packing: Packing,
    ) -> Result<Self> {
        let gaussian = filter.gaussian(layer).expect("only such filters come here");
        let mut functions = vec![0.0; 2 * FUNCTIONS];
        for (k, (m, gamma)) in gaussian.centers.iter().zip(gaussian.gammas).enumerate() {
            (functions[2 * k], functions[2 * k + 1]) = (*m as f32, (gamma / std::f64::consts::LN_2) as f32);
        }
        let unit = unit(gaussian.weight.iter().chain(gaussian.bias).copied());
        // Filters times what is gathered have 16 bits too: they shall be of the order of one.
        let unit = if packing == Packing::Reduced { 256.0 * unit } else { unit };
        let pack = match packing {
            Packing::Slices => slices,
            Packing::Reduced => reduced_weights,
            Packing::Eights => eights,
        };
        Ok(Radial {
            weights: Buffer::from(device, &pack(&gaussian, wide, unit))?,
            functions: Buffer::from(device, &functions)?,
            unit: unit as f32,
        })
    }

    /// Without a table.
    pub fn data(&self) -> FilterData {
        FilterData {
            table: 0 as Pointer,
            weights: self.weights.pointer(),
            functions: self.functions.pointer(),
            unit: self.unit,
        }
    }
}

/// Weights over `unit` for reduced precision, 16 bits each, two in a register: as the left factor in kernels/message_reduced.cu and
/// behind that as the right one in kernels/adjoint_reduced.cu. For messages `[64 channels][3][4 tiles]` of `[32 lanes][4][2]` and `[32 lanes][2][2]`, then for their
/// adjoint `[slice][3][4 tiles]` of `[32 lanes][2][2]` and `[32 lanes][2]`.
fn reduced_weights(filter: &GaussianFilter, wide: usize, unit: f64) -> Vec<u16> {
    let (count, features) = (filter.centers.len(), filter.bias.len() / 3);
    // Two numbers that go together: of functions c + 8 n and c + 8 n + 4, or of function c + 16 and the bias.
    let two = |third: usize, channel: usize, c: usize, n: usize| {
        let known = channel < features;
        let output = third * features + channel;
        let of = |k: usize| {
            f16::from_f64(if known && k < count { filter.weight[k * filter.bias.len() + output] / unit } else { 0.0 })
        };
        let bias = split(if known { filter.bias[output] / unit } else { 0.0 });
        let second = if n < 2 { of(c + 8 * n + 4) } else { [bias[0], bias[1], bias[0], f16::ZERO][c] };
        [of(c + 8 * n), second].map(f16::to_bits)
    };
    let mut packed = Vec::with_capacity(wide * 3 * 48);
    for place in 0..wide / REDUCED_SLICE * 3 * 4 * 192 {
        let (slice, third, tile) = (place / 2304, place / 768 % 3, place / 192 % 4);
        let (register, lane) = match place % 192 {
            n @ 0..128 => (n % 4, n / 4),
            n => (4 + n % 2, (n - 128) / 2),
        };
        let channel = slice * REDUCED_SLICE + lane / 4 * 8 + 2 * tile + register % 2;
        packed.extend(two(third, channel, lane % 4, register / 2));
    }
    for place in 0..wide / SLICE * 3 * 4 * 96 {
        let (slice, third, tile) = (place / 1152, place / 384 % 3, place / 96 % 4);
        let (register, lane) = match place % 96 {
            n @ 0..64 => (n % 2, n / 2),
            n => (2, n - 64),
        };
        let channel = slice * SLICE + lane / 8 * 8 + tile * 2 + lane / 4 % 2;
        packed.extend(two(third, channel, lane % 4, register));
    }
    packed
}

/// See [`packed`]: four tiles a slice, so that a lane has four neighbouring channels of two of them.
fn slices(filter: &GaussianFilter, wide: usize, unit: f64) -> Vec<u16> {
    packed(filter, wide / SLICE, 4, unit, |slice, tile, column| {
        slice * SLICE + tile / 2 * 16 + column / 2 * 4 + tile % 2 * 2 + column % 2
    })
}

/// See [`packed`]: a tile for each eight channels.
fn eights(filter: &GaussianFilter, wide: usize, unit: f64) -> Vec<u16> {
    packed(filter, wide / 8, 1, unit, |eight, _, column| eight * 8 + column)
}

/// Weights over `unit` as the right factor of m16n8k16 products, `[slices][3][tiles]`, see `factor` and `filter` in kernels/radial.cuh: a
/// lane (column n = lane / 4, c = lane % 4) has in its six registers, two numbers each, what goes with its functions' lo, then hi, twice
/// each; with hi, twice; with (hi, hi) and (lo, cutoff) of the last function. `channel`: of a slice's tile and column.
fn packed(
    filter: &GaussianFilter,
    slices: usize,
    tiles: usize,
    unit: f64,
    channel: impl Fn(usize, usize, usize) -> usize,
) -> Vec<u16> {
    let (count, features) = (filter.centers.len(), filter.bias.len() / 3);
    let mut packed = Vec::with_capacity(slices * 3 * tiles * 384);
    for place in 0..slices * 3 * tiles * 2 * 32 {
        let (slice, third, tile) = (place / (192 * tiles), place / (64 * tiles) % 3, place / 64 % tiles);
        let (half, lane) = (place / 32 % 2, place % 32);
        let (column, c) = (lane / 4, lane % 4);
        let channel = channel(slice, tile, column);
        let known = channel < features;
        let output = third * features + channel;
        let of = |function: usize| {
            let k = c + 4 * function;
            split(if known && k < count { filter.weight[k * filter.bias.len() + output] / unit } else { 0.0 })
        };
        let [w0, w1, w2, w3, w4] = [0, 1, 2, 3, 4].map(of);
        let bias = split(if known { filter.bias[output] / unit } else { 0.0 });
        let with_cutoff = [bias[0], bias[1], bias[0], f16::ZERO][c];
        let numbers: &[f16] = match half {
            0 => &[w0[0], w1[0], w2[0], w3[0], w0[1], w1[1], w2[1], w3[1]],
            _ => &[w4[1], w4[0], w4[0], with_cutoff],
        };
        packed.extend(numbers.iter().map(|number| number.to_bits()));
    }
    packed
}
