//! Velocity Verlet in float64 (Swope, Andersen, Berens & Wilson, J. Chem. Phys. 76, 637, 1982).

use crate::units;
use nalgebra::Vector3;

/// The half steps of velocity Verlet, in the order kick, drift, drift, forces, kick.
///
/// The drift is taken in two halves because a thermostat acts between them (BAOAB; Leimkuhler & Matthews, Appl. Math.
/// Res. eXpress 2013, 34): without one the two make the same path, rounding apart.
#[derive(Debug, Clone)]
pub struct VelocityVerlet {
    /// Δt, fs.
    timestep: f64,
    /// ½ Δt / m in the unit that turns eV/Å into Å/fs, an atom each.
    half_kick: Vec<f64>,
}

impl VelocityVerlet {
    /// For a time step in fs and masses in u.
    pub fn new(timestep: f64, masses: &[f64]) -> Self {
        let half_kick = masses.iter().map(|m| 0.5 * timestep * units::FORCE_PER_MASS / m).collect();
        VelocityVerlet { timestep, half_kick }
    }

    /// Δt, fs.
    pub fn timestep(&self) -> f64 {
        self.timestep
    }

    /// v += ½ Δt F / m; velocities in Å/fs, forces in eV/Å.
    pub fn kick(&self, velocities: &mut [Vector3<f64>], forces: &[Vector3<f64>]) {
        for ((v, f), half) in velocities.iter_mut().zip(forces).zip(&self.half_kick) {
            *v += f * *half;
        }
    }

    /// x += ½ Δt v, twice; Å.
    pub fn drift(&self, positions: &mut [Vector3<f64>], velocities: &[Vector3<f64>]) {
        let half = 0.5 * self.timestep;
        for (r, v) in positions.iter_mut().zip(velocities) {
            *r += v * half;
            *r += v * half;
        }
    }
}
