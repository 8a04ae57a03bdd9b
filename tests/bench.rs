//! `verlet bench`: what it times, what it writes, what it refuses.

mod common;

use common::bench::{Bench, stderr};
use common::cuda::give_device;
use common::models::random_system;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use verlet::system::{Cell, structure};

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/inputs/models/ethanol-water-v2.safetensors");

/// A folder with a random network and a molecule for it.
fn bench() -> Bench {
    Bench::new("painn", &random_system(9, Cell::open(), 5), "")
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn number(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap_or_else(|| panic!("no {key} in {row}"))
}

/// What must hold between the numbers of a row, whatever the machine.
fn check(row: &Value, atoms: f64, repetitions: usize) {
    let all: Vec<f64> = serde_json::from_value(row["step_seconds"]["all"].clone()).unwrap();
    assert_eq!(all.len(), repetitions);
    assert!(all.iter().all(|&seconds| seconds > 0.0));
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    assert!((number(&row["step_seconds"], "mean") / mean - 1.0).abs() < 1e-9);
    assert!(number(&row["step_seconds"], "least") <= number(&row["step_seconds"], "median"));
    assert!((number(row, "atom_steps_per_second") * mean / atoms - 1.0).abs() < 1e-9);
    assert!((number(row, "ns_per_day") * mean / (0.5e-6 * 86_400.0) - 1.0).abs() < 1e-9);
    let share = number(row, "rebuilds_per_step") * number(row, "rebuild_seconds") / mean;
    // No rebuild may have fallen into the time.
    assert!((number(row, "rebuild_share") - share).abs() <= 1e-9 * share);
    assert!(number(row, "rebuild_seconds") > 0.0 && number(row, "final_temperature_kelvin") > 50.0);
    assert_eq!(number(row, "atoms"), atoms);
}

#[test]
fn water_is_timed_and_written() {
    let bench = bench();
    let arguments = ["--backend", "cpu", "--threads", "1", "--sizes", "192,12", "--repetitions", "2"];
    let files = ["--json", "out.json", "--write-structures", "starts"];
    let text = bench.succeed(&[&["bench", "--model", SHIPPED][..], &arguments, &files].concat());
    assert!(text.contains("CPU, 1 thread,") && text.contains("\n      12  "), "{text}");
    let found = json(&bench.path("out.json"));
    assert_eq!((&found["format"], &found["backend"]), (&"verlet-bench/2".into(), &"cpu".into()));
    assert_eq!((&found["machine"]["threads"], &found["stopped"]), (&1.into(), &false.into()));
    let date = found["machine"]["date"].as_str().unwrap();
    assert!(date.starts_with("20") && date.ends_with('Z'), "{date}");
    let rows = found["systems"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    check(&rows[0], 12.0, 2);
    check(&rows[1], 192.0, 2);
    assert_eq!((number(&rows[0], "skin_angstrom"), number(&rows[1], "skin_angstrom")), (1.0, 1.0));
    // Liquid water has some fifty neighbours within 5 Å.
    assert!((50.0..58.0).contains(&(number(&rows[1], "pairs") / 192.0)), "{rows:?}");
    for (row, name) in rows.iter().zip(["water-12.xyz", "water-192.xyz"]) {
        let start = structure::read_structure(bench.path("starts").join(name), 0).unwrap();
        assert_eq!(start.len() as f64, number(row, "atoms"));
        assert_eq!(start.cell.is_periodic(), !row["volume_angstrom3"].is_null());
    }
}

#[test]
fn a_system_of_ones_own_is_timed_with_a_model_of_ones_own() {
    let bench = bench();
    let model = ["bench", "--model", "model.safetensors", "--backend", "cpu", "--precision", "f64"];
    // Random forces are large: the atoms may well fly apart, which is an answer as well.
    let output = bench.verlet(&[&model[..], &["--structure", "start.xyz", "--repetitions", "2"]].concat());
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(text.contains("network in f64") && text.contains("\n       9  "), "{text}{}", stderr(&output));
}

#[test]
fn what_does_not_fit_the_memory_has_a_row_that_says_so() {
    let bench = bench();
    let arguments = ["bench", "--model", SHIPPED, "--backend", "cpu", "--repetitions", "1", "--json", "out.json"];
    let text = bench.succeed(&[&arguments[..], &["--sizes", "12,4000000000,9000000000"]].concat());
    assert!(text.contains("4000000000  there cannot be 4.000e9 atoms: that takes about "), "{text}");
    assert!(text.contains("9000000000  there cannot be 9000000000 atoms: the most are 4294967295\n"), "{text}");
    let found = json(&bench.path("out.json"));
    assert!(found["systems"][1]["error"].as_str().unwrap().contains("GiB of memory"), "{found}");
    let message = bench.fail(&["bench", "--model", SHIPPED, "--backend", "cpu", "--sizes", "9000000000"], 1);
    assert!(message.starts_with("error: nothing could be timed: there cannot be 9000000000 atoms"), "{message}");
}

/// A program that stands alone says what it lacks.
#[test]
fn the_shipped_model_is_found_or_asked_for() {
    let bench = bench();
    let alone = bench.path("verlet");
    std::fs::copy(env!("CARGO_BIN_EXE_verlet"), &alone).unwrap();
    let run = |folder: &Path| {
        let arguments = ["bench", "--backend", "cpu", "--sizes", "12", "--repetitions", "1"];
        common::output(Command::new(&alone).args(arguments).current_dir(folder)).unwrap()
    };
    let output = run(bench.folder.path());
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        stderr(&output),
        "error: the model that comes with the program (inputs/models/ethanol-water-v2.safetensors) is not to be found; name \
         one with --model\n"
    );
    assert!(run(Path::new(env!("CARGO_MANIFEST_DIR"))).status.success());
}

/// Ctrl-C: what has been measured is printed and written.
#[test]
fn an_interrupt_keeps_what_is_done() {
    let bench = bench();
    let mut command = bench.command(&["bench", "--model", SHIPPED, "--backend", "cpu", "--sizes", "12,3072"]);
    let command = command.args(["--repetitions", "20", "--json", "out.json"]).stdout(Stdio::piped());
    let mut child = common::spawn(command).unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().starts_with("      12 ")));
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert!(child.wait().unwrap().success());
    assert_eq!(rest, ["", "stopped after 1 of 2 systems, as you asked"]);
    let found = json(&bench.path("out.json"));
    assert_eq!((found["systems"].as_array().unwrap().len(), &found["stopped"]), (1, &true.into()));
}

#[test]
fn the_gpu_is_timed_as_well() {
    let bench = bench();
    let arguments = ["--backend", "cuda", "--sizes", "12", "--repetitions", "2", "--json", "out.json"];
    let mut command = bench.command(&[&["bench", "--model", SHIPPED][..], &arguments].concat());
    if !give_device(&mut command) {
        println!("skipped: no GPU, and its emulation needs x86-64 with AVX2, Linux and a C++ compiler");
        return;
    }
    let output = common::output(&mut command).unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let found = json(&bench.path("out.json"));
    check(&found["systems"][0], 12.0, 2);
    // As much as what atoms send each other, at the least.
    let bytes = number(&found["systems"][0], "memory_bytes");
    assert!((12.0 * 384.0 * 4.0..1e9).contains(&bytes), "{bytes}");
    assert!(found["machine"]["gpu"]["name"].is_string() && found["machine"]["gpu"]["driver_cuda"].is_string());
}

#[test]
fn a_thicker_skin_is_made_anew_less_often() {
    let bench = bench();
    let of = |skin: &str| {
        let file = format!("{skin}.json");
        let arguments = ["--backend", "cpu", "--sizes", "12", "--repetitions", "1", "--skin", skin, "--json", &file];
        bench.succeed(&[&["bench", "--model", SHIPPED][..], &arguments].concat());
        let row = json(&bench.path(&file))["systems"][0].clone();
        assert_eq!(number(&row, "skin_angstrom"), if skin == "1" { 1.0 } else { 0.2 });
        number(&row, "rebuilds_per_step")
    };
    assert!(of("0.02nm") > 2.0 * of("1"));
    let message = bench.fail(&["bench", "--model", SHIPPED, "--skin", "-1"], 2);
    assert!(
        message.contains("'-1' for '--skin <LENGTH>': give a length of zero or more, in Å or with its unit"),
        "{message}"
    );
}
