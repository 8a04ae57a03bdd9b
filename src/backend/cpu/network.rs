//! Energy and forces of a network: neighbour list, pairs, passes, forces.

use super::Potential;
use super::filters::Filters;
use super::forces::collect;
use super::geometry::Pairs;
use super::passes::Network;
use super::real::Real;
use crate::backend::Evaluation;
use crate::backend::guard::Guard;
use crate::error::Result;
use crate::model::Model;
use crate::neighbors::VerletList;
use crate::system::Cell;
use nalgebra::Vector3;

/// A network on the CPU: a [`Potential`] in precision `T`, float64 outside the network.
pub struct NetworkPotential<T> {
    network: Network<T>,
    cutoff: f64,
    direction_epsilon: f64,
    energy_unit: f64,
    /// Energy offset of each atom, eV.
    offsets: Vec<f64>,
    guard: Guard,
    list: VerletList,
    pairs: Pairs<T>,
    /// Memory for the gradients of pairs.
    pair_vectors: Vec<Vector3<f64>>,
}

impl<T: Real> NetworkPotential<T> {
    /// Prepares a model for atoms of these elements. `skin` in Å.
    ///
    /// # Errors
    /// [`Error::Structure`](crate::Error::Structure) when the model does not know an element.
    pub fn new(model: &Model, atomic_numbers: &[u8], skin: f64, filters: Filters) -> Result<Self> {
        model.check_elements(atomic_numbers)?;
        Ok(Self::of(Network::new(model, atomic_numbers, filters), model, atomic_numbers, skin))
    }

    /// For other atoms of the same model, as [`new`](Self::new): the weights are in memory once.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn for_others(&self, model: &Model, atomic_numbers: &[u8], skin: f64) -> Result<Self> {
        model.check_elements(atomic_numbers)?;
        Ok(Self::of(self.network.for_others(model, atomic_numbers), model, atomic_numbers, skin))
    }

    fn of(network: Network<T>, model: &Model, atomic_numbers: &[u8], skin: f64) -> Self {
        NetworkPotential {
            network,
            cutoff: model.cutoff(),
            direction_epsilon: model.direction_epsilon,
            energy_unit: model.energy_unit,
            offsets: atomic_numbers.iter().map(|&z| model.offsets[z as usize]).collect(),
            guard: Guard::new(model, atomic_numbers),
            list: VerletList::new(model.cutoff(), skin),
            pairs: Pairs::new(atomic_numbers.len()),
            pair_vectors: Vec::new(),
        }
    }

    /// Number of directed pairs inside the cutoff at the last evaluation.
    pub fn pairs(&self) -> usize {
        self.pairs.directed()
    }
}

/// The passes over the network in both precisions. Without type parameters they are compiled once, here, and not again
/// in every program that uses the library.
pub trait Passes: Sized {
    /// Forward and backward: from pairs to energies and pair gradients.
    fn pass(potential: &mut NetworkPotential<Self>);
}

impl Passes for f32 {
    fn pass(potential: &mut NetworkPotential<f32>) {
        potential.network.forward(&potential.pairs);
        potential.network.backward(&potential.pairs);
    }
}

impl Passes for f64 {
    fn pass(potential: &mut NetworkPotential<f64>) {
        potential.network.forward(&potential.pairs);
        potential.network.backward(&potential.pairs);
    }
}

impl<T: Real> Potential for NetworkPotential<T> {
    fn evaluate(&mut self, positions: &[Vector3<f64>], cell: &Cell, out: &mut Evaluation) -> Result<()> {
        self.list.update(positions, cell)?;
        let locate = |d| self.network.filters().locate(d);
        let seen = |i, j, d| self.guard.seen(i, j, d);
        let list = self.list.list();
        self.pairs.update(list, positions, cell, self.cutoff, self.direction_epsilon, locate, seen)?;
        T::pass(self);
        out.atom_energies.clear();
        let total = |(e, offset): (&T, &f64)| e.wide() * self.energy_unit + offset;
        out.atom_energies.extend(self.network.energies().iter().zip(&self.offsets).map(total));
        // The offset is 10⁴ times the network's own energy: each is summed by itself.
        let network: f64 = self.network.energies().iter().map(|e| e.wide()).sum();
        let mut network = network * self.energy_unit;
        out.strain_derivative = collect(
            &self.pairs,
            self.network.pair_gradients(),
            (self.direction_epsilon, self.energy_unit),
            &mut self.pair_vectors,
            &mut out.forces,
        );
        let near = &self.pairs.near;
        if !near.is_empty() {
            network += self.guard.repel(near, &mut out.atom_energies, &mut out.forces, &mut out.strain_derivative);
        }
        out.energy = network + self.offsets.iter().sum::<f64>();
        out.outside = self.guard.too_close(near);
        out.outside.extend(self.guard.beyond(network));
        Ok(())
    }

    fn list(&self) -> (&[Vector3<f64>], u64) {
        (self.list.reference(), self.list.rebuilds())
    }

    fn restore_list(&mut self, positions: &[Vector3<f64>], cell: &Cell, rebuilds: u64) -> Result<()> {
        self.list.restore(positions, cell, rebuilds)
    }
}
