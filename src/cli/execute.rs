//! What `run` and `resume` do once everything is ready.

use super::Ending;
use crate::analysis::{Conservation, Judgement};
use crate::config::RunConfig;
use crate::error::{Error, Result};
use crate::output::folder::RunFolder;
use crate::output::progress::Progress;
use crate::output::record::Record;
use crate::output::writer;
use crate::setup::Prepared;
use crate::simulation::{self, Outcome};
use std::time::{Duration, Instant};

/// Moves the system to the last step, or until it is stopped, and tells what came out.
pub(super) fn execute(
    config: &RunConfig,
    prepared: &mut Prepared,
    folder: &RunFolder,
    mut record: Record,
    conservation: Conservation,
) -> Result<Ending> {
    let dynamics = &config.dynamics;
    let first = prepared.backend.step();
    let mut progress =
        Progress::new(first, dynamics.steps, dynamics.timestep, prepared.info.system.len(), conservation.first());
    let stop = super::stop_flag()?;
    let begun = Instant::now();
    let outcome = writer::beside(&mut record, writer::places(prepared.info.system.len()), |writer| {
        simulation::run(
            prepared.backend.as_mut(),
            prepared.schedule.clone(),
            conservation,
            prepared.limits,
            &mut [writer, &mut progress],
            &stop,
        )
    });
    let outcome = outcome.map_err(|error| match error {
        Error::Run(reason) => Error::Run(format!("{reason}; {}", record.last_good())),
        // A full disk, for example: the run can go on when there is room again.
        Error::Output(reason) => Error::Output(format!("{reason}; {}", record.last_good())),
        other => other,
    })?;
    let mut report = summary(config, &outcome, first, begun.elapsed());
    // The warnings themselves may have left the screen long ago.
    for departure in &outcome.departures {
        report.push_str(&format!("outside the model  {departure}\n"));
    }
    if outcome.interrupted {
        report.push_str(&format!("go on with it      verlet resume {}\n", folder.path().display()));
    }
    report.push_str(&how_to_look(folder, config, &outcome));
    super::say(&report).map_err(|error| {
        Error::Output(format!("{error}; the run itself ended well, and its results are in {}", folder.path().display()))
    })?;
    Ok(Ending::of_run(outcome.verdict.judgement() == Judgement::Fail, outcome.interrupted))
}

/// `first` is the step at which this process began.
fn summary(config: &RunConfig, outcome: &Outcome, first: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    let taken = (outcome.step - first) as f64;
    let nanoseconds = taken * config.dynamics.timestep * 1e-6;
    let from = if first > 0 { format!(", from step {first} on,") } else { String::new() };
    let ended = if outcome.interrupted {
        format!("stopped at step {} of {}, as you asked", outcome.step, config.dynamics.steps)
    } else {
        format!("finished {}", super::counted(outcome.step, "step"))
    };
    format!(
        "\n{ended}{from} in {seconds:.1} s: {:.2} ms a step, {:.3} ns/day\nlist rebuilds      {}\n{}\n",
        1e3 * seconds / taken.max(1.0),
        nanoseconds / seconds * 86_400.0,
        outcome.last.list_rebuilds,
        outcome.verdict
    )
}

fn how_to_look(folder: &RunFolder, config: &RunConfig, outcome: &Outcome) -> String {
    let path = folder.trajectory();
    let script = path.with_extension("vmd");
    let (path, script) = (path.display(), script.display());
    let frames = super::counted(outcome.step / config.output.trajectory_interval + 1, "frame");
    format!(
        "\ntrajectory         {path}, {frames}\nlook at it         python: MDAnalysis.Universe(\"{path}\")\n                   VMD: vmd -e {script}\n                   h5dump -H {path}"
    )
}
