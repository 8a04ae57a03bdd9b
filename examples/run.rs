//! A run from code, without an input file: a water molecule that is built here, in a heat bath.
//!
//!     cargo run --release --example run

use verlet::config::{InitialVelocities, RunConfig};
use verlet::integrate::Thermostat;
use verlet::model::Model;
use verlet::nalgebra::Vector3;
use verlet::setup;
use verlet::system::{Cell, System};

fn main() -> verlet::Result<()> {
    let model = Model::load("inputs/models/ethanol-water-v2.safetensors")?;
    let water = System::new(
        vec![8, 1, 1],
        vec![Vector3::zeros(), Vector3::new(0.96, 0.0, 0.0), Vector3::new(-0.28, 0.92, 0.0)], // Å
        Cell::open(),
    )?;

    // Everything that an input file can say, with its defaults.
    let mut config = RunConfig::default();
    config.dynamics.timestep = 0.5; // fs
    config.dynamics.steps = 4000;
    config.dynamics.velocities = InitialVelocities::MaxwellBoltzmann(300.0); // K
    config.dynamics.thermostat = Some(Thermostat::new(300.0, 0.02, 1)); // K, 1/fs, seed

    let outcome = setup::prepare_system(&config, model, water)?.run(&mut [])?;
    println!("{} steps, {:.0} K on average", outcome.step, outcome.verdict.temperature);
    println!("{}", outcome.verdict);
    Ok(())
}
