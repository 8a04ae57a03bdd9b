//! Arrays that begin at a cache line. The allocator puts large ones 16 bytes behind a page: every other vector of 32
//! bytes then lies across two lines, and every slice of channels in one line more.

use super::real::Real;
use std::ops::{Deref, DerefMut};

/// Numbers of a line's worth of bytes in float32, and of two in float64: no padding between lines.
const NUMBERS: usize = 16;

#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line<T>([T; NUMBERS]);

/// Numbers whose first begins a cache line of 64 bytes.
#[derive(Debug, Clone)]
pub(super) struct Aligned<T> {
    lines: Vec<Line<T>>,
    len: usize,
}

/// So many zeros.
pub(super) fn zeros<T: Real>(len: usize) -> Aligned<T> {
    Aligned { lines: vec![Line([T::zero(); NUMBERS]); len.div_ceil(NUMBERS)], len }
}

impl<T: Real> From<&[T]> for Aligned<T> {
    fn from(numbers: &[T]) -> Self {
        let mut aligned = zeros(numbers.len());
        aligned.copy_from_slice(numbers);
        aligned
    }
}

impl<T> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        debug_assert!(self.len <= self.lines.len() * NUMBERS);
        // SAFETY: lines are arrays without anything between them, and hold `len` numbers at least.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl<T> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        debug_assert!(self.len <= self.lines.len() * NUMBERS);
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

/// A slice that is given away part by part.
pub(super) struct Parts<'a, P>(pub &'a mut [P]);

impl<'a, P> Parts<'a, P> {
    /// The next `count`.
    pub fn take(&mut self, count: usize) -> &'a mut [P] {
        let (part, rest) = std::mem::take(&mut self.0).split_at_mut(count);
        self.0 = rest;
        part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_begin_at_a_line_and_stand_close() {
        fn check<T: Real>() {
            assert_eq!(size_of::<Line<T>>(), NUMBERS * size_of::<T>());
            for len in [0, 1, 15, 16, 17, 1000] {
                let numbers: Vec<T> = (0..len).map(|n| T::of(n as f64)).collect();
                let mut aligned = Aligned::from(numbers.as_slice());
                assert!(aligned.as_ptr().addr().is_multiple_of(64) && *aligned == *numbers);
                aligned.fill(T::one());
                assert!(aligned.clone().iter().all(|x| *x == T::one()) && aligned.len() == len);
            }
        }
        check::<f32>();
        check::<f64>();
    }
}
