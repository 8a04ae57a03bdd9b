//! Radial filters W(d), evaluated directly in float64: the oracle for the tables.

use super::{Dense, RadialBasis};

/// The filters of all layers: functions of the distance alone.
///
/// Made of the radial functions φ_k and of f_c(d) = ½ (cos(π d / r_c) + 1), zero from r_c on.
#[derive(Debug, Clone)]
pub struct RadialFilter {
    cutoff: f64,
    basis: RadialBasis,
    /// One a layer, or one for all of them.
    maps: Vec<RadialMap>,
    layers: usize,
}

/// How one layer turns the radial functions into 3F filters, in thirds: for scalars, directions, vectors.
#[derive(Debug, Clone)]
pub struct RadialMap {
    /// B1, β1 of W = B2 σ(B1 (φ f_c) + β1) + β2; without it W = (A φ + b) f_c.
    hidden: Option<Columns>,
    output: Columns,
}

/// A dense layer with its weights by columns: sums over inputs then run along the outputs, which vector units can do.
#[derive(Debug, Clone)]
struct Columns {
    outputs: usize,
    /// `[inputs][outputs]`.
    weight: Vec<f64>,
    bias: Vec<f64>,
}

/// A filter W = (A φ + b) f_c with φ_k = exp(−γ_k (d − m_k)²).
#[derive(Debug, Clone, Copy)]
pub struct GaussianFilter<'a> {
    /// m_k, Å.
    pub centers: &'a [f64],
    /// γ_k, Å⁻².
    pub gammas: &'a [f64],
    /// A, `[K][3F]`.
    pub weight: &'a [f64],
    /// b, `[3F]`.
    pub bias: &'a [f64],
}

impl Columns {
    fn new(dense: &Dense) -> Self {
        let weight = (0..dense.inputs * dense.outputs)
            .map(|at| dense.weight[at % dense.outputs * dense.inputs + at / dense.outputs])
            .collect();
        Columns { outputs: dense.outputs, weight, bias: dense.bias.clone() }
    }

    /// Some of the outputs, in a new order; zero where there is none.
    fn select(&self, outputs: &[Option<usize>]) -> Self {
        let pick = |row: &[f64]| outputs.iter().map(|o| o.map_or(0.0, |o| row[o])).collect::<Vec<f64>>();
        let weight = self.weight.chunks_exact(self.outputs).flat_map(pick).collect();
        Columns { outputs: outputs.len(), weight, bias: pick(&self.bias) }
    }

    /// y = W x + b.
    fn apply(&self, x: &[f64], y: &mut [f64]) {
        y.copy_from_slice(&self.bias);
        self.add(x, y);
    }

    /// y = W x.
    fn apply_without_bias(&self, x: &[f64], y: &mut [f64]) {
        y.fill(0.0);
        self.add(x, y);
    }

    fn add(&self, x: &[f64], y: &mut [f64]) {
        for (column, x) in self.weight.chunks_exact(self.outputs).zip(x) {
            for (y, w) in y.iter_mut().zip(column) {
                *y += w * x;
            }
        }
    }
}

impl RadialMap {
    /// W = (A φ + b) f_c: zero at the cutoff, with its first derivative.
    pub(super) fn linear(output: &Dense) -> Self {
        RadialMap { hidden: None, output: Columns::new(output) }
    }

    /// W = B2 σ(B1 (φ f_c) + β1) + β2: in general not zero at the cutoff.
    pub(super) fn with_hidden_layer(hidden: &Dense, output: &Dense) -> Self {
        RadialMap { hidden: Some(Columns::new(hidden)), output: Columns::new(output) }
    }
}

/// σ(x) = x / (1 + e^−x) and its derivative.
fn silu(x: f64) -> (f64, f64) {
    let s = 1.0 / (1.0 + (-x).exp());
    (x * s, s * (1.0 + x * (1.0 - s)))
}

impl RadialFilter {
    /// `maps`: one a layer, or one that all `layers` share. Lengths in Å.
    pub(super) fn new(cutoff: f64, basis: RadialBasis, maps: Vec<RadialMap>, layers: usize) -> Self {
        debug_assert!(maps.len() == 1 || maps.len() == layers);
        RadialFilter { cutoff, basis, maps, layers }
    }

    /// r_c, Å.
    pub fn cutoff(&self) -> f64 {
        self.cutoff
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// Number of layers whose filters differ: 1 when all layers share one filter.
    pub fn distinct(&self) -> usize {
        self.maps.len()
    }

    /// Filters a layer: 3F.
    pub fn width(&self) -> usize {
        self.maps[0].output.outputs
    }

    /// W and dW/dd of one layer at the distance `d` (Å), 3F numbers each.
    pub fn evaluate(&self, layer: usize, d: f64, w: &mut [f64], dw: &mut [f64]) {
        let x = std::f64::consts::PI / self.cutoff;
        let (fc, dfc) = (0.5 * ((x * d).cos() + 1.0), -0.5 * x * (x * d).sin());
        let (phi, dphi) = self.basis.evaluate(d);
        let map = &self.maps[if self.maps.len() == 1 { 0 } else { layer }];
        match &map.hidden {
            None => {
                map.output.apply(&phi, w);
                map.output.apply_without_bias(&dphi, dw);
                for (w, dw) in w.iter_mut().zip(dw) {
                    (*w, *dw) = (*w * fc, *dw * fc + *w * dfc);
                }
            }
            Some(hidden) => {
                let psi: Vec<f64> = phi.iter().map(|p| p * fc).collect();
                let dpsi: Vec<f64> = phi.iter().zip(&dphi).map(|(p, dp)| dp * fc + p * dfc).collect();
                let (mut h, mut dh) = (vec![0.0; hidden.outputs], vec![0.0; hidden.outputs]);
                hidden.apply(&psi, &mut h);
                hidden.apply_without_bias(&dpsi, &mut dh);
                for (h, dh) in h.iter_mut().zip(&mut dh) {
                    let (value, slope) = silu(*h);
                    (*h, *dh) = (value, slope * *dh);
                }
                map.output.apply(&h, w);
                map.output.apply_without_bias(&dh, dw);
            }
        }
    }

    /// One layer's filter, if it is W = (A φ + b) f_c with Gaussians φ.
    pub fn gaussian(&self, layer: usize) -> Option<GaussianFilter<'_>> {
        let map = &self.maps[if self.maps.len() == 1 { 0 } else { layer }];
        match (&self.basis, &map.hidden) {
            (RadialBasis::Gaussian { centers, gammas }, None) => {
                Some(GaussianFilter { centers, gammas, weight: &map.output.weight, bias: &map.output.bias })
            }
            _ => None,
        }
    }

    /// The filter with some of its 3F outputs alone, in a new order; zero where there is none.
    pub(crate) fn select(&self, outputs: &[Option<usize>]) -> Self {
        let maps =
            self.maps.iter().map(|map| RadialMap { hidden: map.hidden.clone(), output: map.output.select(outputs) });
        RadialFilter { maps: maps.collect(), ..self.clone() }
    }

    /// Number of weights.
    pub(super) fn parameters(&self) -> usize {
        let dense = |d: &Columns| d.weight.len() + d.bias.len();
        self.maps.iter().map(|map| dense(&map.output) + map.hidden.as_ref().map_or(0, dense)).sum()
    }
}
