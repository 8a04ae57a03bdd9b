//! Langevin dynamics against what statistical mechanics says. Seeds are fixed, so a test passes always or never; bounds
//! are three standard deviations of the quantity that is measured.

use nalgebra::Vector3;
use verlet::Result;
use verlet::backend::cpu::{CpuBackend, Potential};
use verlet::backend::{Backend, Evaluation, Event};
use verlet::integrate::{Integrator, Thermostat};
use verlet::output::Sample;
use verlet::system::{Cell, System, velocities};
use verlet::units::{BOLTZMANN, MASS_VELOCITY2};

/// Every atom on a spring of its own; k = 0 sets it free. Energies in eV, k in eV/Å².
struct Springs(f64);

impl Potential for Springs {
    fn evaluate(&mut self, positions: &[Vector3<f64>], _: &Cell, out: &mut Evaluation) -> Result<()> {
        out.forces.clear();
        out.forces.extend(positions.iter().map(|r| -r * self.0));
        out.energy = positions.iter().map(|r| 0.5 * self.0 * r.norm_squared()).sum();
        Ok(())
    }
}

fn bath(friction: f64, temperature: f64, seed: u64) -> Thermostat {
    Thermostat {
        friction,
        temperature,
        final_temperature: temperature,
        ramp_steps: 0,
        seed,
        remove_centre_of_mass: false,
    }
}

fn atoms(count: usize, kelvin: f64) -> System {
    let numbers = (0..count).map(|n| [1, 6, 8, 17][n % 4]).collect();
    let mut system = System::new(numbers, vec![Vector3::zeros(); count], Cell::open()).unwrap();
    system.velocities = Some(velocities::maxwell_boltzmann(&system, kelvin, 77, false));
    system
}

fn start(spring: f64, system: System, timestep: f64, thermostat: Thermostat) -> CpuBackend<Springs> {
    let removed = thermostat.remove_centre_of_mass;
    let freedom = verlet::system::degrees_of_freedom(system.len(), removed);
    let integrator = Integrator::new(timestep, &system.masses, Some(thermostat));
    CpuBackend::new(Springs(spring), system, integrator, 1, freedom, "test".into()).unwrap()
}

fn advance(backend: &mut dyn Backend, steps: u64) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut tell = |event: Event| {
        if let Event::Samples(new) = event {
            samples.extend(new);
        }
        Ok(())
    };
    backend.advance(steps, &|| false, &mut tell).unwrap();
    samples
}

/// D = kT/(mγ). From an equilibrium start ⟨Δx²⟩ = 2 D (t − (1 − e^{−γt})/γ) at all times.
#[test]
fn free_particles_diffuse_as_einstein_says() {
    let (kelvin, friction, timestep, steps) = (300.0, 0.02, 1.0, 2000);
    let count = 4000;
    let system = atoms(count, kelvin);
    let masses = system.masses.clone();
    let mut backend = start(0.0, system, timestep, bath(friction, kelvin, 5));
    advance(&mut backend, steps);
    let t = steps as f64 * timestep;
    let frame = backend.frame().unwrap();
    let ratio: f64 = frame
        .positions
        .iter()
        .zip(&masses)
        .map(|(r, m)| {
            let diffusion = BOLTZMANN * kelvin / (m * MASS_VELOCITY2 * friction);
            r.norm_squared() / (6.0 * diffusion * (t - (1.0 - (-friction * t).exp()) / friction))
        })
        .sum::<f64>()
        / count as f64;
    let sigma = (2.0 / (3.0 * count as f64)).sqrt();
    assert!((ratio - 1.0).abs() < 3.0 * sigma, "{ratio} ± {sigma}");
}

/// ⟨x²⟩ = kT/k; BAOAB has no error of the time step for a harmonic well (Leimkuhler & Matthews 2013), so a step of a
/// sixth of the lightest atom's period shows none.
#[test]
fn a_harmonic_well_holds_kt_over_k() {
    let (kelvin, spring, count) = (300.0, 2.0, 4000);
    let mut backend = start(spring, atoms(count, kelvin), 7.0, bath(0.02, kelvin, 6));
    advance(&mut backend, 500);
    let frame = backend.frame().unwrap();
    let mean = frame.positions.iter().map(|r| r.norm_squared()).sum::<f64>() / (3 * count) as f64;
    let ratio = mean * spring / (BOLTZMANN * kelvin);
    let sigma = (2.0 / (3 * count) as f64).sqrt();
    assert!((ratio - 1.0).abs() < 3.0 * sigma, "{ratio} ± {sigma}");
}

/// Kinetic energies follow the gamma distribution of n degrees of freedom: mean n kT/2, variance n (kT)²/2.
#[test]
fn kinetic_energies_have_the_right_mean_and_width() {
    for (remove, freedom) in [(false, 15.0), (true, 12.0)] {
        let kelvin = 400.0;
        let mut thermostat = bath(2.0, kelvin, 8);
        thermostat.remove_centre_of_mass = remove;
        // e^{−γΔt} = e^{−4}: samples are as good as independent.
        let mut backend = start(0.5, atoms(5, kelvin), 2.0, thermostat);
        let samples = advance(&mut backend, 40_000);
        let n = samples.len() as f64;
        let kt = BOLTZMANN * kelvin;
        let mean = samples.iter().map(|s| s.kinetic).sum::<f64>() / n;
        let variance = samples.iter().map(|s| (s.kinetic - mean).powi(2)).sum::<f64>() / n;
        let expected = 0.5 * freedom * kt * kt;
        assert!((mean - 0.5 * freedom * kt).abs() < 3.0 * (expected / n).sqrt(), "{mean}");
        let relative_error = ((2.0 + 12.0 / freedom) / n).sqrt();
        assert!((variance / expected - 1.0).abs() < 3.0 * relative_error, "{}", variance / expected);
        let temperature = samples.iter().map(|s| s.temperature).sum::<f64>() / n;
        assert!((temperature / kelvin - 1.0).abs() < 3.0 * (2.0 / (freedom * n)).sqrt());
        if remove {
            let frame = backend.frame().unwrap();
            let masses = atoms(5, 1.0).masses;
            let momentum: Vector3<f64> = frame.velocities.iter().zip(&masses).map(|(v, m)| v * *m).sum();
            // Only the springs' half kick since the last O.
            let force: Vector3<f64> = frame.forces.iter().sum();
            assert!((momentum - force / MASS_VELOCITY2).norm() < 1e-10);
        }
    }
}

/// Energy less the heat that the bath gave is what constant-energy dynamics conserves: it does no more than fluctuate
/// with the square of the time step, while the energy itself goes where the bath sends it.
#[test]
fn the_conserved_quantity_is_conserved() {
    let ranges = |timestep: f64| {
        let mut backend = start(3.0, atoms(20, 100.0), timestep, bath(0.02, 500.0, 3));
        let samples = advance(&mut backend, (800.0 / timestep) as u64);
        let range = |pick: fn(&Sample) -> f64| {
            let values = samples.iter().map(pick);
            values.clone().fold(f64::MIN, f64::max) - values.fold(f64::MAX, f64::min)
        };
        (range(|s| s.conserved), range(Sample::total))
    };
    let ((coarse, total), (fine, _)) = (ranges(0.5), ranges(0.25));
    assert!(coarse < 0.02 * total, "{coarse} {total}");
    assert!((2.5..6.0).contains(&(coarse / fine)), "{coarse} {fine}");
}

#[test]
fn a_ramp_is_linear_and_then_stays() {
    let ramp = Thermostat { final_temperature: 500.0, ramp_steps: 100, ..bath(0.1, 100.0, 1) };
    assert_eq!([0, 25, 100, 1000].map(|step| ramp.temperature_at(step)), [100.0, 200.0, 500.0, 500.0]);
    let kelvins = |steps| {
        let mut backend = start(0.0, atoms(3000, 100.0), 5.0, Thermostat { ramp_steps: 1000, ..ramp });
        advance(&mut backend, steps).last().unwrap().temperature
    };
    // Strong friction: the system follows within a few steps.
    for (steps, expected) in [(500, 300.0), (1000, 500.0), (1300, 500.0)] {
        let sigma = expected * (2.0f64 / 9000.0).sqrt();
        assert!((kelvins(steps) - expected).abs() < 3.0 * sigma + 2.0, "{steps}: {}", kelvins(steps));
    }
}
