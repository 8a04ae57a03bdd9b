//! How much of a GPU's memory an atom takes, and so how large a system can be.

use super::radial;
use super::state::{ATOM_BYTES, listed_bytes};
use super::tiled;
use super::weights::{SLICE, padded};
use crate::model::{Architecture, Model};
use std::f64::consts::PI;

/// Bytes that driver, kernels and weights take, whatever the system.
const TAKEN: f64 = 0.8e9;

/// Bytes an atom of a large system takes with so many atoms per Å³ and a skin in Å: what the network keeps of it, its pairs of
/// the list, its own state. Only for networks of the architecture `painn`.
pub fn bytes_an_atom(model: &Model, density: f64, skin: f64) -> Option<f64> {
    if model.spec.architecture != Architecture::Painn {
        return None;
    }
    let features = padded(model.features());
    let network = tiled::numbers_an_atom(features, model.layers.len()) * size_of::<f32>();
    let parts = if radial::takes(&model.filter) { 1 } else { features / SLICE };
    let listed = 4.0 / 3.0 * PI * (model.cutoff() + skin).powi(3) * density;
    Some(network as f64 + listed * listed_bytes(parts) + ATOM_BYTES as f64)
}

/// Atoms that a GPU with so many bytes of memory holds when each takes so many.
pub fn largest_system(memory: f64, bytes_an_atom: f64) -> f64 {
    (memory - TAKEN).max(0.0) / bytes_an_atom
}
