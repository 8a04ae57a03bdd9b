//! The two precisions of the network.

use super::network::Passes;
use super::simd::{Isa, Vector};
use num_traits::{Float, NumAssign};

/// `f32` or `f64`.
pub trait Real:
    Passes + Float + NumAssign + Default + std::fmt::Debug + std::iter::Sum + Send + Sync + 'static
{
    /// `"f32"` or `"f64"`.
    const NAME: &'static str;

    /// Numbers in 64 bytes: outputs of a dense layer that are computed together.
    const PANEL: usize;

    /// Vectors of this precision under an instruction set.
    type Vector<I: Isa>: Vector<Self>;

    /// Narrows a float64.
    fn of(value: f64) -> Self;

    /// Widens to float64.
    fn wide(self) -> f64;

    /// e^x to the last digits of the precision.
    fn exponential(self) -> Self;
}

/// The constants of the exponential of a float32.
pub(super) struct Exp {
    /// Largest |x|.
    pub limit: f32,
    /// Adding and subtracting 1.5·2²³ rounds to a whole number.
    pub round: f32,
    /// ln 2 in two parts: the first has so few bits that its product with n is exact.
    pub ln_2: [f32; 2],
    /// Taylor's series from r⁷ down to 1.
    pub series: [f32; 8],
}

pub(super) const EXP: Exp = Exp {
    limit: 87.0,
    round: 12_582_912.0,
    ln_2: [0.693_359_4, -2.121_944_4e-4],
    series: [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0],
};

impl Real for f32 {
    const NAME: &'static str = "f32";
    const PANEL: usize = 16;
    type Vector<I: Isa> = I::F32;

    #[inline(always)]
    fn of(value: f64) -> Self {
        value as f32
    }

    #[inline(always)]
    fn wide(self) -> f64 {
        self as f64
    }

    /// e^x = 2^n e^r with n = round(x / ln 2) and |r| ≤ ½ ln 2, where Taylor's series to r⁷ is within 6e-9 of e^r.
    /// Saturates at about e^±87.
    #[inline(always)]
    fn exponential(self) -> Self {
        let x = self.clamp(-EXP.limit, EXP.limit);
        let n = (x * std::f32::consts::LOG2_E + EXP.round) - EXP.round;
        let r = (x - n * EXP.ln_2[0]) - n * EXP.ln_2[1];
        let power = EXP.series[1..].iter().fold(EXP.series[0], |sum, c| sum * r + c);
        f32::from_bits(power.to_bits().wrapping_add(((n as i32) << 23) as u32))
    }
}

impl Real for f64 {
    const NAME: &'static str = "f64";
    const PANEL: usize = 8;
    type Vector<I: Isa> = I::F64;

    #[inline(always)]
    fn of(value: f64) -> Self {
        value
    }

    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }

    #[inline(always)]
    fn exponential(self) -> Self {
        self.exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_good_to_the_last_digit() {
        let mut worst = 0.0f64;
        for n in -870_000..=870_000 {
            let x = n as f32 * 1e-4;
            let exact = (x as f64).exp();
            worst = worst.max(((x.exponential() as f64) / exact - 1.0).abs());
        }
        assert!(worst < 2.0 * f32::EPSILON as f64, "{worst:e}");
        assert_eq!(0.0f32.exponential(), 1.0);
        assert!((-1e9f32).exponential() < 1e-37 && 1e9f32.exponential().is_finite());
    }
}
