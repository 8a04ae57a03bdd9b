//! Every key that the input knows, in one table: the reader, the messages and the documentation all come from it.

use crate::system::SELECTION_FORM;
use crate::units::Dimension;

/// What a value must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A path; relative ones start at the input file's folder.
    Path,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A whole number from the first to the last value.
    Integer(i64, i64),
    /// `true` or `false`.
    Boolean,
    /// A number in the dimension's unit, or a string with a unit; at least zero, or above zero.
    Quantity(Dimension, Sign),
    /// Atoms, by element and number.
    Selection,
    /// A list, described in words.
    List(&'static str),
    /// A table with keys of the user's choosing, described in words.
    Map(&'static str),
}

/// Which values of a quantity make sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// Above zero.
    Positive,
    /// Zero or above.
    NotNegative,
}

/// One key of the input.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The table it stands in; empty at the top.
    pub section: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// What holds when it is not given, in words; `required` when it must be.
    pub default: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

const fn key(
    section: &'static str,
    name: &'static str,
    kind: Kind,
    default: &'static str,
    meaning: &'static str,
) -> Key {
    Key { section, name, kind, default, meaning }
}

const STEPS: Kind = Kind::Integer(1, i64::MAX);

/// All keys, in the order of the documentation.
pub const KEYS: &[Key] = &[
    key("", "title", Kind::Text, "empty", "free text, kept in the trajectory"),
    key("", "author", Kind::Text, "the user's name", "who ran it, kept in the trajectory"),
    key("system", "structure", Kind::Path, "required", "structure file: extended XYZ, PDB, CIF, GRO, …"),
    key("system", "frame", Kind::Integer(1, i64::MAX), "1", "which frame of the structure file, counted from 1"),
    key(
        "system",
        "cell",
        Kind::List("three lengths in Å, three lengths and three angles in degrees, or three vectors"),
        "the structure file's",
        "the simulation cell",
    ),
    key(
        "system",
        "pbc",
        Kind::List("three of true or false"),
        "the structure file's; [true, true, true] where cell is given",
        "which cell edges repeat",
    ),
    key(
        "system",
        "replicate",
        Kind::List("three whole numbers from 1 to 10000"),
        "[1, 1, 1]",
        "copies along each cell edge",
    ),
    key(
        "system",
        "masses",
        Kind::Map("element symbols or atom numbers (from 1, in the structure file), each with a mass in u"),
        "standard atomic weights",
        "masses to override, for example `H = 2.014` for deuterium",
    ),
    key(
        "system",
        "hydrogen_mass",
        Kind::Quantity(Dimension::Mass, Sign::Positive),
        "no repartitioning",
        "hydrogen-mass repartitioning: every hydrogen gets this mass, the heavy atom it is bound to gives it",
    ),
    key("model", "file", Kind::Path, "required", "the force field, a safetensors file"),
    key(
        "model",
        "outside_domain",
        Kind::Choice(&["warn", "stop", "ignore"]),
        "warn",
        "what a run does where it leaves what the model was trained on, as far as the model file says what that is: say so, \
         once for each pair of elements and for the energy, or end there with exit status 1, or go on without a word",
    ),
    key(
        "dynamics",
        "ensemble",
        Kind::Choice(&["nve", "langevin"]),
        "nve",
        "constant energy (velocity Verlet), or Langevin dynamics at a temperature (BAOAB)",
    ),
    key("dynamics", "timestep", Kind::Quantity(Dimension::Time, Sign::Positive), "0.5 fs", "time step"),
    key("dynamics", "steps", Kind::Integer(0, i64::MAX), "required, or duration", "number of steps"),
    key(
        "dynamics",
        "duration",
        Kind::Quantity(Dimension::Time, Sign::NotNegative),
        "required, or steps",
        "simulated time, rounded to whole steps",
    ),
    key(
        "dynamics",
        "temperature",
        Kind::Quantity(Dimension::Temperature, Sign::NotNegative),
        "required for langevin and for maxwell-boltzmann velocities",
        "temperature of the initial velocities, and of the heat bath",
    ),
    key(
        "dynamics",
        "final_temperature",
        Kind::Quantity(Dimension::Temperature, Sign::NotNegative),
        "temperature",
        "langevin: the bath's temperature changes linearly to this one over the steps of the input; a run extended \
         beyond them goes on at this one",
    ),
    key(
        "dynamics",
        "friction",
        Kind::Quantity(Dimension::Rate, Sign::NotNegative),
        "1 1/ps",
        "langevin: friction γ of the heat bath",
    ),
    key("dynamics", "seed", Kind::Integer(0, i64::MAX), "0", "seed of all random numbers"),
    key(
        "dynamics",
        "velocities",
        Kind::Choice(&["maxwell-boltzmann", "file", "zero"]),
        "maxwell-boltzmann",
        "initial velocities: drawn at the temperature, from the structure file, or none",
    ),
    key(
        "dynamics",
        "remove_com",
        Kind::Boolean,
        "true",
        "take the motion of the centre of mass out, at the start and in every step of a heat bath (3N − 3 degrees of \
         freedom), or never (3N)",
    ),
    key(
        "neighbors",
        "skin",
        Kind::Quantity(Dimension::Length, Sign::NotNegative),
        "1 Å; on a GPU 0.3 to 2 Å, whatever suits atoms, temperature and time step",
        "the neighbour list reaches this much beyond the cutoff, and is rebuilt when an atom has moved half of it",
    ),
    key(
        "backend",
        "device",
        Kind::Choice(&["auto", "cpu", "cuda"]),
        "auto",
        "where to compute: on an NVIDIA GPU, on the CPU, or wherever it is faster (the GPU, where there is one, precision \
         is not f64 and filters are the default ones)",
    ),
    key(
        "backend",
        "precision",
        Kind::Choice(&["f32", "f64", "mixed"]),
        "f32",
        "arithmetic of the network; all else is float64. f64 is for the CPU; mixed is for the GPU: products of 16-bit numbers, sums \
         in f32, faster and less exact",
    ),
    key(
        "backend",
        "filters",
        Kind::Choice(&["table", "direct"]),
        "table",
        "radial filters from a spline table, or evaluated directly (slow, for checks)",
    ),
    key("backend", "threads", Kind::Integer(1, 4096), "all cores", "threads of the CPU backend; changes no result"),
    key("output", "directory", Kind::Path, "runs/ and the input's name", "the run's folder, relative to where you are"),
    key("output.trajectory", "interval", STEPS, "10", "steps between frames"),
    key("output.trajectory", "velocities", Kind::Boolean, "true", "write velocities"),
    key("output.trajectory", "forces", Kind::Boolean, "false", "write forces"),
    key("output.trajectory", "precision", Kind::Choice(&["f32", "f64"]), "f32", "of positions, velocities, forces"),
    key("output.trajectory", "wrap", Kind::Boolean, "false", "move atoms into the cell in the file"),
    key(
        "output.extra",
        "file",
        Kind::Text,
        "required",
        "name of a further trajectory in the run's folder; its extension is the format: .dcd, .xtc, .trr, .pdb, .gro, \
         .lammpstrj, .arc, .mol2, .xyz or .extxyz",
    ),
    key("output.extra", "interval", STEPS, "10", "steps between frames"),
    key("output.extra", "atoms", Kind::Selection, "\"all\"", "which atoms, in the system after replication"),
    key("output.extra", "wrap", Kind::Boolean, "false", "move atoms into the cell in the file"),
    key("output.extra", "velocities", Kind::Boolean, "false", "write velocities: .trr, .gro, .lammpstrj and .xyz"),
    key("output.extra", "forces", Kind::Boolean, "false", "write forces: .xyz"),
    key("output.energy", "interval", STEPS, "10", "steps between rows of the energy log"),
    key(
        "output.checkpoint",
        "interval",
        STEPS,
        "every 30 s",
        "steps between checkpoints; there is always one at the beginning, at the end, and when the run is stopped",
    ),
    key(
        "replicas",
        "copies",
        Kind::Integer(1, 100_000),
        "1",
        "many systems in one run, which advance together, each with a trajectory and a verdict of its own: so many with what \
         this table says, and with everything else as in the rest of the input",
    ),
    key("replicas", "structure", Kind::Path, "system.structure", "their structure file"),
    key("replicas", "frame", Kind::Integer(1, i64::MAX), "system.frame, or 1 of their own file", "which frame of it"),
    key(
        "replicas",
        "temperature",
        Kind::Quantity(Dimension::Temperature, Sign::NotNegative),
        "dynamics.temperature",
        "temperature of their initial velocities, and of their heat bath",
    ),
    key(
        "replicas",
        "final_temperature",
        Kind::Quantity(Dimension::Temperature, Sign::NotNegative),
        "dynamics.final_temperature",
        "where the ramp of their heat bath ends, if the input has a ramp",
    ),
    key(
        "replicas",
        "seed",
        Kind::Integer(0, i64::MAX),
        "made from dynamics.seed and the number of the replica",
        "seed of the first copy's random numbers, from which those of further copies count up; no two replicas may have the \
         same",
    ),
    key(
        "replicas",
        "name",
        Kind::Text,
        "the number of the replica: 0001, …",
        "name of their folder in the run's folder; several copies get numbers behind it",
    ),
    key(
        "verdict",
        "max_drift",
        Kind::Quantity(Dimension::Drift, Sign::NotNegative),
        "1 kT/ns/dof",
        "largest energy drift that passes, in kT per nanosecond and degree of freedom",
    ),
    key(
        "verdict",
        "max_excursion",
        Kind::Quantity(Dimension::Energy, Sign::NotNegative),
        "0.01 eV",
        "largest distance of the energy from its first value that passes, per atom",
    ),
];

/// Tables of which there can be any number, such as `[[output.extra]]`.
const REPEATED: &[&str] = &["output.extra", "replicas"];

/// Whether there can be any number of tables of this name.
pub fn is_repeated(section: &str) -> bool {
    REPEATED.contains(&section)
}

/// The line above the keys of a table.
pub fn header(section: &str) -> String {
    if is_repeated(section) { format!("[[{section}]]") } else { format!("[{section}]") }
}

impl Kind {
    /// What would be accepted, for messages and documentation.
    pub fn describe(&self) -> String {
        match self {
            Kind::Text => "text in quotes".into(),
            Kind::Path => "a path in quotes".into(),
            Kind::Choice(words) => words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or "),
            Kind::Integer(low, i64::MAX) => format!("a whole number from {low} on"),
            Kind::Integer(low, high) => format!("a whole number from {low} to {high}"),
            Kind::Boolean => "true or false".into(),
            Kind::Quantity(dimension, sign) => {
                let units: Vec<_> = dimension.units().iter().map(|(name, _)| *name).collect();
                format!(
                    "a number {} zero in {}, or a string with a unit ({}) such as \"1 {}\"",
                    if *sign == Sign::Positive { "above" } else { "at or above" },
                    dimension.default_unit(),
                    units.join(", "),
                    dimension.default_unit()
                )
            }
            Kind::Selection => SELECTION_FORM.into(),
            Kind::List(words) | Kind::Map(words) => (*words).into(),
        }
    }
}

/// The key `name` of `section`; the program never asks for one that is not in the table.
pub(super) fn find(section: &str, name: &str) -> &'static Key {
    KEYS.iter()
        .find(|key| key.section == section && key.name == name)
        .unwrap_or_else(|| panic!("the key {section}.{name} is not in the table"))
}

/// The full name of a key as users write it.
pub(super) fn path(section: &str, name: &str) -> String {
    if section.is_empty() { name.into() } else { format!("{section}.{name}") }
}
