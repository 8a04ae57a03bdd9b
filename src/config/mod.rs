//! The input file: TOML in, typed and checked values out. Nothing behind this module reads TOML.

mod keys;
mod node;
mod reader;
mod replicas;

pub use keys::{KEYS, Key, Kind, Sign, header};

use crate::analysis::Limits;
use crate::elements;
use crate::error::{Error, Result, reason};
use crate::integrate::Thermostat;
use crate::output::trajectory::{Format, TrajectoryOptions};
use crate::system::Cell;
use crate::units::Dimension;
use nalgebra::Matrix3;
use node::Value;
use reader::Reader;
pub use reader::length;
pub use replicas::ReplicaConfig;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A run as the input describes it. Quantities are in the program's units (Å, fs, u, eV, K).
#[derive(Debug, Clone)]
pub struct RunConfig {
    /// The input file.
    pub file: PathBuf,
    /// Its text.
    pub text: String,
    /// The command line's changes to it, `section.key=value` each.
    pub overrides: Vec<String>,
    /// Free text.
    pub title: String,
    /// Who runs it.
    pub author: String,
    /// What moves.
    pub system: SystemConfig,
    /// The model file.
    pub model: PathBuf,
    /// What to do where the run leaves what the model was trained on.
    pub outside_domain: OutsideDomain,
    /// How it moves.
    pub dynamics: DynamicsConfig,
    /// Å, where the input has it; see [`Prepared::skin`](crate::setup::Prepared::skin).
    pub skin: Option<f64>,
    /// What computes.
    pub backend: BackendConfig,
    /// What is written.
    pub output: OutputConfig,
    /// What passes.
    pub limits: Limits,
    /// Many systems in one run, each with what it has for itself; none where the run is of one system.
    pub replicas: Vec<ReplicaConfig>,
    /// What stands where, by the full name of the key: see [`RunConfig::what`].
    given: BTreeMap<String, String>,
}

/// Where the system comes from and what is changed about it.
#[derive(Debug, Clone)]
pub struct SystemConfig {
    /// The structure file.
    pub structure: PathBuf,
    /// Its frame, counted from 0.
    pub frame: usize,
    /// A cell that replaces the file's: edge vectors as rows, Å.
    pub cell: Option<CellConfig>,
    /// Periodic directions that replace the file's.
    pub periodic: Option<[bool; 3]>,
    /// Copies along each edge.
    pub replicate: [usize; 3],
    /// Masses to override, u, each with the beginning of a complaint about it.
    pub masses: Vec<MassOverride>,
    /// Hydrogen-mass repartitioning: the mass of every hydrogen, u.
    pub hydrogen_mass: Option<f64>,
}

/// A cell as the input gives it.
#[derive(Debug, Clone, Copy)]
pub enum CellConfig {
    /// Lengths (Å) and angles (degrees).
    Parameters([f64; 3], [f64; 3]),
    /// Edge vectors as rows, Å.
    Vectors(Matrix3<f64>),
}

impl CellConfig {
    /// The cell, periodic along the given edges.
    ///
    /// # Errors
    /// As [`Cell::new`].
    pub fn build(&self, periodic: [bool; 3]) -> Result<Cell> {
        match self {
            CellConfig::Parameters(lengths, angles) => Cell::from_parameters(*lengths, *angles, periodic),
            CellConfig::Vectors(vectors) => Cell::new(*vectors, periodic),
        }
    }
}

/// A mass that replaces the standard atomic weight.
#[derive(Debug, Clone)]
pub struct MassOverride {
    /// Whose.
    pub target: MassTarget,
    /// u.
    pub mass: f64,
    /// Where the input says so, for messages.
    pub place: String,
}

/// Which atoms a mass is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MassTarget {
    /// All atoms of an element.
    Element(u8),
    /// One atom of the structure file, counted from 0, and its copies.
    Atom(usize),
}

/// Where velocities come from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum InitialVelocities {
    /// Drawn at this temperature, K.
    MaxwellBoltzmann(f64),
    /// From the structure file.
    File,
    /// At rest.
    Zero,
}

/// What a run does where it leaves what its model was trained on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OutsideDomain {
    /// It says so, once for each kind of departure.
    #[default]
    Warn,
    /// It ends there, as a run that failed.
    Stop,
    /// Nothing: nobody looks.
    Ignore,
}

/// How the system moves.
#[derive(Debug, Clone)]
pub struct DynamicsConfig {
    /// fs.
    pub timestep: f64,
    /// Number of steps.
    pub steps: u64,
    /// Seed of all random numbers.
    pub seed: u64,
    /// Where velocities come from.
    pub velocities: InitialVelocities,
    /// Whether the centre of mass is kept at rest.
    pub remove_centre_of_mass: bool,
    /// The heat bath; none at constant energy.
    pub thermostat: Option<Thermostat>,
}

/// Which backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// The best there is.
    Auto,
    /// The CPU.
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
}

/// Precision of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Single.
    F32,
    /// Double.
    F64,
    /// Factors of 16 bits, sums in single.
    Mixed,
}

/// What computes.
#[derive(Debug, Clone)]
pub struct BackendConfig {
    /// Where.
    pub device: Device,
    /// In what precision.
    pub precision: Precision,
    /// With filters evaluated directly instead of from a table.
    pub direct_filters: bool,
    /// Threads of the CPU backend; `None` for all cores.
    pub threads: Option<usize>,
}

/// What is written.
#[derive(Debug, Clone)]
pub struct OutputConfig {
    /// The run's folder.
    pub directory: PathBuf,
    /// Steps between frames.
    pub trajectory_interval: u64,
    /// Steps between rows of the energy log.
    pub energy_interval: u64,
    /// Steps between checkpoints; by the clock without a number.
    pub checkpoint_interval: Option<u64>,
    /// Velocities in the trajectory.
    pub velocities: bool,
    /// Forces in the trajectory.
    pub forces: bool,
    /// Trajectory in double precision.
    pub double: bool,
    /// Atoms moved into the cell.
    pub wrap: bool,
    /// Trajectories in other formats beside it.
    pub extra: Vec<ExtraOutput>,
}

/// A further trajectory.
#[derive(Debug, Clone)]
pub struct ExtraOutput {
    /// Its name in the run's folder.
    pub file: String,
    /// What it holds.
    pub options: TrajectoryOptions,
    /// Where the input names it, for messages.
    pub place: String,
}

/// For runs from code: the defaults of the input file, no steps, and the system's own velocities. No file and no text stand
/// behind it, so nobody can resume such a run from its checkpoints.
impl Default for RunConfig {
    fn default() -> Self {
        const LEAST: &str = r#"
            system.structure = "none"
            model.file = "none"
            dynamics = { steps = 0, velocities = "file" }
        "#;
        let mut config = Self::parse(Path::new(""), LEAST, &[]).expect("the input has every key that is required");
        (config.text, config.model, config.system.structure) = Default::default();
        config
    }
}

impl RunConfig {
    /// Reads and checks an input file. `overrides` are `section.key=value` from the command line and win.
    ///
    /// # Errors
    /// [`Error::Input`] with file, line, key, the value found and what would be accepted.
    pub fn load(file: impl AsRef<Path>, overrides: &[String]) -> Result<Self> {
        let file = file.as_ref();
        let text = read(file)?;
        Self::parse(file, &text, overrides)
    }

    /// As [`load`](Self::load), from text; `file` is for messages and for relative paths.
    pub fn parse(file: &Path, text: &str, overrides: &[String]) -> Result<Self> {
        let mut root = node::parse(&file.display().to_string(), text)?;
        for change in overrides {
            let over = node::parse_override(change)?;
            // Steps and duration exclude each other: the command line's takes the place of the file's.
            for (given, other) in [("steps", "duration"), ("duration", "steps")] {
                if over.has(&["dynamics", given]) {
                    root.remove(&["dynamics", other]);
                }
            }
            node::merge(&mut root, over);
        }
        if matches!(&root.value, Value::Table(table) if table.is_empty()) {
            return Err(Error::Input(format!(
                "{} holds no keys; an input needs at least system.structure, model.file, dynamics.steps and \
                 dynamics.temperature",
                file.display()
            )));
        }
        let base = file.parent().unwrap_or(Path::new("."));
        let reader = Reader::new(root)?;
        let stem = file.file_stem().map_or("run".into(), |stem| stem.to_string_lossy().into_owned());
        let dynamics = dynamics(&reader)?;
        let timestep = dynamics.timestep;
        let (system, output) = (system(&reader, base)?, output(&reader, &stem, timestep)?);
        let words = |section: &str, name: &str| Ok::<_, Error>(reader.text(section, name)?.map(|found| found.value));
        Ok(RunConfig {
            given: reader.given(),
            file: file.to_path_buf(),
            text: text.to_string(),
            overrides: overrides.to_vec(),
            title: words("", "title")?.unwrap_or_default(),
            author: words("", "author")?.or_else(|| std::env::var("USER").ok()).unwrap_or_default(),
            replicas: replicas::read(&reader, base, &system, &dynamics, &output)?,
            system,
            model: reader.path("model", "file", base)?.ok_or_else(|| reader.missing("model", "file"))?,
            outside_domain: match reader.text("model", "outside_domain")?.as_ref().map(|found| found.value.as_str()) {
                Some("stop") => OutsideDomain::Stop,
                Some("ignore") => OutsideDomain::Ignore,
                _ => OutsideDomain::Warn,
            },
            dynamics,
            skin: reader.quantity("neighbors", "skin")?.map(|found| found.value),
            backend: backend(&reader)?,
            output,
            limits: Limits {
                drift: reader.quantity("verdict", "max_drift")?.map_or(1.0, |found| found.value),
                excursion: reader.quantity("verdict", "max_excursion")?.map_or(0.01, |found| found.value),
            },
        })
    }

    /// The beginning of a complaint about a key: file, line, key and value where it was given, else the key alone.
    pub fn what<'a>(&'a self, key: &'a str) -> &'a str {
        self.given.get(key).map_or(key, String::as_str)
    }

    /// The input as it is kept with the results: its text, and behind it as comments where it is from and what the command
    /// line changed. Nothing that leads somewhere is mended in it, so it is a record, not an input.
    pub fn record(&self) -> String {
        let mut record = self.text.clone();
        if !record.is_empty() && !record.ends_with('\n') {
            record.push('\n');
        }
        // Input from code has no file.
        if !self.file.as_os_str().is_empty() {
            record.push_str(&format!(
                "# A copy of {}: run that one, at whose folder relative paths start.{}\n",
                self.file.display(),
                if self.overrides.is_empty() { "" } else { " It was run with" }
            ));
        }
        record.extend(self.overrides.iter().map(|change| format!("# --set {change}\n")));
        record
    }
}

/// Bytes that no input file has.
const LARGEST_INPUT: u64 = 16 << 20;

/// The text of an input file.
fn read(file: &Path) -> Result<String> {
    let name = file.display();
    let mut bytes = Vec::new();
    File::open(file)
        .and_then(|open| open.take(LARGEST_INPUT + 1).read_to_end(&mut bytes))
        .map_err(|error| Error::Input(format!("the input file {name} cannot be read: {}", reason(&error))))?;
    if bytes.len() as u64 > LARGEST_INPUT {
        return Err(Error::Input(format!(
            "{name} is larger than 16 MiB, so it is no input file; give the TOML file of a run"
        )));
    }
    String::from_utf8(bytes).map_err(|error| {
        let line =
            error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|&&byte| byte == b'\n').count() + 1;
        Error::Input(format!(
            "{name}:{line}: this is no text in UTF-8; give the TOML file of a run, and save it as UTF-8"
        ))
    })
}

fn system(reader: &Reader, base: &Path) -> Result<SystemConfig> {
    let structure = reader.path("system", "structure", base)?.ok_or_else(|| reader.missing("system", "structure"))?;
    let cell = reader.numbers("system", "cell", &[3, 6, 9])?;
    let cell = match cell {
        None => None,
        Some(found) => {
            let v = &found.value;
            let three = |at: usize| [v[at], v[at + 1], v[at + 2]];
            let cell = match v.len() {
                3 => CellConfig::Parameters(three(0), [90.0; 3]),
                6 => CellConfig::Parameters(three(0), three(3)),
                _ => CellConfig::Vectors(Matrix3::from_row_slice(v)),
            };
            // Fails here, where the line is known, if it can never be a cell.
            cell.build([true; 3]).map_err(|error| found.error(format!("is not a cell: {error}")))?;
            Some(cell)
        }
    };
    let boolean = |value: &Value| match value {
        Value::Boolean(value) => Some(*value),
        _ => None,
    };
    let count = |value: &Value| match value {
        Value::Integer(value) => usize::try_from(*value).ok().filter(|n| (1..=10_000).contains(n)),
        _ => None,
    };
    let mut masses = Vec::new();
    for (name, found) in reader.map("system", "masses", Dimension::Mass)? {
        let target = match (name.parse::<usize>(), elements::atomic_number(&name)) {
            (Ok(atom), _) if atom > 0 => MassTarget::Atom(atom - 1),
            (_, Some(z)) => MassTarget::Element(z),
            _ => {
                return Err(found.error(
                    "names neither an element nor an atom; use a symbol such as H, or an atom's number, from 1",
                ));
            }
        };
        masses.push(MassOverride { target, mass: found.value, place: found.what });
    }
    // Elements first: an atom's own mass is the more particular.
    masses.sort_by_key(|m| matches!(m.target, MassTarget::Atom(_)));
    Ok(SystemConfig {
        structure,
        frame: reader.integer("system", "frame")?.map_or(0, |found| found.value as usize - 1),
        cell,
        periodic: reader.triple("system", "pbc", boolean)?.map(|found| found.value),
        replicate: reader.triple("system", "replicate", count)?.map_or([1; 3], |found| found.value),
        masses,
        hydrogen_mass: reader.quantity("system", "hydrogen_mass")?.map(|found| found.value),
    })
}

fn dynamics(reader: &Reader) -> Result<DynamicsConfig> {
    let langevin = reader.text("dynamics", "ensemble")?.is_some_and(|found| found.value == "langevin");
    let timestep = reader.quantity("dynamics", "timestep")?.map_or(0.5, |found| found.value);
    let steps = match (reader.integer("dynamics", "steps")?, reader.quantity("dynamics", "duration")?) {
        (Some(steps), None) => steps.value,
        (None, Some(duration)) => {
            let steps = (duration.value / timestep).round();
            if steps > 1e18 {
                return Err(duration.error(format!("is {steps:.1e} steps of {timestep} fs, more than can be counted")));
            }
            steps as u64
        }
        (None, None) => {
            let missing = reader.missing("dynamics", "steps");
            return Err(Error::Input(format!("{missing}, or dynamics.duration")));
        }
        (Some(_), Some(duration)) => {
            return Err(duration.error("says how long to run, and so does dynamics.steps; keep one of them"));
        }
    };
    let temperature = reader.quantity("dynamics", "temperature")?;
    let velocities = match reader.text("dynamics", "velocities")?.as_ref().map(|found| found.value.as_str()) {
        None | Some("maxwell-boltzmann") => InitialVelocities::MaxwellBoltzmann(
            temperature.as_ref().ok_or_else(|| reader.missing("dynamics", "temperature"))?.value,
        ),
        Some("file") => InitialVelocities::File,
        Some(_) => InitialVelocities::Zero,
    };
    let seed = reader.integer("dynamics", "seed")?.map_or(0, |found| found.value);
    let remove_centre_of_mass = reader.boolean("dynamics", "remove_com")?.unwrap_or(true);
    let friction = reader.quantity("dynamics", "friction")?;
    let final_temperature = reader.quantity("dynamics", "final_temperature")?;
    let thermostat = if langevin {
        let temperature = temperature.ok_or_else(|| reader.missing("dynamics", "temperature"))?.value;
        Some(Thermostat {
            // 1/ps to 1/fs
            friction: friction.map_or(1.0, |found| found.value) * 1e-3,
            temperature,
            final_temperature: final_temperature.as_ref().map_or(temperature, |found| found.value),
            ramp_steps: if final_temperature.is_some() { steps } else { 0 },
            seed,
            remove_centre_of_mass,
        })
    } else if let Some(found) = friction.or(final_temperature) {
        return Err(found.error("needs dynamics.ensemble = \"langevin\"; at constant energy there is no heat bath"));
    } else {
        None
    };
    Ok(DynamicsConfig { timestep, steps, seed, velocities, remove_centre_of_mass, thermostat })
}

fn backend(reader: &Reader) -> Result<BackendConfig> {
    let word = |name: &str| Ok::<_, Error>(reader.text("backend", name)?.map(|found| found.value));
    Ok(BackendConfig {
        device: match word("device")?.as_deref() {
            Some("cpu") => Device::Cpu,
            Some("cuda") => Device::Cuda,
            _ => Device::Auto,
        },
        precision: match word("precision")?.as_deref() {
            Some("f64") => Precision::F64,
            Some("mixed") => Precision::Mixed,
            _ => Precision::F32,
        },
        direct_filters: word("filters")?.as_deref() == Some("direct"),
        threads: reader.integer("backend", "threads")?.map(|found| found.value as usize),
    })
}

fn output(reader: &Reader, stem: &str, timestep: f64) -> Result<OutputConfig> {
    let trajectory = "output.trajectory";
    let interval = |section: &str| Ok::<_, Error>(reader.integer(section, "interval")?.map_or(10, |found| found.value));
    Ok(OutputConfig {
        directory: reader.path("output", "directory", Path::new(""))?.unwrap_or_else(|| Path::new("runs").join(stem)),
        trajectory_interval: interval(trajectory)?,
        energy_interval: interval("output.energy")?,
        checkpoint_interval: reader.integer("output.checkpoint", "interval")?.map(|found| found.value),
        velocities: reader.boolean(trajectory, "velocities")?.unwrap_or(true),
        forces: reader.boolean(trajectory, "forces")?.unwrap_or(false),
        double: reader.text(trajectory, "precision")?.is_some_and(|found| found.value == "f64"),
        wrap: reader.boolean(trajectory, "wrap")?.unwrap_or(false),
        extra: extra_outputs(reader, timestep)?,
    })
}

fn extra_outputs(reader: &Reader, timestep: f64) -> Result<Vec<ExtraOutput>> {
    let section = "output.extra";
    let mut outputs: Vec<ExtraOutput> = Vec::new();
    for reader in reader.repeated(section) {
        let file = reader.text(section, "file")?.ok_or_else(|| reader.missing(section, "file"))?;
        let path = Path::new(&file.value);
        if path.file_name() != Some(path.as_os_str()) {
            return Err(file.error("is not the name of a file; give a name without a folder: it goes into the run's"));
        }
        Format::of(path).map_err(|problem| file.error(problem))?;
        // The stem too: a script for VMD and the names of the atoms stand beside every trajectory.
        let stem = |name: &str| Path::new(name).file_stem().map(|stem| stem.to_ascii_lowercase());
        if stem(&file.value) == stem("trajectory.h5md") || outputs.iter().any(|o| stem(&o.file) == stem(&file.value)) {
            return Err(file.error("has the name of another trajectory, but for its extension; choose another name"));
        }
        let flag = |name: &str| Ok::<_, Error>(reader.boolean(section, name)?.unwrap_or(false));
        let atoms = reader.text(section, "atoms")?.and_then(|found| found.value.parse().ok());
        outputs.push(ExtraOutput {
            options: TrajectoryOptions {
                atoms: atoms.unwrap_or_default(),
                wrap: flag("wrap")?,
                velocities: flag("velocities")?,
                forces: flag("forces")?,
                interval: reader.integer(section, "interval")?.map_or(10, |found| found.value),
                timestep,
            },
            place: file.what,
            file: file.value,
        });
    }
    Ok(outputs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = "[system]\nstructure = \"a.xyz\"\n[model]\nfile = \"m.safetensors\"\n[dynamics]\nsteps = 10\n\
                           temperature = 300\n";

    fn parse(text: &str) -> Result<RunConfig> {
        RunConfig::parse(Path::new("in/a.toml"), text, &[])
    }

    #[test]
    fn a_minimal_input_gets_the_documented_defaults() {
        let config = parse(MINIMAL).unwrap();
        assert_eq!(config.system.structure, Path::new("in/a.xyz"));
        assert_eq!(config.output.directory, Path::new("runs/a"));
        assert_eq!(config.dynamics.timestep, 0.5);
        assert_eq!(config.dynamics.velocities, InitialVelocities::MaxwellBoltzmann(300.0));
        assert!(config.dynamics.remove_centre_of_mass && config.output.velocities && !config.output.forces);
        assert_eq!((config.skin, config.output.trajectory_interval), (None, 10));
    }

    #[test]
    fn steps_and_duration_exclude_each_other() {
        let with = |more: &str| parse(&MINIMAL.replace("steps = 10\n", more));
        assert_eq!(with("duration = \"1 ps\"\ntimestep = 0.25\n").unwrap().dynamics.steps, 4000);
        assert_eq!(
            with("steps = 10\nduration = \"1 ps\"\n").unwrap_err().to_string(),
            "in/a.toml:7: dynamics.duration = \"1 ps\" says how long to run, and so does dynamics.steps; keep one of them"
        );
        assert_eq!(
            with("").unwrap_err().to_string(),
            "in/a.toml:5: dynamics.steps is missing; give a whole number from 0 on, or dynamics.duration"
        );
    }

    #[test]
    fn the_command_line_replaces_steps_and_duration() {
        let file = Path::new("a.toml");
        let text = MINIMAL.replace("steps = 10", "duration = \"1 ps\"");
        let config = RunConfig::parse(file, &text, &["dynamics.steps=7".into()]).unwrap();
        assert_eq!(config.dynamics.steps, 7);
        assert!(config.record().ends_with("# --set dynamics.steps=7\n"));
        let config = RunConfig::parse(file, MINIMAL, &["dynamics.duration=5fs".into()]).unwrap();
        assert_eq!(config.dynamics.steps, 10);
    }

    #[test]
    fn cells_in_three_forms() {
        let with = |cell: &str| {
            let text = MINIMAL.replace("[model]", &format!("cell = {cell}\n[model]"));
            parse(&text).map(|config| config.system.cell.unwrap().build([true; 3]).unwrap())
        };
        assert!((with("[2, 3, 4]").unwrap().volume() - 24.0).abs() < 1e-12);
        assert!((with("[2.0, 3, 4, 90, 90, 90]").unwrap().volume() - 24.0).abs() < 1e-12);
        assert!((with("[[2, 0, 0], [1, 3, 0], [0, 0, 4]]").unwrap().volume() - 24.0).abs() < 1e-12);
        for bad in ["[2, 3]", "[[1, 0, 0], [0, 1, 0]]", "[2, 3, \"4\"]", "3", "[2, 3, 0]", "[[1,0,0],[0,1,0],[1,1,0]]"]
        {
            assert!(with(bad).unwrap_err().to_string().starts_with("in/a.toml:3: system.cell = "), "{bad}");
        }
    }

    #[test]
    fn several_outputs_with_their_own_settings() {
        let with = |more: &str| parse(&format!("{MINIMAL}{more}")).map(|config| config.output.extra);
        let extra = with(
            "[[output.extra]]\nfile = \"water.dcd\"\ninterval = 3\natoms = \"O,1-2\"\nwrap = true\n\
             [[output.extra]]\nfile = \"all.xyz\"\nvelocities = true\nforces = true\n",
        )
        .unwrap();
        let found: Vec<_> = extra.iter().map(|o| (o.file.as_str(), o.options.interval, o.options.wrap)).collect();
        assert_eq!(found, [("water.dcd", 3, true), ("all.xyz", 10, false)]);
        assert_eq!(extra[0].options.atoms.to_string(), "O,1-2");
        assert!(extra[1].options.velocities && extra[1].options.forces && !extra[0].options.velocities);
        for (more, message) in [
            (
                "file = \"a.h5\"",
                "in/a.toml:9: output.extra.file = \"a.h5\" has a format that cannot be written; choose",
            ),
            ("file = \"b/a.dcd\"", "in/a.toml:9: output.extra.file = \"b/a.dcd\" is not the name of a file; give"),
            (
                "file = \"trajectory.dcd\"",
                "in/a.toml:9: output.extra.file = \"trajectory.dcd\" has the name of another",
            ),
            ("interval = 3", "in/a.toml:8: output.extra.file is missing; give text in quotes"),
            (
                "file = \"a.dcd\"\natoms = \"Qq\"",
                "in/a.toml:10: output.extra.atoms = \"Qq\" is not accepted; give \"all\", elements",
            ),
            (
                "file = \"a.dcd\"\n[[output.extra]]\nfile = \"A.xtc\"",
                "in/a.toml:11: output.extra.file = \"A.xtc\" has the",
            ),
        ] {
            let error = with(&format!("[[output.extra]]\n{more}\n")).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }

    #[test]
    fn masses_by_element_and_by_atom() {
        let text = format!("{MINIMAL}[system.masses]\n3 = 2.5\nH = \"2.014 u\"\n");
        let masses = parse(&text).unwrap().system.masses;
        assert_eq!(masses[0].target, MassTarget::Element(1));
        assert_eq!((masses[1].target, masses[1].mass), (MassTarget::Atom(2), 2.5));
        let text = format!("{MINIMAL}[system.masses]\nQq = 2.5\n");
        assert!(parse(&text).unwrap_err().to_string().starts_with("in/a.toml:9: system.masses.Qq = 2.5 names neither"));
    }
}
