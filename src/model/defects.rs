//! What users of a `student` network must know.

use super::{Model, Update};
use nalgebra::Matrix3;

/// The three defects that belong to the `student` architecture, with numbers from one file's weights. They are
/// reproduced, not repaired: a user's weights must give the user's energies.
#[derive(Debug, Clone)]
pub struct StudentDefects {
    /// max |W(r_c)| of each layer: nonzero, so the energy jumps when a pair crosses the cutoff.
    pub filter_at_cutoff: Vec<f64>,
    /// Largest element of T − (tr T / 3) 1 of each mixing matrix: nonzero, so the energy depends on orientation.
    pub anisotropy: Vec<f64>,
    /// Largest weight on |μ| of each layer: nonzero, so forces are undefined where μ vanishes by symmetry.
    pub weight_on_norm: Vec<f64>,
}

fn largest<'a>(values: impl IntoIterator<Item = &'a f64>) -> f64 {
    values.into_iter().fold(0.0, |a, b| a.max(b.abs()))
}

impl StudentDefects {
    pub(super) fn of(model: &Model) -> Self {
        let filter = &model.filter;
        let (mut w, mut dw) = (vec![0.0; filter.width()], vec![0.0; filter.width()]);
        let filter_at_cutoff = (0..filter.layers())
            .map(|layer| {
                filter.evaluate(layer, filter.cutoff(), &mut w, &mut dw);
                largest(&w)
            })
            .collect();
        let mut anisotropy = Vec::new();
        let mut weight_on_norm = Vec::new();
        for layer in &model.layers {
            if let Update::Cartesian { context, mixing } = &layer.update {
                anisotropy.extend(mixing.map(|t| largest(&(t - Matrix3::identity() * (t.trace() / 3.0)))));
                let half = model.features();
                weight_on_norm.push(largest(context[0].weight.chunks_exact(2 * half).flat_map(|row| &row[half..])));
            }
        }
        StudentDefects { filter_at_cutoff, anisotropy, weight_on_norm }
    }
}

impl std::fmt::Display for StudentDefects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |values: &[f64]| values.iter().map(|x| format!("{x:.3}")).collect::<Vec<_>>().join(", ");
        write!(
            f,
            "this is a student network, which has three defects by construction; its energies are reproduced as they \
             are. (1) Its filters do not vanish at the cutoff (largest |W| there, by layer: {}), so the energy jumps \
             whenever a pair crosses it and is not conserved. (2) Its mixing matrices act on the Cartesian axes \
             (largest deviation from a multiple of the identity: {}), so the energy changes when the molecule is \
             rotated. (3) It uses |μ| without smoothing (largest weight on it: {}), so forces are undefined at an \
             atom whose surroundings are symmetric.",
            list(&self.filter_at_cutoff),
            list(&self.anisotropy),
            list(&self.weight_on_norm)
        )
    }
}
