//! Energy and forces of a network: forward pass and hand-written adjoint.

use super::Potential;
use super::dense::{Dense, silu, silu_backward};
use super::geometry::{Pair, Pairs};
use super::message::{self, FilterSource, PairGradient, Row, Scratch, Sender};
use super::real::Real;
use super::update::{Saved, Update};
use crate::backend::Evaluation;
use crate::error::Result;
use crate::model::{self, Grid, Model, RadialFilter};
use crate::neighbors::VerletList;
use crate::system::Cell;
use nalgebra::{Matrix3, Vector3};
use rayon::prelude::*;

/// How radial filters are evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filters {
    /// From the radial functions, in float64: the oracle.
    Direct,
    /// From a cubic B-spline table, see [`model::FilterTable`].
    Table,
}

/// The filters in the network's precision.
enum Source<T> {
    Direct(RadialFilter),
    Table { coefficients: Vec<Vec<T>>, grid: Grid },
}

impl<T: Real> FilterSource<T> for Source<T> {
    fn fill(&self, layer: usize, pair: &Pair<T>, w: &mut [T], dw: Option<&mut [T]>) {
        let width = w.len();
        match self {
            Source::Direct(filter) => {
                let (mut wide, mut slope) = (vec![0.0; width], vec![0.0; width]);
                filter.evaluate(layer, pair.distance.wide(), &mut wide, &mut slope);
                for (w, x) in w.iter_mut().zip(wide) {
                    *w = T::of(x);
                }
                for (dw, x) in dw.into_iter().flatten().zip(slope) {
                    *dw = T::of(x);
                }
            }
            Source::Table { coefficients, grid } => {
                let start = pair.interval as usize * width;
                let c = &coefficients[layer][start..start + 4 * width];
                let (c0, c1, c2, c3) =
                    (&c[..width], &c[width..2 * width], &c[2 * width..3 * width], &c[3 * width..4 * width]);
                let (b, db) = weights(pair.fraction);
                for k in 0..width {
                    w[k] = b[0] * c0[k] + b[1] * c1[k] + b[2] * c2[k] + b[3] * c3[k];
                }
                if let Some(dw) = dw {
                    let db = db.map(|x| x / T::of(grid.spacing));
                    for k in 0..width {
                        dw[k] = db[0] * c0[k] + db[1] * c1[k] + db[2] * c2[k] + db[3] * c3[k];
                    }
                }
            }
        }
    }
}

/// Spline weights, narrowed only after they have been computed.
fn weights<T: Real>(fraction: T) -> ([T; 4], [T; 4]) {
    let (b, db) = model::spline_weights(fraction.wide());
    (b.map(T::of), db.map(T::of))
}

/// One layer in the network's precision.
struct Layer<T> {
    context: Option<[Dense<T>; 2]>,
    update: Update<T>,
}

/// What the forward pass keeps of a layer for the adjoint, for all atoms.
#[derive(Default)]
struct Kept<T> {
    /// μ before the layer, `[N][3F]`; empty in the first.
    mu: Vec<T>,
    /// Hidden layer of the message context before its activation, `[N][F]`.
    context: Vec<T>,
    /// x, `[N][3F]`.
    x: Vec<T>,
    /// See [`Saved`].
    vectors: Vec<T>,
    hidden: Vec<T>,
    coefficients: Vec<T>,
}

/// A network on the CPU: a [`Potential`] in precision `T`, float64 outside the network.
pub struct NetworkPotential<T> {
    features: usize,
    cutoff: f64,
    direction_epsilon: f64,
    energy_unit: f64,
    /// Initial scalars of each atom's element, `[N][F]`.
    embedding: Vec<T>,
    /// Energy offset of each atom, eV.
    offsets: Vec<f64>,
    layers: Vec<Layer<T>>,
    readout: Vec<Dense<T>>,
    filters: Source<T>,
    list: VerletList,
    pairs: Pairs<T>,
    kept: Vec<Kept<T>>,
}

/// Atoms a task works on at once. It depends on nothing but the size of the system, so the same system always gives
/// the same bits.
fn block_size(atoms: usize) -> usize {
    if atoms < 64 { 8 } else { 32 }
}

impl<T: Real> NetworkPotential<T> {
    /// Prepares a model for atoms of these elements. `skin` in Å.
    ///
    /// # Errors
    /// [`Error::Structure`](crate::Error::Structure) when the model does not know an element.
    pub fn new(model: &Model, atomic_numbers: &[u8], skin: f64, filters: Filters) -> Result<Self> {
        model.check_elements(atomic_numbers)?;
        let f = model.features();
        let filters = match filters {
            Filters::Direct => Source::Direct(model.filter.clone()),
            Filters::Table => {
                let table = model.filter_table();
                let narrow = |c: &Vec<f64>| c.iter().map(|&x| T::of(x)).collect();
                Source::Table { coefficients: table.coefficients.iter().map(narrow).collect(), grid: table.grid() }
            }
        };
        Ok(NetworkPotential {
            features: f,
            cutoff: model.cutoff(),
            direction_epsilon: model.direction_epsilon,
            energy_unit: model.energy_unit,
            embedding: atomic_numbers
                .iter()
                .flat_map(|&z| &model.embedding[z as usize * f..(z as usize + 1) * f])
                .map(|&x| T::of(x))
                .collect(),
            offsets: atomic_numbers.iter().map(|&z| model.offsets[z as usize]).collect(),
            layers: model
                .layers
                .iter()
                .map(|layer| Layer {
                    context: layer.context.as_ref().map(|[a, b]| [Dense::new(a), Dense::new(b)]),
                    update: Update::new(&layer.update),
                })
                .collect(),
            readout: model.readout.iter().map(Dense::new).collect(),
            filters,
            list: VerletList::new(model.cutoff(), skin),
            pairs: Pairs::default(),
            kept: model.layers.iter().map(|_| Kept::default()).collect(),
        })
    }

    /// Number of directed pairs inside the cutoff at the last evaluation.
    pub fn pairs(&self) -> usize {
        self.pairs.pairs.len()
    }

    /// Runs all layers; returns the final scalars `[N][F]`.
    fn forward(&mut self, atoms: usize) -> Vec<T> {
        let f = self.features;
        let block = block_size(atoms);
        let last = self.layers.len() - 1;
        let mut q = self.embedding.clone();
        let mut mu: Vec<T> = Vec::new();
        for (l, (layer, kept)) in self.layers.iter().zip(&mut self.kept).enumerate() {
            kept.x.resize(atoms * 3 * f, T::zero());
            kept.context.resize(if layer.context.is_some() { atoms * f } else { 0 }, T::zero());
            send(layer.context.as_ref(), (f, block), &q, &mut kept.context, &mut kept.x);
            for (field, stride) in [(&mut kept.vectors, 6), (&mut kept.hidden, 1), (&mut kept.coefficients, 3)] {
                field.resize(atoms * stride * f, T::zero());
            }
            // μ before the layer is gathered by everybody: the new one needs room of its own.
            kept.mu = std::mem::take(&mut mu);
            mu = if l == 0 { vec![T::zero(); atoms * 3 * f] } else { kept.mu.clone() };
            let before = (l > 0).then_some(kept.mu.as_slice());
            let (pairs, filters, x) = (&self.pairs, &self.filters, &kept.x);
            (
                q.par_chunks_mut(block * f),
                mu.par_chunks_mut(block * 3 * f),
                kept.vectors.par_chunks_mut(block * 6 * f),
                kept.hidden.par_chunks_mut(block * f),
                kept.coefficients.par_chunks_mut(block * 3 * f),
            )
                .into_par_iter()
                .enumerate()
                .for_each_init(
                    || Scratch::new(f),
                    |scratch, (chunk, (q, mu, vectors, hidden, coefficients))| {
                        let count = q.len() / f;
                        for a in 0..count {
                            message::forward(
                                &Row { filters, layer: l, pairs: pairs.row(chunk * block + a) },
                                x,
                                before,
                                &mut q[a * f..(a + 1) * f],
                                &mut mu[a * 3 * f..(a + 1) * 3 * f],
                                scratch.filter(),
                            );
                        }
                        layer.update.forward(count, l == last, q, mu, &mut Saved { vectors, hidden, coefficients });
                    },
                );
        }
        q
    }

    /// Per-atom energies in the network's unit, and their gradient with respect to the final scalars (in place of
    /// them).
    fn read_out(&self, q: &mut [T]) -> Vec<T> {
        let f = self.features;
        let atoms = q.len() / f;
        let block = block_size(atoms);
        let mut energies = vec![T::zero(); atoms];
        (q.par_chunks_mut(block * f), energies.par_chunks_mut(block)).into_par_iter().for_each(|(q, energies)| {
            let count = energies.len();
            let deepest = self.readout.len() - 1;
            // Values before each activation.
            let mut hidden: Vec<Vec<T>> = Vec::with_capacity(deepest);
            let mut input = q.to_vec();
            for dense in &self.readout[..deepest] {
                let mut h = vec![T::zero(); count * dense.outputs];
                dense.forward(count, &input, &mut h);
                input = vec![T::zero(); h.len()];
                silu(&h, &mut input);
                hidden.push(h);
            }
            self.readout[deepest].forward(count, &input, energies);
            let mut gradient = vec![T::one(); count];
            for (dense, h) in self.readout[1..].iter().zip(&hidden).rev() {
                let mut before = vec![T::zero(); count * dense.inputs];
                dense.backward(count, &gradient, T::zero(), &mut before);
                silu_backward(h, &mut before);
                gradient = before;
            }
            self.readout[0].backward(count, &gradient, T::zero(), q);
        });
        energies
    }

    /// From the gradient of the final scalars to the gradients of all pairs.
    fn backward(&mut self, mut gq: Vec<T>) -> Vec<PairGradient<T>> {
        let f = self.features;
        let atoms = gq.len() / f;
        let block = block_size(atoms);
        let pairs = &self.pairs;
        let mut gmu = vec![T::zero(); atoms * 3 * f];
        let mut gradients = vec![PairGradient::default(); pairs.pairs.len()];
        for (l, layer) in self.layers.iter().enumerate().rev() {
            let kept = &mut self.kept[l];
            (
                gq.par_chunks_mut(block * f),
                gmu.par_chunks_mut(block * 3 * f),
                kept.vectors.par_chunks_mut(block * 6 * f),
                kept.hidden.par_chunks_mut(block * f),
                kept.coefficients.par_chunks_mut(block * 3 * f),
            )
                .into_par_iter()
                .for_each(|(gq, gmu, vectors, hidden, coefficients)| {
                    layer.update.backward(gq.len() / f, gq, gmu, &Saved { vectors, hidden, coefficients });
                });

            // The gradients at the centres are gathered by everybody: the new ones need room of their own.
            let (mut gq_before, mut gmu_before) = (gq.clone(), gmu.clone());
            let (kept, filters) = (&self.kept[l], &self.filters);
            let rows = split_rows(&mut gradients, &pairs.offsets, block);
            (gq_before.par_chunks_mut(block * f), gmu_before.par_chunks_mut(block * 3 * f), rows)
                .into_par_iter()
                .enumerate()
                .for_each_init(
                    || Scratch::new(f),
                    |scratch, (chunk, (gq_before, gmu_before, gradients))| {
                        let first = chunk * block;
                        let count = gq_before.len() / f;
                        let mut gx = vec![T::zero(); count * 3 * f];
                        for a in 0..count {
                            let atom = first + a;
                            let vectors = atom * 3 * f..(atom + 1) * 3 * f;
                            let base = pairs.offsets[first];
                            message::backward(
                                &Row { filters, layer: l, pairs: pairs.row(atom) },
                                &Sender { x: &kept.x[vectors.clone()], mu: (l > 0).then(|| &kept.mu[vectors]) },
                                (&gq, &gmu),
                                &mut gx[a * 3 * f..(a + 1) * 3 * f],
                                &mut gmu_before[a * 3 * f..(a + 1) * 3 * f],
                                &mut gradients[pairs.offsets[atom] - base..pairs.offsets[atom + 1] - base],
                                scratch,
                            );
                        }
                        // The first layer's scalars are the embedding, which no position changes.
                        if l > 0 {
                            let hidden = kept.context.get(first * f..(first + count) * f).unwrap_or_default();
                            send_backward(layer.context.as_ref(), f, hidden, &gx, gq_before);
                        }
                    },
                );
            (gq, gmu) = (gq_before, gmu_before);
        }
        gradients
    }

    /// From pair gradients to forces and strain derivative, in float64.
    fn collect(&self, gradients: &[PairGradient<T>], forces: &mut Vec<Vector3<f64>>) -> Matrix3<f64> {
        let (pairs, unit, epsilon) = (&self.pairs, self.energy_unit, self.direction_epsilon);
        // ∂E/∂r of the directed pair (neighbour ← centre) of a row entry; its r is −r of the entry.
        let gradient = |p: usize| {
            let pair = &pairs.pairs[p];
            let g = &gradients[p];
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

/// x = W2 σ(W1 q + b1) + b2, or (q, 1, 1) where the architecture sends scalars as they are.
fn send<T: Real>(context: Option<&[Dense<T>; 2]>, (f, block): (usize, usize), q: &[T], hidden: &mut [T], x: &mut [T]) {
    match context {
        Some([first, second]) => {
            (q.par_chunks(block * f), hidden.par_chunks_mut(block * f), x.par_chunks_mut(block * 3 * f))
                .into_par_iter()
                .for_each(|(q, hidden, x)| {
                    let atoms = q.len() / f;
                    first.forward(atoms, q, hidden);
                    let mut active = vec![T::zero(); hidden.len()];
                    silu(hidden, &mut active);
                    second.forward(atoms, &active, x);
                });
        }
        None => {
            for (x, q) in x.chunks_exact_mut(3 * f).zip(q.chunks_exact(f)) {
                x[..f].copy_from_slice(q);
                x[f..].fill(T::one());
            }
        }
    }
}

/// The adjoint of [`send`] for a block of atoms: adds to g_q `[atoms][F]` what x's gradient `[atoms][3F]` makes of it.
fn send_backward<T: Real>(context: Option<&[Dense<T>; 2]>, f: usize, hidden: &[T], gx: &[T], gq: &mut [T]) {
    match context {
        Some([first, second]) => {
            let atoms = gq.len() / f;
            let mut gh = vec![T::zero(); hidden.len()];
            second.backward(atoms, gx, T::zero(), &mut gh);
            silu_backward(hidden, &mut gh);
            first.backward(atoms, &gh, T::one(), gq);
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

impl<T: Real> Potential for NetworkPotential<T> {
    fn evaluate(&mut self, positions: &[Vector3<f64>], cell: &Cell, out: &mut Evaluation) -> Result<()> {
        self.list.update(positions, cell)?;
        let locate = |d| match &self.filters {
            Source::Direct(_) => (0, 0.0),
            Source::Table { grid, .. } => grid.locate(d),
        };
        self.pairs.update(self.list.list(), positions, cell, self.cutoff, self.direction_epsilon, locate)?;
        let mut q = self.forward(positions.len());
        let energies = self.read_out(&mut q);
        out.atom_energies.clear();
        out.atom_energies
            .extend(energies.iter().zip(&self.offsets).map(|(e, offset)| e.wide() * self.energy_unit + offset));
        // The offset is 10⁴ times the network's own energy: each is summed by itself.
        let network: f64 = energies.iter().map(|e| e.wide()).sum();
        out.energy = network * self.energy_unit + self.offsets.iter().sum::<f64>();
        let gradients = self.backward(q);
        out.strain_derivative = self.collect(&gradients, &mut out.forces);
        Ok(())
    }

    fn list(&self) -> (&[Vector3<f64>], u64) {
        (self.list.reference(), self.list.rebuilds())
    }

    fn restore_list(&mut self, positions: &[Vector3<f64>], cell: &Cell, rebuilds: u64) -> Result<()> {
        self.list.restore(positions, cell, rebuilds)
    }
}
