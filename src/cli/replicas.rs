//! `run`, `check` and `resume` of inputs with `[[replicas]]`.

use super::Ending;
use super::summary::Table;
use crate::analysis::Conservation;
use crate::backend::{Departure, Failure};
use crate::config::RunConfig;
use crate::error::{Error, Result};
use crate::output::checkpoint::{Generations, Member, SetCheckpoint};
use crate::output::folder::RunFolder;
use crate::output::h5md::H5mdReader;
use crate::output::progress::Progress;
use crate::output::replicas::{self as output, SetRecord};
use crate::output::{Position, Sample, writer};
use crate::replicas::{self, Observer, Prepared};
use crate::setup;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

/// Formulas that are named when replicas are described.
const NAMED: usize = 3;

/// `verlet run`.
pub(super) fn run(config: &RunConfig) -> Result<Ending> {
    let directory = &config.output.directory;
    RunFolder::check_free(directory)?;
    let mut prepared = replicas::prepare(config)?;
    super::warn_of_defects(&prepared.model);
    warn_of_charges(config, &prepared);
    super::say(&format!("{}\noutput   {}", describe(config, &prepared), directory.display()))?;

    let folder = RunFolder::create(directory, &config.record())?;
    let run = setup::provenance(config, &prepared.model, prepared.skin)?;
    let states = prepared.batch.states()?;
    let member = |(member, state): (&replicas::Member, Option<_>)| {
        let system = &member.info.system;
        Some(Member {
            name: member.name.clone(),
            atomic_numbers: system.atomic_numbers.clone(),
            masses: system.masses.clone(),
            cell: system.cell.clone(),
            state: state?,
            output: Position::default(),
            failure: None,
            departures: Vec::new(),
        })
    };
    let members = prepared.members.iter().zip(states).filter_map(member).collect();
    let start = SetCheckpoint { run, steps: config.dynamics.steps, step: 0, members };
    let infos: Vec<_> = prepared.members.iter().map(|member| &member.info).collect();
    let options = super::outputs::options(config);
    let record = SetRecord::create(folder.path(), &infos, options, folder.checkpoints(), start);
    let record = record.map_err(|error| match error {
        Error::Output(problem) => Error::Output(format!(
            "{problem}; the run has not begun: remove the folder {} before you start again",
            directory.display()
        )),
        other => other,
    })?;
    execute(config, &mut prepared, &folder, record, BTreeMap::new())
}

/// `verlet check`.
pub(super) fn check(config: &RunConfig) -> Result<()> {
    let mut prepared = replicas::prepare(config)?;
    super::warn_of_defects(&prepared.model);
    warn_of_charges(config, &prepared);
    RunFolder::check_free(&config.output.directory)?;
    super::say(&format!(
        "{}\noutput   {} (nothing written)",
        describe(config, &prepared),
        config.output.directory.display()
    ))?;
    let mut told = Vec::new();
    for (n, departure) in prepared.batch.departures() {
        tell_once(&mut told, &departure, |departure| {
            super::warn(&format!(
                "the structure of replica {} is outside of what the model was trained on: {}",
                prepared.members[n].name, departure.outside
            ));
        });
    }
    let energies: Vec<f64> = prepared.batch.samples()?.iter().flatten().map(|sample| sample.potential).collect();
    let [lowest, highest] = [f64::min as fn(f64, f64) -> f64, f64::max].map(|of| energies.iter().copied().reduce(of));
    super::say(&format!("energy   {:.6} to {:.6} eV", lowest.unwrap_or(f64::NAN), highest.unwrap_or(f64::NAN)))
}

/// `verlet resume`, with the new number of steps and the device that were asked for.
pub(super) fn resume(folder: &RunFolder, steps: Option<u64>, overrides: &[String]) -> Result<Ending> {
    let (mut checkpoint, is_last) = last_usable(folder)?;
    let (step, scheduled) = (checkpoint.step, checkpoint.steps);
    checkpoint.steps = steps.unwrap_or(scheduled);
    let path = folder.path();
    if checkpoint.steps <= step {
        return super::resume::finished(path, step, steps);
    }
    if checkpoint.members.iter().all(|member| member.failure.is_some()) {
        return Err(Error::Run(format!("all replicas of the run in {} have failed: none can go on", path.display())));
    }
    let config = setup::recall(&checkpoint.run, checkpoint.steps, path, overrides)?;
    super::resume::accept(&config, &checkpoint.run)?;
    let mut prepared = replicas::resume(&config, &checkpoint)?;
    super::say(&format!("{}\noutput   {}, from step {step} on", describe(&config, &prepared), path.display()))?;

    let logs = checkpoint.members.iter().map(|member| log(path, &config, member)).collect::<Result<Vec<_>>>()?;
    // As with one system: what was changed now holds for later parts of the run too.
    checkpoint.run.overrides.clone_from(&config.overrides);
    if !is_last || checkpoint.steps != scheduled {
        // As with one system: a kill must forget neither the new end nor the checkpoint that was good.
        folder.checkpoints().replace(&checkpoint)?;
    }
    let record = SetRecord::append(path, super::outputs::options(&config), folder.checkpoints(), checkpoint)?;
    execute(&config, &mut prepared, folder, record, logs.into_iter().enumerate().collect())
}

/// The energy log of a replica, as far as its checkpoint counts it.
fn log(folder: &Path, config: &RunConfig, member: &Member) -> Result<Vec<Sample>> {
    let mut samples = H5mdReader::open(&output::trajectory(folder, &member.name))?.samples()?;
    samples.truncate(member.output.rows as usize);
    // The file has picoseconds, rounded; the product is what the run computed.
    samples.iter_mut().for_each(|sample| sample.time = sample.step as f64 * config.dynamics.timestep);
    Ok(samples)
}

/// The last checkpoint that is whole and whose trajectories are there, repaired, and whether it is the very last one; warns
/// when it is not.
fn last_usable(folder: &RunFolder) -> Result<(SetCheckpoint, bool)> {
    let checkpoints = folder.checkpoints();
    let usable = |path: &Path| {
        let checkpoint: SetCheckpoint = Generations::read(path)?;
        match SetRecord::lacks(folder.path(), &checkpoint)? {
            None => Ok(checkpoint),
            Some(file) => Err(Error::Output(format!(
                "{} is missing, or has less than the frames and rows that {} counts; put it back",
                file.display(),
                path.display()
            ))),
        }
    };
    let refused =
        |reason: String| Error::Output(format!("the run in {} cannot be resumed: {reason}", folder.path().display()));
    let unusable = match usable(&checkpoints.current()) {
        Ok(checkpoint) => return Ok((checkpoint, true)),
        Err(error) => error,
    };
    if !checkpoints.previous().exists() {
        return Err(refused(unusable.to_string()));
    }
    let checkpoint = usable(&checkpoints.previous()).map_err(|error| refused(format!("{unusable}, and {error}")))?;
    super::warn(&format!(
        "{unusable}; going on from the checkpoint before it, {} at step {}",
        Generations::PREVIOUS,
        checkpoint.step
    ));
    Ok((checkpoint, false))
}

/// Moves the systems to the last step, or until they are stopped, and tells what came out. `logs` are the samples that a
/// resumed run has already, by the number of the replica.
fn execute(
    config: &RunConfig,
    prepared: &mut Prepared,
    folder: &RunFolder,
    mut record: SetRecord,
    logs: BTreeMap<usize, Vec<Sample>>,
) -> Result<Ending> {
    let dynamics = &config.dynamics;
    let first = prepared.batch.step();
    let atoms: usize = prepared.members.iter().map(|member| member.info.system.len()).sum();
    let conservation = |(n, member): (usize, &replicas::Member)| {
        let mut conservation = Conservation::new(member.info.system.len(), member.degrees_of_freedom);
        logs.get(&n).into_iter().flatten().for_each(|sample| conservation.add(sample));
        conservation
    };
    let conservations: Vec<_> = prepared.members.iter().enumerate().map(conservation).collect();
    let mut watch = Watch {
        progress: Progress::new(first, dynamics.steps, dynamics.timestep, atoms, Some(0.0)),
        names: prepared.members.iter().map(|member| member.name.clone()).collect(),
        firsts: conservations.iter().map(Conservation::first).collect(),
        last: vec![None; conservations.len()],
        told: Vec::new(),
    };
    let stop = super::stop_flag()?;
    let begun = Instant::now();
    let outcome = output::beside(&mut record, writer::places(atoms), |writer| {
        replicas::run(prepared, conservations, &mut [writer, &mut watch], &stop)
    });
    let outcome = outcome.map_err(|error| match error {
        Error::Run(reason) => Error::Run(format!("{reason}; {}", record.last_good())),
        Error::Output(reason) => Error::Output(format!("{reason}; {}", record.last_good())),
        other => other,
    })?;
    let table = Table::new(config, prepared, &outcome);
    let file = table.write(folder.path())?;
    let mut report = table.report(config, first, begun.elapsed());
    report.push_str(&format!("table              {}\n", file.display()));
    if outcome.interrupted {
        report.push_str(&format!("go on with it      verlet resume {}\n", folder.path().display()));
    }
    let example = output::trajectory(folder.path(), &prepared.members[0].name);
    report.push_str(&format!(
        "\ntrajectories       {}, and so on\nlook at one        python: MDAnalysis.Universe(\"{}\")\n                   VMD: \
         vmd -e {}",
        example.display(),
        example.display(),
        example.with_extension("vmd").display()
    ));
    super::say(&report).map_err(|error| {
        Error::Output(format!("{error}; the run itself ended well, and its results are in {}", folder.path().display()))
    })?;
    match table.failures() {
        Some(sentence) => Err(Error::Run(format!("{sentence}; {}", record.last_good()))),
        None => Ok(Ending::of_run(table.not_conserved(), outcome.interrupted)),
    }
}

/// Shows all systems as if they were one.
struct Watch {
    progress: Progress,
    names: Vec<String>,
    /// The first conserved energy of each, eV.
    firsts: Vec<Option<f64>>,
    /// The last sample of each that still moves.
    last: Vec<Option<Sample>>,
    /// What was warned of.
    told: Vec<Departure>,
}

impl Observer for Watch {
    fn samples(&mut self, samples: &[Vec<Sample>]) -> Result<()> {
        for ((samples, last), first) in samples.iter().zip(&mut self.last).zip(&mut self.firsts) {
            if let Some(sample) = samples.last() {
                first.get_or_insert(samples[0].conserved);
                *last = Some(*sample);
            }
        }
        let moving = self.last.iter().zip(&self.firsts).filter_map(|(last, first)| Some((last.as_ref()?, (*first)?)));
        let mut all = Sample::default();
        let mut count = 0.0;
        for (sample, first) in moving {
            (all.step, all.time) = (sample.step, sample.time);
            all.kinetic += sample.kinetic;
            all.potential += sample.potential;
            all.conserved += sample.conserved - first;
            all.temperature += sample.temperature;
            count += 1.0;
        }
        all.temperature /= f64::max(count, 1.0);
        crate::simulation::Observer::samples(&mut self.progress, &[all])
    }

    fn failure(&mut self, failure: &Failure) -> Result<()> {
        self.last[failure.replica] = None;
        self.progress.warn(&format!("replica {}: {}; the others go on", self.names[failure.replica], failure.reason));
        Ok(())
    }

    fn departure(&mut self, replica: usize, departure: &Departure) -> Result<()> {
        let (progress, names) = (&self.progress, &self.names);
        tell_once(&mut self.told, departure, |departure| {
            progress.warn(&format!("replica {}: {departure}; further replicas are counted at the end", names[replica]));
        });
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        crate::simulation::Observer::finish(&mut self.progress)
    }
}

/// The first replica that has one is enough.
fn warn_of_charges(config: &RunConfig, prepared: &Prepared) {
    let mut members = prepared.members.iter().zip(&config.replicas);
    if let Some((member, replica)) = members.find(|(member, _)| member.info.system.charge != 0.0) {
        let what = format!("replica {}: {}", member.name, replica.structure.display());
        super::warn_of_charge(&what, &member.info.system);
    }
}

/// Of many replicas that leave what the model was trained on in the same way, the first one is enough.
fn tell_once(told: &mut Vec<Departure>, departure: &Departure, tell: impl FnOnce(&Departure)) {
    if !told.iter().any(|other| other.outside.is_like(&departure.outside)) {
        tell(departure);
        told.push(departure.clone());
    }
}

/// Tells what is about to run.
fn describe(config: &RunConfig, prepared: &Prepared) -> String {
    let members = &prepared.members;
    let mut formulas: Vec<(String, usize)> = Vec::new();
    for member in members {
        let formula = member.info.system.formula();
        match formulas.iter_mut().find(|(known, _)| *known == formula) {
            Some((_, count)) => *count += 1,
            None => formulas.push((formula, 1)),
        }
    }
    let mut what: Vec<String> =
        formulas.iter().take(NAMED).map(|(formula, count)| format!("{count} of {formula}")).collect();
    if formulas.len() > NAMED {
        what.push(format!("{} more kinds", formulas.len() - NAMED));
    }
    let atoms: usize = members.iter().map(|member| member.info.system.len()).sum();
    let system = format!(
        "{}: {}; {} in all",
        super::counted(members.len() as u64, "replica"),
        what.join(", "),
        super::counted(atoms as u64, "atom")
    );
    let temperatures = config.replicas.iter().filter_map(|replica| replica.thermostat);
    let range = |of: fn(&crate::integrate::Thermostat) -> f64| {
        let (low, high) = temperatures
            .clone()
            .map(|bath| of(&bath))
            .fold((f64::INFINITY, 0.0f64), |(low, high), kelvin| (low.min(kelvin), high.max(kelvin)));
        if low == high { format!("{low}") } else { format!("{low}–{high}") }
    };
    let ensemble = match &config.dynamics.thermostat {
        None => "constant energy (NVE)".to_owned(),
        Some(bath) if bath.ramp_steps > 0 => format!(
            "Langevin from {} to {} K, friction {} 1/ps",
            range(|bath| bath.temperature),
            range(|bath| bath.final_temperature),
            bath.friction * 1e3
        ),
        Some(bath) => {
            format!("Langevin at {} K, friction {} 1/ps", range(|bath| bath.temperature), bath.friction * 1e3)
        }
    };
    super::describe_run(config, &system, &prepared.model, &members[0].info.backend, &ensemble)
}
