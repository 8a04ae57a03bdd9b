//! Weights of dense layers as `kernels/tile.cuh` takes them: split into two 16-bit numbers, in the order in which the lanes of
//! a warp hold them.

use half::f16;

/// The power of two that brings the largest of these weights to between 128 and 256: neither half of a split weight is then
/// too large or, measured by the largest one, too small for 16 bits.
pub(super) fn unit(weights: impl IntoIterator<Item = f64>) -> f64 {
    let largest = weights.into_iter().fold(0.0f64, |most, w| most.max(w.abs()));
    if largest > 0.0 { (largest.log2().floor() - 7.0).exp2() } else { 1.0 }
}

/// Nearest 16-bit number, and what it leaves.
pub(super) fn split(weight: f64) -> [f16; 2] {
    let high = f16::from_f64(weight);
    [high, f16::from_f64(weight - high.to_f64())]
}

/// What kernels read behind the last weights: a step of a tile.
const BEHIND: usize = 32 * 8;

/// `matrix[inputs][outputs]`, both multiples of 16, over `unit`: `[outputs / 8][inputs / 16][32 lanes][2][4]`. Sixteen outputs are
/// two tiles, of which a lane (column n = lane / 4, c = lane % 4) has one column: 4 (n / 2) + n % 2, in the second tile two
/// further. Its inputs are 16 k + 4 c and the three after that, hi first, then lo. In reduced precision inputs are a multiple of 32, and
/// there are those of 16 (k + 1) in the place of lo: `[outputs / 8][inputs / 32][32 lanes][2][4]`. Behind the last tile are [`BEHIND`]
/// zeros.
pub(super) fn packed(matrix: &[f32], outputs: usize, unit: f64, reduced: bool) -> Vec<u16> {
    let inputs = matrix.len() / outputs;
    let steps = inputs / if reduced { 32 } else { 16 };
    let mut packed = Vec::with_capacity(2 * matrix.len());
    for place in 0..outputs / 8 * steps * 32 {
        let (tile, step, lane) = (place / 32 / steps, place / 32 % steps, place % 32);
        let (column, c) = (lane / 4, lane % 4);
        let output = tile / 2 * 16 + column / 2 * 4 + tile % 2 * 2 + column % 2;
        let halves =
            |k: usize| [0, 1, 2, 3].map(|n| split(matrix[(16 * k + 4 * c + n) * outputs + output] as f64 / unit));
        if reduced {
            packed.extend([2 * step, 2 * step + 1].iter().flat_map(|&k| halves(k).map(|half| half[0].to_bits())));
        } else {
            packed.extend([0, 1].iter().flat_map(|&part| halves(step).map(|half| half[part].to_bits())));
        }
    }
    packed.resize(packed.len() + BEHIND, 0);
    packed
}
