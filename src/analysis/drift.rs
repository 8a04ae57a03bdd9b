//! Conservation of energy: slope with its margin, largest excursion, verdict.
//!
//! Neither the scatter of the energy about a line nor its correlation within the run says how far a short run's slope is
//! from the drift. At constant energy the energy differs from what the integrator does conserve by a term that follows the
//! vibrations, and in a heat bath every exchange of heat leaves a part of that term behind: the energy then walks, bounded
//! only over times that may be longer than the run. So the steps between the means of blocks are what counts as independent,
//! not the means: that is right for an energy that walks, and more than enough for one that stays.

use crate::output::Sample;
use crate::units;

/// Consecutive parts of equal length that a run is cut into.
const BLOCKS: usize = 10;
/// Fewest rows of the energy log that are judged.
const FEWEST: usize = 50;
/// Standard errors of the mean step, as if steps were independent, that hold the slope of a random walk in 999 of 1000 runs.
/// Student's t with eight degrees of freedom would be 5.0; but steps between means of a walk are correlated.
const MARGIN: f64 = 6.4;
/// Times that the steps must change from one side of the slope to the other. With fewer the energy bends: what is seen is a
/// part of an oscillation that is slower than the run.
const TURNS: usize = 3;

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
    /// The drift is further from the slope in at most one run of a thousand, eV/fs.
    pub margin: f64,
    /// Whether the energy does more than bend once.
    straight: bool,
}

/// What a verdict says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// Drift and excursion are within their bounds.
    Pass,
    /// The drift, or the excursion, is beyond its bound.
    Fail,
    /// The run is too short to tell.
    Inconclusive,
}

/// What became of the energy.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Drift of the energy; `None` with fewer than 50 samples.
    pub drift: Option<Drift>,
    /// max |E − E(0)|, eV per atom.
    pub excursion: f64,
    /// Mean temperature, K.
    pub temperature: f64,
    /// The bounds it was held against.
    pub limits: Limits,
    samples: usize,
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

    /// Slope of the straight line through the means of blocks, and what it is worth.
    fn drift(&self) -> Option<Drift> {
        if self.points.len() < FEWEST {
            return None;
        }
        let means: [(f64, f64); BLOCKS] = std::array::from_fn(|b| {
            let part = &self.points[b * self.points.len() / BLOCKS..(b + 1) * self.points.len() / BLOCKS];
            let n = part.len() as f64;
            (part.iter().map(|p| p.0).sum::<f64>() / n, part.iter().map(|p| p.1).sum::<f64>() / n)
        });
        let n = BLOCKS as f64;
        let (mean_t, mean_e) = (means.iter().map(|p| p.0).sum::<f64>() / n, means.iter().map(|p| p.1).sum::<f64>() / n);
        let spread: f64 = means.iter().map(|p| (p.0 - mean_t).powi(2)).sum();
        let slope = means.iter().map(|p| (p.0 - mean_t) * (p.1 - mean_e)).sum::<f64>() / spread;
        // How much further than the line each step goes.
        let steps: Vec<f64> = means.windows(2).map(|w| w[1].1 - w[0].1 - slope * (w[1].0 - w[0].0)).collect();
        let scatter = (steps.iter().map(|step| step * step).sum::<f64>() / (n - 2.0)).sqrt();
        let error = scatter * (n - 1.0).sqrt() / (means[BLOCKS - 1].0 - means[0].0);
        let turns = steps.windows(2).filter(|w| w[0] * w[1] <= 0.0).count();
        Some(Drift { slope, margin: MARGIN * error, straight: turns >= TURNS })
    }

    /// The verdict so far.
    pub fn verdict(&self, limits: Limits) -> Verdict {
        Verdict {
            drift: self.drift(),
            excursion: self.excursion / self.atoms as f64,
            temperature: self.temperature_sum / self.points.len().max(1) as f64,
            limits,
            samples: self.points.len(),
            atoms: self.atoms,
            degrees_of_freedom: self.degrees_of_freedom,
        }
    }
}

impl Verdict {
    /// Drift and its margin in eV/ns per atom.
    pub fn per_atom(&self) -> Option<(f64, f64)> {
        let scale = 1e6 / self.atoms as f64;
        self.drift.map(|d| (d.slope * scale, d.margin * scale))
    }

    /// Drift and its margin in kT/ns per degree of freedom, with the run's mean temperature.
    pub fn per_degree_of_freedom(&self) -> Option<(f64, f64)> {
        let scale = 1e6 / (self.degrees_of_freedom.max(1) as f64 * units::BOLTZMANN * self.temperature);
        self.drift.filter(|_| self.temperature > 0.0).map(|d| (d.slope * scale, d.margin * scale))
    }

    /// Whether the energy was conserved as well as the limits ask, as far as that can be known.
    pub fn judgement(&self) -> Judgement {
        if self.excursion > self.limits.excursion {
            return Judgement::Fail;
        }
        let Some((slope, margin)) = self.per_degree_of_freedom() else { return Judgement::Inconclusive };
        if slope.abs() + margin <= self.limits.drift {
            Judgement::Pass
        } else if slope.abs() - margin > self.limits.drift && self.drift.is_some_and(|drift| drift.straight) {
            Judgement::Fail
        } else {
            Judgement::Inconclusive
        }
    }

    /// Why nothing can be said, and what helps.
    fn advice(&self) -> String {
        match self.per_degree_of_freedom() {
            None if self.samples < FEWEST => format!(
                "the energy log is too short to judge it, {} of {FEWEST} rows: run for longer, or lower output.energy.interval",
                self.samples
            ),
            None => "nothing moves".into(),
            Some((_, margin)) => {
                // In practice the margin goes with the inverse of the time: more slowly while the energy walks, faster later.
                let longer = (margin / self.limits.drift).max(2.0);
                let digit = 10f64.powf(longer.log10().floor());
                let longer = (longer / digit).ceil() * digit;
                let times = if longer < 1e4 { format!("some {longer:.0} times as long") } else { "far longer".into() };
                format!("the run is too short to judge its energy; one {times} may tell")
            }
        }
    }
}

impl Judgement {
    /// In one word, the same everywhere.
    pub fn word(self) -> &'static str {
        match self {
            Judgement::Pass => "PASS",
            Judgement::Fail => "FAIL",
            Judgement::Inconclusive => "INCONCLUSIVE",
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let (Some((atom, atom_margin)), Some((freedom, freedom_margin))) =
            (self.per_atom(), self.per_degree_of_freedom())
        {
            writeln!(f, "energy drift       {atom:+.2e} ± {atom_margin:.1e} eV/ns per atom")?;
            writeln!(
                f,
                "                   {freedom:+.2e} ± {freedom_margin:.1e} kT/ns per degree of freedom (bound {})",
                self.limits.drift
            )?;
        }
        writeln!(f, "largest excursion  {:.2e} eV per atom (bound {})", self.excursion, self.limits.excursion)?;
        writeln!(f, "mean temperature   {:.1} K", self.temperature)?;
        let judgement = self.judgement();
        let sentence = match judgement {
            Judgement::Pass => "the energy is conserved within the bounds".into(),
            Judgement::Fail => "the energy is not conserved within the bounds".into(),
            Judgement::Inconclusive => self.advice(),
        };
        write!(f, "verdict            {}: {sentence}", judgement.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::integrate::philox::{Purpose, normal3};

    fn sample(step: u64, conserved: f64) -> Sample {
        let time = step as f64 * 0.5;
        Sample { step, time, kinetic: 0.0, potential: 0.0, conserved, temperature: 300.0, list_rebuilds: 0 }
    }

    const LIMITS: Limits = Limits { drift: 0.01, excursion: 0.01 };

    /// Standard normal deviates, the same in every run of the tests.
    fn normal(run: u64, row: u32) -> f64 {
        normal3(run, Purpose::InitialVelocities, 0, row)[0]
    }

    /// The judgements of many runs, of some rows each, of an energy (kT per degree of freedom) as a function of the part of the
    /// run that is over, and of noise: that of a system of ten atoms at 300 K in a run of 1 ps.
    fn judgements(
        runs: u64,
        rows: u32,
        energy: impl Fn(u64, f64) -> f64,
        mut noise: impl FnMut(u64, u32) -> f64,
    ) -> [usize; 3] {
        let unit = 27.0 * units::BOLTZMANN * 300.0;
        let mut counts = [0; 3];
        for run in 0..runs {
            let mut conservation = Conservation::new(10, 27);
            for row in 0..rows {
                let part = row as f64 / rows as f64;
                let conserved = -4000.0 + unit * (energy(run, part) + noise(run, row));
                conservation.add(&Sample { conserved, time: 1000.0 * part, temperature: 300.0, ..Sample::default() });
            }
            let verdict = conservation.verdict(Limits { drift: 1.0, excursion: 1e9 });
            counts[verdict.judgement() as usize] += 1;
        }
        counts
    }

    /// What is correlated over `time` rows, of variance 1.
    fn correlated(time: f64) -> impl FnMut(u64, u32) -> f64 {
        let keep = (-1.0 / time).exp();
        let mut value = 0.0;
        move |run, row| {
            let kick = normal(run, row);
            value = if row == 0 { kick } else { keep * value + (1.0 - keep * keep).sqrt() * kick };
            value
        }
    }

    /// One run of a thousand may be judged wrongly, whatever the noise. Here it is a thousand times what the bound allows.
    #[test]
    fn noise_is_no_drift() {
        let runs = 4000;
        let wrong = |name: &str, counts: [usize; 3]| {
            let [pass, fail, inconclusive] = counts;
            assert!(fail <= 8 && pass == 0 && inconclusive > 0, "{name}: {counts:?}");
        };
        for rows in [FEWEST as u32, 400] {
            wrong("white", judgements(runs, rows, |_, _| 0.0, normal));
            for part in [0.02, 0.1, 0.3, 1.0] {
                wrong("correlated", judgements(runs, rows, |_, _| 0.0, correlated(part * rows as f64)));
            }
            let mut walk = 0.0;
            let walk = judgements(
                runs,
                rows,
                |_, _| 0.0,
                |run, row| {
                    walk = if row == 0 { 0.0 } else { walk + normal(run, row) };
                    walk
                },
            );
            wrong("walk", walk);
            // From an eighth of a period on, with any phase, and a little of something else.
            let slow = |run: u64, part: f64| {
                let periods = 0.125 * (1.0 + (run % 40) as f64);
                (std::f64::consts::TAU * (periods * part + run as f64 * 0.618)).sin()
            };
            wrong("sine", judgements(runs, rows, slow, |run, row| 1e-3 * normal(run, row)));
        }
    }

    /// In 1 ps the bound is a slope of 1e-3.
    #[test]
    fn a_drift_is_found_and_a_bound_is_kept() {
        let line = |slope: f64| move |_: u64, part: f64| slope * part;
        for sign in [-1.0, 1.0] {
            let white = |run, row| 1e-5 * normal(run, row);
            assert_eq!(judgements(300, 1000, line(sign * 0.9e-3), white)[Judgement::Pass as usize], 300);
            // What bends by chance is left undecided.
            let counts = judgements(300, 1000, line(sign * 1.1e-3), white);
            assert!(counts[Judgement::Fail as usize] > 285 && counts[Judgement::Pass as usize] == 0, "{counts:?}");
            let mut noise = correlated(10.0);
            let counts = judgements(300, 1000, line(sign * 3e-3), |run, row| 1e-4 * noise(run, row));
            assert!(counts[Judgement::Fail as usize] > 270 && counts[Judgement::Pass as usize] == 0, "{counts:?}");
            let mut walk = 0.0;
            let counts = judgements(300, 1000, line(sign * 5e-3), |run, row| {
                walk = if row == 0 { 0.0 } else { walk + 1e-5 * normal(run, row) };
                walk
            });
            assert!(counts[Judgement::Fail as usize] > 225 && counts[Judgement::Pass as usize] == 0, "{counts:?}");
        }
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
        let (freedom, margin) = verdict.per_degree_of_freedom().unwrap();
        assert!((freedom - 1.0 / (27.0 * units::BOLTZMANN * 300.0)).abs() < 1e-6 && margin < 1e-6);
    }

    #[test]
    fn a_constant_energy_passes_and_a_jump_fails() {
        let mut conservation = Conservation::new(2, 3);
        for step in 0..50 {
            conservation.add(&sample(step, -1.0));
        }
        assert_eq!(conservation.verdict(LIMITS).judgement(), Judgement::Pass);
        conservation.add(&sample(50, -0.9));
        assert_eq!(conservation.verdict(LIMITS).judgement(), Judgement::Fail);
    }

    /// An excursion fails at any time; nothing else is said before there are rows enough.
    #[test]
    fn few_samples_are_not_judged() {
        let mut conservation = Conservation::new(2, 3);
        for step in 0..49 {
            conservation.add(&sample(step, -1.0));
            let verdict = conservation.verdict(LIMITS);
            assert!(verdict.drift.is_none() && verdict.judgement() == Judgement::Inconclusive);
            let text = verdict.to_string();
            let rows = step + 1;
            assert!(
                text.contains(&format!("INCONCLUSIVE: the energy log is too short to judge it, {rows} of 50 rows")),
                "{text}"
            );
        }
        let mut jumped = conservation.clone();
        jumped.add(&sample(49, -0.9));
        assert_eq!(jumped.verdict(LIMITS).judgement(), Judgement::Fail);
        conservation.add(&sample(49, -1.0));
        assert_eq!(conservation.verdict(LIMITS).judgement(), Judgement::Pass);
    }

    #[test]
    fn what_stands_still_is_not_judged() {
        let mut conservation = Conservation::new(1, 0);
        for step in 0..100 {
            conservation.add(&Sample { temperature: 0.0, ..sample(step, -1.0) });
        }
        let text = conservation.verdict(LIMITS).to_string();
        assert!(text.ends_with("INCONCLUSIVE: nothing moves"), "{text}");
    }

    /// How much longer a run should be has one digit, and is never less than twice.
    #[test]
    fn too_short_a_run_says_how_long_it_should_be() {
        let mut conservation = Conservation::new(10, 27);
        for step in 0..400 {
            conservation.add(&sample(step, 1e-4 * normal(1, step as u32)));
        }
        let (slope, margin) = conservation.verdict(LIMITS).per_degree_of_freedom().unwrap();
        for (drift, times) in [(0.99 * (slope.abs() + margin), "2"), (margin / 4.5, "5"), (margin / 123.0, "200")] {
            let text = conservation.verdict(Limits { drift, excursion: 1e9 }).to_string();
            let wanted =
                format!("INCONCLUSIVE: the run is too short to judge its energy; one some {times} times as long");
            assert!(text.contains(&wanted), "{text}");
        }
        assert!(conservation.verdict(Limits { drift: 0.0, excursion: 1e9 }).to_string().contains("far longer"));
    }
}
