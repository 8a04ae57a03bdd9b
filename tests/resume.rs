//! Runs that are stopped, killed, repaired and resumed, with the real binary: afterwards everything must be as if nothing
//! had happened, to the last bit.

mod common;

use common::bench::{Bench, stderr};
use common::models::random_system;
use common::run_python;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use verlet::output::Sample;
use verlet::output::checkpoint::{Checkpoint, Generations};
use verlet::output::h5md::{H5mdReader, StoredFrame};
use verlet::system::Cell;

/// A small skin, so that the list is rebuilt every few steps; output in float64, so that bits can be compared.
const INPUT: &str = r#"
[system]
structure = "start.xyz"
[model]
file = "model.safetensors"
[dynamics]
timestep = "0.5 fs"
steps = 16
temperature = 100
seed = 3
[neighbors]
skin = "0.02 Å"
[backend]
threads = 1
filters = "direct"
[output.trajectory]
interval = 3
forces = true
precision = "f64"
[output.energy]
interval = 2
[verdict]
max_excursion = 1e9
max_drift = 1e9
"#;

/// A run that goes on until it is stopped: random weights hold nothing together, and with a usual time step the atoms
/// would fly apart within a second.
const ENDLESS: &[&str] = &["--steps", "100000000", "--set", "dynamics.timestep=0.001"];

/// How a run ends that a signal stopped.
const STOPPED: Option<i32> = Some(4);

fn bench() -> Bench {
    let cell = Cell::from_parameters([6.0, 7.0, 8.0], [90.0, 80.0, 70.0], [true, true, false]).unwrap();
    Bench::in_memory("painn", &random_system(9, cell, 5), INPUT)
}

/// All that a run left behind.
#[derive(PartialEq, Debug)]
struct Left {
    checkpoint: Checkpoint,
    /// Step, then the bits of time, positions, velocities and forces.
    frames: Vec<(u64, Vec<u64>)>,
    samples: Vec<Sample>,
}

fn bits(frame: StoredFrame) -> (u64, Vec<u64>) {
    let vectors = [frame.positions, frame.velocities.unwrap(), frame.forces.unwrap()].concat();
    let numbers = std::iter::once(&frame.time).chain(vectors.iter().flatten());
    (frame.step, numbers.map(|x| x.to_bits()).collect())
}

fn left(folder: &Path) -> Left {
    let mut checkpoint: Checkpoint = Generations::read(&Generations::of(folder).current()).unwrap();
    // How the run came to its number of steps differs between a run and a resumed one.
    checkpoint.run.overrides.clear();
    let _no_process_starts = common::FORK.read();
    let reader = H5mdReader::open(&folder.join("trajectory.h5md")).unwrap();
    Left {
        checkpoint,
        frames: (0..reader.frames().unwrap()).map(|n| bits(reader.frame(n).unwrap())).collect(),
        samples: reader.samples().unwrap(),
    }
}

/// The part of what was printed that a resumed run must repeat.
fn verdict(printed: &str) -> &str {
    &printed[printed.find("list rebuilds").unwrap()..printed.find("trajectory  ").unwrap()]
}

/// Every split point, both ensembles, intervals that fall together and intervals that do not.
#[test]
fn a_run_can_be_cut_anywhere() {
    for ensemble in ["nve", "langevin"] {
        for (trajectory, energy, checkpoint) in [(1, 1, Some(1)), (3, 2, Some(5)), (7, 16, None), (5, 3, Some(4))] {
            let bench = bench();
            let mut settings = vec![
                format!("dynamics.ensemble={ensemble}"),
                format!("output.trajectory.interval={trajectory}"),
                format!("output.energy.interval={energy}"),
            ];
            settings.extend(checkpoint.map(|interval| format!("output.checkpoint.interval={interval}")));
            let run = |folder: &str, steps: u64| {
                let steps = steps.to_string();
                let mut arguments = vec!["run", "input.toml", "--output", folder, "--steps", &steps];
                arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
                bench.succeed(&arguments)
            };
            let printed = run("whole", 16);
            let whole = left(&bench.path("whole"));
            assert!(whole.checkpoint.state.list_rebuilds > 1, "the test must see rebuilds");
            assert_eq!((whole.frames.len(), whole.samples.len()), (16 / trajectory + 1, 16 / energy + 1));
            for split in 0..16 {
                let folder = format!("split-{split}");
                run(&folder, split);
                let resumed = bench.succeed(&["resume", &folder, "--steps", "16"]);
                assert_eq!(verdict(&resumed), verdict(&printed));
                assert!(left(&bench.path(&folder)) == whole, "{settings:?}, split at {split}");
            }
            // Many cuts in one run; the structure and the input are not needed any more.
            run("pieces", 2);
            std::fs::remove_file(bench.path("start.xyz")).unwrap();
            std::fs::remove_file(bench.path("input.toml")).unwrap();
            for steps in ["3", "8", "9", "16"] {
                bench.succeed(&["resume", "pieces", "--steps", steps]);
            }
            assert!(left(&bench.path("pieces")) == whole, "{settings:?}, in pieces");
            let text = bench.succeed(&["resume", "pieces"]);
            assert!(text.contains("the run in pieces is finished: it has taken all of its 16 steps"), "{text}");
            let text = bench.fail(&["resume", "pieces", "--steps", "15"], 2);
            assert!(
                text.contains("--steps 15 is the total number of steps, and the run in pieces has taken 16"),
                "{text}"
            );
            assert!(left(&bench.path("pieces")) == whole);
        }
    }
}

/// A run in the background. It is killed when the test fails before it has ended.
struct Background(Option<Child>);

impl Background {
    fn start(bench: &Bench, arguments: &[&str]) -> Self {
        let mut command = bench.command(arguments);
        Background(Some(common::spawn(command.stdout(Stdio::piped()).stderr(Stdio::null())).unwrap()))
    }

    fn run(bench: &Bench, folder: &str, more: &[&str]) -> Self {
        Self::start(bench, &[&["run", "input.toml", "--output", folder][..], more].concat())
    }

    fn signal(&self, signal: &str) {
        let id = self.0.as_ref().unwrap().id().to_string();
        assert!(common::output(std::process::Command::new("kill").args([signal, &id])).unwrap().status.success());
    }

    /// Waits for the end; what was printed, and the exit status.
    fn end(mut self) -> (String, Option<i32>) {
        let output = self.0.take().unwrap().wait_with_output().unwrap();
        (String::from_utf8(output.stdout).unwrap(), output.status.code())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits until something has happened.
fn wait_for(mut happened: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !happened() {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing happens");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn signals_stop_at_a_checkpoint() {
    let bench = bench();
    for (folder, signal) in [("int", "-INT"), ("term", "-TERM")] {
        let run = Background::run(&bench, folder, ENDLESS);
        wait_for(|| Generations::of(&bench.path(folder)).exist());
        std::thread::sleep(Duration::from_millis(100));
        run.signal(signal);
        let (text, status) = run.end();
        assert!(status == STOPPED && text.contains("of 100000000, as you asked"), "{text}");
        assert!(text.contains(&format!("go on with it      verlet resume {folder}")), "{text}");
        let step = Generations::read::<Checkpoint>(&Generations::of(&bench.path(folder)).current()).unwrap().state.step;
        assert!(text.contains(&format!("stopped at step {step} of")), "{text}");
        let end = (step + 25).to_string();
        bench.succeed(&["resume", folder, "--steps", &end]);
        let whole = format!("whole-{folder}");
        bench.succeed(&[&["run", "input.toml", "--output", &whole, "--steps", &end], &ENDLESS[2..]].concat());
        assert!(left(&bench.path(folder)) == left(&bench.path(&whole)));
    }
}

/// xorshift64: the moments differ, the seed is fixed.
fn random(state: &mut u64) -> u64 {
    for (left, amount) in [(true, 13), (false, 7), (true, 17)] {
        *state ^= if left { *state << amount } else { *state >> amount };
    }
    *state
}

/// Runs and resumed runs, killed at 50 random moments: after every kill the repaired trajectory has all frames that were
/// safe, h5py and MDAnalysis open it, and in the end everything is as in the run that nobody killed.
#[test]
fn nothing_is_lost_to_kills() {
    const KILLS: usize = 50;
    const SEED: u64 = 0x5eed_0000_0000_0001;
    const STEPS: &str = "500";
    let bench = bench();
    let mut arguments = vec!["--steps", STEPS];
    // Random weights hold nothing together: with a longer time step the atoms fly apart before the end.
    for setting in ["output.checkpoint.interval=40", "dynamics.ensemble=langevin", "dynamics.timestep=0.1"] {
        arguments.extend(["--set", setting]);
    }
    let begun = Instant::now();
    assert_eq!(Background::run(&bench, "whole", &arguments).end().1, Some(0));
    let duration = begun.elapsed();
    let whole = left(&bench.path("whole"));
    let mut seed = SEED;
    let (mut kills, mut chains, mut before_start) = (0, 0, 0);
    while kills < KILLS {
        let folder = format!("killed-{chains}");
        let trajectory = bench.path(&folder).join("trajectory.h5md");
        chains += 1;
        let mut patience = 0.2;
        let mut process = Background::run(&bench, &folder, &arguments);
        loop {
            if kills < KILLS {
                // Mostly early, when the file is opened, repaired and cut; later from kill to kill, to get on.
                let part = (random(&mut seed) % 1000) as f64 / 1000.0;
                patience += 0.1;
                std::thread::sleep(duration.mul_f64(patience * part.powi(2)));
                process.signal("-KILL");
            }
            if process.end().1 == Some(0) {
                break;
            }
            kills += 1;
            let checkpoints = Generations::of(&bench.path(&folder));
            if !checkpoints.exist() {
                // Killed before anything was there to be lost: a new run takes the place of this one.
                before_start += 1;
                bench.fail(&["resume", &folder], 1);
                let _ = std::fs::remove_dir_all(bench.path(&folder));
                process = Background::run(&bench, &folder, &arguments);
                continue;
            }
            let text = bench.succeed(&["repair", &folder]);
            let no_process_starts = common::FORK.read();
            let reader = H5mdReader::open(&trajectory).unwrap();
            let found = (reader.frames().unwrap(), reader.samples().unwrap().len());
            assert!(text.contains(&format!("{} frames, {} rows", found.0, found.1)), "{text}");
            let safe = Generations::read::<Checkpoint>(&checkpoints.current())
                .or_else(|_| Generations::read::<Checkpoint>(&checkpoints.previous()));
            let safe = safe.unwrap().outputs["trajectory.h5md"];
            assert!(found.0 as u64 >= safe.frames && found.1 as u64 >= safe.rows, "{found:?} of {safe:?}");
            assert_eq!(reader.samples().unwrap(), whole.samples[..found.1]);
            drop(reader);
            drop(no_process_starts);
            std::fs::copy(&trajectory, bench.path(&format!("repaired-{kills:03}.h5md"))).unwrap();
            assert!(bench.succeed(&["repair", &folder]).contains("needs no repair"));
            process = Background::start(&bench, &["resume", &folder]);
        }
        assert!(left(&bench.path(&folder)) == whole, "{folder}");
        std::fs::remove_dir_all(bench.path(&folder)).unwrap();
    }
    println!("{kills} kills in {chains} runs, {before_start} of them before the first checkpoint; seed {SEED:#x}");
    run_python("check_repaired.py", &[bench.folder.path().into()]);
}

#[test]
fn one_process_at_a_time_works_in_a_folder() {
    let bench = bench();
    let run = Background::run(&bench, "out", ENDLESS);
    wait_for(|| Generations::of(&bench.path("out")).exist());
    for arguments in [
        &["run", "input.toml", "--output", "out"][..],
        &["resume", "out"],
        &["repair", "out"],
        &["repair", "out/trajectory.h5md"],
    ] {
        let message = bench.fail(arguments, 1);
        assert!(message.starts_with("error: the folder out is in use: process "), "{arguments:?}: {message}");
    }
    run.signal("-INT");
    assert_eq!(run.end().1, STOPPED);
    assert!(bench.succeed(&["repair", "out"]).contains("out/trajectory.h5md needs no repair"));
    // Elsewhere there is nothing to lock.
    std::fs::copy(bench.path("out/trajectory.h5md"), bench.path("alone.h5md")).unwrap();
    assert!(bench.succeed(&["repair", "alone.h5md"]).starts_with("alone.h5md needs no repair"));
    drop(hdf5::File::create(bench.path("foreign.h5")).unwrap());
    let message = bench.fail(&["repair", "foreign.h5"], 1);
    assert_eq!(message, "error: foreign.h5 is not a trajectory that verlet wrote\n");
    let message = bench.fail(&["repair", "input.toml"], 1);
    assert_eq!(message, "error: input.toml is not an HDF5 file, or a damaged one\n");
}

/// h5py in its swmr mode sees a run grow, and does not disturb it.
#[test]
fn a_reader_follows_a_run() {
    if common::python().is_none() {
        return run_python("follow.py", &[]);
    }
    let bench = bench();
    let run = Background::run(&bench, "out", &[ENDLESS, &["--set", "output.checkpoint.interval=50"]].concat());
    wait_for(|| Generations::of(&bench.path("out")).previous().exists());
    run_python("follow.py", &[bench.path("out/trajectory.h5md").into()]);
    run.signal("-TERM");
    let (text, status) = run.end();
    assert_eq!(status, STOPPED, "{text}");
}

/// A program that has the file open, however it does, makes `resume` say so and changes nothing.
#[test]
fn an_open_trajectory_is_not_continued() {
    let bench = bench();
    bench.succeed(&["run", "input.toml", "--output", "out", "--steps", "3"]);
    let trajectory = bench.path("out/trajectory.h5md");
    let before = std::fs::read(&trajectory).unwrap();
    let reader = H5mdReader::open(&trajectory).unwrap();
    let message = bench.fail(&["resume", "out", "--steps", "16"], 1);
    assert_eq!(message, "error: out/trajectory.h5md is open in another program; close it there and try again\n");
    drop(reader);
    assert!(std::fs::read(&trajectory).unwrap() == before);
    // Processes that other tests started in between have the file open, too, until they end.
    wait_for(|| bench.verlet(&["resume", "out", "--steps", "16"]).status.success());
}

/// 8 steps, then 8 more: the checkpoints at 16 and at 8 are there.
fn sixteen(bench: &Bench, folder: &str) {
    bench.succeed(&["run", "input.toml", "--output", folder, "--steps", "8"]);
    std::fs::copy(bench.path(folder).join("trajectory.h5md"), bench.path("at-8.h5md")).unwrap();
    bench.succeed(&["resume", folder, "--steps", "16"]);
}

#[test]
fn a_bad_checkpoint_is_left_for_the_one_before() {
    let bench = bench();
    bench.succeed(&["run", "input.toml", "--output", "whole"]);
    let whole = left(&bench.path("whole"));
    let damage = |folder: &str, name: &str| {
        let path = bench.path(folder).join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[200] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    };
    sixteen(&bench, "damaged");
    damage("damaged", "checkpoint.vlt");
    sixteen(&bench, "missing");
    std::fs::remove_file(bench.path("missing/checkpoint.vlt")).unwrap();
    sixteen(&bench, "short");
    std::fs::copy(bench.path("at-8.h5md"), bench.path("short/trajectory.h5md")).unwrap();
    for (folder, words) in [
        ("damaged", "warning: damaged/checkpoint.vlt is damaged: its content is not what its checksum says"),
        ("missing", "warning: missing/checkpoint.vlt cannot be read: No such file"),
        ("short", "warning: short/trajectory.h5md has less than the 6 frames and 9 rows of the energy log that"),
    ] {
        let output = bench.verlet(&["resume", folder, "--steps", "16"]);
        let message = stderr(&output);
        assert!(output.status.success() && message.starts_with(words), "{message}");
        assert!(
            message.contains("going on from the checkpoint before it, checkpoint.previous.vlt at step 8"),
            "{message}"
        );
        assert!(left(&bench.path(folder)) == whole, "{folder}");
    }
    for name in ["checkpoint.vlt", "checkpoint.previous.vlt"] {
        damage("damaged", name);
    }
    let message = bench.fail(&["resume", "damaged"], 1);
    assert!(
        message.starts_with("error: the run in damaged cannot be resumed: damaged/checkpoint.vlt is damaged"),
        "{message}"
    );
    assert_eq!(message.lines().count(), 1, "{message}");
}

#[test]
fn what_cannot_be_resumed_is_refused_in_one_sentence() {
    let bench = bench();
    let message = bench.fail(&["resume", "."], 1);
    assert_eq!(
        message,
        "error: the folder . holds no run: there is neither checkpoint.vlt nor trajectory.h5md in it\n"
    );
    bench.succeed(&["run", "input.toml", "--output", "out", "--steps", "3"]);
    let other = common::models::ModelFile::random("painn", common::models::SMALL, 32);
    other.write(bench.folder.path(), "model.safetensors");
    let hash = Generations::read::<Checkpoint>(&bench.path("out/checkpoint.vlt")).unwrap().run.model_hash;
    let message = bench.fail(&["resume", "out", "--steps", "16"], 2);
    assert!(message.contains("is another one than the run began with (SHA-256 "), "{message}");
    assert!(message.contains(&hash) && message.lines().count() == 1, "{message}");
    std::fs::remove_file(bench.path("out/trajectory.h5md")).unwrap();
    let message = bench.fail(&["resume", "out", "--steps", "16"], 1);
    assert!(message.contains("cannot be resumed: out/trajectory.h5md is missing, or empty"), "{message}");
}

/// With its model in another place, as on another machine, a run goes on all the same, and remembers the place.
#[test]
fn a_run_goes_on_where_its_folder_and_model_have_moved() {
    let bench = bench();
    bench.succeed(&["run", "input.toml", "--output", "whole"]);
    bench.succeed(&["run", "input.toml", "--output", "cut", "--steps", "5"]);
    std::fs::create_dir(bench.path("else where")).unwrap();
    std::fs::rename(bench.path("cut"), bench.path("else where/cut")).unwrap();
    std::fs::rename(bench.path("model.safetensors"), bench.path("else where/it's.safetensors")).unwrap();
    let folder = "else where/cut";
    let message = bench.fail(&["resume", folder, "--steps", "16"], 2);
    assert!(message.ends_with("put it back, or say where it lies with --model\n"), "{message}");
    let moved = ["--model", "else where/it's.safetensors", "--threads", "2"];
    bench.succeed(&[&["resume", folder, "--steps", "9"], &moved[..]].concat());
    bench.succeed(&["resume", folder, "--steps", "16"]);
    assert_eq!(left(&bench.path(folder)), left(&bench.path("whole")));
}

/// The checkpoint before the explosion stays, and the message says where it is.
#[test]
fn an_explosion_names_the_last_good_checkpoint() {
    let bench = bench();
    let settings = ["dynamics.timestep=6fs", "output.checkpoint.interval=1", "dynamics.temperature=300"];
    let mut arguments = vec!["run", "input.toml", "--output", "out", "--steps", "100000"];
    arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    let message = bench.fail(&arguments, 1);
    let checkpoint: Checkpoint = Generations::read(&bench.path("out/checkpoint.vlt")).unwrap();
    let step = checkpoint.state.step;
    assert!(
        message.starts_with(&format!("error: the simulation exploded at step {}: the energy is ", step + 1)),
        "{message}"
    );
    let place = format!("; the last good state is that of step {step}, in out/checkpoint.vlt\n");
    assert!(message.contains("atom ") && message.ends_with(&place), "{message}");
    let finite = |vectors: &[nalgebra::Vector3<f64>]| vectors.iter().flatten().all(|x| x.is_finite());
    assert!(finite(&checkpoint.state.positions) && finite(&checkpoint.state.velocities));
    let _no_process_starts = common::FORK.read();
    assert!(H5mdReader::open(&bench.path("out/trajectory.h5md")).is_ok());
}
