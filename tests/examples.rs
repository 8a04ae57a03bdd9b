//! The programs in `examples/` do what they say. `cargo test` builds them.

mod common;

use std::path::Path;
use std::process::Command;

/// What an example prints.
fn run(name: &str) -> String {
    let binaries = Path::new(env!("CARGO_BIN_EXE_verlet")).parent().unwrap();
    let path = binaries.join("examples").join(name);
    assert!(path.exists(), "{} is not there: run `cargo build --examples` first", path.display());
    let output = common::output(Command::new(&path).current_dir(env!("CARGO_MANIFEST_DIR"))).unwrap();
    assert!(output.status.success(), "{name}: {}", common::bench::stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// The number between two texts.
fn number(text: &str, before: &str, after: &str) -> f64 {
    let found = text.split_once(before).and_then(|(_, rest)| rest.split_once(after));
    found.unwrap_or_else(|| panic!("no {before:?} … {after:?} in {text}")).0.trim().parse().unwrap()
}

#[test]
fn energy_prints_energy_and_forces() {
    let text = run("energy");
    let forces = text.lines().skip(2).map(|line| line.split_whitespace().skip(1).map(|x| x.parse::<f64>().unwrap()));
    let sums = forces.fold([0.0; 3], |mut sums, force| {
        sums.iter_mut().zip(force).for_each(|(sum, x)| *sum += x);
        sums
    });
    assert!(number(&text, "C2H6O: ", " eV") < -300.0 && text.lines().count() == 11, "{text}");
    // Nine numbers rounded to four digits.
    assert!(sums.iter().all(|sum| sum.abs() < 1e-3), "{sums:?} in {text}");
}

#[test]
fn run_holds_the_temperature() {
    let text = run("run");
    let kelvin = number(&text, "steps, ", " K on average");
    // Its 2 ps are too short to tell how well the energy of three atoms in a strong bath is conserved.
    assert!((150.0..450.0).contains(&kelvin) && text.contains("verdict            INCONCLUSIVE: "), "{text}");
}

#[test]
fn observer_measures_a_bond() {
    let text = run("observer");
    assert!((number(&text, "O–H bond: ", " ±") - 0.97).abs() < 0.03 && text.contains("over 1001 frames"), "{text}");
}
