//! The `config` entry of a model file: JSON that says what the tensors mean.

use super::domain::{Domain, DomainConfig, Repulsion, RepulsionConfig};
use crate::error::{Error, Result};
use crate::{elements, units};
use serde::Deserialize;
use std::collections::BTreeMap;

/// The value of `format` that this program reads.
const FORMAT: &str = "verlet-model/1";
/// In the file's unit of length: no network reaches further.
const LARGEST_CUTOFF: f64 = 1000.0;

/// Which network the tensors belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// PaiNN as in SchNetPack 2.
    Painn,
    /// StudentForceField of the MLFF Distiller.
    Student,
}

impl std::fmt::Display for Architecture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Architecture::Painn => "painn",
            Architecture::Student => "student",
        })
    }
}

/// Which radial functions the filters are made of: [`RadialBasis`](super::RadialBasis) without its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RadialKind {
    /// Gaussians.
    Gaussian,
    /// Spherical Bessel functions of order zero, `painn` only.
    Bessel,
}

/// What a model file says of itself, checked.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The network.
    pub architecture: Architecture,
    /// F, features an atom.
    pub features: usize,
    /// L, layers.
    pub interactions: usize,
    /// Cutoff in the file's length unit.
    pub cutoff: f64,
    /// The kind of the radial functions.
    pub radial_basis: RadialKind,
    /// K, radial functions.
    pub radial_count: usize,
    /// Every layer has the same filters (`painn` only).
    pub shared_filters: bool,
    /// Every layer has the same weights in its message and update blocks (`painn` only).
    pub shared_interactions: bool,
    /// ε of PaiNN's vector norm.
    pub norm_epsilon: f64,
    /// Widths of the readout, from F to 1.
    pub readout_layers: Vec<usize>,
    /// eV in the file's energy unit.
    pub energy_unit: f64,
    /// Å in the file's length unit.
    pub length_unit: f64,
    /// Energy added for each atom, in the file's unit, by atomic number (119 entries).
    pub offsets: Vec<f64>,
    /// Atomic numbers the network was trained on, rising.
    pub elements: Vec<u8>,
    /// Where the weights come from, in words.
    pub provenance: String,
    /// What the network was trained on, if the file says so.
    pub domain: Option<Domain>,
    /// The repulsion of nuclei below the trained distances, if the file asks for it.
    pub repulsion: Option<Repulsion>,
}

// Mirrors the JSON. Unknown entries are ignored: they can only describe, never change what the tensors mean,
// because everything that changes the arithmetic is named here.
#[derive(Deserialize)]
struct Config {
    format: String,
    architecture: Architecture,
    features: usize,
    interactions: usize,
    cutoff: f64,
    cutoff_function: String,
    radial_basis: RadialBasis,
    activation: String,
    #[serde(default)]
    shared_filters: bool,
    #[serde(default)]
    shared_interactions: bool,
    norm_epsilon: Option<f64>,
    readout_layers: Vec<usize>,
    units: Units,
    energy_offset: EnergyOffset,
    elements: Vec<u8>,
    #[serde(default)]
    provenance: String,
    domain: Option<DomainConfig>,
    repulsion: Option<RepulsionConfig>,
}

#[derive(Deserialize)]
struct RadialBasis {
    kind: String,
    count: usize,
}

#[derive(Deserialize)]
struct Units {
    energy: String,
    length: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum EnergyOffset {
    PerAtom(f64),
    PerElement(BTreeMap<String, f64>),
}

/// The end of a sentence about a config that is no JSON, or has an entry of another type.
fn unreadable(error: &serde_path_to_error::Error<serde_json::Error>) -> String {
    let inner = error.inner();
    if !inner.is_data() {
        return format!("is not valid JSON: {inner}");
    }
    let text = inner.to_string();
    let text = text.split(" at line ").next().unwrap_or_default();
    // Rust's names of types say little to who writes a config.
    let text = text.replace("expected f64", "expected a number").replace("expected usize", "expected a whole number");
    let text =
        text.replace("expected u8", "expected an atomic number").replace("expected a sequence", "expected a list");
    match error.path().to_string().as_str() {
        "." => format!("cannot be understood: {text}"),
        entry => format!("has no usable {entry}: {text}"),
    }
}

impl Spec {
    /// Reads and checks the JSON text; `file` is for messages.
    pub(super) fn parse(file: &str, json: &str) -> Result<Self> {
        let config: Config = serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(json))
            .map_err(|error| Error::Model(format!("{file}: the file's config {}", unreadable(&error))))?;
        let only = |key: &str, found: &str, known: &str| {
            if found == known {
                return Ok(());
            }
            Err(Error::Model(format!(
                "{file}: the file's config has {key} = \"{found}\"; this program knows only \"{known}\""
            )))
        };
        only("format", &config.format, FORMAT)?;
        only("cutoff_function", &config.cutoff_function, "cosine")?;
        only("activation", &config.activation, "silu")?;
        let fail = |what: String| Err(Error::Model(format!("{file}: the file's config has {what}")));
        let painn = config.architecture == Architecture::Painn;
        let radial_basis = match config.radial_basis.kind.as_str() {
            "gaussian" => RadialKind::Gaussian,
            "bessel" if painn => RadialKind::Bessel,
            other => {
                return fail(format!(
                    "radial_basis.kind = \"{other}\"; this program knows \"gaussian\", and for painn \"bessel\""
                ));
            }
        };
        for (key, shared) in
            [("shared_filters", config.shared_filters), ("shared_interactions", config.shared_interactions)]
        {
            if shared && !painn {
                return fail(format!("{key} = true, which only painn networks can have"));
            }
        }
        for (key, value, range) in [
            ("features", config.features, 1..=1024),
            ("interactions", config.interactions, 1..=64),
            ("radial_basis.count", config.radial_basis.count, 1..=1024),
        ] {
            if !range.contains(&value) {
                return fail(format!("{key} = {value}; it must lie between {} and {}", range.start(), range.end()));
            }
        }
        if !(config.cutoff > 0.0 && config.cutoff <= LARGEST_CUTOFF) {
            return fail(format!("cutoff = {}; it must be positive, and at most {LARGEST_CUTOFF}", config.cutoff));
        }
        let norm_epsilon = config.norm_epsilon.unwrap_or(1e-8);
        if painn && !(norm_epsilon.is_finite() && norm_epsilon > 0.0) {
            return fail(format!("norm_epsilon = {norm_epsilon}; it must be positive"));
        }
        let layers = &config.readout_layers;
        if layers.len() < 2
            || layers.first() != Some(&config.features)
            || layers.last() != Some(&1)
            || layers.iter().any(|&width| width == 0 || width > 4096)
        {
            return fail(format!("readout_layers = {layers:?}; they must lead from {} to 1", config.features));
        }
        let Some(energy_unit) = units::model_energy_unit(&config.units.energy) else {
            return fail(format!(
                "the energy unit \"{}\"; eV, meV, kcal/mol, kJ/mol, hartree and rydberg are read",
                config.units.energy
            ));
        };
        let Some(length_unit) = units::model_length_unit(&config.units.length) else {
            return fail(format!("the length unit \"{}\"; angstrom, nm, pm and bohr are read", config.units.length));
        };
        let mut known = config.elements.clone();
        known.sort_unstable();
        known.dedup();
        if known.is_empty() || known[0] == 0 || known[known.len() - 1] > 118 {
            return fail(format!("elements = {:?}; they must be atomic numbers from 1 to 118", config.elements));
        }
        let mut offsets = vec![0.0; 119];
        match &config.energy_offset {
            EnergyOffset::PerAtom(value) => offsets.fill(*value),
            EnergyOffset::PerElement(values) => {
                for (symbol, value) in values {
                    let Some(z) = elements::atomic_number(symbol) else {
                        return fail(format!("an energy_offset for \"{symbol}\", which is no element"));
                    };
                    offsets[z as usize] = *value;
                }
                if let Some(&z) = known.iter().find(|&&z| !values.contains_key(elements::symbol(z))) {
                    return fail(format!("no energy_offset for {}, which is among its elements", elements::symbol(z)));
                }
            }
        }
        if offsets.iter().any(|x| !x.is_finite()) {
            return fail("an energy_offset that is not a finite number".into());
        }
        let refuse = |problem: String| Error::Model(format!("{file}: the file's config has {problem}"));
        let reach = config.cutoff * length_unit;
        let domain = config.domain.map(|domain| Domain::new(&domain, reach, length_unit, energy_unit)).transpose();
        let domain = domain.map_err(refuse)?;
        let repulsion =
            config.repulsion.map(|wanted| Repulsion::new(&wanted, domain.as_ref(), &known, reach, length_unit));
        let repulsion = repulsion.transpose().map_err(refuse)?;
        Ok(Spec {
            architecture: config.architecture,
            features: config.features,
            interactions: config.interactions,
            cutoff: config.cutoff,
            radial_basis,
            radial_count: config.radial_basis.count,
            shared_filters: config.shared_filters,
            shared_interactions: config.shared_interactions,
            norm_epsilon,
            readout_layers: config.readout_layers,
            energy_unit,
            length_unit,
            offsets,
            elements: known,
            provenance: config.provenance,
            domain,
            repulsion,
        })
    }
}
