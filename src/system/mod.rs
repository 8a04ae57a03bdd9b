//! What is simulated: atoms in a cell.

mod cell;
pub mod extxyz;
mod selection;
pub mod structure;
pub mod velocities;

pub use cell::Cell;
pub use selection::{SELECTION_FORM, Selection};

use crate::elements;
use crate::error::{Error, Result};
use crate::memory;
use crate::units;
use nalgebra::Vector3;

/// Atoms, their motion, and the cell they are in.
///
/// Positions are unwrapped: they are never moved back into the cell, outputs do that.
#[derive(Debug, Clone)]
pub struct System {
    /// Atomic numbers.
    pub atomic_numbers: Vec<u8>,
    /// Å, unwrapped.
    pub positions: Vec<Vector3<f64>>,
    /// Å/fs; `None` when the structure file had none.
    pub velocities: Option<Vec<Vector3<f64>>>,
    /// u.
    pub masses: Vec<f64>,
    /// Edges and periodic directions.
    pub cell: Cell,
    /// The total charge that the structure file states, in elementary charges; 0 where it states none. No network knows it:
    /// it is there to be warned of.
    pub charge: f64,
}

/// Å: a coordinate beyond it is a mistake, and float64 resolves no vibration there.
pub(crate) const FARTHEST: f64 = 1e8;

/// Bytes that an atom takes while a system is copied: element, position, velocity, mass, twice.
const BYTES_AN_ATOM: f64 = 128.0;

impl System {
    /// A system at rest with standard atomic weights.
    ///
    /// # Errors
    /// [`Error::Structure`] when there is no atom, the lengths differ, or a coordinate is not finite.
    pub fn new(atomic_numbers: Vec<u8>, positions: Vec<Vector3<f64>>, cell: Cell) -> Result<Self> {
        if atomic_numbers.is_empty() {
            return Err(Error::Structure("the structure has no atoms".into()));
        }
        if atomic_numbers.len() != positions.len() {
            return Err(Error::Structure(format!(
                "the structure has {} elements but {} positions",
                atomic_numbers.len(),
                positions.len()
            )));
        }
        if let Some(atom) = positions.iter().position(|r| r.iter().any(|x| !x.is_finite())) {
            return Err(Error::Structure(format!(
                "atom {} ({}) has a coordinate that is not a finite number",
                atom + 1,
                elements::symbol(atomic_numbers[atom])
            )));
        }
        let masses = atomic_numbers.iter().map(|&z| elements::mass(z)).collect();
        Ok(System { atomic_numbers, positions, velocities: None, masses, cell, charge: 0.0 })
    }

    /// Number of atoms.
    pub fn len(&self) -> usize {
        self.atomic_numbers.len()
    }

    /// Never true: a system has at least one atom.
    pub fn is_empty(&self) -> bool {
        self.atomic_numbers.is_empty()
    }

    /// Sorted atomic numbers that occur.
    pub fn elements(&self) -> Vec<u8> {
        let mut elements = self.atomic_numbers.clone();
        elements.sort_unstable();
        elements.dedup();
        elements
    }

    /// The system of these atoms alone, in this order; of its charge nothing is known.
    pub fn subset(&self, atoms: &[usize]) -> Self {
        System {
            atomic_numbers: atoms.iter().map(|&atom| self.atomic_numbers[atom]).collect(),
            positions: atoms.iter().map(|&atom| self.positions[atom]).collect(),
            velocities: self.velocities.as_ref().map(|all| atoms.iter().map(|&atom| all[atom]).collect()),
            masses: atoms.iter().map(|&atom| self.masses[atom]).collect(),
            cell: self.cell.clone(),
            charge: 0.0,
        }
    }

    /// The formula in Hill order: C, H, then the rest by symbol; without carbon all by symbol.
    pub fn formula(&self) -> String {
        let mut counts: Vec<(&str, usize)> = self
            .elements()
            .into_iter()
            .map(|z| (elements::symbol(z), self.atomic_numbers.iter().filter(|&&x| x == z).count()))
            .collect();
        let organic = counts.iter().any(|(symbol, _)| *symbol == "C");
        counts.sort_by_key(|(symbol, _)| match *symbol {
            "C" if organic => (0, *symbol),
            "H" if organic => (1, *symbol),
            _ => (2, *symbol),
        });
        counts.iter().map(|(symbol, n)| if *n == 1 { symbol.to_string() } else { format!("{symbol}{n}") }).collect()
    }

    /// `copies[k]` copies along edge k; velocities are copied too.
    ///
    /// # Errors
    /// [`Error::Structure`] when a count is zero, a direction with more than one copy does not repeat, or the memory has no
    /// room for so many atoms.
    pub fn replicated(&self, copies: [usize; 3]) -> Result<Self> {
        for k in 0..3 {
            if copies[k] == 0 || (copies[k] > 1 && !self.cell.periodic()[k]) {
                return Err(Error::Structure(format!(
                    "there cannot be {} copies along {}: that needs {}",
                    copies[k],
                    ["a", "b", "c"][k],
                    if copies[k] == 0 { "at least 1" } else { "a cell that is periodic there" }
                )));
            }
        }
        let atoms = copies.iter().map(|&n| n as f64).product::<f64>() * self.len() as f64;
        let fits = if atoms > u32::MAX as f64 {
            Err(format!("the most are {}", u32::MAX))
        } else {
            memory::check(atoms * BYTES_AN_ATOM)
        };
        fits.map_err(|problem| {
            Error::Structure(format!("there cannot be {atoms:.3e} atoms: {problem}; use fewer copies"))
        })?;
        let mut result = System {
            atomic_numbers: Vec::new(),
            positions: Vec::new(),
            velocities: self.velocities.as_ref().map(|_| Vec::new()),
            masses: Vec::new(),
            cell: self.cell.replicated(copies),
            charge: self.charge * copies.iter().product::<usize>() as f64,
        };
        for x in 0..copies[0] as i32 {
            for y in 0..copies[1] as i32 {
                for z in 0..copies[2] as i32 {
                    let translation = self.cell.translation([x, y, z]);
                    result.atomic_numbers.extend(&self.atomic_numbers);
                    result.positions.extend(self.positions.iter().map(|r| r + translation));
                    result.masses.extend(&self.masses);
                    if let (Some(all), Some(own)) = (&mut result.velocities, &self.velocities) {
                        all.extend(own);
                    }
                }
            }
        }
        Ok(result)
    }
}

/// Kinetic energy in eV of velocities in Å/fs and masses in u.
pub fn kinetic_energy(masses: &[f64], velocities: &[Vector3<f64>]) -> f64 {
    let sum: f64 = masses.iter().zip(velocities).map(|(m, v)| m * v.norm_squared()).sum();
    0.5 * units::MASS_VELOCITY2 * sum
}

/// Temperature in K of a kinetic energy in eV over so many degrees of freedom: 2 E / (n k). Zero without any.
pub fn temperature(kinetic_energy: f64, degrees_of_freedom: usize) -> f64 {
    if degrees_of_freedom == 0 {
        return 0.0;
    }
    2.0 * kinetic_energy / (degrees_of_freedom as f64 * units::BOLTZMANN)
}

/// Degrees of freedom of `atoms` atoms: 3N − 3 when the motion of the centre of mass is removed, else 3N.
pub fn degrees_of_freedom(atoms: usize, centre_of_mass_removed: bool) -> usize {
    if centre_of_mass_removed { 3 * atoms - 3 } else { 3 * atoms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hill_formula() {
        let system = |z: &[u8]| System::new(z.to_vec(), vec![Vector3::zeros(); z.len()], Cell::open()).unwrap();
        assert_eq!(system(&[6, 6, 1, 1, 1, 1, 1, 8, 1]).formula(), "C2H6O");
        assert_eq!(system(&[8, 1, 1]).formula(), "H2O");
        assert_eq!(system(&[17, 11]).formula(), "ClNa");
    }

    #[test]
    fn replication_fills_the_larger_cell() {
        let cell = Cell::from_parameters([3.0, 4.0, 5.0], [90.0, 80.0, 70.0], [true, true, false]).unwrap();
        let one = System::new(vec![8, 1], vec![Vector3::zeros(), Vector3::new(1.0, 0.0, 0.0)], cell).unwrap();
        let many = one.replicated([2, 3, 1]).unwrap();
        assert_eq!(many.len(), 12);
        assert!((many.cell.volume() - 6.0 * one.cell.volume()).abs() < 1e-9);
        let mut images: Vec<_> = (0..12)
            .step_by(2)
            .map(|atom| {
                let shift = one.cell.image(&(many.positions[atom] + Vector3::new(1e-9, 1e-9, 0.0)));
                assert!((many.positions[atom] - one.cell.translation(shift)).norm() < 1e-9);
                shift
            })
            .collect();
        images.dedup();
        assert_eq!(images.len(), 6);
        assert!(one.replicated([1, 1, 2]).is_err());
        assert!(one.replicated([0, 1, 1]).is_err());
    }
}
