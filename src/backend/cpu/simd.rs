//! One binary for every processor: kernels are compiled for several instruction sets, and the best one is chosen when
//! the program runs.
//!
//! A kernel is written once, over vectors of the instruction set it is compiled for. Leaving that to the compiler's own
//! vectorisation was tried: half of the multiplications stayed scalar.
//!
//! Kernels are loops without closures: a closure that is not inlined would be compiled for the baseline.

use super::real::Real;
#[cfg(target_arch = "x86_64")]
use super::x86;

/// An instruction set: its vectors in both precisions.
///
/// Code that is generic over it runs below [`dispatch`] alone, which is what makes the instructions behind these
/// vectors sound to use.
pub trait Isa {
    /// Vectors of float32.
    type F32: Vector<f32>;
    /// Vectors of float64.
    type F64: Vector<f64>;
    /// Rows that a matrix product works on together, so that its sums fill the registers.
    const ROWS: usize;
}

/// The vector of precision `T` under the instruction set `I`.
pub(super) type V<I, T> = <T as Real>::Vector<I>;

/// A vector register: [`LEN`](Self::LEN) numbers on which every operation acts elementwise.
pub trait Vector<T>: Copy {
    /// Numbers in it; divides [`LANES`].
    const LEN: usize;

    /// # Safety
    /// [`LEN`](Self::LEN) numbers can be read at `from`.
    unsafe fn load(from: *const T) -> Self;

    /// # Safety
    /// [`LEN`](Self::LEN) numbers can be written at `to`.
    unsafe fn store(self, to: *mut T);

    /// The same number everywhere.
    fn splat(x: T) -> Self;

    /// self + b.
    fn add(self, b: Self) -> Self;

    /// self − b.
    fn sub(self, b: Self) -> Self;

    /// self · b.
    fn mul(self, b: Self) -> Self;

    /// self / b.
    fn div(self, b: Self) -> Self;

    /// self · b + c, rounded once where the instruction set can.
    fn fma(self, b: Self, c: Self) -> Self;

    /// c − self · b, rounded once where the instruction set can.
    fn fnma(self, b: Self, c: Self) -> Self;

    /// √self.
    fn sqrt(self) -> Self;

    /// self / b, but 0 where b = 0.
    fn div_or_zero(self, b: Self) -> Self;

    /// e^self.
    fn exp(self) -> Self;

    /// The sums of the elements of four vectors, each in a fixed order.
    fn sums(four: [Self; 4]) -> [T; 4];

    /// 0.
    #[inline(always)]
    fn zero() -> Self
    where
        T: Real,
    {
        Self::splat(T::zero())
    }
}

/// Work that is compiled for every instruction set.
///
/// `run` and all it calls must be `#[inline(always)]`: only code inlined into what [`Instructions::run`] calls is
/// compiled for that instruction set.
pub(super) trait Kernel {
    fn run<I: Isa>(self);
}

/// The instruction sets that kernels are compiled for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Instructions {
    Baseline,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Instructions {
    /// Those of this processor, the best last.
    pub fn available() -> impl DoubleEndedIterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let more = [(Self::Avx2, x86::has_avx2()), (Self::Avx512, x86::has_avx512())];
        #[cfg(not(target_arch = "x86_64"))]
        let more = [];
        let more = more.into_iter().filter_map(|(set, there)| there.then_some(set));
        std::iter::once(Self::Baseline).chain(more)
    }

    /// The best of this processor.
    pub fn best() -> Self {
        Self::available().next_back().unwrap_or(Self::Baseline)
    }

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline instructions",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "AVX2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "AVX-512",
        }
    }

    /// Runs a kernel with them.
    pub fn run(self, kernel: impl Kernel) {
        match self {
            Self::Baseline => kernel.run::<Baseline>(),
            // SAFETY: values other than `Baseline` come from `available`, which has asked the processor.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { x86::with_avx2(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { x86::with_avx512(kernel) },
        }
    }
}

/// Runs a kernel with the best instructions that this processor has.
pub(super) fn dispatch(kernel: impl Kernel) {
    Instructions::best().run(kernel);
}

/// The vector from the number `at` of a slice on.
#[inline(always)]
pub(super) fn get<I: Isa, T: Real>(x: &[T], at: usize) -> V<I, T> {
    // SAFETY: the slice that is asked for has as many numbers.
    unsafe { V::<I, T>::load(x[at..at + V::<I, T>::LEN].as_ptr()) }
}

/// Writes a vector from the number `at` of a slice on.
#[inline(always)]
pub(super) fn put<I: Isa, T: Real>(vector: V<I, T>, x: &mut [T], at: usize) {
    // SAFETY: the slice that is asked for has as many numbers.
    unsafe { vector.store(x[at..at + V::<I, T>::LEN].as_mut_ptr()) }
}

/// Makes the compiler keep the stack of the function around it aligned for vectors.
///
/// Without a variable that asks for it, it puts vectors that have no register where the stack happens to be, and every
/// other of them then lies across two cache lines.
#[inline(always)]
pub(super) fn align_stack() {
    #[repr(align(64))]
    struct Aligned(u8);
    std::hint::black_box(&mut Aligned(0).0);
}

/// Asks for the cache line of a number that is needed soon.
#[inline(always)]
pub(super) fn prefetch<T>(number: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which reads nothing; every x86-64 processor has it.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(number.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = number;
}

/// Features are padded to a multiple of it: a vector of any instruction set divides it.
pub(super) const LANES: usize = 16;

/// So many numbers, rounded up to whole vectors.
pub(super) fn padded(count: usize) -> usize {
    count.next_multiple_of(LANES)
}

/// What every processor of an architecture has.
pub(super) struct Baseline;

impl Isa for Baseline {
    type F32 = Array<f32, 8>;
    type F64 = Array<f64, 4>;
    const ROWS: usize = 4;
}

/// A vector that the compiler maps to the instructions it may use.
#[derive(Clone, Copy)]
pub struct Array<T, const N: usize>([T; N]);

macro_rules! elementwise {
    ($self:ident, $l:ident, $x:expr) => {{
        let mut out = $self.0;
        for $l in 0..N {
            out[$l] = $x;
        }
        Array(out)
    }};
}

impl<T: Real, const N: usize> Vector<T> for Array<T, N> {
    const LEN: usize = N;

    #[inline(always)]
    unsafe fn load(from: *const T) -> Self {
        // SAFETY: the caller's promise; an array has its element's alignment.
        Array(unsafe { *from.cast() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut T) {
        // SAFETY: as above.
        unsafe { *to.cast() = self.0 }
    }

    #[inline(always)]
    fn splat(x: T) -> Self {
        Array([x; N])
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        elementwise!(self, l, self.0[l] + b.0[l])
    }

    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        elementwise!(self, l, self.0[l] - b.0[l])
    }

    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        elementwise!(self, l, self.0[l] * b.0[l])
    }

    #[inline(always)]
    fn div(self, b: Self) -> Self {
        elementwise!(self, l, self.0[l] / b.0[l])
    }

    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        // Without the instruction, asking for it would be a slow library call.
        if cfg!(target_arch = "aarch64") {
            elementwise!(self, l, self.0[l].mul_add(b.0[l], c.0[l]))
        } else {
            elementwise!(self, l, self.0[l] * b.0[l] + c.0[l])
        }
    }

    #[inline(always)]
    fn fnma(self, b: Self, c: Self) -> Self {
        if cfg!(target_arch = "aarch64") {
            elementwise!(self, l, (-self.0[l]).mul_add(b.0[l], c.0[l]))
        } else {
            elementwise!(self, l, c.0[l] - self.0[l] * b.0[l])
        }
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        elementwise!(self, l, self.0[l].sqrt())
    }

    #[inline(always)]
    fn div_or_zero(self, b: Self) -> Self {
        elementwise!(self, l, if b.0[l] == T::zero() { T::zero() } else { self.0[l] / b.0[l] })
    }

    #[inline(always)]
    fn exp(self) -> Self {
        elementwise!(self, l, self.0[l].exponential())
    }

    #[inline(always)]
    fn sums(four: [Self; 4]) -> [T; 4] {
        let mut sums = [T::zero(); 4];
        for v in 0..4 {
            for l in 0..N {
                sums[v] += four[v].0[l];
            }
        }
        sums
    }
}
