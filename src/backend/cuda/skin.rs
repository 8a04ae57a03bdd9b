//! How far the list reaches beyond the cutoff where nobody says it.
//!
//! A thin skin lists fewer pairs, which is memory; a thick one is made anew less often, which is time. So the skin is what
//! the fastest atom goes in a number of steps that keeps making lists a small part of the time, twice, since two atoms may
//! fly towards each other.

use super::device::Device;
use super::network::Network;
use crate::model::Model;
use crate::units;
use std::collections::HashMap;
use std::ops::RangeInclusive;

/// K: colder systems may still fall into a minimum.
const COLDEST: f64 = 100.0;
/// Å: skins are multiples of it.
const GRAIN: f64 = 0.05;

/// The skin in Å with which a step of atoms of these masses (u) costs least, at a temperature (K) and with a time step (fs).
pub fn cheapest_skin(device: &Device, model: &Model, masses: &[f64], temperature: f64, timestep: f64) -> f64 {
    let (steps, skins) = steps_of_a_list(Network::is_few(device, model, masses.len()), masses.len());
    let way = steps * timestep * fastest(masses, temperature.max(COLDEST));
    let skin = (2.0 * way / GRAIN).ceil() * GRAIN;
    // A number as people write it.
    (skin.clamp(*skins.start(), *skins.end()) * 1e3).round() * 1e-3
}

/// Steps that a list should hold, and the skins, in Å, that may follow from it.
///
/// Where a step is one kernel, making the list takes about as long as a third of a step, and the pairs beyond the cutoff cost
/// next to nothing. With many atoms it takes a fortieth of a step, so that it may be made every sixth; with some thousand its
/// many kernels count, and nobody needs their memory.
fn steps_of_a_list(few: bool, atoms: usize) -> (f64, RangeInclusive<f64>) {
    if few { (60.0, 1.0..=2.0) } else { (6.0 + 3e4 / atoms as f64, 0.3..=1.0) }
}

/// The speed in Å/fs that one atom of all has or exceeds in thermal equilibrium.
fn fastest(masses: &[f64], temperature: f64) -> f64 {
    let mut counts = HashMap::new();
    for mass in masses {
        *counts.entry(mass.to_bits()).or_insert(0.0) += 1.0;
    }
    let width = |mass: f64| (units::BOLTZMANN * temperature / (mass * units::MASS_VELOCITY2)).sqrt();
    let kinds: Vec<(f64, f64)> = counts.into_iter().map(|(mass, count)| (width(f64::from_bits(mass)), count)).collect();
    // Of atoms of one mass this part is faster than x widths, x >= 1 (the tail of Maxwell's distribution).
    let part = |x: f64| (2.0 / std::f64::consts::PI).sqrt() * (x + 1.0 / x) * (-0.5 * x * x).exp();
    let faster = |speed: f64| kinds.iter().map(|(width, count)| count * part((speed / width).max(1.0))).sum::<f64>();
    let widest = kinds.iter().map(|(width, _)| *width).fold(0.0, f64::max);
    let (mut low, mut high) = (widest, 12.0 * widest);
    for _ in 0..40 {
        let middle = 0.5 * (low + high);
        if faster(middle) > 1.0 { low = middle } else { high = middle }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    fn water(molecules: usize) -> Vec<f64> {
        [15.999, 1.008, 1.008].repeat(molecules)
    }

    #[test]
    fn the_fastest_atom_is_the_lightest_and_one_of_many() {
        // √(kT/m) of hydrogen at 300 K is 0.01573 Å/fs; one in twenty is faster than √7.815 times that (χ² of three).
        let of = |molecules| fastest(&water(molecules), 300.0) / 0.015730;
        assert!((2.79..2.81).contains(&of(10)), "{}", of(10));
        assert!((5.0..5.15).contains(&of(43_691)), "{}", of(43_691));
        assert!((fastest(&water(10), 1200.0) / fastest(&water(10), 300.0) - 2.0).abs() < 1e-6);
        assert!((fastest(&[4.0; 50], 300.0) / fastest(&[16.0; 50], 300.0) - 2.0).abs() < 1e-6);
        assert!(fastest(&[40.0], 300.0) > 0.0);
    }

    /// Drawn speeds have a largest one near that which is expected.
    #[test]
    fn drawn_velocities_have_no_atom_that_is_much_faster() {
        let (copies, positions) = (20_000, (0..60_000).map(|n| nalgebra::Vector3::new(n as f64, 0.0, 0.0)).collect());
        let system =
            crate::system::System::new([8, 1, 1].repeat(copies), positions, crate::system::Cell::open()).unwrap();
        let drawn = crate::system::velocities::maxwell_boltzmann(&system, 300.0, 1, true);
        let largest = drawn.iter().map(|v| v.norm()).fold(0.0, f64::max);
        let ratio = largest / fastest(&system.masses, 300.0);
        assert!((0.9..1.2).contains(&ratio), "{ratio}");
    }

    #[test]
    fn lists_of_many_atoms_hold_for_fewer_steps() {
        let steps = |few, atoms| steps_of_a_list(few, atoms).0;
        assert!(steps(true, 99) > steps(false, 1000) && steps(false, 1000) > 3.0 * steps(false, 131_072));
        assert!(steps(false, 5_000_000) >= 6.0);
    }
}
