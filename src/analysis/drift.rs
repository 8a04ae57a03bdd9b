//! Conservation of energy: slope with its error, largest excursion, verdict.

use crate::output::Sample;
use crate::units;

/// Consecutive parts that a trajectory is cut into: the means of long parts are independent of each other, so their
/// scatter about the line gives an honest error although neighbouring samples are correlated.
const BLOCKS: usize = 20;

/// Bounds that decide between pass and fail.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Largest |slope| of the conserved energy, kT/ns per degree of freedom.
    pub drift: f64,
    /// Largest distance of the conserved energy from its first value, eV per atom.
    pub excursion: f64,
}

/// Follows the conserved energy of a run.
#[derive(Debug, Clone)]
pub struct Conservation {
    atoms: usize,
    degrees_of_freedom: usize,
    /// Time (fs), conserved energy relative to the first sample (eV).
    points: Vec<(f64, f64)>,
    first: Option<f64>,
    temperature_sum: f64,
    excursion: f64,
}

/// A straight line through the conserved energy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drift {
    /// Slope, eV/fs, of the whole system.
    pub slope: f64,
    /// Standard error of the slope, eV/fs.
    pub error: f64,
}

/// What became of the energy.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Drift of the energy; `None` with fewer than three samples.
    pub drift: Option<Drift>,
    /// max |E − E(0)|, eV per atom.
    pub excursion: f64,
    /// Mean temperature, K.
    pub temperature: f64,
    /// The bounds it was held against.
    pub limits: Limits,
    atoms: usize,
    degrees_of_freedom: usize,
}

impl Conservation {
    /// Nothing seen yet.
    pub fn new(atoms: usize, degrees_of_freedom: usize) -> Self {
        Conservation {
            atoms,
            degrees_of_freedom,
            points: Vec::new(),
            first: None,
            temperature_sum: 0.0,
            excursion: 0.0,
        }
    }

    /// Whether no sample has been seen.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// The conserved energy of the first sample, eV.
    pub fn first(&self) -> Option<f64> {
        self.first
    }

    /// Takes one sample.
    pub fn add(&mut self, sample: &Sample) {
        let first = *self.first.get_or_insert(sample.conserved);
        let deviation = sample.conserved - first;
        self.points.push((sample.time, deviation));
        self.temperature_sum += sample.temperature;
        self.excursion = self.excursion.max(deviation.abs());
    }

    /// Deviation of the last sample from the first, eV per atom.
    pub fn current(&self) -> f64 {
        self.points.last().map_or(0.0, |(_, deviation)| deviation / self.atoms as f64)
    }

    /// Least-squares slope with its standard error, from the means of up to 20 consecutive blocks.
    fn drift(&self) -> Option<Drift> {
        let blocks = BLOCKS.min(self.points.len());
        if blocks < 3 {
            return None;
        }
        let means: Vec<(f64, f64)> = (0..blocks)
            .map(|b| {
                let part = &self.points[b * self.points.len() / blocks..(b + 1) * self.points.len() / blocks];
                let n = part.len() as f64;
                (part.iter().map(|p| p.0).sum::<f64>() / n, part.iter().map(|p| p.1).sum::<f64>() / n)
            })
            .collect();
        let n = means.len() as f64;
        let (mean_t, mean_e) = (means.iter().map(|p| p.0).sum::<f64>() / n, means.iter().map(|p| p.1).sum::<f64>() / n);
        let spread: f64 = means.iter().map(|p| (p.0 - mean_t).powi(2)).sum();
        let slope = means.iter().map(|p| (p.0 - mean_t) * (p.1 - mean_e)).sum::<f64>() / spread;
        let residual: f64 = means.iter().map(|p| (p.1 - mean_e - slope * (p.0 - mean_t)).powi(2)).sum();
        Some(Drift { slope, error: (residual / (n - 2.0) / spread).sqrt() })
    }

    /// The verdict so far.
    pub fn verdict(&self, limits: Limits) -> Verdict {
        Verdict {
            drift: self.drift(),
            excursion: self.excursion / self.atoms as f64,
            temperature: self.temperature_sum / self.points.len().max(1) as f64,
            limits,
            atoms: self.atoms,
            degrees_of_freedom: self.degrees_of_freedom,
        }
    }
}

impl Verdict {
    /// Drift and its standard error in eV/ns per atom.
    pub fn per_atom(&self) -> Option<(f64, f64)> {
        let scale = 1e6 / self.atoms as f64;
        self.drift.map(|d| (d.slope * scale, d.error * scale))
    }

    /// Drift and its standard error in kT/ns per degree of freedom, with the run's mean temperature.
    pub fn per_degree_of_freedom(&self) -> Option<(f64, f64)> {
        let scale = 1e6 / (self.degrees_of_freedom.max(1) as f64 * units::BOLTZMANN * self.temperature);
        self.drift.filter(|_| self.temperature > 0.0).map(|d| (d.slope * scale, d.error * scale))
    }

    /// Whether the energy was conserved as well as the limits ask: the excursion stayed below its bound, and the drift
    /// is not above its bound by more than two standard errors.
    pub fn passed(&self) -> bool {
        let drift =
            self.per_degree_of_freedom().is_none_or(|(slope, error)| slope.abs() - 2.0 * error <= self.limits.drift);
        drift && self.excursion <= self.limits.excursion
    }

    /// Whether the run was long enough to prove that the drift is below its bound.
    pub fn conclusive(&self) -> bool {
        self.per_degree_of_freedom().is_some_and(|(slope, error)| slope.abs() + 2.0 * error <= self.limits.drift)
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let (Some((atom, atom_error)), Some((freedom, freedom_error))) =
            (self.per_atom(), self.per_degree_of_freedom())
        {
            writeln!(f, "energy drift       {atom:+.2e} ± {atom_error:.1e} eV/ns per atom")?;
            writeln!(
                f,
                "                   {freedom:+.2e} ± {freedom_error:.1e} kT/ns per degree of freedom (bound {})",
                self.limits.drift
            )?;
        }
        writeln!(f, "largest excursion  {:.2e} eV per atom (bound {})", self.excursion, self.limits.excursion)?;
        writeln!(f, "mean temperature   {:.1} K", self.temperature)?;
        let word = match (self.passed(), self.conclusive()) {
            (false, _) => "FAIL: the energy is not conserved within the bounds",
            (true, true) => "PASS: the energy is conserved within the bounds",
            (true, false) => {
                "PASS: no drift beyond the bound is seen, but the run is too short to exclude one (two standard errors \
                 are larger than the bound)"
            }
        };
        write!(f, "verdict            {word}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(step: u64, conserved: f64) -> Sample {
        let time = step as f64 * 0.5;
        Sample { step, time, kinetic: 0.0, potential: 0.0, conserved, temperature: 300.0, list_rebuilds: 0 }
    }

    const LIMITS: Limits = Limits { drift: 0.01, excursion: 0.01 };

    /// A known slope under correlated noise comes back within its error, and the error is the right size.
    #[test]
    fn slope_and_error_are_right_under_correlated_noise() {
        let slope = 2e-7;
        let mut pulls = Vec::new();
        for run in 0..200u32 {
            let mut conservation = Conservation::new(10, 27);
            let mut noise = 0.0;
            for step in 0..4000u32 {
                let kick = crate::integrate::philox::normal3(
                    run as u64,
                    crate::integrate::philox::Purpose::InitialVelocities,
                    0,
                    step,
                )[0];
                noise = 0.9 * noise + 1e-3 * kick;
                conservation.add(&sample(step as u64, -4000.0 + slope * step as f64 * 0.5 + noise));
            }
            let drift = conservation.verdict(LIMITS).drift.unwrap();
            pulls.push((drift.slope - slope) / drift.error);
        }
        let variance = pulls.iter().map(|x| x * x).sum::<f64>() / pulls.len() as f64;
        // Student's t with 18 degrees of freedom has the variance 18/16.
        assert!((0.8..1.5).contains(&variance), "{variance}");
    }

    #[test]
    fn units_of_the_drift() {
        let mut conservation = Conservation::new(10, 27);
        for step in 0..100 {
            conservation.add(&sample(step, 1e-6 * step as f64 * 0.5));
        }
        let verdict = conservation.verdict(LIMITS);
        let (atom, _) = verdict.per_atom().unwrap();
        assert!((atom - 0.1).abs() < 1e-9, "{atom}");
        let (freedom, _) = verdict.per_degree_of_freedom().unwrap();
        assert!((freedom - 1.0 / (27.0 * units::BOLTZMANN * 300.0)).abs() < 1e-6);
        assert!(!verdict.passed() && !verdict.conclusive());
    }

    #[test]
    fn a_constant_energy_passes_and_a_jump_fails() {
        let mut conservation = Conservation::new(2, 3);
        for step in 0..50 {
            conservation.add(&sample(step, -1.0));
        }
        assert!(conservation.verdict(LIMITS).passed() && conservation.verdict(LIMITS).conclusive());
        conservation.add(&sample(50, -0.9));
        assert!(!conservation.verdict(LIMITS).passed());
    }

    #[test]
    fn too_few_samples_give_no_slope() {
        let mut conservation = Conservation::new(2, 3);
        conservation.add(&sample(0, -1.0));
        let verdict = conservation.verdict(LIMITS);
        assert!(verdict.drift.is_none() && verdict.passed() && !verdict.conclusive());
    }
}
