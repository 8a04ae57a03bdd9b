//! Radial functions φ_k(d): what the filters are made of.

/// The radial functions of a network, with lengths in Å.
#[derive(Debug, Clone)]
pub enum RadialBasis {
    /// φ_k(d) = exp(−γ_k (d − m_k)²).
    Gaussian {
        /// m_k, Å.
        centers: Vec<f64>,
        /// γ_k, Å⁻².
        gammas: Vec<f64>,
    },
    /// φ_k(d) = s sin(ω_k d) / d, spherical Bessel functions of order zero (Klicpera, Groß & Günnemann, ICLR 2020, without
    /// their norm √(2/r_c), as in SchNetPack 2).
    Bessel {
        /// ω_k, 1/Å; k π / r_c in a fresh network.
        frequencies: Vec<f64>,
        /// s, Å: one unit of length of the network, since its φ_k is measured in the inverse of that unit.
        scale: f64,
    },
}

impl RadialBasis {
    /// All φ_k and dφ_k/dd at the distance `d` (Å).
    pub(super) fn evaluate(&self, d: f64) -> (Vec<f64>, Vec<f64>) {
        match self {
            RadialBasis::Gaussian { centers, gammas } => centers
                .iter()
                .zip(gammas)
                .map(|(m, gamma)| {
                    let phi = (-gamma * (d - m).powi(2)).exp();
                    (phi, -2.0 * gamma * (d - m) * phi)
                })
                .unzip(),
            RadialBasis::Bessel { frequencies, scale } => frequencies
                .iter()
                .map(|omega| {
                    let (j, slope) = spherical_bessel(omega * d);
                    (scale * omega * j, scale * omega * omega * slope)
                })
                .unzip(),
        }
    }
}

/// j₀(t) = sin(t) / t and its derivative, also where both are quotients of small numbers.
fn spherical_bessel(t: f64) -> (f64, f64) {
    if t.abs() >= 0.3 {
        let j = t.sin() / t;
        return (j, (t.cos() - j) / t);
    }
    // j₀ = Σ (−t²)ⁿ / (2n + 1)!; the terms left out are below 1e-18.
    let (mut value, mut slope, mut term) = (1.0, 0.0, 1.0);
    for n in 1..8 {
        let m = (2 * n) as f64;
        // The derivative of the next term, by the term before it.
        slope -= term * t / (m + 1.0);
        term *= -t * t / (m * (m + 1.0));
        value += term;
    }
    (value, slope)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bessel_functions_are_sin_over_d_and_smooth_at_zero() {
        let basis = RadialBasis::Bessel { frequencies: vec![0.7, 5.0], scale: 2.0 };
        for d in [0.02f64, 0.055, 0.065, 0.4, 0.45, 3.0] {
            let (phi, dphi) = basis.evaluate(d);
            for (k, omega) in [0.7f64, 5.0].into_iter().enumerate() {
                let h = 1e-4;
                let exact = |d: f64| 2.0 * (omega * d).sin() / d;
                assert!((phi[k] - exact(d)).abs() < 1e-13);
                let numeric =
                    (8.0 * (exact(d + h) - exact(d - h)) - exact(d + 2.0 * h) + exact(d - 2.0 * h)) / (12.0 * h);
                assert!((dphi[k] - numeric).abs() < 1e-8, "{d} {omega}: {} {numeric}", dphi[k]);
            }
        }
        assert_eq!(basis.evaluate(0.0), (vec![1.4, 10.0], vec![0.0, 0.0]));
    }

    /// The series and the quotient meet without a step.
    #[test]
    fn the_series_continues_the_quotient() {
        let (below, above) = (spherical_bessel(0.3f64.next_down()), spherical_bessel(0.3));
        assert!((below.0 - above.0).abs() < 1e-15 && (below.1 - above.1).abs() < 1e-15);
    }
}
