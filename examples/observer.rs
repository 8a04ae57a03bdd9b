//! An observer of one's own: follows the O–H bond of ethanol through the run that an input file describes.
//!
//!     cargo run --release --example observer

use verlet::Result;
use verlet::config::RunConfig;
use verlet::output::Frame;
use verlet::setup;
use verlet::simulation::Observer;

/// Lengths of the bond between two atoms, Å.
struct Bond {
    atoms: [usize; 2],
    lengths: Vec<f64>,
}

impl Observer for Bond {
    fn frame(&mut self, frame: &Frame) -> Result<()> {
        let [a, b] = self.atoms;
        self.lengths.push((frame.positions[b] - frame.positions[a]).norm());
        Ok(())
    }
}

fn main() -> Result<()> {
    let config =
        RunConfig::load("inputs/ethanol.toml", &["dynamics.steps=1000".into(), "output.trajectory.interval=1".into()])?;
    let mut bond = Bond { atoms: [2, 3], lengths: Vec::new() };
    let outcome = setup::prepare(&config)?.run(&mut [&mut bond])?;

    let count = bond.lengths.len() as f64;
    let mean = bond.lengths.iter().sum::<f64>() / count;
    let variance = bond.lengths.iter().map(|length| (length - mean).powi(2)).sum::<f64>() / count;
    println!("O–H bond: {mean:.3} ± {:.3} Å over {count} frames", variance.sqrt());
    println!("{}", outcome.verdict);
    Ok(())
}
