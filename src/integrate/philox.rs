//! Random numbers without state: Philox4x32-10 (Salmon, Moraes, Dror & Shaw, SC11).
//!
//! A number is a function of (seed, purpose, step, atom): nothing can be lost in a restart, and the same integers
//! come out on every device. The bijection's constants and rounds are those of the paper.

/// What a random number is for; each purpose is a stream of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// Maxwell–Boltzmann velocities at the start.
    InitialVelocities = 1,
    /// Random forces of Langevin dynamics.
    Langevin = 2,
}

/// Ten rounds of Philox4x32.
pub fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = 0xD251_1F53_u64 * counter[0] as u64;
        let b = 0xCD9E_8D57_u64 * counter[2] as u64;
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

/// The seed of a replica's random numbers, from the seed of the whole run and the replica's number: of one run all are
/// different, because every step of this is invertible, and each is one that an input can give.
pub fn seed_of(seed: u64, number: u64) -> u64 {
    const BITS: u64 = i64::MAX as u64;
    // An odd number: ⌊2⁶⁴ / golden ratio⌋.
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut x = seed.wrapping_add((number + 1).wrapping_mul(STEP)) & BITS;
    for (shift, factor) in [(30, 0xBF58_476D_1CE4_E5B9), (27, 0x94D0_49BB_1331_11EB)] {
        x = (x ^ x >> shift).wrapping_mul(factor) & BITS;
    }
    x ^ x >> 31
}

/// Three independent standard normal deviates for an atom at a step (Box & Muller, Ann. Math. Stat. 29, 610, 1958).
pub fn normal3(seed: u64, purpose: Purpose, step: u64, atom: u32) -> [f64; 3] {
    let bits = philox4x32([atom, step as u32, (step >> 32) as u32, purpose as u32], [seed as u32, (seed >> 32) as u32]);
    // In the open interval (0, 1): the logarithm is finite.
    let uniform = bits.map(|x| (x as f64 + 0.5) * (1.0 / 4_294_967_296.0));
    let pair = |u: f64, v: f64| {
        let (sin, cos) = (std::f64::consts::TAU * v).sin_cos();
        let radius = (-2.0 * u.ln()).sqrt();
        (radius * cos, radius * sin)
    };
    let (x, y) = pair(uniform[0], uniform[1]);
    let (z, _) = pair(uniform[2], uniform[3]);
    [x, y, z]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers that the authors publish with their Random123 library.
    #[test]
    fn known_answers() {
        assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(philox4x32([u32::MAX; 4], [u32::MAX; 2]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
        assert_eq!(
            philox4x32([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]),
            [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]
        );
    }

    #[test]
    fn replicas_have_seeds_of_their_own() {
        let seeds: std::collections::BTreeSet<u64> =
            (0..3).flat_map(|s| (0..2000).map(move |n| seed_of(s, n))).collect();
        assert_eq!(seeds.len(), 6000);
        assert!(seeds.iter().all(|&seed| seed <= i64::MAX as u64));
        // What a run has written must be repeated by later versions.
        let published = [1_517_046_713_075_839_355, 7_960_286_522_194_355_700, 7_195_639_206_139_662_248];
        assert_eq!([seed_of(0, 0), seed_of(0, 1), seed_of(7, 0)], published);
    }

    #[test]
    fn normal_deviates_have_the_moments_of_a_normal_distribution() {
        let n = 200_000;
        let values: Vec<f64> = (0..n).flat_map(|atom| normal3(7, Purpose::InitialVelocities, 0, atom)).collect();
        let moment = |k: i32| values.iter().map(|x| x.powi(k)).sum::<f64>() / values.len() as f64;
        let sigma = (values.len() as f64).sqrt().recip();
        // Variances of the sample moments of a normal distribution: 1, 2, 15, 96 over n.
        assert!(moment(1).abs() < 4.0 * sigma);
        assert!((moment(2) - 1.0).abs() < 4.0 * 2.0f64.sqrt() * sigma);
        assert!(moment(3).abs() < 4.0 * 15.0f64.sqrt() * sigma);
        assert!((moment(4) - 3.0).abs() < 4.0 * 96.0f64.sqrt() * sigma);
        let correlation: f64 =
            values.chunks_exact(3).map(|v| v[0] * v[1] + v[1] * v[2] + v[2] * v[0]).sum::<f64>() / n as f64;
        assert!(correlation.abs() < 4.0 * (3.0 / n as f64).sqrt());
    }
}
