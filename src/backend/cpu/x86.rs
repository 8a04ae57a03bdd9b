//! AVX2 and AVX-512.

use super::real::{EXP, Real};
use super::simd::{Isa, Kernel, Vector};
use std::arch::x86_64::*;

pub(super) fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

pub(super) fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f") && has_avx2()
}

#[target_feature(enable = "avx512f,avx2,fma")]
pub(super) fn with_avx512(kernel: impl Kernel) {
    kernel.run::<Avx512>();
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn with_avx2(kernel: impl Kernel) {
    kernel.run::<Avx2>();
}

pub(super) struct Avx2;

impl Isa for Avx2 {
    type F32 = F32x8;
    type F64 = F64x4;
    // Two vectors a row: 12 of the 16 registers hold sums.
    const ROWS: usize = 6;
}

pub(super) struct Avx512;

impl Isa for Avx512 {
    type F32 = F32x16;
    type F64 = F64x8;
    // One vector a row: as many sums as hide the latency of two units.
    const ROWS: usize = 12;
}

#[derive(Clone, Copy)]
pub struct F32x8(__m256);

#[derive(Clone, Copy)]
pub struct F64x4(__m256d);

#[derive(Clone, Copy)]
pub struct F32x16(__m512);

#[derive(Clone, Copy)]
pub struct F64x8(__m512d);

// SAFETY (all calls of instructions in this file): these types are named by the `Isa`s above alone, and code generic over
// them runs below `with_avx2` and `with_avx512` alone, hence on processors that have the instructions.
macro_rules! vector {
    ($name:ident, $t:ty, $len:literal, $load:ident, $store:ident, $splat:ident, $add:ident, $sub:ident, $mul:ident,
     $div:ident, $fma:ident, $fnma:ident, $sqrt:ident, $div_or_zero:expr, $exp:expr, $sums:expr) => {
        impl Vector<$t> for $name {
            const LEN: usize = $len;

            #[inline(always)]
            unsafe fn load(from: *const $t) -> Self {
                // SAFETY: the caller's promise; the load needs no alignment.
                unsafe { $name($load(from)) }
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut $t) {
                // SAFETY: as above.
                unsafe { $store(to, self.0) }
            }

            #[inline(always)]
            fn splat(x: $t) -> Self {
                unsafe { $name($splat(x)) }
            }

            #[inline(always)]
            fn add(self, b: Self) -> Self {
                unsafe { $name($add(self.0, b.0)) }
            }

            #[inline(always)]
            fn sub(self, b: Self) -> Self {
                unsafe { $name($sub(self.0, b.0)) }
            }

            #[inline(always)]
            fn mul(self, b: Self) -> Self {
                unsafe { $name($mul(self.0, b.0)) }
            }

            #[inline(always)]
            fn div(self, b: Self) -> Self {
                unsafe { $name($div(self.0, b.0)) }
            }

            #[inline(always)]
            fn fma(self, b: Self, c: Self) -> Self {
                unsafe { $name($fma(self.0, b.0, c.0)) }
            }

            #[inline(always)]
            fn fnma(self, b: Self, c: Self) -> Self {
                unsafe { $name($fnma(self.0, b.0, c.0)) }
            }

            #[inline(always)]
            fn sqrt(self) -> Self {
                unsafe { $name($sqrt(self.0)) }
            }

            #[inline(always)]
            fn div_or_zero(self, b: Self) -> Self {
                unsafe { $name($div_or_zero(self.0, b.0)) }
            }

            #[inline(always)]
            fn exp(self) -> Self {
                unsafe { $name($exp(self.0)) }
            }

            #[inline(always)]
            fn sums(four: [Self; 4]) -> [$t; 4] {
                unsafe { $sums(four[0].0, four[1].0, four[2].0, four[3].0) }
            }
        }
    };
}

vector!(
    F32x8,
    f32,
    8,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_set1_ps,
    _mm256_add_ps,
    _mm256_sub_ps,
    _mm256_mul_ps,
    _mm256_div_ps,
    _mm256_fmadd_ps,
    _mm256_fnmadd_ps,
    _mm256_sqrt_ps,
    div_or_zero_f32x8,
    exp_f32x8,
    sums_f32x8
);
vector!(
    F64x4,
    f64,
    4,
    _mm256_loadu_pd,
    _mm256_storeu_pd,
    _mm256_set1_pd,
    _mm256_add_pd,
    _mm256_sub_pd,
    _mm256_mul_pd,
    _mm256_div_pd,
    _mm256_fmadd_pd,
    _mm256_fnmadd_pd,
    _mm256_sqrt_pd,
    div_or_zero_f64x4,
    exp_f64x4,
    sums_f64x4
);
vector!(
    F32x16,
    f32,
    16,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_set1_ps,
    _mm512_add_ps,
    _mm512_sub_ps,
    _mm512_mul_ps,
    _mm512_div_ps,
    _mm512_fmadd_ps,
    _mm512_fnmadd_ps,
    _mm512_sqrt_ps,
    div_or_zero_f32x16,
    exp_f32x16,
    sums_f32x16
);
vector!(
    F64x8,
    f64,
    8,
    _mm512_loadu_pd,
    _mm512_storeu_pd,
    _mm512_set1_pd,
    _mm512_add_pd,
    _mm512_sub_pd,
    _mm512_mul_pd,
    _mm512_div_pd,
    _mm512_fmadd_pd,
    _mm512_fnmadd_pd,
    _mm512_sqrt_pd,
    div_or_zero_f64x8,
    exp_f64x8,
    sums_f64x8
);

#[inline(always)]
unsafe fn div_or_zero_f32x8(a: __m256, b: __m256) -> __m256 {
    unsafe { _mm256_and_ps(_mm256_div_ps(a, b), _mm256_cmp_ps::<_CMP_NEQ_UQ>(b, _mm256_setzero_ps())) }
}

#[inline(always)]
unsafe fn div_or_zero_f64x4(a: __m256d, b: __m256d) -> __m256d {
    unsafe { _mm256_and_pd(_mm256_div_pd(a, b), _mm256_cmp_pd::<_CMP_NEQ_UQ>(b, _mm256_setzero_pd())) }
}

#[inline(always)]
unsafe fn div_or_zero_f32x16(a: __m512, b: __m512) -> __m512 {
    unsafe { _mm512_maskz_div_ps(_mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(b, _mm512_setzero_ps()), a, b) }
}

#[inline(always)]
unsafe fn div_or_zero_f64x8(a: __m512d, b: __m512d) -> __m512d {
    unsafe { _mm512_maskz_div_pd(_mm512_cmp_pd_mask::<_CMP_NEQ_UQ>(b, _mm512_setzero_pd()), a, b) }
}

/// As [`Real::exponential`] of a float32, with the same operations.
#[inline(always)]
unsafe fn exp_f32x8(x: __m256) -> __m256 {
    unsafe {
        // The number second: where x is not a number, so is the result.
        let x = _mm256_min_ps(_mm256_set1_ps(EXP.limit), _mm256_max_ps(_mm256_set1_ps(-EXP.limit), x));
        let round = _mm256_set1_ps(EXP.round);
        let n = _mm256_sub_ps(_mm256_fmadd_ps(x, _mm256_set1_ps(std::f32::consts::LOG2_E), round), round);
        let r = _mm256_fnmadd_ps(n, _mm256_set1_ps(EXP.ln_2[0]), x);
        let r = _mm256_fnmadd_ps(n, _mm256_set1_ps(EXP.ln_2[1]), r);
        let mut power = _mm256_set1_ps(EXP.series[0]);
        for c in &EXP.series[1..] {
            power = _mm256_fmadd_ps(power, r, _mm256_set1_ps(*c));
        }
        let exponent = _mm256_slli_epi32::<23>(_mm256_cvtps_epi32(n));
        _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(power), exponent))
    }
}

/// As [`exp_f32x8`].
#[inline(always)]
unsafe fn exp_f32x16(x: __m512) -> __m512 {
    unsafe {
        let x = _mm512_min_ps(_mm512_set1_ps(EXP.limit), _mm512_max_ps(_mm512_set1_ps(-EXP.limit), x));
        let round = _mm512_set1_ps(EXP.round);
        let n = _mm512_sub_ps(_mm512_fmadd_ps(x, _mm512_set1_ps(std::f32::consts::LOG2_E), round), round);
        let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(EXP.ln_2[0]), x);
        let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(EXP.ln_2[1]), r);
        let mut power = _mm512_set1_ps(EXP.series[0]);
        for c in &EXP.series[1..] {
            power = _mm512_fmadd_ps(power, r, _mm512_set1_ps(*c));
        }
        let exponent = _mm512_slli_epi32::<23>(_mm512_cvtps_epi32(n));
        _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(power), exponent))
    }
}

/// float64 is the oracle's precision: the library's exponential, one by one.
#[inline(always)]
unsafe fn exp_f64x4(x: __m256d) -> __m256d {
    unsafe {
        let mut numbers = [0.0; 4];
        _mm256_storeu_pd(numbers.as_mut_ptr(), x);
        for x in &mut numbers {
            *x = x.exponential();
        }
        _mm256_loadu_pd(numbers.as_ptr())
    }
}

/// As [`exp_f64x4`].
#[inline(always)]
unsafe fn exp_f64x8(x: __m512d) -> __m512d {
    unsafe {
        let mut numbers = [0.0; 8];
        _mm512_storeu_pd(numbers.as_mut_ptr(), x);
        for x in &mut numbers {
            *x = x.exponential();
        }
        _mm512_loadu_pd(numbers.as_ptr())
    }
}

#[inline(always)]
unsafe fn sums_f32x8(a: __m256, b: __m256, c: __m256, d: __m256) -> [f32; 4] {
    unsafe {
        let halves = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
        let sums = _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps::<1>(halves));
        let mut out = [0.0; 4];
        _mm_storeu_ps(out.as_mut_ptr(), sums);
        out
    }
}

#[inline(always)]
unsafe fn sums_f64x4(a: __m256d, b: __m256d, c: __m256d, d: __m256d) -> [f64; 4] {
    unsafe {
        let (ab, cd) = (_mm256_hadd_pd(a, b), _mm256_hadd_pd(c, d));
        let low = _mm256_permute2f128_pd::<0x20>(ab, cd);
        let high = _mm256_permute2f128_pd::<0x31>(ab, cd);
        let mut out = [0.0; 4];
        _mm256_storeu_pd(out.as_mut_ptr(), _mm256_add_pd(low, high));
        out
    }
}

#[inline(always)]
unsafe fn sums_f32x16(a: __m512, b: __m512, c: __m512, d: __m512) -> [f32; 4] {
    unsafe { sums_f32x8(halved_f32x16(a), halved_f32x16(b), halved_f32x16(c), halved_f32x16(d)) }
}

#[inline(always)]
unsafe fn sums_f64x8(a: __m512d, b: __m512d, c: __m512d, d: __m512d) -> [f64; 4] {
    unsafe { sums_f64x4(halved_f64x8(a), halved_f64x8(b), halved_f64x8(c), halved_f64x8(d)) }
}

/// The sum of both halves.
#[inline(always)]
unsafe fn halved_f32x16(x: __m512) -> __m256 {
    unsafe {
        let high = _mm512_extractf64x4_pd::<1>(_mm512_castps_pd(x));
        _mm256_add_ps(_mm512_castps512_ps256(x), _mm256_castpd_ps(high))
    }
}

/// The sum of both halves.
#[inline(always)]
unsafe fn halved_f64x8(x: __m512d) -> __m256d {
    unsafe { _mm256_add_pd(_mm512_castpd512_pd256(x), _mm512_extractf64x4_pd::<1>(x)) }
}
