//! The two precisions of the network.

use num_traits::{Float, NumAssign};

/// `f32` or `f64`, with the matrix product of that precision.
pub trait Real: Float + NumAssign + Default + std::fmt::Debug + std::iter::Sum + Send + Sync + 'static {
    /// `"f32"` or `"f64"`.
    const NAME: &'static str;

    /// Narrows a float64.
    fn of(value: f64) -> Self;

    /// Widens to float64.
    fn wide(self) -> f64;

    /// C = A B + β C with A `[m][k]`, B `[k][n]`, C `[m][n]`; rows and columns of B may be exchanged.
    ///
    /// Panics when a slice is shorter than its shape.
    fn matmul(shape: [usize; 3], a: &[Self], b: &[Self], b_transposed: bool, beta: Self, c: &mut [Self]);
}

macro_rules! real {
    ($t:ident, $gemm:path) => {
        impl Real for $t {
            const NAME: &'static str = stringify!($t);

            fn of(value: f64) -> Self {
                value as $t
            }

            fn wide(self) -> f64 {
                self as f64
            }

            fn matmul([m, n, k]: [usize; 3], a: &[$t], b: &[$t], b_transposed: bool, beta: $t, c: &mut [$t]) {
                assert!(a.len() >= m * k && b.len() >= k * n && c.len() >= m * n);
                let (row, column) = if b_transposed { (1, k as isize) } else { (n as isize, 1) };
                // SAFETY: the slices hold at least the elements that these shapes and strides reach.
                unsafe {
                    $gemm(
                        m,
                        k,
                        n,
                        1.0,
                        a.as_ptr(),
                        k as isize,
                        1,
                        b.as_ptr(),
                        row,
                        column,
                        beta,
                        c.as_mut_ptr(),
                        n as isize,
                        1,
                    )
                }
            }
        }
    };
}

real!(f32, matrixmultiply::sgemm);
real!(f64, matrixmultiply::dgemm);
