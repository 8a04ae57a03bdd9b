//! From the gradients of pairs to forces and strain derivative, in float64.

use super::aligned::Parts;
use super::geometry::{Pair, Pairs};
use super::message::PairGradient;
use super::real::Real;
use nalgebra::{Matrix3, Vector3};
use rayon::prelude::*;

/// Writes the forces, eV/Å, and returns the strain derivative, eV.
///
/// `gradients`: those of all pairs, one after the other for each group of channels; `vectors` is memory. û = r / (d +
/// `epsilon`); an energy of the network counts `unit` eV.
pub(super) fn collect<T: Real>(
    pairs: &Pairs<T>,
    gradients: &[PairGradient<T>],
    (epsilon, unit): (f64, f64),
    vectors: &mut Vec<Vector3<f64>>,
    forces: &mut Vec<Vector3<f64>>,
) -> Matrix3<f64> {
    let (atoms, count) = (pairs.offsets.len() - 1, pairs.len());
    let groups = gradients.len().checked_div(count).unwrap_or(0);
    // ∂E/∂r, with r from the row's atom to its neighbour, of the pair p at a distance of d, from which the network sees
    // another one with this slope.
    let vector = |p: usize, pair: &Pair<T>, d: f64, slope: f64| -> Vector3<f64> {
        let (mut along, mut across) = (0.0, Vector3::zeros());
        for group in 0..groups {
            let gradient = &gradients[group * count + p];
            along += gradient.distance.wide();
            across += Vector3::from(gradient.direction.map(T::wide));
        }
        along *= slope;
        let u = Vector3::from(pair.direction.map(T::wide));
        // û = r / (d + ε):  g_r = g_d r/d + (g_û − (g_û·û) r/d) / (d + ε)
        let radial = u * ((d + epsilon) / d);
        (radial * (along - across.dot(&u) / (d + epsilon)) + across / (d + epsilon)) * unit
    };
    vectors.resize(count, Vector3::zeros());
    let (mut parts, mut first) = (Parts(&mut *vectors), 0);
    let mut tasks = Vec::new();
    for pairs in pairs.blocks() {
        tasks.push((first, pairs, parts.take(pairs.len())));
        first += pairs.len();
    }
    tasks.into_par_iter().for_each(|(first, pairs, vectors)| {
        for (n, (pair, to)) in pairs.iter().zip(vectors).enumerate() {
            *to = vector(first + n, pair, pair.distance.wide(), 1.0);
        }
    });
    let mut strain = Matrix3::zeros();
    // Few, if any.
    for near in pairs.near.iter().filter(|near| near.slope < 1.0) {
        let pair = pairs.near(near);
        vectors[near.pair] = vector(near.pair, pair, near.distance, near.slope);
        let u = Vector3::from(pair.direction.map(T::wide));
        strain += u * (near.distance - pair.distance.wide()) * vectors[near.pair].transpose();
    }
    forces.clear();
    forces.resize(atoms, Vector3::zeros());
    let strains: Vec<Matrix3<f64>> = forces
        .par_chunks_mut(pairs.chunk)
        .enumerate()
        .map(|(chunk, forces)| {
            let first = chunk * pairs.chunk;
            let mut strain = Matrix3::zeros();
            for a in 0..forces.len() {
                let (row, [shared, len]) = pairs.row(first + a);
                let vectors_here = &vectors[pairs.offsets[first + a]..];
                for (n, (pair, g)) in row.iter().zip(vectors_here).take(len).enumerate() {
                    forces[a] += g;
                    if n < shared {
                        forces[pair.neighbor as usize - first] -= g;
                    } else {
                        forces[a] -= vectors[pairs.reverse(pair)];
                    }
                    let r = Vector3::from(pair.direction.map(T::wide)) * (pair.distance.wide() + epsilon);
                    strain += r * g.transpose();
                }
            }
            strain
        })
        .collect();
    strains.iter().fold(strain, |sum, own| sum + own)
}
