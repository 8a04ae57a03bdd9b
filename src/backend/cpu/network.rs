//! Energy and forces of a network: forward pass and hand-written adjoint.
//!
//! Atoms are worked on in blocks, a task each. What belongs to one atom alone (update, context, readout and their
//! adjoints) follows in the same task as the messages before it, so a layer is one parallel pass in each direction.

use super::Potential;
use super::dense::{Dense, silu, silu_backward};
use super::filters::{Filters, Source};
use super::geometry::Pairs;
use super::message::{self, PairGradient, Row, Sender};
use super::real::Real;
use super::simd::padded;
use super::update::{Saved, Update};
use crate::backend::Evaluation;
use crate::error::Result;
use crate::model::Model;
use crate::neighbors::VerletList;
use crate::system::Cell;
use nalgebra::{Matrix3, Vector3};
use rayon::prelude::*;

/// One layer in the network's precision.
struct Layer<T> {
    context: Option<[Dense<T>; 2]>,
    update: Update<T>,
}

/// What the forward pass keeps of a layer for the adjoint, for all atoms.
#[derive(Default)]
struct Kept<T> {
    /// Hidden layer of the message context before its activation, `[N][F]`; unused without a context.
    context: Vec<T>,
    /// x, `[N][3F]`.
    x: Vec<T>,
    /// μ after the layer, `[N][3F]`.
    mu: Vec<T>,
    /// See [`Saved`].
    vectors: Vec<T>,
    hidden: Vec<T>,
    coefficients: Vec<T>,
}

/// The weights, and the sizes that go with them.
struct Network<T> {
    /// F, padded to whole vectors.
    features: usize,
    layers: Vec<Layer<T>>,
    readout: Vec<Dense<T>>,
    filters: Source<T>,
}

/// A network on the CPU: a [`Potential`] in precision `T`, float64 outside the network.
pub struct NetworkPotential<T> {
    network: Network<T>,
    cutoff: f64,
    direction_epsilon: f64,
    energy_unit: f64,
    /// Initial scalars of each atom's element, `[N][F]`.
    embedding: Vec<T>,
    /// Energy offset of each atom, eV.
    offsets: Vec<f64>,
    list: VerletList,
    pairs: Pairs<T>,
    kept: Vec<Kept<T>>,
    /// Scalars on the way forward, their gradient on the way back, `[N][F]`.
    scalars: Vec<T>,
    /// Gradients of the scalars and vectors between message and update of one layer, and of the next.
    gradients: [(Vec<T>, Vec<T>); 2],
    energies: Vec<T>,
    pair_gradients: Vec<PairGradient<T>>,
}

/// Atoms a task works on at once: a multiple of the six rows of a matrix product, small enough that small molecules
/// have work for several threads. It depends on nothing but the size of the system.
fn block_size(atoms: usize) -> usize {
    match atoms {
        0..=24 => 6,
        25..=96 => 12,
        _ => 24,
    }
}

impl<T: Real> NetworkPotential<T> {
    /// Prepares a model for atoms of these elements. `skin` in Å.
    ///
    /// # Errors
    /// [`Error::Structure`](crate::Error::Structure) when the model does not know an element.
    pub fn new(model: &Model, atomic_numbers: &[u8], skin: f64, filters: Filters) -> Result<Self> {
        model.check_elements(atomic_numbers)?;
        let f = model.features();
        let wide = padded(f);
        let atoms = atomic_numbers.len();
        let mut embedding = vec![T::zero(); atoms * wide];
        for (&z, row) in atomic_numbers.iter().zip(embedding.chunks_exact_mut(wide)) {
            for (to, &from) in row.iter_mut().zip(&model.embedding[z as usize * f..(z as usize + 1) * f]) {
                *to = T::of(from);
            }
        }
        let zeros = |stride: usize| vec![T::zero(); atoms * stride * wide];
        Ok(NetworkPotential {
            network: Network {
                features: wide,
                layers: model
                    .layers
                    .iter()
                    .map(|layer| Layer {
                        context: layer.context.as_ref().map(|[a, b]| [Dense::padded(a, 1, 1), Dense::padded(b, 1, 3)]),
                        update: Update::new(&layer.update),
                    })
                    .collect(),
                readout: readout(model),
                filters: Source::new(model, filters),
            },
            cutoff: model.cutoff(),
            direction_epsilon: model.direction_epsilon,
            energy_unit: model.energy_unit,
            offsets: atomic_numbers.iter().map(|&z| model.offsets[z as usize]).collect(),
            list: VerletList::new(model.cutoff(), skin),
            pairs: Pairs::default(),
            kept: model
                .layers
                .iter()
                .map(|_| Kept {
                    context: zeros(1),
                    x: zeros(3),
                    mu: zeros(3),
                    vectors: zeros(6),
                    hidden: zeros(1),
                    coefficients: zeros(3),
                })
                .collect(),
            scalars: zeros(1),
            gradients: [(zeros(1), zeros(3)), (zeros(1), zeros(3))],
            energies: vec![T::zero(); atoms],
            pair_gradients: Vec::new(),
            embedding,
        })
    }

    /// Number of directed pairs inside the cutoff at the last evaluation.
    pub fn pairs(&self) -> usize {
        self.pairs.pairs.len()
    }

    /// Runs all layers and the readout, and on the way back the readout's and the last update's adjoint: after it
    /// `energies` are known and `gradients[0]` are those between message and update of the last layer.
    fn forward(&mut self) {
        let network = &self.network;
        let f = network.features;
        let block = block_size(self.energies.len());
        let last = network.layers.len() - 1;
        self.scalars.copy_from_slice(&self.embedding);
        {
            let Kept { context, x, .. } = &mut self.kept[0];
            (self.scalars.par_chunks(block * f), context.par_chunks_mut(block * f), x.par_chunks_mut(block * 3 * f))
                .into_par_iter()
                .for_each(|(q, hidden, x)| send(&network.layers[0], f, q, hidden, x));
        }
        for l in 0..=last {
            let (done, rest) = self.kept.split_at_mut(l + 1);
            let (before, here) = done.split_at_mut(l);
            let Kept { x, mu, vectors, hidden, coefficients, .. } = &mut here[0];
            let vectors_before = before.last().map(|kept| kept.mu.as_slice());
            let (row_pairs, x) = (&self.pairs, &*x);
            let blocks = (
                self.scalars.par_chunks_mut(block * f),
                mu.par_chunks_mut(block * 3 * f),
                vectors.par_chunks_mut(block * 6 * f),
                hidden.par_chunks_mut(block * f),
                coefficients.par_chunks_mut(block * 3 * f),
            )
                .into_par_iter()
                .enumerate()
                .map(|(chunk, (q, mu, vectors, hidden, coefficients))| LayerForward {
                    network,
                    layer: l,
                    first: chunk * block,
                    pairs: row_pairs,
                    x,
                    vectors_before,
                    q,
                    mu,
                    saved: Saved { vectors, hidden, coefficients },
                });
            match rest.first_mut() {
                Some(next) => {
                    (blocks, next.context.par_chunks_mut(block * f), next.x.par_chunks_mut(block * 3 * f))
                        .into_par_iter()
                        .for_each(|(mut forward, hidden, x)| {
                            forward.run();
                            send(&network.layers[l + 1], f, forward.q, hidden, x);
                        });
                }
                None => {
                    let (gq, gmu) = &mut self.gradients[0];
                    (
                        blocks,
                        self.energies.par_chunks_mut(block),
                        gq.par_chunks_mut(block * f),
                        gmu.par_chunks_mut(block * 3 * f),
                    )
                        .into_par_iter()
                        .for_each(|(mut forward, energies, gq, gmu)| {
                            forward.run();
                            read_out(&network.readout, forward.q, energies, gq);
                            gmu.fill(T::zero());
                            network.layers[last].update.backward(energies.len(), gq, gmu, &forward.saved);
                        });
                }
            }
        }
    }

    /// From the gradients of the last layer to the gradients of all pairs.
    fn backward(&mut self) {
        let network = &self.network;
        let f = network.features;
        let block = block_size(self.energies.len());
        let pairs = &self.pairs;
        self.pair_gradients.clear();
        self.pair_gradients.resize(pairs.pairs.len(), PairGradient::default());
        for l in (0..network.layers.len()).rev() {
            let (before, here) = self.kept.split_at_mut(l);
            let kept = &here[0];
            let [from, to] = &mut self.gradients;
            let rows = split_rows(&mut self.pair_gradients, &pairs.offsets, block);
            let centres = (from.0.as_slice(), from.1.as_slice());
            let messages = (to.0.par_chunks_mut(block * f), to.1.par_chunks_mut(block * 3 * f), rows)
                .into_par_iter()
                .enumerate()
                .map(|(chunk, (gq, gmu, gradients))| LayerBackward {
                    network,
                    layer: l,
                    first: chunk * block,
                    pairs,
                    context: &kept.context,
                    x: &kept.x,
                    mu: None,
                    centres,
                    gq,
                    gmu,
                    gradients,
                });
            match before.last_mut() {
                None => messages.for_each(|mut messages| messages.run()),
                Some(Kept { mu, vectors, hidden, coefficients, .. }) => {
                    let mu = mu.as_slice();
                    (
                        messages,
                        vectors.par_chunks_mut(block * 6 * f),
                        hidden.par_chunks_mut(block * f),
                        coefficients.par_chunks_mut(block * 3 * f),
                    )
                        .into_par_iter()
                        .for_each(|(messages, vectors, hidden, coefficients)| {
                            let mut messages = LayerBackward { mu: Some(mu), ..messages };
                            messages.run();
                            let atoms = messages.gq.len() / f;
                            let saved = Saved { vectors, hidden, coefficients };
                            network.layers[l - 1].update.backward(atoms, messages.gq, messages.gmu, &saved);
                        });
                }
            }
            self.gradients.swap(0, 1);
        }
    }

    /// From pair gradients to forces and strain derivative, in float64.
    fn collect(&self, forces: &mut Vec<Vector3<f64>>) -> Matrix3<f64> {
        let (pairs, unit, epsilon) = (&self.pairs, self.energy_unit, self.direction_epsilon);
        // ∂E/∂r of the directed pair (neighbour ← centre) of a row entry; its r is −r of the entry.
        let gradient = |p: usize| {
            let pair = &pairs.pairs[p];
            let g = &self.pair_gradients[p];
            let d = pair.distance.wide();
            let u = Vector3::from(pair.direction.map(|x| -x.wide()));
            let gu = Vector3::from(g.direction.map(T::wide));
            // û = r / (d + ε):  g_r = g_d r/d + (g_û − (g_û·û) r/d) / (d + ε)
            let radial = u * ((d + epsilon) / d);
            (radial * (g.distance.wide() - gu.dot(&u) / (d + epsilon)) + gu / (d + epsilon)) * unit
        };
        let atoms = pairs.offsets.len() - 1;
        let parts: Vec<(Vector3<f64>, Matrix3<f64>)> = (0..atoms)
            .into_par_iter()
            .with_min_len(16)
            .map(|atom| {
                let mut force = Vector3::zeros();
                let mut strain = Matrix3::zeros();
                for p in pairs.offsets[atom]..pairs.offsets[atom + 1] {
                    let pair = &pairs.pairs[p];
                    let g = gradient(p);
                    force += gradient(pair.reverse as usize) - g;
                    let r = Vector3::from(pair.direction.map(|x| -x.wide())) * (pair.distance.wide() + epsilon);
                    strain += r * g.transpose();
                }
                (force, strain)
            })
            .collect();
        forces.clear();
        forces.extend(parts.iter().map(|(force, _)| *force));
        parts.iter().map(|(_, strain)| strain).sum()
    }
}

/// The readout: its hidden layers are padded like features, its single output is not.
fn readout<T: Real>(model: &Model) -> Vec<Dense<T>> {
    let (last, hidden) = model.readout.split_last().expect("the spec asks for two layers at least");
    hidden.iter().map(|dense| Dense::padded(dense, 1, 1)).chain([Dense::new(last)]).collect()
}

/// Messages and update of one layer, for a block of atoms.
struct LayerForward<'a, T> {
    network: &'a Network<T>,
    layer: usize,
    /// The block's first atom.
    first: usize,
    pairs: &'a Pairs<T>,
    /// x of all atoms.
    x: &'a [T],
    /// μ of all atoms before the layer; `None` in the first.
    vectors_before: Option<&'a [T]>,
    q: &'a mut [T],
    mu: &'a mut [T],
    saved: Saved<'a, T>,
}

impl<T: Real> LayerForward<'_, T> {
    fn run(&mut self) {
        let f = self.network.features;
        let atoms = self.q.len() / f;
        let own = self.first * 3 * f..(self.first + atoms) * 3 * f;
        match self.vectors_before {
            Some(mu) => self.mu.copy_from_slice(&mu[own]),
            None => self.mu.fill(T::zero()),
        }
        for a in 0..atoms {
            let pairs = self.pairs.row(self.first + a);
            message::forward(
                &Row { filters: &self.network.filters, layer: self.layer, pairs },
                self.x,
                self.vectors_before,
                &mut self.q[a * f..(a + 1) * f],
                &mut self.mu[a * 3 * f..(a + 1) * 3 * f],
            );
        }
        let last = self.layer + 1 == self.network.layers.len();
        self.network.layers[self.layer].update.forward(atoms, last, self.q, self.mu, &mut self.saved);
    }
}

/// The adjoint of one layer's messages, for a block of atoms as senders.
struct LayerBackward<'a, T> {
    network: &'a Network<T>,
    layer: usize,
    /// The block's first atom.
    first: usize,
    pairs: &'a Pairs<T>,
    /// Hidden layer of the context, of all atoms.
    context: &'a [T],
    /// x of all atoms.
    x: &'a [T],
    /// μ of all atoms before the layer; `None` in the first.
    mu: Option<&'a [T]>,
    /// Gradients of q and μ of all atoms after the messages.
    centres: (&'a [T], &'a [T]),
    /// The block's gradients before the messages.
    gq: &'a mut [T],
    gmu: &'a mut [T],
    gradients: &'a mut [PairGradient<T>],
}

impl<T: Real> LayerBackward<'_, T> {
    fn run(&mut self) {
        let f = self.network.features;
        let atoms = self.gq.len() / f;
        let first = self.first;
        self.gq.copy_from_slice(&self.centres.0[first * f..(first + atoms) * f]);
        self.gmu.copy_from_slice(&self.centres.1[first * 3 * f..(first + atoms) * 3 * f]);
        let mut gx = vec![T::zero(); atoms * 3 * f];
        let base = self.pairs.offsets[first];
        for a in 0..atoms {
            let atom = first + a;
            let vectors = atom * 3 * f..(atom + 1) * 3 * f;
            message::backward(
                &Row { filters: &self.network.filters, layer: self.layer, pairs: self.pairs.row(atom) },
                &Sender { x: &self.x[vectors.clone()], mu: self.mu.map(|mu| &mu[vectors]) },
                self.centres,
                &mut gx[a * 3 * f..(a + 1) * 3 * f],
                &mut self.gmu[a * 3 * f..(a + 1) * 3 * f],
                &mut self.gradients[self.pairs.offsets[atom] - base..self.pairs.offsets[atom + 1] - base],
            );
        }
        // The first layer's scalars are the embedding, which no position changes.
        if self.layer > 0 {
            let hidden = &self.context[first * f..(first + atoms) * f];
            send_backward(&self.network.layers[self.layer], f, hidden, &gx, self.gq);
        }
    }
}

/// x = W2 σ(W1 q + b1) + b2, or (q, 1, 1) where the architecture sends scalars as they are.
fn send<T: Real>(layer: &Layer<T>, f: usize, q: &[T], hidden: &mut [T], x: &mut [T]) {
    match &layer.context {
        Some([first, second]) => {
            let atoms = q.len() / f;
            first.forward(atoms, q, hidden);
            let mut active = vec![T::zero(); hidden.len()];
            silu(hidden, &mut active);
            second.forward(atoms, &active, x);
        }
        None => {
            for (x, q) in x.chunks_exact_mut(3 * f).zip(q.chunks_exact(f)) {
                x[..f].copy_from_slice(q);
                x[f..].fill(T::one());
            }
        }
    }
}

/// The adjoint of [`send`]: adds to g_q `[atoms][F]` what x's gradient `[atoms][3F]` makes of it.
fn send_backward<T: Real>(layer: &Layer<T>, f: usize, hidden: &[T], gx: &[T], gq: &mut [T]) {
    match &layer.context {
        Some([first, second]) => {
            let atoms = gq.len() / f;
            let mut gh = vec![T::zero(); hidden.len()];
            second.backward(atoms, gx, false, &mut gh);
            silu_backward(hidden, &mut gh);
            first.backward(atoms, &gh, true, gq);
        }
        None => {
            for (gq, gx) in gq.chunks_exact_mut(f).zip(gx.chunks_exact(3 * f)) {
                for (gq, gx) in gq.iter_mut().zip(gx) {
                    *gq += *gx;
                }
            }
        }
    }
}

/// Per-atom energies in the network's unit, and their gradient with respect to the final scalars.
fn read_out<T: Real>(layers: &[Dense<T>], q: &[T], energies: &mut [T], gq: &mut [T]) {
    let atoms = energies.len();
    let deepest = layers.len() - 1;
    // Values before each activation.
    let mut hidden: Vec<Vec<T>> = Vec::with_capacity(deepest);
    let mut input = q.to_vec();
    for dense in &layers[..deepest] {
        let mut h = vec![T::zero(); atoms * dense.outputs];
        dense.forward(atoms, &input, &mut h);
        input = vec![T::zero(); h.len()];
        silu(&h, &mut input);
        hidden.push(h);
    }
    layers[deepest].forward(atoms, &input, energies);
    let mut gradient = vec![T::one(); atoms];
    for (dense, h) in layers[1..].iter().zip(&hidden).rev() {
        let mut before = vec![T::zero(); atoms * dense.inputs];
        dense.backward(atoms, &gradient, false, &mut before);
        silu_backward(h, &mut before);
        gradient = before;
    }
    layers[0].backward(atoms, &gradient, false, gq);
}

/// Splits what belongs to pairs into the parts of each block of atoms.
fn split_rows<'a, P>(mut values: &'a mut [P], offsets: &[usize], block: usize) -> Vec<&'a mut [P]> {
    let atoms = offsets.len() - 1;
    (0..atoms)
        .step_by(block)
        .map(|first| {
            let end = (first + block).min(atoms);
            let (part, rest) = std::mem::take(&mut values).split_at_mut(offsets[end] - offsets[first]);
            values = rest;
            part
        })
        .collect()
}

/// The passes over the network in both precisions. Without type parameters they are compiled once, here, and not again
/// in every program that uses the library.
pub trait Passes: Sized {
    /// Forward and backward: from pairs to energies and pair gradients.
    fn pass(potential: &mut NetworkPotential<Self>);
}

impl Passes for f32 {
    fn pass(potential: &mut NetworkPotential<f32>) {
        potential.forward();
        potential.backward();
    }
}

impl Passes for f64 {
    fn pass(potential: &mut NetworkPotential<f64>) {
        potential.forward();
        potential.backward();
    }
}

impl<T: Real> Potential for NetworkPotential<T> {
    fn evaluate(&mut self, positions: &[Vector3<f64>], cell: &Cell, out: &mut Evaluation) -> Result<()> {
        self.list.update(positions, cell)?;
        let locate = |d| self.network.filters.locate(d);
        self.pairs.update(self.list.list(), positions, cell, self.cutoff, self.direction_epsilon, locate)?;
        T::pass(self);
        out.atom_energies.clear();
        let total = |(e, offset): (&T, &f64)| e.wide() * self.energy_unit + offset;
        out.atom_energies.extend(self.energies.iter().zip(&self.offsets).map(total));
        // The offset is 10⁴ times the network's own energy: each is summed by itself.
        let network: f64 = self.energies.iter().map(|e| e.wide()).sum();
        out.energy = network * self.energy_unit + self.offsets.iter().sum::<f64>();
        out.strain_derivative = self.collect(&mut out.forces);
        Ok(())
    }

    fn list(&self) -> (&[Vector3<f64>], u64) {
        (self.list.reference(), self.list.rebuilds())
    }

    fn restore_list(&mut self, positions: &[Vector3<f64>], cell: &Cell, rebuilds: u64) -> Result<()> {
        self.list.restore(positions, cell, rebuilds)
    }
}
