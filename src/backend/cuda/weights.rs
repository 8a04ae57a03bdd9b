//! Weights as the kernels want them: float32, features padded to whole slices of 32 channels.

use super::device::Device;
use super::layout::Pointer;
use super::memory::Buffer;
use crate::backend::padding::Padding;
use crate::error::Result;
use crate::model;
use crate::model::FilterTable;
use std::sync::Arc;

/// Channels of a slice.
pub(super) const SLICE: usize = 32;

/// Whole slices.
pub(super) fn padded(count: usize) -> usize {
    count.next_multiple_of(SLICE)
}

/// A dense layer for both directions. Inputs and outputs are padded; what is added is zero and stays zero.
pub(super) struct Dense {
    pub inputs: i32,
    pub outputs: i32,
    forward: Buffer<f32>,
    backward: Buffer<f32>,
    bias: Option<Buffer<f32>>,
}

impl Dense {
    /// From a layer whose inputs and outputs consist of so many equal parts, each of which is padded.
    pub fn new(device: &Arc<Device>, dense: &model::Dense, input_parts: usize, output_parts: usize) -> Result<Self> {
        let (from, to) =
            (Padding::new(dense.inputs, input_parts, SLICE), Padding::new(dense.outputs, output_parts, SLICE));
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
            forward: Buffer::from(device, &forward)?,
            backward: Buffer::from(device, &backward)?,
            bias: bias.map(|bias| Buffer::from(device, &bias)).transpose()?,
        })
    }

    /// `[inputs][outputs]`.
    pub fn forward(&self) -> Pointer {
        self.forward.pointer()
    }

    /// `[outputs][inputs]`.
    pub fn backward(&self) -> Pointer {
        self.backward.pointer()
    }

    /// `[outputs]`, or null.
    pub fn bias(&self) -> Pointer {
        self.bias.as_ref().map_or(0, Buffer::pointer)
    }
}

/// One layer's filter table as `[slice][intervals + 3][3][32]`.
pub(super) fn table(table: &FilterTable, layer: usize) -> Vec<f32> {
    let features = table.width / 3;
    let rows = table.intervals + 3;
    let mut packed = vec![0.0; padded(features) * 3 * rows];
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
