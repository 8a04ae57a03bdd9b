//! The two precisions of the network.

use super::network::Passes;
use num_traits::{Float, NumAssign};

/// `f32` or `f64`.
pub trait Real:
    Passes + Float + NumAssign + Default + std::fmt::Debug + std::iter::Sum + Send + Sync + 'static
{
    /// `"f32"` or `"f64"`.
    const NAME: &'static str;

    /// Narrows a float64.
    fn of(value: f64) -> Self;

    /// Widens to float64.
    fn wide(self) -> f64;

    /// e^x to the last digits of the precision, in a form that vector units can follow where that matters.
    fn exponential(self) -> Self;
}

impl Real for f32 {
    const NAME: &'static str = "f32";

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
        // Adding and subtracting 1.5·2²³ rounds to a whole number.
        const ROUND: f32 = 12_582_912.0;
        // ln 2 in two parts: the first has so few bits that its product with n is exact.
        const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
        let x = self.clamp(-87.0, 87.0);
        let n = (x * std::f32::consts::LOG2_E + ROUND) - ROUND;
        let r = (x - n * LN_2[0]) - n * LN_2[1];
        let series = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
        let power = series.iter().fold(1.0 / 5040.0, |sum, c| sum * r + c);
        f32::from_bits(power.to_bits().wrapping_add(((n as i32) << 23) as u32))
    }
}

impl Real for f64 {
    const NAME: &'static str = "f64";

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
