//! Velocity Verlet and Langevin dynamics in float64, as one splitting.
//!
//! BAOAB (Leimkuhler & Matthews, Appl. Math. Res. eXpress 2013, 34): half kick (B), half drift (A), thermostat (O), half
//! drift, forces, half kick. Without friction O does nothing, and what is left is velocity Verlet (Swope, Andersen,
//! Berens & Wilson, J. Chem. Phys. 76, 637, 1982): constant-energy dynamics is the same code, bit for bit.

use super::philox::{Purpose, normal3};
use crate::system::kinetic_energy;
use crate::system::velocities::remove_centre_of_mass;
use crate::units;
use nalgebra::Vector3;

/// Langevin's friction and heat bath.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thermostat {
    /// γ, 1/fs.
    pub friction: f64,
    /// Temperature at the start of the ramp, K.
    pub temperature: f64,
    /// Temperature from step `ramp_steps` on, K.
    pub final_temperature: f64,
    /// Steps over which the temperature changes linearly; 0 for a constant temperature.
    pub ramp_steps: u64,
    /// Seed of the random forces.
    pub seed: u64,
    /// Whether the motion of the centre of mass is taken out after every O.
    pub remove_centre_of_mass: bool,
}

impl Thermostat {
    /// A bath at one temperature (K) with friction γ (1/fs) that leaves the centre of mass at rest.
    pub fn new(temperature: f64, friction: f64, seed: u64) -> Self {
        Thermostat {
            friction,
            temperature,
            final_temperature: temperature,
            ramp_steps: 0,
            seed,
            remove_centre_of_mass: true,
        }
    }

    /// The bath's temperature at a step, K: linear from the first to the last over the ramp, then constant.
    pub fn temperature_at(&self, step: u64) -> f64 {
        if step >= self.ramp_steps {
            return self.final_temperature;
        }
        let part = step as f64 / self.ramp_steps as f64;
        self.temperature + (self.final_temperature - self.temperature) * part
    }
}

/// The half steps of a trajectory.
#[derive(Debug, Clone)]
pub struct Integrator {
    /// Δt, fs.
    timestep: f64,
    masses: Vec<f64>,
    /// ½ Δt / m in the unit that turns eV/Å into Å/fs, an atom each.
    half_kick: Vec<f64>,
    thermostat: Option<Thermostat>,
}

impl Integrator {
    /// For a time step in fs and masses in u; constant energy without a thermostat.
    pub fn new(timestep: f64, masses: &[f64], thermostat: Option<Thermostat>) -> Self {
        let half_kick = masses.iter().map(|m| 0.5 * timestep * units::FORCE_PER_MASS / m).collect();
        Integrator { timestep, masses: masses.to_vec(), half_kick, thermostat }
    }

    /// Δt, fs.
    pub fn timestep(&self) -> f64 {
        self.timestep
    }

    /// The heat bath, if there is one.
    pub fn thermostat(&self) -> Option<&Thermostat> {
        self.thermostat.as_ref()
    }

    /// B: v += ½ Δt F / m; velocities in Å/fs, forces in eV/Å.
    pub fn kick(&self, velocities: &mut [Vector3<f64>], forces: &[Vector3<f64>]) {
        for ((v, f), half) in velocities.iter_mut().zip(forces).zip(&self.half_kick) {
            *v += f * *half;
        }
    }

    /// A: x += ½ Δt v; Å.
    pub fn drift(&self, positions: &mut [Vector3<f64>], velocities: &[Vector3<f64>]) {
        let half = 0.5 * self.timestep;
        for (r, v) in positions.iter_mut().zip(velocities) {
            *r += v * half;
        }
    }

    /// O: v ← c1 v + c2 sqrt(kT/m) ξ with c1 = e^{−γΔt}, c2 = sqrt(1 − c1²); exact for the bath alone. `step` is the
    /// step being taken, from 1. Returns the energy that the bath put in, eV, and the kinetic energy after it: the one
    /// that is distributed as the temperature says, up to the error of the positions (the full-step velocities of BAOAB
    /// are colder by (ωΔt/2)²).
    ///
    /// `None` without friction: nothing has been done.
    pub fn thermalise(&self, velocities: &mut [Vector3<f64>], step: u64) -> Option<Bath> {
        let bath = self.thermostat.as_ref().filter(|bath| bath.friction > 0.0)?;
        let before = kinetic_energy(&self.masses, velocities);
        let c1 = (-bath.friction * self.timestep).exp();
        let c2 = (1.0 - c1 * c1).sqrt();
        let kt = units::BOLTZMANN * bath.temperature_at(step);
        for (atom, (v, m)) in velocities.iter_mut().zip(&self.masses).enumerate() {
            let width = c2 * (kt / (m * units::MASS_VELOCITY2)).sqrt();
            *v = *v * c1 + Vector3::from(normal3(bath.seed, Purpose::Langevin, step, atom as u32)) * width;
        }
        if bath.remove_centre_of_mass {
            remove_centre_of_mass(&self.masses, velocities);
        }
        let kinetic = kinetic_energy(&self.masses, velocities);
        Some(Bath { heat: kinetic - before, kinetic })
    }
}

/// What the bath did in one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bath {
    /// Energy put into the system, eV.
    pub heat: f64,
    /// Kinetic energy right after, eV.
    pub kinetic: f64,
}
