//! One binary for every processor: kernels are compiled for several instruction sets, and the best one is chosen when
//! the program runs.
//!
//! A kernel is plain code over blocks of eight numbers, which the compiler turns into vector instructions of the set it
//! compiles for. All that a kernel must know itself is whether a fused multiply-add exists: without one, asking for it
//! would be a slow library call. Kernels are loops without closures: a closure that is not inlined would be compiled for the
//! baseline, and then a fused multiply-add is that library call.

use super::real::Real;

/// What kernels need to know of an instruction set.
pub(super) trait Isa {
    /// Whether it multiplies and adds in one instruction.
    const FUSED: bool;
}

/// With fused multiply-add.
pub(super) struct Fused;

/// Without.
pub(super) struct Plain;

impl Isa for Fused {
    const FUSED: bool = true;
}

impl Isa for Plain {
    const FUSED: bool = false;
}

/// Work that is compiled for every instruction set.
///
/// `run` and all it calls must be `#[inline(always)]`: only code inlined into one of the functions below is compiled for
/// that function's instruction set.
pub(super) trait Kernel {
    fn run<I: Isa>(self);
}

/// Runs a kernel with the best instructions that this processor has.
pub(super) fn dispatch(kernel: impl Kernel) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
            // SAFETY: the processor has just said that it has these instructions.
            return unsafe { with_avx512(kernel) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: as above.
            return unsafe { with_avx2(kernel) };
        }
        kernel.run::<Plain>();
    }
    #[cfg(target_arch = "aarch64")]
    kernel.run::<Fused>();
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    kernel.run::<Plain>();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
fn with_avx512(kernel: impl Kernel) {
    kernel.run::<Fused>();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn with_avx2(kernel: impl Kernel) {
    kernel.run::<Fused>();
}

/// The instruction set that [`dispatch`] chooses, for people.
pub(super) fn name() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
            return "AVX-512";
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return "AVX2";
        }
    }
    "baseline instructions"
}

/// Numbers that are worked on together. Features are padded to a multiple of it.
pub(super) const LANES: usize = 8;

/// a b + c.
#[inline(always)]
pub(super) fn fma<I: Isa, T: Real>(a: T, b: T, c: T) -> T {
    if I::FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// Eight numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lanes<T>(pub [T; LANES]);

impl<T: Real> Lanes<T> {
    #[inline(always)]
    pub fn zero() -> Self {
        Lanes([T::zero(); LANES])
    }

    /// self · b + c.
    #[inline(always)]
    pub fn fma<I: Isa>(self, b: Self, c: Self) -> Self {
        let mut out = [T::zero(); LANES];
        for l in 0..LANES {
            out[l] = fma::<I, T>(self.0[l], b.0[l], c.0[l]);
        }
        Lanes(out)
    }

    /// self · b + c with the same b everywhere.
    #[inline(always)]
    pub fn scale_add<I: Isa>(self, b: T, c: Self) -> Self {
        let mut out = [T::zero(); LANES];
        for l in 0..LANES {
            out[l] = fma::<I, T>(self.0[l], b, c.0[l]);
        }
        Lanes(out)
    }

    #[inline(always)]
    pub fn times(self, b: Self) -> Self {
        let mut out = [T::zero(); LANES];
        for l in 0..LANES {
            out[l] = self.0[l] * b.0[l];
        }
        Lanes(out)
    }

    #[inline(always)]
    pub fn scale(self, b: T) -> Self {
        let mut out = [T::zero(); LANES];
        for l in 0..LANES {
            out[l] = self.0[l] * b;
        }
        Lanes(out)
    }

    #[inline(always)]
    pub fn minus(self, b: Self) -> Self {
        let mut out = [T::zero(); LANES];
        for l in 0..LANES {
            out[l] = self.0[l] - b.0[l];
        }
        Lanes(out)
    }

    /// The sum of the eight, in a fixed order.
    #[inline(always)]
    pub fn sum(self) -> T {
        let [a, b, c, d, e, f, g, h] = self.0;
        ((a + e) + (b + f)) + ((c + g) + (d + h))
    }
}

/// A slice as blocks of eight; its length is a multiple of eight.
#[inline(always)]
pub(super) fn blocks<T>(x: &[T]) -> &[[T; LANES]] {
    x.as_chunks().0
}

/// A slice as blocks of eight; its length is a multiple of eight.
#[inline(always)]
pub(super) fn blocks_mut<T>(x: &mut [T]) -> &mut [[T; LANES]] {
    x.as_chunks_mut().0
}

/// So many numbers, rounded up to whole blocks.
pub(super) fn padded(count: usize) -> usize {
    count.next_multiple_of(LANES)
}
