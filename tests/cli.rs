//! The real binary, as users meet it. Every test has a folder of its own.

mod common;

use common::bench::{Bench, stderr};
use common::models::random_system;
use common::run_python;
use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::time::Duration;
use verlet::output::h5md::H5mdReader;
use verlet::system::{Cell, System, extxyz};

const INPUT: &str = r#"
title = "A test"
[system]
structure = "start.xyz"
[model]
file = "model.safetensors"
[dynamics]
timestep = "0.2 fs"
steps = 40
temperature = 50
seed = 3
[output.trajectory]
interval = 8
forces = true
[output.energy]
interval = 2
[verdict]
max_excursion = 1.0
max_drift = 1e9
"#;

fn molecule() -> System {
    random_system(9, Cell::open(), 5)
}

#[test]
fn a_run_leaves_a_trajectory_that_h5py_and_mdanalysis_open() {
    let cell = Cell::from_parameters([6.0, 7.0, 8.0], [90.0, 80.0, 70.0], [true; 3]).unwrap();
    let bench = Bench::new("painn", &random_system(12, cell, 5), INPUT);
    let text = bench.succeed(&["run", "input.toml", "--output", "out"]);
    assert!(
        text.contains("list with a skin of 1 Å\n")
            && text.contains("finished 40 steps")
            && text.contains("verdict            INCONCLUSIVE: the energy log is too short to judge it, 21 of 50 rows"),
        "{text}"
    );
    let trajectory = bench.path("out/trajectory.h5md");
    let reader = H5mdReader::open(&trajectory).unwrap();
    assert_eq!(reader.frames().unwrap(), 6);
    let samples = reader.samples().unwrap();
    assert_eq!(samples.iter().map(|s| s.step).collect::<Vec<_>>(), (0..=40).step_by(2).collect::<Vec<_>>());
    assert!((samples[20].time - 8.0).abs() < 1e-9);
    assert!((samples[0].temperature - 50.0).abs() < 1e-9);
    let record = std::fs::read_to_string(bench.path("out/input.toml")).unwrap();
    let comment = "# A copy of input.toml: run that one, at whose folder relative paths start.\n";
    assert_eq!(record, format!("{INPUT}{comment}"));
    let arguments: Vec<OsString> = vec![trajectory.into(), "6".into(), "12".into()];
    run_python("check_run.py", &arguments);
}

#[test]
fn a_run_is_repeatable_and_never_overwrites() {
    let bench = Bench::new("painn", &molecule(), INPUT);
    let last = |folder: &str| {
        let reader = H5mdReader::open(&bench.path(folder).join("trajectory.h5md")).unwrap();
        reader.samples().unwrap().iter().map(|s| s.conserved.to_bits()).collect::<Vec<_>>()
    };
    bench.succeed(&["run", "input.toml", "--output", "a"]);
    bench.succeed(&["run", "input.toml", "--output", "b", "--set", "backend.threads=1"]);
    assert_eq!(last("a"), last("b"));
    bench.succeed(&["run", "input.toml", "--output", "c", "--set", "dynamics.seed=4"]);
    assert_ne!(last("a"), last("c"));
    let message = bench.fail(&["run", "input.toml", "--output", "a"], 1);
    assert_eq!(
        message,
        "error: the folder a already holds a run; go on with it by `verlet resume a`, or choose another folder with --output\n"
    );
}

#[test]
fn check_touches_nothing() {
    let bench = Bench::new("painn", &molecule(), INPUT);
    let before = bench.names();
    let text = bench.succeed(&["check", "input.toml", "--steps", "7"]);
    assert!(text.contains("7 steps of 0.2 fs = 0.0014 ps") && text.contains("energy   "), "{text}");
    assert_eq!(bench.names(), before);
}

#[test]
fn replicas_masses_and_zero_velocities_reach_the_run() {
    let cell = Cell::from_parameters([6.0, 7.0, 8.0], [90.0; 3], [true, true, false]).unwrap();
    let bench = Bench::new("painn", &random_system(5, cell, 6), INPUT);
    let run = |folder: &str, more: &[&str]| {
        let mut arguments = vec!["run", "input.toml", "--output", folder, "--steps", "1"];
        arguments.extend(more.iter().flat_map(|set| ["--set", set]));
        bench.succeed(&arguments)
    };
    let text = run("big", &["system.replicate=[2, 3, 1]"]);
    assert!(text.contains("30 atoms, periodic along ab"), "{text}");
    run("heavy", &["system.masses.H=2.014", "dynamics.velocities=zero"]);
    let samples = H5mdReader::open(&bench.path("heavy/trajectory.h5md")).unwrap().samples().unwrap();
    assert_eq!(samples[0].kinetic, 0.0);
    let message = bench.fail(&["check", "input.toml", "--set", "system.masses.N=14"], 2);
    assert!(message.contains("system.masses.N = 14 is for nothing in start.xyz, which is"), "{message}");
    let message = bench.fail(&["check", "input.toml", "--set", "system.replicate=[1, 1, 2]"], 2);
    assert!(message.contains("there cannot be 2 copies along c"), "{message}");
    let message = bench.fail(&["check", "input.toml", "--set", "dynamics.velocities=file"], 2);
    assert!(message.contains("start.xyz has no velocities"), "{message}");
}

/// Water: the oxygen gives what the hydrogens get, the total stays.
#[test]
fn hydrogen_mass_repartitioning_keeps_the_total_mass() {
    use nalgebra::Vector3;
    let water = System::new(
        vec![8, 1, 1],
        vec![Vector3::zeros(), Vector3::new(0.96, 0.0, 0.0), Vector3::new(-0.24, 0.93, 0.0)],
        Cell::open(),
    )
    .unwrap();
    let total: f64 = water.masses.iter().sum();
    let bench = Bench::new("painn", &water, INPUT);
    let config = |mass: &str| {
        verlet::config::RunConfig::load(bench.path("input.toml"), &[format!("system.hydrogen_mass={mass}")]).unwrap()
    };
    let masses = verlet::setup::prepare(&config("3")).unwrap().info.system.masses;
    assert_eq!((masses[1], masses[2]), (3.0, 3.0));
    assert!((masses.iter().sum::<f64>() - total).abs() < 1e-12);
    let error = verlet::setup::prepare(&config("10")).err().unwrap().to_string();
    assert!(error.contains("it leaves -1.985 u for atom 1 (O) of"), "{error}");
}

#[test]
fn mistakes_end_with_one_sentence_and_status_2() {
    let bench = Bench::new("painn", &molecule(), INPUT);
    let complain = |set: &str| bench.fail(&["check", "input.toml", "--set", set], 2);
    for (set, words) in [
        ("dynamics.timestep=-1", "error: --set dynamics.timestep=-1: dynamics.timestep = -1 is not accepted; give a"),
        ("dynamics.tempeature=300", "did you mean dynamics.temperature"),
        ("model.file=none.safetensors", "error: the model file none.safetensors cannot be read: No such file"),
        ("system.structure=none.xyz", "none.xyz"),
        ("system.pbc=[true, true, true]", "has nothing to repeat, because start.xyz has no cell"),
        ("system.cell=[1, 1, 1]", "apart, closer than any two atoms can be (0.3 Å)"),
    ] {
        let message = complain(set);
        assert!(message.contains(words) && message.lines().count() == 1, "{set}: {message}");
    }
    let message = bench.fail(&["run", "nowhere.toml"], 2);
    assert!(message.starts_with("error: the input file nowhere.toml cannot be read"), "{message}");
    std::fs::write(bench.path("start.xyz"), "2\n\nN 0 0 0\nN 0 0 1.1\n").unwrap();
    let message = bench.fail(&["run", "input.toml"], 2);
    assert_eq!(
        message,
        "error: start.xyz: atom 1 is N, which the model model.safetensors was not trained on; it knows H, C, O\n"
    );
    assert!(!bench.path("runs").exists());
}

/// Also where it is the shell that allows no more; a debug build would take minutes to make so many atoms.
#[test]
fn copies_beyond_the_memory_are_refused_before_they_are_made() {
    let cell = Cell::from_parameters([6.0, 7.0, 8.0], [90.0; 3], [true; 3]).unwrap();
    let bench = Bench::new("painn", &random_system(9, cell, 5), INPUT);
    let program = env!("CARGO_BIN_EXE_verlet");
    let script = format!(
        "ulimit -v 4000000; exec {program} check input.toml --backend cpu --set system.replicate=[100,100,100]"
    );
    let output = common::output(Command::new("sh").args(["-c", &script]).current_dir(&bench.folder)).unwrap();
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(
        message.contains("system.replicate = [100, 100, 100]: the system has 9000000 atoms: that takes about 16.1 GiB of memory, and 3.")
            && message.lines().count() == 1,
        "{message}"
    );
}

/// Whatever the format says it in; and not where the charges cancel.
#[test]
fn a_stated_charge_is_warned_of() {
    let bench = Bench::new("painn", &molecule(), INPUT);
    let atoms = "    0.0000    0.0000    0.0000 O   0  0\n    1.1000    0.0000    0.0000 H   0  0\n";
    let sdf = |charges: &str| format!("\n\n\n  2  0  0     0  0            999 V2000\n{atoms}{charges}M  END\n$$$$\n");
    for (name, text, charge) in [
        ("a.sdf", sdf("M  CHG  1   1  -1\n"), Some("-1")),
        ("b.sdf", sdf("M  CHG  2   1  -1   2   1\n"), None),
        ("c.sdf", sdf(""), None),
        ("d.xyz", "2\ncharge=-1\nO 0 0 0\nH 1.1 0 0\n".into(), Some("-1")),
        ("e.xyz", "2\nProperties=species:S:1:pos:R:3 total_charge=2.0\nO 0 0 0\nH 1.1 0 0\n".into(), Some("+2")),
        ("f.xyz", "2\ncharge 0\nO 0 0 0\nH 1.1 0 0\n".into(), None),
    ] {
        std::fs::write(bench.path(name), text).unwrap();
        let structure = format!("system.structure={name}");
        let check = bench.verlet(&["check", "input.toml", "--set", &structure]);
        let evaluated = bench.verlet(&["evaluate", "--model", "model.safetensors", name, name]);
        for output in [check, evaluated] {
            let said = stderr(&output);
            assert!(output.status.success(), "{said}");
            let found: Vec<_> = said.lines().filter(|line| line.contains("states a total charge of ")).collect();
            assert_eq!(found.len(), charge.is_some() as usize, "{name}: {said}");
            assert!(found.iter().all(|line| line.contains(name) && line.contains(charge.unwrap())), "{said}");
        }
    }
}

#[test]
fn a_student_network_is_announced_once() {
    let bench = Bench::new("student", &molecule(), INPUT);
    for arguments in [&["check", "input.toml"][..], &["info", "model.safetensors"]] {
        let output = bench.verlet(arguments);
        assert!(output.status.success());
        let text = stderr(&output);
        assert_eq!(text.matches("has three defects by construction").count(), 1, "{text}");
    }
}

#[test]
fn info_names_the_radial_functions_and_what_layers_share() {
    let info = |network: &str| Bench::new(network, &molecule(), INPUT).succeed(&["info", "model.safetensors"]);
    let text = info("painn-bessel");
    assert!(text.contains("radial basis 8 spherical Bessel functions\nlayers share nothing\n"), "{text}");
    let text = info("painn-shared");
    assert!(text.contains("8 Gaussian functions\nlayers share filters, message and update blocks\n"), "{text}");
}

#[test]
fn evaluate_writes_what_the_library_computes() {
    let bench = Bench::new("painn", &molecule(), INPUT);
    let cell = Cell::from_parameters([6.0, 7.0, 8.0], [90.0, 80.0, 70.0], [true, true, false]).unwrap();
    let mut writer = extxyz::Writer::create(&bench.path("many.xyz")).unwrap();
    let systems = [random_system(4, cell, 7), molecule(), molecule()];
    for system in &systems {
        let mut frame = extxyz::Frame::new(system.clone());
        frame.set_info("label", "kept");
        frame.set_info("energy", 1.0);
        writer.write(&frame).unwrap();
    }
    writer.finish().unwrap();
    let arguments =
        ["evaluate", "--model", "model.safetensors", "many.xyz", "start.xyz", "-o", "out.xyz", "--precision", "f64"];
    bench.succeed(&arguments);
    let frames: Vec<_> = extxyz::Reader::open(&bench.path("out.xyz")).unwrap().map(Result::unwrap).collect();
    assert_eq!(frames.len(), 4);
    let model = verlet::model::Model::load(bench.path("model.safetensors")).unwrap();
    for (frame, system) in frames.iter().zip(systems.iter().chain([&systems[1]])) {
        use verlet::backend::cpu::{Filters, NetworkPotential, Potential};
        let mut out = verlet::backend::Evaluation::default();
        NetworkPotential::<f64>::new(&model, &system.atomic_numbers, 0.0, Filters::Direct)
            .unwrap()
            .evaluate(&system.positions, &system.cell, &mut out)
            .unwrap();
        // Every bit survives the text.
        assert_eq!(frame.info("energy").unwrap().as_real(), Some(out.energy));
        assert_eq!(frame.column("forces").unwrap().as_vectors().unwrap(), out.forces);
        assert_eq!(frame.info("stress").is_some(), system.cell.is_periodic());
    }
    assert!(frames[0].info("label").is_some());
    let single = bench.succeed(&["evaluate", "--model", "model.safetensors", "start.xyz"]);
    let energy = single.split("energy=").nth(1).unwrap().split_whitespace().next().unwrap().parse::<f64>().unwrap();
    assert!((energy - frames[3].info("energy").unwrap().as_real().unwrap()).abs() < 1e-4);
    let message = bench.fail(&arguments, 1);
    assert!(message.contains("out.xyz exists already"), "{message}");
    run_python("check_evaluate.py", &[bench.path("out.xyz").into()]);
}

/// What scripts go by: the verdict of a run that went to its end, and no verdict on what is too short for one.
#[test]
fn the_exit_status_tells_the_verdict() {
    let bench = Bench::new("painn", &molecule(), INPUT);
    let run = |folder: &str, more: &[&str]| {
        let output = bench.verlet(&[&["run", "input.toml", "--output", folder][..], more].concat());
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let every = ["--steps", "100", "--set", "output.energy.interval=1"];
    let (status, text) = run("pass", &every);
    assert!(status == Some(0) && text.contains("verdict            PASS: "), "{text}");
    let (status, text) = run("fail", &["--set", "verdict.max_excursion=1e-12"]);
    assert!(status == Some(3) && text.contains("verdict            FAIL: "), "{text}");
    let (status, text) = run("short", &[&every[..], &["--set", "verdict.max_drift=1e-9"]].concat());
    assert!(status == Some(0) && text.contains("verdict            INCONCLUSIVE: the run is too short"), "{text}");
    for more in [&["--steps", "0"][..], &["--steps", "5"], &["--set", "output.energy.interval=1000000"]] {
        let (status, text) = run(more[1], more);
        assert!(status == Some(0) && text.contains("verdict            INCONCLUSIVE: "), "{more:?}: {text}");
    }
    // It is made again from the log.
    let output = bench.verlet(&["resume", "fail", "--steps", "50"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
}

/// Ctrl-C: the run ends at a whole step, the files are closed, the verdict is given.
/// No part of a file stays behind, which would stand in the way of the next attempt.
#[test]
fn an_interrupted_evaluation_leaves_nothing() {
    let bench = Bench::new("painn", &molecule(), INPUT);
    let frame = std::fs::read_to_string(bench.path("start.xyz")).unwrap();
    std::fs::write(bench.path("many.xyz"), frame.repeat(200_000)).unwrap();
    for arguments in [
        &["evaluate", "--model", "model.safetensors", "many.xyz", "-o", "out.xyz"][..],
        &["convert", "many.xyz", "out.xyz"],
    ] {
        let mut command = bench.command(arguments);
        let process = common::spawn(command.stdout(Stdio::null()).stderr(Stdio::piped())).unwrap();
        while !bench.path("out.xyz").exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(200));
        Command::new("kill").args(["-INT", &process.id().to_string()]).status().unwrap();
        let output = process.wait_with_output().unwrap();
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains("was stopped, as you asked") && message.contains("out.xyz is removed"), "{message}");
        assert!(!bench.path("out.xyz").exists());
    }
}

#[test]
fn an_interrupt_stops_cleanly() {
    let bench = Bench::new("painn", &molecule(), INPUT);
    let child = Command::new(env!("CARGO_BIN_EXE_verlet"))
        .args(["run", "input.toml", "--output", "out", "--steps", "100000000"])
        .current_dir(&bench.folder)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let trajectory = bench.path("out/trajectory.h5md");
    while !trajectory.exists() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    std::thread::sleep(std::time::Duration::from_millis(500));
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert!(text.contains("of 100000000, as you asked") && text.contains("verdict"), "{text}");
    assert!(H5mdReader::open(&trajectory).unwrap().frames().unwrap() > 0);
}
