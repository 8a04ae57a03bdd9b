//! `[[replicas]]`: many systems in one run.

use super::reader::{Found, Reader};
use super::{DynamicsConfig, InitialVelocities, OutputConfig, RunConfig, SystemConfig};
use crate::error::{Error, Result};
use crate::integrate::Thermostat;
use crate::integrate::philox;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// One of many systems of a run: what it has for itself. Everything else is the input's.
#[derive(Debug, Clone)]
pub struct ReplicaConfig {
    /// The name of its folder in the run's folder.
    pub name: String,
    /// The structure file.
    pub structure: PathBuf,
    /// Its frame, counted from 0.
    pub frame: usize,
    /// Where velocities come from.
    pub velocities: InitialVelocities,
    /// The heat bath; none at constant energy.
    pub thermostat: Option<Thermostat>,
    /// Seed of all its random numbers: no two replicas have the same.
    pub seed: u64,
    /// Where the input says that it is so, for messages about its frame.
    place: Option<String>,
}

impl ReplicaConfig {
    /// Of its initial velocities, or of its heat bath; nothing where neither has one, K.
    pub fn temperature(&self) -> Option<f64> {
        match (self.velocities, self.thermostat) {
            (_, Some(bath)) => Some(bath.temperature),
            (InitialVelocities::MaxwellBoltzmann(kelvin), None) => Some(kelvin),
            (_, None) => None,
        }
    }
}

/// The fewest digits of a number that is a name.
const DIGITS: usize = 4;

/// All replicas, one for each copy.
pub(super) fn read(
    reader: &Reader,
    base: &Path,
    system: &SystemConfig,
    dynamics: &DynamicsConfig,
    output: &OutputConfig,
) -> Result<Vec<ReplicaConfig>> {
    let section = "replicas";
    let tables = reader.repeated(section);
    if let (false, Some(extra)) = (tables.is_empty(), output.extra.first()) {
        return Err(Error::Input(format!(
            "{} cannot be had with [[replicas]], of which each has its trajectory.h5md; leave [[output.extra]] out, and use \
             `verlet convert` for other formats",
            extra.place
        )));
    }
    let mut given = Vec::new();
    for table in &tables {
        given.push(table.integer(section, "copies")?.map_or(1, |found| found.value as usize));
    }
    let all: usize = given.iter().sum();
    let digits = all.to_string().len().max(DIGITS);
    let mut replicas: Vec<ReplicaConfig> = Vec::with_capacity(all);
    let (mut names, mut seeds) = (HashMap::new(), HashMap::new());
    for (reader, copies) in tables.iter().zip(given) {
        let frame = reader.integer(section, "frame")?;
        let structure = reader.path(section, "structure", base)?;
        let temperature = reader.quantity(section, "temperature")?;
        let last = reader.quantity(section, "final_temperature")?;
        let ramps = dynamics.thermostat.is_some_and(|bath| bath.ramp_steps > 0);
        if let (Some(last), false) = (&last, ramps) {
            return Err(
                last.error("needs dynamics.final_temperature too: it is the input that says whether there is a ramp")
            );
        }
        let name = reader.text(section, "name")?;
        if let Some(name) = &name
            && !(name.value.starts_with(char::is_alphanumeric)
                && name.value.chars().all(|c| c.is_alphanumeric() || "-_".contains(c)))
        {
            return Err(
                name.error("is no name of a replica's folder; give letters, digits, - and _, a letter or digit first")
            );
        }
        let seed = reader.integer(section, "seed")?;
        for copy in 0..copies {
            let number = replicas.len();
            let seed_value = match &seed {
                None => philox::seed_of(dynamics.seed, number as u64),
                Some(seed) => {
                    seed.value.checked_add(copy as u64).filter(|&seed| seed <= i64::MAX as u64).ok_or_else(|| {
                        seed.error(format!("is too large for {copies} copies, whose seeds count up from it"))
                    })?
                }
            };
            let own = match &name {
                None => format!("{:0digits$}", number + 1),
                Some(name) if copies == 1 => name.value.clone(),
                Some(name) => format!("{}-{:0digits$}", name.value, copy + 1),
            };
            if let Some(other) = names.insert(own.to_lowercase(), number) {
                return Err(complain(
                    name.as_ref(),
                    number,
                    format!("makes the name {own}, which replica {} has already; choose another name", other + 1),
                ));
            }
            if let Some(other) = seeds.insert(seed_value, number) {
                return Err(complain(
                    seed.as_ref(),
                    number,
                    format!(
                        "gives replica {} the seed {seed_value}, which replica {} has already, and with it the same random \
                     numbers; choose another seed",
                        number + 1,
                        other + 1
                    ),
                ));
            }
            let kelvin = temperature.as_ref().map(|found| found.value);
            replicas.push(ReplicaConfig {
                name: own,
                structure: structure.clone().unwrap_or_else(|| system.structure.clone()),
                // Another file has frames of its own.
                frame: match (&frame, &structure) {
                    (Some(frame), _) => frame.value as usize - 1,
                    (None, Some(_)) => 0,
                    (None, None) => system.frame,
                },
                velocities: match (dynamics.velocities, kelvin) {
                    (InitialVelocities::MaxwellBoltzmann(_), Some(kelvin)) => {
                        InitialVelocities::MaxwellBoltzmann(kelvin)
                    }
                    (other, _) => other,
                },
                thermostat: dynamics.thermostat.map(|bath| {
                    let temperature = kelvin.unwrap_or(bath.temperature);
                    let constant = if ramps { bath.final_temperature } else { temperature };
                    let final_temperature = last.as_ref().map_or(constant, |found| found.value);
                    Thermostat { temperature, final_temperature, seed: seed_value, ..bath }
                }),
                seed: seed_value,
                place: frame.as_ref().map(|found| found.what.clone()),
            });
        }
    }
    Ok(replicas)
}

/// About a value where there is one, else about a replica's number.
fn complain<T>(found: Option<&Found<T>>, number: usize, complaint: String) -> Error {
    match found {
        Some(found) => found.error(complaint),
        None => Error::Input(format!("replicas: number {} {complaint}", number + 1)),
    }
}

impl RunConfig {
    /// As `[[replicas]]` with so many `copies` and nothing else would have it.
    ///
    /// # Errors
    /// [`Error::Input`] with further trajectories, which replicas cannot have.
    pub fn set_copies(&mut self, copies: usize) -> Result<()> {
        let text = format!("[[replicas]]\ncopies = {copies}\n");
        let reader = Reader::new(super::node::parse("", &text)?)?;
        self.replicas = read(&reader, Path::new(""), &self.system, &self.dynamics, &self.output)?;
        Ok(())
    }

    /// The input of one replica, counted from 0, as if it were a run by itself.
    pub fn replica(&self, number: usize) -> RunConfig {
        let replica = &self.replicas[number];
        let mut config = self.clone();
        config.replicas.clear();
        config.system.structure.clone_from(&replica.structure);
        config.system.frame = replica.frame;
        config.dynamics.velocities = replica.velocities;
        config.dynamics.thermostat = replica.thermostat;
        config.dynamics.seed = replica.seed;
        config.output.directory = self.output.directory.join(&replica.name);
        if let Some(place) = &replica.place {
            config.given.insert("system.frame".into(), place.clone());
        }
        config
    }
}
