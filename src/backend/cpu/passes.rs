//! The network's pass forward and its hand-written adjoint.
//!
//! A layer is two parallel passes in each direction: messages, by slices of channels and chunks of atoms, and what belongs
//! to one atom alone (update, context, readout and their adjoints), by blocks of atoms.

use super::aligned::{Aligned, Parts, zeros};
use super::atoms::{read_out, readout, send, send_backward};
use super::dense::Dense;
use super::filters::{Filters, Source};
use super::geometry::Pairs;
use super::message::{self, BACKWARD, FORWARD, PairGradient, Task};
use super::real::Real;
use super::simd::{LANES, padded};
use super::update::{SCRATCH, Saved, Update};
use crate::model::Model;
use rayon::prelude::*;
use std::sync::Arc;

/// One layer in the network's precision.
struct Layer<T> {
    context: Option<[Dense<T>; 2]>,
    update: Update<T>,
}

/// What the forward pass keeps of a layer for the adjoint, for all atoms; of the last layer only what messages need.
struct Kept<T> {
    /// Hidden layer of the message context before its activation, `[N][F]`; nothing in the first layer, and unused without
    /// a context.
    context: Aligned<T>,
    /// x, `[N][F / LANES][3][LANES]`; in the first layer it never changes.
    x: Aligned<T>,
    /// μ after the layer, `[N][3F]`.
    mu: Aligned<T>,
    /// See [`Saved`].
    vectors: Aligned<T>,
    hidden: Aligned<T>,
    coefficients: Aligned<T>,
}

/// What a network knows, whatever its atoms are.
struct Weights<T> {
    layers: Vec<Layer<T>>,
    readout: Vec<Dense<T>>,
    filters: Source<T>,
}

/// A network for certain atoms: weights, and memory for both passes.
pub(super) struct Network<T> {
    /// F, padded to whole slices.
    features: usize,
    weights: Arc<Weights<T>>,
    /// Initial scalars of each atom's element, `[N][F]`.
    embedding: Aligned<T>,
    kept: Vec<Kept<T>>,
    /// Scalars on the way forward, `[N][F]`.
    scalars: Aligned<T>,
    /// Gradients of scalars and vectors, `[N][F]` and `[N][3F]`.
    gradients: (Aligned<T>, Aligned<T>),
    /// What the tasks of one layer's messages write, `[F / LANES][N]`[[`FORWARD`] or [`BACKWARD`]].
    messages: Aligned<T>,
    energies: Aligned<T>,
    /// `[groups][pairs]`, see [`groups`].
    pair_gradients: Vec<PairGradient<T>>,
}

/// Atoms of a block: a multiple of the six rows of a matrix product, small enough that small molecules have work for
/// several threads. It depends on nothing but the size of the system.
fn block_size(atoms: usize) -> usize {
    match atoms {
        0..=24 => 6,
        25..=96 => 12,
        _ => 24,
    }
}

/// What the tasks of one layer's messages have written.
struct Written<'a, T> {
    messages: &'a [T],
    /// Numbers an atom.
    width: usize,
    /// All atoms.
    atoms: usize,
    /// On the way forward, the vectors of all atoms before the layer; in the first there are none.
    before: Option<&'a [T]>,
}

impl<'a, T: Real> Written<'a, T> {
    fn forward(messages: &'a [T], atoms: usize, before: Option<&'a [T]>) -> Self {
        Written { messages, width: FORWARD, atoms, before }
    }

    fn backward(messages: &'a [T], atoms: usize) -> Self {
        Written { messages, width: BACKWARD, atoms, before: None }
    }

    /// The part `part` of an atom in a slice.
    fn part(&self, slice: usize, atom: usize, part: usize) -> &[T] {
        &self.messages[(slice * self.atoms + atom) * self.width + part * LANES..][..LANES]
    }

    /// Adds three parts from `part` on to the vectors of the atoms from `first` on, `[atom][c][F]`.
    fn add_vectors(&self, first: usize, part: usize, f: usize, vectors: &mut [T]) {
        for (a, vectors) in vectors.chunks_exact_mut(3 * f).enumerate() {
            for (n, to) in vectors.chunks_exact_mut(LANES).enumerate() {
                let (c, slice) = (n / (f / LANES), n % (f / LANES));
                add(self.part(slice, first + a, part + c), to);
            }
        }
    }

    /// Adds the messages to the scalars of the atoms from `first` on, and makes their vectors.
    fn receive(&self, first: usize, f: usize, q: &mut [T], mu: &mut [T]) {
        match self.before {
            Some(before) => mu.copy_from_slice(&before[first * 3 * f..][..mu.len()]),
            None => mu.fill(T::zero()),
        }
        for (a, q) in q.chunks_exact_mut(f).enumerate() {
            for (slice, q) in q.chunks_exact_mut(LANES).enumerate() {
                add(self.part(slice, first + a, 0), q);
            }
        }
        self.add_vectors(first, 1, f, mu);
    }

    /// The gradients of what the atoms from `first` on send, as [`send`] lays it out.
    fn sent(&self, first: usize, f: usize, gx: &mut [T]) {
        for (n, gx) in gx.chunks_exact_mut(LANES).enumerate() {
            let (a, slice, part) = (n / (3 * f / LANES), n / 3 % (f / LANES), n % 3);
            gx.copy_from_slice(self.part(slice, first + a, part));
        }
    }
}

fn add<T: Real>(from: &[T], to: &mut [T]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += *from;
    }
}

impl<T: Real> Network<T> {
    /// For atoms of elements that the model knows.
    pub fn new(model: &Model, atomic_numbers: &[u8], filters: Filters) -> Self {
        let layer = |layer: &crate::model::Layer| Layer {
            context: layer.context.as_ref().map(|[a, b]| [Dense::padded(a, 1, 1), Dense::sliced(b)]),
            update: Update::new(&layer.update),
        };
        let weights = Weights {
            layers: model.layers.iter().map(layer).collect(),
            readout: readout(model),
            filters: Source::new(model, filters),
        };
        Self::over(Arc::new(weights), model, atomic_numbers)
    }

    /// For other atoms, with the same model's weights and filters, which are in memory once.
    pub fn for_others(&self, model: &Model, atomic_numbers: &[u8]) -> Self {
        Self::over(self.weights.clone(), model, atomic_numbers)
    }

    fn over(weights: Arc<Weights<T>>, model: &Model, atomic_numbers: &[u8]) -> Self {
        let layers = &weights.layers;
        let (f, atoms) = (model.features(), atomic_numbers.len());
        let features = padded(f);
        let mut embedding = zeros(atoms * features);
        for (&z, row) in atomic_numbers.iter().zip(embedding.chunks_exact_mut(features)) {
            for (to, &from) in row.iter_mut().zip(&model.embedding[z as usize * f..(z as usize + 1) * f]) {
                *to = T::of(from);
            }
        }
        let each = |stride: usize| zeros(atoms * stride * features);
        let mut kept: Vec<Kept<T>> = (0..layers.len())
            .map(|l| {
                let unless_last = |stride: usize| if l + 1 == layers.len() { each(0) } else { each(stride) };
                Kept {
                    context: if l == 0 { each(0) } else { each(1) },
                    x: each(3),
                    mu: unless_last(3),
                    vectors: unless_last(6),
                    hidden: unless_last(1),
                    coefficients: unless_last(3),
                }
            })
            .collect();
        // What atoms send to the first layer depends on their elements alone.
        send(layers[0].context.as_ref(), features, &embedding, &mut each(1), &mut kept[0].x, &mut each(1));
        Network {
            features,
            weights,
            kept,
            scalars: each(1),
            gradients: (each(1), each(3)),
            messages: each(BACKWARD / LANES),
            energies: zeros(atoms),
            pair_gradients: Vec::new(),
            embedding,
        }
    }

    pub fn filters(&self) -> &Source<T> {
        &self.weights.filters
    }

    /// Each atom's energy in the network's unit.
    pub fn energies(&self) -> &[T] {
        &self.energies
    }

    /// The gradients of all pairs, one after the other for each group of channels.
    pub fn pair_gradients(&self) -> &[PairGradient<T>] {
        &self.pair_gradients
    }

    /// Runs all layers and the readout, and on the way back the readout's and the last update's adjoint: after it
    /// the energies are known, and the gradients between message and update of the last layer.
    pub fn forward(&mut self, pairs: &Pairs<T>) {
        let (f, atoms) = (self.features, self.energies.len());
        let block = block_size(atoms);
        let last = self.weights.layers.len() - 1;
        let scratch = || zeros(SCRATCH * block * f);
        self.scalars.copy_from_slice(&self.embedding);
        for l in 0..last {
            self.forward_messages(l, pairs);
            let (done, rest) = self.kept.split_at_mut(l + 1);
            let (before, here) = done.split_at_mut(l);
            let Kept { mu, vectors, hidden, coefficients, .. } = &mut here[0];
            let (layer, context) = (&self.weights.layers[l], self.weights.layers[l + 1].context.as_ref());
            let written = Written::forward(&self.messages, atoms, before.last().map(|kept| &*kept.mu));
            (
                self.scalars.par_chunks_mut(block * f),
                mu.par_chunks_mut(block * 3 * f),
                vectors.par_chunks_mut(block * 6 * f),
                hidden.par_chunks_mut(block * f),
                coefficients.par_chunks_mut(block * 3 * f),
                rest[0].context.par_chunks_mut(block * f),
                rest[0].x.par_chunks_mut(block * 3 * f),
            )
                .into_par_iter()
                .enumerate()
                .for_each_init(
                    scratch,
                    |scratch, (number, (q, mu, vectors, hidden, coefficients, sent_hidden, x))| {
                        written.receive(number * block, f, q, mu);
                        let mut saved = Saved { vectors, hidden, coefficients };
                        layer.update.forward(q.len() / f, false, q, mu, &mut saved, scratch);
                        send(context, f, q, sent_hidden, x, scratch);
                    },
                );
        }

        // Of the last layer nothing is kept: its adjoint follows at once.
        let scratch = || zeros((SCRATCH + 13) * block * f);
        self.forward_messages(last, pairs);
        let (layer, readout) = (&self.weights.layers[last], &self.weights.readout);
        let before = last.checked_sub(1).map(|before| &*self.kept[before].mu);
        let written = Written::forward(&self.messages, atoms, before);
        (
            self.scalars.par_chunks_mut(block * f),
            self.energies.par_chunks_mut(block),
            self.gradients.0.par_chunks_mut(block * f),
            self.gradients.1.par_chunks_mut(block * 3 * f),
        )
            .into_par_iter()
            .enumerate()
            .for_each_init(scratch, |scratch, (number, (q, energies, gq, gmu))| {
                let mut scratch = Parts(scratch);
                let [mu, vectors, hidden, coefficients] = [3, 6, 1, 3].map(|stride| scratch.take(stride * q.len()));
                let mut saved = Saved { vectors, hidden, coefficients };
                written.receive(number * block, f, q, mu);
                layer.update.forward(energies.len(), true, q, mu, &mut saved, scratch.0);
                read_out(readout, q, energies, gq);
                gmu.fill(T::zero());
                layer.update.backward(energies.len(), gq, gmu, &saved, scratch.0);
            });
    }

    /// From the gradients of the last layer to the gradients of all pairs.
    pub fn backward(&mut self, pairs: &Pairs<T>) {
        let (f, atoms) = (self.features, self.energies.len());
        let block = block_size(atoms);
        let groups = groups(f / LANES, atoms.div_ceil(pairs.chunk));
        let scratch = || zeros((SCRATCH + 3) * block * f);
        self.pair_gradients.resize(groups * pairs.len(), PairGradient::default());
        for l in (0..self.weights.layers.len()).rev() {
            self.backward_messages(l, pairs);
            // The first layer's scalars are the embedding, which no position changes.
            let (before, here) = self.kept.split_at_mut(l);
            let Some(Kept { vectors, hidden, coefficients, .. }) = before.last_mut() else { continue };
            let (layers, written) = (&self.weights.layers, Written::backward(&self.messages, atoms));
            (
                self.gradients.0.par_chunks_mut(block * f),
                self.gradients.1.par_chunks_mut(block * 3 * f),
                here[0].context.par_chunks(block * f),
                vectors.par_chunks_mut(block * 6 * f),
                hidden.par_chunks_mut(block * f),
                coefficients.par_chunks_mut(block * 3 * f),
            )
                .into_par_iter()
                .enumerate()
                .for_each_init(
                    scratch,
                    |scratch, (number, (gq, gmu, context, vectors, hidden, coefficients))| {
                        let first = number * block;
                        written.add_vectors(first, 3, f, gmu);
                        let (gx, scratch) = scratch.split_at_mut(3 * gq.len());
                        written.sent(first, f, gx);
                        send_backward(layers[l].context.as_ref(), f, context, gx, gq, scratch);
                        let saved = Saved { vectors, hidden, coefficients };
                        layers[l - 1].update.backward(gq.len() / f, gq, gmu, &saved, scratch);
                    },
                );
        }
    }

    /// The messages of a layer, and what the atoms' vectors were before.
    fn forward_messages(&mut self, layer: usize, pairs: &Pairs<T>) {
        let atoms = self.energies.len();
        let (x, mu) = (&self.kept[layer].x, layer.checked_sub(1).map(|before| &*self.kept[before].mu));
        let (features, filters) = (self.features, &self.weights.filters);
        let mut out = Parts(&mut self.messages);
        let mut tasks = Vec::new();
        for slice in 0..features / LANES {
            for first in (0..atoms).step_by(pairs.chunk) {
                let task = Task { features, filters, layer, slice, pairs, first };
                tasks.push((task, out.take(pairs.chunk.min(atoms - first) * FORWARD)));
            }
        }
        tasks.into_par_iter().for_each(|(task, out)| message::forward(task, x, mu, out));
    }

    /// The adjoint of a layer's messages.
    fn backward_messages(&mut self, layer: usize, pairs: &Pairs<T>) {
        let atoms = self.energies.len();
        let last = layer + 1 == self.weights.layers.len();
        let (x, mu) = (&self.kept[layer].x, layer.checked_sub(1).map(|before| &*self.kept[before].mu));
        let centres = (&*self.gradients.0, &*self.gradients.1);
        let (features, filters) = (self.features, &self.weights.filters);
        let (mut out, mut gradients) = (Parts(&mut self.messages), Parts(&mut self.pair_gradients));
        let chunks = atoms.div_ceil(pairs.chunk);
        // A job is a chunk and some slices, one after the other: their pairs share one gradient.
        let together = features / LANES / groups(features / LANES, chunks);
        let mut jobs: Vec<(Vec<_>, &mut [PairGradient<T>])> = Vec::new();
        for slice in 0..features / LANES {
            for chunk in 0..chunks {
                let first = chunk * pairs.chunk;
                if slice % together == 0 {
                    jobs.push((Vec::new(), gradients.take(pairs.of_chunk(first).len())));
                }
                let here = pairs.chunk.min(atoms - first);
                let task = Task { features, filters, layer, slice, pairs, first };
                let width = if mu.is_some() { BACKWARD } else { 0 };
                jobs[slice / together * chunks + chunk].0.push((task, here, out.take(here * width)));
            }
        }
        jobs.into_par_iter().for_each(|(tasks, gradients)| {
            if last {
                gradients.fill(PairGradient::default());
            }
            for (task, here, out) in tasks {
                message::backward(task, (x, mu), centres, here, out, gradients);
            }
        });
    }
}

/// Groups of slices whose tasks may run beside each other in the adjoint: each keeps gradients of all pairs. As few as
/// give some 64 jobs; they depend on the sizes alone, as the order of sums does.
fn groups(slices: usize, chunks: usize) -> usize {
    (1..=slices).filter(|groups| slices.is_multiple_of(*groups)).find(|groups| groups * chunks >= 64).unwrap_or(slices)
}
