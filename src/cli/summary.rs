//! What became of many systems: a table in the run's folder, and a few lines on the screen.

use crate::analysis::Judgement;
use crate::config::RunConfig;
use crate::error::{Error, Result, reason};
use crate::replicas::{Outcome, Prepared, ReplicaOutcome};
use std::fmt::Write;
use std::path::{Path, PathBuf, absolute};
use std::time::Duration;

/// The table's name in the run's folder.
const FILE: &str = "replicas.csv";
/// The columns.
const COLUMNS: &str = "replica,structure,frame,atoms,seed,temperature_kelvin,last_step,mean_temperature_kelvin,\
                       drift_kt_per_ns_per_dof,drift_margin_kt_per_ns_per_dof,excursion_ev_per_atom,departures,verdict,failure";
/// In the place of a verdict, for what went no further.
const FAILED: &str = "failed";
/// Failures that a message names.
const NAMED: usize = 3;

/// A row of the table.
struct Row {
    name: String,
    structure: String,
    frame: usize,
    atoms: usize,
    seed: u64,
    temperature: Option<f64>,
    outcome: ReplicaOutcome,
}

/// See the module.
pub(super) struct Table {
    rows: Vec<Row>,
    outcome: Outcome,
    atoms: usize,
}

impl Table {
    /// Of a run that has ended.
    pub fn new(config: &RunConfig, prepared: &Prepared, outcome: &Outcome) -> Self {
        let rows = prepared.members.iter().zip(&config.replicas).zip(&outcome.replicas);
        let rows: Vec<Row> = rows
            .map(|((member, replica), outcome)| Row {
                name: member.name.clone(),
                structure: from_input(&replica.structure, &config.file).display().to_string(),
                frame: replica.frame + 1,
                atoms: member.info.system.len(),
                seed: replica.seed,
                temperature: replica.temperature(),
                outcome: outcome.clone(),
            })
            .collect();
        Table { atoms: rows.iter().map(|row| row.atoms).sum(), rows, outcome: outcome.clone() }
    }

    /// Writes it, in place of that of an earlier part of the run.
    ///
    /// # Errors
    /// [`Error::Output`] when it cannot be written.
    pub fn write(&self, folder: &Path) -> Result<PathBuf> {
        let mut text = format!("{COLUMNS}\n");
        for row in &self.rows {
            let verdict = &row.outcome.verdict;
            let (drift, margin) =
                verdict.per_degree_of_freedom().map_or((String::new(), String::new()), |(drift, margin)| {
                    (format!("{drift:.6e}"), format!("{margin:.6e}"))
                });
            let _ = writeln!(
                text,
                "{},{},{},{},{},{},{},{:.3},{drift},{margin},{:.6e},{},{},{}",
                row.name,
                quoted(&row.structure),
                row.frame,
                row.atoms,
                row.seed,
                row.temperature.map_or(String::new(), |kelvin| kelvin.to_string()),
                row.outcome.step,
                verdict.temperature,
                verdict.excursion,
                row.outcome.departures.len(),
                row.word(),
                row.outcome.failure.as_ref().map_or(String::new(), |(_, reason)| quoted(reason)),
            );
        }
        // Who reads meanwhile finds the old table or the new one.
        let (path, unfinished) = (folder.join(FILE), folder.join("replicas.unfinished.csv"));
        std::fs::write(&unfinished, text)
            .and_then(|()| std::fs::rename(&unfinished, &path))
            .map_err(|error| Error::Output(format!("{} cannot be written: {}", path.display(), reason(&error))))?;
        Ok(path)
    }

    /// What is said on the screen; `first` is the step at which this process began.
    pub fn report(&self, config: &RunConfig, first: u64, elapsed: Duration) -> String {
        let (seconds, taken) = (elapsed.as_secs_f64(), (self.outcome.step - first) as f64);
        let steps = if self.outcome.interrupted {
            format!("stopped at step {} of {}, as you asked,", self.outcome.step, config.dynamics.steps)
        } else {
            format!("finished {}", super::counted(self.outcome.step, "step"))
        };
        let from = if first > 0 { format!(", from step {first} on,") } else { String::new() };
        let mut text = format!(
            "\n{steps} of {}{from} in {seconds:.1} s: {:.3} ms a step, {:.3} million atom·steps/s, {:.3} ns/day each\n",
            super::counted(self.rows.len() as u64, "replica"),
            1e3 * seconds / taken.max(1.0),
            taken * self.atoms as f64 / seconds * 1e-6,
            taken * config.dynamics.timestep * 1e-6 / seconds * 86_400.0,
        );
        let words = ["PASS", "INCONCLUSIVE", "FAIL", FAILED].map(|word| {
            let count = self.rows.iter().filter(|row| row.word() == word).count();
            (count > 0).then(|| format!("{count} {word}"))
        });
        let words: Vec<String> = words.into_iter().flatten().collect();
        let _ = writeln!(text, "energy             {}", words.join(", "));
        let whole = || self.rows.iter().filter(|row| row.outcome.failure.is_none());
        let drift = |row: &&Row| row.outcome.verdict.per_degree_of_freedom().map_or(0.0, |(drift, _)| drift.abs());
        if let Some(worst) = whole().max_by(|a, b| drift(a).total_cmp(&drift(b)))
            && let Some((drift, margin)) = worst.outcome.verdict.per_degree_of_freedom()
        {
            let _ = writeln!(
                text,
                "worst drift        {drift:+.2e} ± {margin:.1e} kT/ns per degree of freedom (bound {}), in {}",
                worst.outcome.verdict.limits.drift, worst.name
            );
        }
        let excursion = |row: &&Row| row.outcome.verdict.excursion;
        if let Some(worst) = whole().max_by(|a, b| excursion(a).total_cmp(&excursion(b))) {
            let _ = writeln!(
                text,
                "worst excursion    {:.2e} eV per atom (bound {}), in {}",
                excursion(&worst),
                worst.outcome.verdict.limits.excursion,
                worst.name
            );
        }
        let temperatures: Vec<f64> = whole().map(|row| row.outcome.verdict.temperature).collect();
        if !temperatures.is_empty() {
            let mean = temperatures.iter().sum::<f64>() / temperatures.len() as f64;
            let low = temperatures.iter().copied().fold(f64::INFINITY, f64::min);
            let high = temperatures.iter().copied().fold(0.0, f64::max);
            let _ = writeln!(text, "mean temperature   {mean:.1} K, of single replicas {low:.1} to {high:.1} K");
        }
        let left: Vec<&Row> = self.rows.iter().filter(|row| !row.outcome.departures.is_empty()).collect();
        if let Some(row) = left.first() {
            let first = &row.outcome.departures[0];
            let _ = writeln!(
                text,
                "outside the model  {}; {}: {first}",
                super::counted(left.len() as u64, "replica"),
                row.name
            );
        }
        text
    }

    /// Whether the energy of any replica that went to the end is not conserved.
    pub fn not_conserved(&self) -> bool {
        self.rows.iter().any(|row| row.word() == Judgement::Fail.word())
    }

    /// The sentence about those that failed, if any did.
    pub fn failures(&self) -> Option<String> {
        let failed: Vec<_> = self.rows.iter().filter_map(|row| Some((row, row.outcome.failure.as_ref()?))).collect();
        if failed.is_empty() {
            return None;
        }
        let named: Vec<String> =
            failed.iter().take(NAMED).map(|(row, (_, reason))| format!("{}: {reason}", row.name)).collect();
        let more = if failed.len() > NAMED { format!("; and {} more", failed.len() - NAMED) } else { String::new() };
        Some(format!("{} of {} replicas failed ({}{more})", failed.len(), self.rows.len(), named.join("; ")))
    }
}

impl Row {
    fn word(&self) -> &'static str {
        if self.outcome.failure.is_some() { FAILED } else { self.outcome.verdict.judgement().word() }
    }
}

/// A structure file as an input names it, wherever that was started from: a relative path begins at the input's folder.
fn from_input(structure: &Path, input: &Path) -> PathBuf {
    let inside = || Some(absolute(structure).ok()?.strip_prefix(absolute(input).ok()?.parent()?).ok()?.to_owned());
    inside().unwrap_or_else(|| structure.to_owned())
}

/// A text as a field of a table.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}
