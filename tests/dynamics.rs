//! Velocity Verlet on potentials with known answers. What holds for every backend is in backends.rs.

use nalgebra::Vector3;
use verlet::Result;
use verlet::backend::cpu::{CpuBackend, Potential};
use verlet::backend::{Backend, Evaluation, Event};
use verlet::integrate::Integrator;
use verlet::output::Sample;
use verlet::system::{Cell, System};
use verlet::units;

/// Every atom on a spring of its own, tied to the origin: E = ½ k x².
struct Springs {
    /// eV/Å².
    stiffness: f64,
}

impl Potential for Springs {
    fn evaluate(&mut self, positions: &[Vector3<f64>], _: &Cell, out: &mut Evaluation) -> Result<()> {
        out.forces = positions.iter().map(|r| -r * self.stiffness).collect();
        out.atom_energies = positions.iter().map(|r| 0.5 * self.stiffness * r.norm_squared()).collect();
        out.energy = out.atom_energies.iter().sum();
        Ok(())
    }
}

fn backend<P: Potential>(potential: P, system: System, timestep: f64) -> CpuBackend<P> {
    let integrator = Integrator::new(timestep, &system.masses, None);
    let freedom = 3 * system.len();
    CpuBackend::new(potential, system, integrator, 1, freedom, "test".into()).unwrap()
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

fn oscillators() -> System {
    let mut system =
        System::new(vec![1, 8], vec![Vector3::new(0.3, -0.1, 0.0), Vector3::new(0.0, 0.2, -0.4)], Cell::open())
            .unwrap();
    system.velocities = Some(vec![Vector3::new(0.0, 0.01, -0.02), Vector3::new(0.005, 0.0, 0.0)]);
    system
}

/// Verlet's recurrence has a closed form for a harmonic force: x_n = x_0 cos nθ + v_0 sin nθ Δt / sin θ, with
/// cos θ = 1 − (ω Δt)²/2. Against it the error is rounding; against the continuous path it falls with Δt².
#[test]
fn harmonic_oscillators_follow_the_analytic_path() {
    let stiffness = 30.0;
    let system = oscillators();
    let mut errors = Vec::new();
    for timestep in [0.5, 0.25] {
        let mut backend = backend(Springs { stiffness }, system.clone(), timestep);
        let steps = (100.0 / timestep) as u64;
        let mut error = 0.0f64;
        for n in 1..=steps {
            advance(&mut backend, 1);
            let frame = backend.frame().unwrap();
            for atom in 0..2 {
                let omega = (stiffness * units::FORCE_PER_MASS / system.masses[atom]).sqrt();
                let (x0, v0) = (system.positions[atom], system.velocities.as_ref().unwrap()[atom]);
                let theta = (1.0 - 0.5 * (omega * timestep).powi(2)).acos();
                let phase = n as f64 * theta;
                let discrete = x0 * phase.cos() + v0 * (timestep * phase.sin() / theta.sin());
                assert!((frame.positions[atom] - discrete).norm() < 1e-11);
                let t = n as f64 * timestep;
                let exact = x0 * (omega * t).cos() + v0 * ((omega * t).sin() / omega);
                error = error.max((frame.positions[atom] - exact).norm());
            }
        }
        errors.push(error);
    }
    let ratio = errors[0] / errors[1];
    assert!((3.0..5.0).contains(&ratio), "{errors:?}");
}

/// Two heavy charges of opposite sign on top of each other, in effect: the energy leaves the numbers.
#[test]
fn an_explosion_is_reported_with_step_and_atom() {
    struct Cliff;
    impl Potential for Cliff {
        fn evaluate(&mut self, positions: &[Vector3<f64>], _: &Cell, out: &mut Evaluation) -> Result<()> {
            let over = positions[1].x > 1.0;
            let pull = |on: bool| Vector3::new(if on { f64::NAN } else { 1.0 }, 0.0, 0.0);
            out.forces = vec![pull(false), pull(over)];
            out.energy = if over { f64::NAN } else { 0.0 };
            out.atom_energies = vec![0.0; 2];
            Ok(())
        }
    }
    let system = System::new(vec![8, 1], vec![Vector3::zeros(), Vector3::new(0.99, 0.0, 0.0)], Cell::open()).unwrap();
    let mut backend = backend(Cliff, system, 1.0);
    let error = backend.advance(100, &|| false, &mut |_| Ok(())).unwrap_err().to_string();
    assert!(
        error.starts_with("the simulation exploded at step 2: the energy is NaN, first seen at atom 2 (H)"),
        "{error}"
    );
}
