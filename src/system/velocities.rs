//! Initial velocities.

use super::{System, degrees_of_freedom, kinetic_energy, temperature};
use crate::integrate::philox::{Purpose, normal3};
use crate::units;
use nalgebra::Vector3;

/// Velocities (Å/fs) from the Maxwell–Boltzmann distribution at `kelvin`, scaled so that the kinetic temperature is
/// exactly that.
///
/// With `remove_centre_of_mass` the total momentum is zero and 3N − 3 degrees of freedom share the energy, else 3N. A
/// system without degrees of freedom stays at rest.
pub fn maxwell_boltzmann(system: &System, kelvin: f64, seed: u64, remove_centre_of_mass: bool) -> Vec<Vector3<f64>> {
    let mut velocities: Vec<Vector3<f64>> = system
        .masses
        .iter()
        .enumerate()
        .map(|(atom, mass)| {
            let width = (units::BOLTZMANN * kelvin / (mass * units::MASS_VELOCITY2)).sqrt();
            Vector3::from(normal3(seed, Purpose::InitialVelocities, 0, atom as u32)) * width
        })
        .collect();
    if remove_centre_of_mass {
        self::remove_centre_of_mass(&system.masses, &mut velocities);
    }
    let freedom = degrees_of_freedom(system.len(), remove_centre_of_mass);
    let drawn = temperature(kinetic_energy(&system.masses, &velocities), freedom);
    let scale = if drawn > 0.0 { (kelvin / drawn).sqrt() } else { 0.0 };
    for v in &mut velocities {
        *v *= scale;
    }
    velocities
}

/// Takes the velocity of the centre of mass from every atom.
pub fn remove_centre_of_mass(masses: &[f64], velocities: &mut [Vector3<f64>]) {
    let momentum: Vector3<f64> = masses.iter().zip(velocities.iter()).map(|(m, v)| v * *m).sum();
    let drift = momentum / masses.iter().sum::<f64>();
    for v in velocities {
        *v -= drift;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::Cell;

    fn water(copies: usize) -> System {
        let atoms = copies * 3;
        let numbers = [8, 1, 1].repeat(copies);
        let positions = (0..atoms).map(|i| Vector3::new(i as f64, 0.0, 0.0)).collect();
        System::new(numbers, positions, Cell::open()).unwrap()
    }

    #[test]
    fn temperature_is_exact_and_momentum_zero() {
        for remove in [false, true] {
            let system = water(5);
            let v = maxwell_boltzmann(&system, 300.0, 3, remove);
            let kelvin = temperature(kinetic_energy(&system.masses, &v), degrees_of_freedom(15, remove));
            assert!((kelvin - 300.0).abs() < 1e-9);
            let momentum: Vector3<f64> = system.masses.iter().zip(&v).map(|(m, v)| v * *m).sum();
            assert_eq!(momentum.norm() < 1e-12, remove);
        }
    }

    /// Every atom gets kT/2 a direction whatever its mass.
    #[test]
    fn energy_is_shared_evenly_between_light_and_heavy_atoms() {
        let system = water(20_000);
        let v = maxwell_boltzmann(&system, 300.0, 1, true);
        for species in [1, 8] {
            let energies: Vec<f64> = (0..v.len())
                .filter(|&atom| system.atomic_numbers[atom] == species)
                .map(|atom| 0.5 * system.masses[atom] * units::MASS_VELOCITY2 * v[atom].norm_squared())
                .collect();
            let n = energies.len() as f64;
            let mean = energies.iter().sum::<f64>() / n;
            let expected = 1.5 * units::BOLTZMANN * 300.0;
            // The energy of three degrees of freedom has the variance 3/2 (kT)².
            assert!((mean / expected - 1.0).abs() < 4.0 * (2.0 / 3.0 / n).sqrt(), "{species}: {}", mean / expected);
        }
    }

    #[test]
    fn a_seed_repeats_and_two_seeds_differ() {
        let system = water(2);
        let draw = |seed| maxwell_boltzmann(&system, 300.0, seed, true);
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn one_atom_without_centre_of_mass_motion_is_at_rest() {
        let atom = System::new(vec![8], vec![Vector3::zeros()], Cell::open()).unwrap();
        assert_eq!(maxwell_boltzmann(&atom, 300.0, 1, true), vec![Vector3::zeros()]);
    }
}
