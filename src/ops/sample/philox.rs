//! Philox4x32-10: the random number at a place of a stream, without any state.
//!
//! Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).

/// 64 random bits at a place of a stream; the tokens of sequences are drawn with the upper 53.
pub fn random_bits(seed: u64, stream: u32, place: u64) -> u64 {
    let halves = |wide: u64| [wide as u32, (wide >> 32) as u32];
    let ([near, far], key) = (halves(place), halves(seed));
    let [low, high, ..] = philox([near, far, stream, 0], key);
    u64::from(high) << 32 | u64::from(low)
}

/// Ten rounds on four words. Keys grow by the fractional bits of the golden ratio and of √3 − 1.
fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let wide = |a: u32, b: u32| u64::from(a) * u64::from(b);
    (0..10u32).fold(counter, |[a, b, c, d], round| {
        let key_a = key[0].wrapping_add(round.wrapping_mul(0x9e37_79b9));
        let key_b = key[1].wrapping_add(round.wrapping_mul(0xbb67_ae85));
        let (left, right) = (wide(0xd251_1f53, a), wide(0xcd9e_8d57, c));
        [
            (right >> 32) as u32 ^ b ^ key_a,
            right as u32,
            (left >> 32) as u32 ^ d ^ key_b,
            left as u32,
        ]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known-answer vectors that Random123 publishes for philox4x32 with 10 rounds.
    #[test]
    fn philox_gives_the_published_answers() {
        for (counter, key, answer) in [
            (
                [0; 4],
                [0; 2],
                [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8],
            ),
            (
                [u32::MAX; 4],
                [u32::MAX; 2],
                [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd],
            ),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ] {
            assert_eq!(philox(counter, key), answer);
        }
    }
}
