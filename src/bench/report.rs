//! What was measured, as a table for people and as data.

use super::Timing;
use crate::system::System;
use serde_json::{Value, json};

/// One system and what came of it.
pub struct Row {
    /// What it is, in words.
    pub what: String,
    /// How many of them move together.
    pub replicas: usize,
    /// Atoms of all.
    pub atoms: usize,
    /// Å³; nothing in vacuum.
    pub volume: Option<f64>,
    /// Directed pairs within the cutoff at the start; nothing where there is no memory to count them.
    pub pairs: Option<usize>,
    /// Å that its neighbour list reaches beyond the cutoff, once that is known.
    pub skin: Option<f64>,
    /// Its times and the bytes it takes, or why there are none.
    pub outcome: Result<(Timing, Option<f64>), String>,
}

/// The titles of [`Row::line`]'s columns.
pub const HEADER: &str = "   atoms  repetitions  median µs/step            10–90 %        mean  atom·steps/s   ns/day       MB  kB/atom  \
                          rebuilds/step  their time  skin (Å)";

impl Row {
    /// A system, or so many replicas of it, yet to be timed.
    pub fn new(what: String, system: &System, replicas: usize, pairs: Option<usize>) -> Self {
        let volume = system.cell.is_periodic().then(|| system.cell.volume());
        let (atoms, pairs) = (replicas * system.len(), pairs.map(|pairs| replicas * pairs));
        Row { what, replicas, atoms, volume, pairs, skin: None, outcome: Err("not timed".into()) }
    }

    /// Water of so many atoms that cannot even be made.
    pub fn without_system(atoms: u64, problem: String) -> Self {
        let atoms = usize::try_from(atoms).unwrap_or(usize::MAX);
        Row {
            what: "water box".into(),
            replicas: 1,
            atoms,
            volume: None,
            pairs: None,
            skin: None,
            outcome: Err(problem),
        }
    }

    /// Atoms times steps a second.
    fn rate(&self, timing: &Timing) -> f64 {
        self.atoms as f64 / timing.mean()
    }

    /// A line of the table. `timestep` in fs.
    pub fn line(&self, timestep: f64) -> String {
        let (timing, memory) = match &self.outcome {
            Ok(measured) => measured,
            Err(problem) => return format!("{:8}  {problem}", self.atoms),
        };
        let micro = |seconds: f64| number(1e6 * seconds);
        let bytes = |unit: f64| memory.map_or("?".into(), |bytes| number(bytes / unit));
        format!(
            "{:8}  {:>11}  {:>14}  {:>17}  {:>10}  {:>12.2e}  {:>7}  {:>7}  {:>7}  {:>13.4}  {:>8.1} %  {:>8}",
            self.atoms,
            format!("{} × {}", timing.step_seconds.len(), timing.steps),
            micro(timing.quantile(0.5)),
            format!("{}–{}", micro(timing.quantile(0.1)), micro(timing.quantile(0.9))),
            micro(timing.mean()),
            self.rate(timing),
            number(nanoseconds_a_day(timestep, timing)),
            bytes(1e6),
            bytes(1e3 * self.atoms as f64),
            timing.rebuilds_per_step(),
            100.0 * timing.rebuild_share(),
            self.skin.map_or("?".into(), |skin| skin.to_string()),
        )
    }

    /// The same as data, with all repetitions.
    pub fn json(&self, timestep: f64) -> Value {
        let mut value = json!({
            "system": self.what,
            "replicas": self.replicas,
            "atoms": self.atoms,
            "volume_angstrom3": self.volume,
            "pairs": self.pairs,
            "skin_angstrom": self.skin,
        });
        let more = match &self.outcome {
            Err(problem) => json!({ "error": problem }),
            Ok((timing, memory)) => json!({
                "warm_up_steps": timing.warm_up_steps,
                "steps_per_repetition": timing.steps,
                "repetitions": timing.step_seconds.len(),
                "step_seconds": {
                    "median": timing.quantile(0.5),
                    "mean": timing.mean(),
                    "least": timing.quantile(0.0),
                    "tenth": timing.quantile(0.1),
                    "ninetieth": timing.quantile(0.9),
                    "most": timing.quantile(1.0),
                    "all": timing.step_seconds,
                },
                "atom_steps_per_second": self.rate(timing),
                "ns_per_day": nanoseconds_a_day(timestep, timing),
                "memory_bytes": memory,
                "memory_bytes_per_atom": memory.map(|bytes| bytes / self.atoms as f64),
                "rebuilds": timing.rebuilds,
                "rebuilds_per_step": timing.rebuilds_per_step(),
                "rebuild_seconds": timing.rebuild_seconds,
                "rebuild_share": timing.rebuild_share(),
                "final_temperature_kelvin": timing.temperature,
            }),
        };
        let (Value::Object(row), Value::Object(more)) = (&mut value, more) else { unreachable!("both are objects") };
        row.extend(more);
        value
    }
}

/// ns of simulated time in a day, at a time step in fs.
fn nanoseconds_a_day(timestep: f64, timing: &Timing) -> f64 {
    timestep * 1e-6 * 86_400.0 / timing.mean()
}

/// Three digits at least, and whole numbers from 1000 on.
fn number(x: f64) -> String {
    let digits = match x.abs() {
        x if x < 0.1 => 4,
        x if x < 10.0 => 2,
        x if x < 1000.0 => 1,
        _ => 0,
    };
    format!("{x:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::Cell;
    use nalgebra::Vector3;

    fn row(outcome: Result<(Timing, Option<f64>), String>) -> Row {
        let system = System::new(vec![1; 10], vec![Vector3::zeros(); 10], Cell::open()).unwrap();
        Row { outcome, skin: Some(1.5), ..Row::new("hydrogen".into(), &system, 1, Some(90)) }
    }

    #[test]
    fn rates_follow_from_the_mean() {
        let timing = Timing {
            warm_up_steps: 9,
            steps: 50,
            step_seconds: vec![1e-4, 1e-4, 4e-4],
            rebuilds: 3.0,
            rebuild_seconds: 5e-4,
            temperature: 300.0,
        };
        let value = row(Ok((timing.clone(), Some(2e6)))).json(0.5);
        let close = |key: &str, wanted: f64| {
            let found = value[key].as_f64().unwrap();
            assert!((found / wanted - 1.0).abs() < 1e-12, "{key}: {found}");
        };
        close("atom_steps_per_second", 5e4);
        close("ns_per_day", 0.5e-6 * 86_400.0 / 2e-4);
        close("memory_bytes_per_atom", 2e5);
        close("rebuild_share", 0.05);
        assert_eq!(value["step_seconds"]["median"], 1e-4);
        let line = row(Ok((timing, None))).line(0.5);
        assert_eq!(line.split_whitespace().collect::<Vec<_>>()[..6], ["10", "3", "×", "50", "100.0", "100.0–340.0"]);
        assert!(line.contains(" 200.0 ") && line.contains(" ? ") && line.ends_with(" 5.0 %       1.5"), "{line}");
        assert_eq!(line.chars().count(), HEADER.chars().count());
    }

    #[test]
    fn a_row_without_times_says_why() {
        let row = row(Err("it does not fit".into()));
        assert_eq!(row.line(0.5), "      10  it does not fit");
        assert_eq!(row.json(0.5)["error"], "it does not fit");
        assert_eq!(row.json(0.5)["pairs"], 90);
    }
}
