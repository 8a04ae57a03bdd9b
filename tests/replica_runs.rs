//! Runs of many systems with the real program: every replica leaves what a run of it alone would leave, however the run was
//! stopped, and whatever becomes of the others.

mod common;

use common::bench::{Bench, stderr};
use common::cuda::give_device;
use common::models::random_system;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use verlet::output::Sample;
use verlet::output::checkpoint::{Generations, SetCheckpoint};
use verlet::output::h5md::{H5mdReader, StoredFrame};
use verlet::system::{Cell, extxyz};

/// A small skin, so that lists are made every few steps; output in float64, so that bits can be compared.
const INPUT: &str = r#"
[system]
structure = "start.xyz"
[model]
file = "model.safetensors"
[dynamics]
ensemble = "langevin"
timestep = "0.2 fs"
steps = 16
temperature = 100
seed = 3
[neighbors]
skin = "0.02 Å"
[backend]
threads = 2
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

/// Two as the input says, one that is hot, one of another size and without a cell.
const REPLICAS: &str = r#"
[[replicas]]
copies = 2
[[replicas]]
name = "hot"
temperature = 150
seed = 7
[[replicas]]
name = "other"
structure = "other.xyz"
"#;

const NAMES: [&str; 4] = ["0001", "0002", "hot", "other"];

fn bench(replicas: &str) -> Bench {
    bench_of("painn", replicas)
}

fn bench_of(network: &str, replicas: &str) -> Bench {
    let cell = Cell::from_parameters([6.0, 7.0, 8.0], [90.0, 80.0, 70.0], [true, true, false]).unwrap();
    let bench = Bench::in_memory(network, &random_system(9, cell, 5), &format!("{INPUT}{replicas}"));
    let mut writer = extxyz::Writer::create(&bench.path("other.xyz")).unwrap();
    writer.write(&extxyz::Frame::new(random_system(5, Cell::open(), 2))).unwrap();
    writer.finish().unwrap();
    std::fs::write(bench.path("one.toml"), INPUT).unwrap();
    bench
}

/// Step, then the bits of time, positions, velocities and forces.
type Bits = (u64, Vec<u64>);

fn bits(frame: StoredFrame) -> Bits {
    let vectors = [frame.positions, frame.velocities.unwrap(), frame.forces.unwrap()].concat();
    let numbers = std::iter::once(&frame.time).chain(vectors.iter().flatten());
    (frame.step, numbers.map(|x| x.to_bits()).collect())
}

/// What a trajectory holds.
fn trajectory(folder: &Path) -> (Vec<Bits>, Vec<Sample>) {
    let _no_process_starts = common::FORK.read();
    let reader = H5mdReader::open(&folder.join("trajectory.h5md")).unwrap();
    let frames = (0..reader.frames().unwrap()).map(|n| bits(reader.frame(n).unwrap())).collect();
    (frames, reader.samples().unwrap())
}

fn trajectories(folder: &Path, names: &[&str]) -> Vec<(Vec<Bits>, Vec<Sample>)> {
    names.iter().map(|name| trajectory(&folder.join(name))).collect()
}

fn checkpoint(folder: &Path) -> SetCheckpoint {
    let mut checkpoint: SetCheckpoint = Generations::read(&Generations::of(folder).current()).unwrap();
    checkpoint.run.overrides.clear();
    checkpoint
}

/// The column of the table, by the replica's name.
fn column(folder: &Path, name: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(folder.join("replicas.csv")).unwrap();
    let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    let place = lines.next().unwrap().iter().position(|title| title == name).unwrap();
    lines.map(|fields| (fields[0].clone(), fields[place].clone())).collect()
}

#[test]
fn every_replica_leaves_what_it_leaves_alone() {
    let bench = bench(REPLICAS);
    let text = bench.succeed(&["check", "input.toml", "--backend", "cpu"]);
    assert!(text.contains("4 replicas: 3 of ") && text.contains("Langevin at 100–150 K"), "{text}");
    let text = bench.succeed(&["run", "input.toml", "--output", "out", "--backend", "cpu"]);
    assert!(text.contains("finished 16 steps of 4 replicas"), "{text}");
    let seeds = column(&bench.path("out"), "seed");
    assert_eq!(seeds.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), NAMES);
    assert_eq!(seeds[2].1, "7");
    for (name, seed) in seeds {
        let mut arguments = vec!["run".into(), "one.toml".into(), "--backend".into(), "cpu".into()];
        arguments.extend(["--output".into(), format!("alone-{name}"), "--set".into(), format!("dynamics.seed={seed}")]);
        arguments.extend(match name.as_str() {
            "hot" => vec!["--set".to_owned(), "dynamics.temperature=150".into()],
            "other" => vec!["--set".into(), "system.structure=other.xyz".into()],
            _ => Vec::new(),
        });
        bench.succeed(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let (together, alone) = (bench.path("out").join(&name), bench.path(&format!("alone-{name}")));
        assert!(trajectory(&together) == trajectory(&alone), "{name}");
        assert!(together.join("trajectory.vmd").exists());
    }
    let text = bench.fail(&["run", "input.toml", "--output", "out"], 1);
    assert!(text.contains("already holds a run"), "{text}");
}

/// On the CPU, and on a GPU where there is one or its emulation.
#[test]
fn a_run_can_be_cut_anywhere() {
    for backend in ["cpu", "cuda"] {
        let bench = bench(REPLICAS);
        let succeed = |arguments: &[&str]| {
            let mut command = bench.command(arguments);
            if backend == "cuda" && !give_device(&mut command) {
                return None;
            }
            let output = common::output(&mut command).unwrap();
            assert!(output.status.success(), "{}", stderr(&output));
            Some(String::from_utf8(output.stdout).unwrap())
        };
        let run = |folder: &str, steps: &str| {
            succeed(&["run", "input.toml", "--output", folder, "--backend", backend, "--steps", steps])
        };
        if run("whole", "16").is_none() {
            return;
        }
        let whole = (trajectories(&bench.path("whole"), &NAMES), checkpoint(&bench.path("whole")));
        assert!(whole.1.members.iter().any(|member| member.state.list_rebuilds > 1), "the test must see lists made");
        assert_eq!((whole.0[0].0.len(), whole.0[0].1.len()), (6, 9));
        for split in [0, 5, 12] {
            let folder = format!("split-{split}");
            run(&folder, &split.to_string());
            succeed(&["resume", &folder, "--steps", "16"]);
            let found = (trajectories(&bench.path(&folder), &NAMES), checkpoint(&bench.path(&folder)));
            assert!(found == whole, "{backend}, split at {split}");
            let verdicts = |folder: &str| column(&bench.path(folder), "drift_kt_per_ns_per_dof");
            assert_eq!(verdicts(&folder), verdicts("whole"), "{backend}, split at {split}");
        }
        let text = succeed(&["resume", "whole"]).unwrap();
        assert!(text.contains("is finished: it has taken all of its 16 steps"), "{text}");
    }
}

#[test]
fn a_killed_run_goes_on() {
    let bench = bench(REPLICAS);
    let arguments = ["--steps", "3000", "--set", "dynamics.timestep=0.001", "--set", "output.checkpoint.interval=40"];
    let run = |folder: &'static str| {
        [&["run", "input.toml", "--backend", "cpu", "--output", folder][..], &arguments].concat()
    };
    bench.succeed(&run("whole"));
    let whole = (trajectories(&bench.path("whole"), &NAMES), checkpoint(&bench.path("whole")));
    let folder = bench.path("out");
    let mut process = common::spawn(bench.command(&run("out")).stdout(Stdio::null()).stderr(Stdio::null())).unwrap();
    let mut kills = 0;
    loop {
        while !Generations::of(&folder).exist() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(30 + 17 * kills));
        // The first is asked to stop, the others are not asked.
        let signal = if kills == 0 { "-INT" } else { "-KILL" };
        let _ = Command::new("kill").args([signal, &process.id().to_string()]).stderr(Stdio::null()).status();
        if process.wait().unwrap().success() && kills > 0 {
            break;
        }
        kills += 1;
        if kills == 3 {
            assert!(bench.succeed(&["repair", "out"]).contains("frames"));
        }
        let text = common::output(&mut bench.command(&["repair", "out/hot"])).unwrap();
        assert!(text.status.success(), "{}", stderr(&text));
        process = common::spawn(bench.command(&["resume", "out"]).stdout(Stdio::null()).stderr(Stdio::null())).unwrap();
    }
    assert!(kills > 1, "the test must see a kill");
    assert!((trajectories(&folder, &NAMES), checkpoint(&folder)) == whole);
}

#[test]
fn more_replicas_than_open_files() {
    let bench = bench("[[replicas]]\ncopies = 60\n");
    let program = env!("CARGO_BIN_EXE_verlet");
    let script = format!("ulimit -n 40; exec {program} run input.toml --backend cpu --output out --steps 6");
    let output = common::output(Command::new("sh").args(["-c", &script]).current_dir(&bench.folder)).unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    for name in ["0001", "0060"] {
        assert_eq!(trajectory(&bench.path("out").join(name)).0.len(), 3);
    }
}

#[test]
fn one_that_fails_is_named_and_the_others_are_whole() {
    let bench = bench(&format!("{REPLICAS}[[replicas]]\nname = \"wild\"\ntemperature = 1e9\n"));
    let good = bench.path("good.toml");
    std::fs::write(&good, format!("{INPUT}{REPLICAS}")).unwrap();
    bench.succeed(&["run", "good.toml", "--backend", "cpu", "--output", "good"]);
    let text = bench.fail(&["run", "input.toml", "--backend", "cpu", "--output", "out"], 1);
    assert!(text.contains("warning: replica wild: the simulation exploded at step 1: "), "{text}");
    assert!(text.contains("error: 1 of 5 replicas failed (wild: the simulation exploded at step 1: "), "{text}");
    assert!(text.contains("the last good states are those of step 16, in "), "{text}");
    assert!(trajectories(&bench.path("out"), &NAMES) == trajectories(&bench.path("good"), &NAMES));
    assert_eq!(column(&bench.path("out"), "verdict")[4], ("wild".into(), "failed".into()));
    assert_eq!(column(&bench.path("out"), "last_step")[4].1, "0");
    assert_eq!(trajectory(&bench.path("out/wild")).0.len(), 1);
    // It stays where it is when the others go on.
    bench.succeed(&["resume", "good", "--steps", "20"]);
    let text = bench.fail(&["resume", "out", "--steps", "20"], 1);
    assert!(text.contains("error: 1 of 5 replicas failed (wild: "), "{text}");
    assert!(trajectories(&bench.path("out"), &NAMES) == trajectories(&bench.path("good"), &NAMES));
}

/// Departures from what the model was trained on too, of systems that moved before and of one that had failed; and wherever
/// the input was named from.
#[test]
fn the_table_of_a_resumed_run_is_that_of_the_whole_one() {
    let bench = bench_of("painn-repulsive", &format!("{REPLICAS}[[replicas]]\nname = \"wild\"\ntemperature = 1e9\n"));
    let run = |folder: &str, steps: &str| {
        bench.fail(&["run", "input.toml", "--backend", "cpu", "--output", folder, "--steps", steps], 1);
    };
    let table = |folder: &str| std::fs::read_to_string(bench.path(folder).join("replicas.csv")).unwrap();
    run("whole", "16");
    run("split", "7");
    bench.fail(&["resume", "split", "--steps", "16"], 1);
    assert_eq!(table("split"), table("whole"));
    let departures = column(&bench.path("whole"), "departures");
    assert!(departures.iter().all(|(_, count)| count != "0"), "the test must see departures: {departures:?}");
    let structures = column(&bench.path("whole"), "structure");
    assert_eq!([&structures[0].1, &structures[3].1], ["start.xyz", "other.xyz"]);
}
