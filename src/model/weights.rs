//! Tensors of a model file: every one is asked for by name and shape, none may be left over.

use crate::error::{Error, Result};
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;

/// A dense layer y = W x + b.
#[derive(Debug, Clone, PartialEq)]
pub struct Dense {
    /// Length of x.
    pub inputs: usize,
    /// Length of y.
    pub outputs: usize,
    /// W, row-major `[outputs][inputs]`.
    pub weight: Vec<f64>,
    /// b, or empty when the layer has none.
    pub bias: Vec<f64>,
}

/// The tensors that nobody has asked for yet.
pub(super) struct Tensors<'a> {
    file: &'a str,
    left: BTreeMap<String, safetensors::tensor::TensorView<'a>>,
}

impl<'a> Tensors<'a> {
    pub fn new(file: &'a str, tensors: &SafeTensors<'a>) -> Self {
        Tensors { file, left: tensors.tensors().into_iter().collect() }
    }

    /// Takes a tensor of exactly this shape, widened to float64.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f64>> {
        let file = self.file;
        let tensor = self.left.remove(name).ok_or_else(|| {
            Error::Model(format!("{file}: the tensor {name} is missing; its shape should be {shape:?}"))
        })?;
        if tensor.shape() != shape {
            return Err(Error::Model(format!(
                "{file}: the tensor {name} has the shape {:?}, but the file's config asks for {shape:?}",
                tensor.shape()
            )));
        }
        let values: Vec<f64> = match tensor.dtype() {
            Dtype::F32 => chunks(tensor.data()).map(|b| f32::from_le_bytes(b) as f64).collect(),
            Dtype::F64 => chunks(tensor.data()).map(f64::from_le_bytes).collect(),
            other => {
                return Err(Error::Model(format!(
                    "{file}: the tensor {name} holds {other:?} numbers; only F32 and F64 are read"
                )));
            }
        };
        match values.iter().position(|x| !x.is_finite()) {
            None => Ok(values),
            Some(index) => Err(Error::Model(format!(
                "{file}: element {index} (from 0) of the tensor {name} is {}, not a finite number",
                values[index]
            ))),
        }
    }

    /// Takes the widths of so many radial functions, which divide.
    pub fn take_widths(&mut self, name: &str, count: usize) -> Result<Vec<f64>> {
        let widths = self.take(name, &[count])?;
        match widths.iter().position(|w| !(w * w).recip().is_finite()) {
            None => Ok(widths),
            Some(index) => Err(Error::Model(format!(
                "{}: element {index} (from 0) of the tensor {name} is {}; a radial function needs a width that is not zero",
                self.file, widths[index]
            ))),
        }
    }

    /// Takes `prefix.weight` and, where the layer has one, `prefix.bias`.
    pub fn take_dense(&mut self, prefix: &str, inputs: usize, outputs: usize, bias: bool) -> Result<Dense> {
        Ok(Dense {
            inputs,
            outputs,
            weight: self.take(&format!("{prefix}.weight"), &[outputs, inputs])?,
            bias: if bias { self.take(&format!("{prefix}.bias"), &[outputs])? } else { Vec::new() },
        })
    }

    /// Number of rows of a tensor that has not been taken, if it is there and two-dimensional.
    pub fn rows(&self, name: &str) -> Option<usize> {
        self.left.get(name).and_then(|t| (t.shape().len() == 2).then(|| t.shape()[0]))
    }

    /// Fails if a tensor is left that the architecture has no use for.
    pub fn finish(self) -> Result<()> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(name) => Err(Error::Model(format!(
                "{}: the tensor {name} has no place in the architecture that the file's config names ({} such {})",
                self.file,
                self.left.len(),
                if self.left.len() == 1 { "tensor" } else { "tensors" }
            ))),
        }
    }
}

fn chunks<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.as_chunks().0.iter().copied()
}
