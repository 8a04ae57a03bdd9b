//! What a network was trained on, and what takes over below that: the entries `domain` and `repulsion` of a model file.

use crate::elements;
use crate::error::short;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::{Display, Formatter};

/// Two elements, the lighter one first.
type Pair = [u8; 2];

/// What a network was trained on.
#[derive(Debug, Clone, PartialEq)]
pub struct Domain {
    /// Shortest distance of two atoms in training, Å, by their elements. With any entry it has all pairs of elements that
    /// were ever within the cutoff.
    shortest: BTreeMap<Pair, f64>,
    energy_per_atom: Option<[f64; 2]>,
}

/// The screened repulsion of nuclei, which takes over below the trained distances.
#[derive(Debug, Clone, PartialEq)]
pub struct Repulsion {
    onset: f64,
    /// Å.
    outer: BTreeMap<Pair, f64>,
}

/// `domain` as the file has it, in the file's units.
#[derive(Deserialize)]
#[serde(expecting = "an object with shortest_distance, energy_per_atom or both")]
pub(super) struct DomainConfig {
    shortest_distance: Option<BTreeMap<String, f64>>,
    energy_per_atom: Option<[f64; 2]>,
}

/// `repulsion` as the file has it. It changes forces: what is not known here is an error.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with kind and onset")]
pub(super) struct RepulsionConfig {
    kind: String,
    onset: f64,
    #[serde(default)]
    outer: BTreeMap<String, f64>,
}

fn pair(a: u8, b: u8) -> Pair {
    [a.min(b), a.max(b)]
}

/// "C-H", for messages.
fn name(pair: Pair) -> String {
    pair.map(elements::symbol).join("-")
}

/// A table of distances by pairs of elements, in Å. The error is the end of "the file's config has …".
fn distances(
    key: &str,
    entries: &BTreeMap<String, f64>,
    cutoff: f64,
    length_unit: f64,
) -> Result<BTreeMap<Pair, f64>, String> {
    let mut found = BTreeMap::new();
    for (text, &distance) in entries {
        let elements = text
            .split_once('-')
            .and_then(|(a, b)| Some(pair(elements::atomic_number(a)?, elements::atomic_number(b)?)));
        let Some(elements) = elements else {
            return Err(format!("the entry \"{text}\" in {key}, which is no pair of elements such as \"C-H\""));
        };
        let length = distance * length_unit;
        if !(length > 0.0 && length <= cutoff) {
            return Err(format!(
                "{key}.{text} = {distance}; it must be above zero, and at most the cutoff of {} Å",
                short(cutoff)
            ));
        }
        if found.insert(elements, length).is_some() {
            return Err(format!("the pair {} in {key} twice", name(elements)));
        }
    }
    Ok(found)
}

impl Domain {
    /// Checks what the file says; `cutoff` in Å.
    pub(super) fn new(config: &DomainConfig, cutoff: f64, length_unit: f64, energy_unit: f64) -> Result<Self, String> {
        let none = BTreeMap::new();
        let shortest = config.shortest_distance.as_ref().unwrap_or(&none);
        let energy_per_atom = config.energy_per_atom.map(|range| range.map(|energy| energy * energy_unit));
        match config.energy_per_atom {
            Some([low, high]) if !(low < high && high - low < f64::INFINITY) => {
                return Err(format!(
                    "domain.energy_per_atom = [{low}, {high}]; it must be a lower and a higher energy"
                ));
            }
            _ => {}
        }
        Ok(Domain { shortest: distances("domain.shortest_distance", shortest, cutoff, length_unit)?, energy_per_atom })
    }

    /// Whether the file says how near atoms came to each other.
    pub fn knows_distances(&self) -> bool {
        !self.shortest.is_empty()
    }

    /// How near two atoms of these elements came to each other in training, Å; `None` when they never were within the
    /// cutoff.
    pub fn shortest(&self, a: u8, b: u8) -> Option<f64> {
        self.shortest.get(&pair(a, b)).copied()
    }

    /// Lowest and highest energy per atom of all training frames, without offsets, eV.
    pub fn energy_per_atom(&self) -> Option<[f64; 2]> {
        self.energy_per_atom
    }
}

impl Repulsion {
    /// Checks what the file asks for, for all pairs of `elements`; `cutoff` in Å.
    pub(super) fn new(
        config: &RepulsionConfig,
        domain: Option<&Domain>,
        elements: &[u8],
        cutoff: f64,
        length_unit: f64,
    ) -> Result<Self, String> {
        if config.kind != "zbl" {
            return Err(format!("repulsion.kind = \"{}\"; this program knows only \"zbl\"", config.kind));
        }
        if !(config.onset > 0.0 && config.onset < 1.0) {
            return Err(format!("repulsion.onset = {}; it must lie between 0 and 1", config.onset));
        }
        let mut outer = distances("repulsion.outer", &config.outer, cutoff, length_unit)?;
        for (n, &a) in elements.iter().enumerate() {
            for &b in &elements[n..] {
                let trained = domain.and_then(|domain| domain.shortest(a, b));
                match (trained, outer.contains_key(&pair(a, b))) {
                    (Some(distance), false) => drop(outer.insert(pair(a, b), distance)),
                    (None, true) => {}
                    (Some(_), true) => {
                        return Err(format!(
                            "repulsion.outer for {}, whose repulsion ends at its domain.shortest_distance",
                            name(pair(a, b))
                        ));
                    }
                    (None, false) => {
                        return Err(format!(
                            "a repulsion, but neither domain.shortest_distance nor repulsion.outer for {}",
                            name(pair(a, b))
                        ));
                    }
                }
            }
        }
        Ok(Repulsion { onset: config.onset, outer })
    }

    /// Where the repulsion of two elements is whole, and where it ends, Å.
    pub fn range(&self, a: u8, b: u8) -> Option<[f64; 2]> {
        self.outer.get(&pair(a, b)).map(|outer| [self.onset * outer, *outer])
    }
}

impl Display for Domain {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let pairs = self.shortest.iter().map(|(pair, distance)| format!("{} {distance:.3}", name(*pair)));
        let distances = pairs.collect::<Vec<_>>().join(", ");
        let distances = self.knows_distances().then(|| format!("no closer than {distances} Å"));
        let energies =
            self.energy_per_atom.map(|[low, high]| format!("energies from {low:.3} to {high:.3} eV per atom"));
        f.write_str(&distances.into_iter().chain(energies).collect::<Vec<_>>().join("; "))
    }
}

impl Display for Repulsion {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "ZBL for atoms closer than in training, whole below {} of that distance", self.onset)
    }
}
