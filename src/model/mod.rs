//! Force-field networks: what a model file says of itself, its weights, and the radial filters.
//!
//! Two architectures share everything but the update block: `painn` (Schütt, Unke & Gastegger, ICML 2021, as
//! implemented in SchNetPack 2) and `student` (the MLFF Distiller's StudentForceField). Both are message-passing
//! networks with F scalar features q_i and F vector features μ_i an atom; the messages are products of a radial
//! filter W(d), features of the neighbour, and the pair's direction.

mod container;
mod defects;
mod domain;
mod filter;
mod filter_table;
mod loader;
mod radial_basis;
mod spec;
mod weights;

pub use defects::StudentDefects;
pub use domain::{Domain, Repulsion};
pub use filter::{GaussianFilter, RadialFilter, RadialMap};
pub use filter_table::{FilterTable, Grid, TableError, spline_weights};
pub use radial_basis::RadialBasis;
pub use spec::{Architecture, RadialKind, Spec};
pub use weights::Dense;

use crate::elements;
use crate::error::{Error, Result};
use nalgebra::Matrix3;
use std::path::Path;
use std::sync::OnceLock;

/// A force field as loaded: weights in float64, lengths in Å. Backends narrow what they need.
#[derive(Debug, Clone)]
pub struct Model {
    /// What the file says of itself.
    pub spec: Spec,
    /// SHA-256 of the file, hexadecimal.
    pub hash: String,
    /// The file's name without its folder.
    pub name: String,
    /// Initial scalar features, a row of F an atomic number.
    pub embedding: Vec<f64>,
    /// The radial filters of every layer.
    pub filter: RadialFilter,
    /// The same as a table, made when it is first asked for.
    table: OnceLock<FilterTable>,
    /// One block of message and update a layer.
    pub layers: Vec<Layer>,
    /// Dense layers from F to 1 with SiLU between them: the atom's energy in `energy_unit`.
    pub readout: Vec<Dense>,
    /// eV in one energy unit of the network.
    pub energy_unit: f64,
    /// Energy added for each atom, eV, by atomic number.
    pub offsets: Vec<f64>,
    /// Added to d when a pair vector is divided by its length, Å.
    pub direction_epsilon: f64,
}

/// One layer of the network.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The network x = W2 σ(W1 q + b1) + b2 (F → F → 3F) that makes the message from the neighbour's scalars.
    /// Without it the message is x = (q, 1, 1).
    pub context: Option<[Dense; 2]>,
    /// What an atom does with its summed messages.
    pub update: Update,
}

/// The update block of a layer.
#[derive(Debug, Clone)]
pub enum Update {
    /// PaiNN's mixing block.
    Mixing {
        /// (V, Y) = M μ: F → 2F without bias.
        channel_mix: Dense,
        /// (a^q, a^μ, a^qμ) = U2 σ(U1 [q, n] + c1) + c2: 2F → F → 3F.
        context: [Dense; 2],
        /// ε in n = sqrt(Σ V² + ε).
        epsilon: f64,
    },
    /// The student's update block.
    Cartesian {
        /// (a1, a2, a3) = U2 σ(U1 [q, |μ|] + c1) + c2: 2F → F → 3F.
        context: [Dense; 2],
        /// T, which mixes the Cartesian components; absent in the last layer, where it cannot reach the energy.
        mixing: Option<Matrix3<f64>>,
    },
}

impl Model {
    /// Loads and checks a model file (safetensors with a `config` entry in its metadata).
    ///
    /// # Errors
    /// [`Error::Model`], naming the file and the tensor or entry at fault.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        loader::load(path.as_ref())
    }

    /// F, the number of scalar features an atom.
    pub fn features(&self) -> usize {
        self.spec.features
    }

    /// Cutoff in Å: atoms further apart do not see each other in one layer.
    pub fn cutoff(&self) -> f64 {
        self.filter.cutoff()
    }

    /// The radial filters as a table. Making it takes a fraction of a second, once.
    pub fn filter_table(&self) -> &FilterTable {
        self.table.get_or_init(|| FilterTable::new(&self.filter))
    }

    /// Checks that the network knows these elements.
    ///
    /// # Errors
    /// [`Error::Structure`] that names the first atom of an unknown element.
    pub fn check_elements(&self, atomic_numbers: &[u8]) -> Result<()> {
        match atomic_numbers.iter().position(|z| !self.spec.elements.contains(z)) {
            None => Ok(()),
            Some(atom) => Err(Error::Structure(format!(
                "atom {} is {}, which the model {} was not trained on; it knows {}",
                atom + 1,
                elements::symbol(atomic_numbers[atom]),
                self.name,
                elements::list(&self.spec.elements)
            ))),
        }
    }

    /// What is wrong with a `student` network by construction, with numbers from these weights; `None` for `painn`.
    pub fn defects(&self) -> Option<StudentDefects> {
        (self.spec.architecture == Architecture::Student).then(|| StudentDefects::of(self))
    }

    /// Number of weights in the file: those that layers share count once.
    pub fn parameters(&self) -> usize {
        let dense = |d: &Dense| d.weight.len() + d.bias.len();
        let pair = |[a, b]: &[Dense; 2]| dense(a) + dense(b);
        let layers: usize = self
            .layers
            .iter()
            .take(if self.spec.shared_interactions { 1 } else { self.layers.len() })
            .map(|layer| {
                layer.context.as_ref().map_or(0, pair)
                    + match &layer.update {
                        Update::Mixing { channel_mix, context, .. } => dense(channel_mix) + pair(context),
                        Update::Cartesian { context, mixing } => pair(context) + mixing.map_or(0, |_| 9),
                    }
            })
            .sum();
        self.embedding.len() + self.filter.parameters() + layers + self.readout.iter().map(dense).sum::<usize>()
    }
}
