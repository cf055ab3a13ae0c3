//! Random numbers without state: Philox4x32-10, where the n-th number is a function of the key and n alone.
//!
//! A generator with state would have to be saved and rewound when a sequence is preempted. Here, the draw for the n-th
//! token of a sequence is the same however the tokens before it were computed.
//!
//! Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).

/// The random stream of one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RandomStream {
    seed: u64,
    index: u32,
}

impl RandomStream {
    /// The stream of the request's `index`-th sequence under `seed`; different indices never share a number.
    pub fn new(seed: u64, index: u32) -> Self {
        Self { seed, index }
    }

    /// Seed and index, for a device that draws the same numbers.
    pub fn key(&self) -> (u64, u32) {
        (self.seed, self.index)
    }

    /// A number in `[0, 1)` with 53 random bits, for the token that comes after `num_generated` generated ones.
    pub fn uniform(&self, num_generated: usize) -> f64 {
        let place = num_generated as u64;
        let counter = [low(place), high(place), self.index, 0];
        let [a, b, ..] = philox4x32_10(counter, [low(self.seed), high(self.seed)]);
        let bits = (u64::from(b) << 32 | u64::from(a)) >> 11;
        bits as f64 / (1_u64 << 53) as f64
    }
}

/// Ten rounds of Philox on four 32-bit words.
fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        }
        let product = [
            u64::from(MULTIPLIER[0]) * u64::from(counter[0]),
            u64::from(MULTIPLIER[1]) * u64::from(counter[2]),
        ];
        counter = [
            high(product[1]) ^ counter[1] ^ key[0],
            low(product[1]),
            high(product[0]) ^ counter[3] ^ key[1],
            low(product[0]),
        ];
    }
    counter
}

fn low(word: u64) -> u32 {
    word as u32
}

fn high(word: u64) -> u32 {
    (word >> 32) as u32
}

const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
/// Key increments: the fractional bits of the golden ratio and of √3 − 1.
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

#[cfg(test)]
mod tests {
    use super::*;

    /// The three known-answer vectors that Random123 publishes for philox4x32 with 10 rounds.
    #[test]
    fn philox_gives_the_published_answers() {
        assert_eq!(
            philox4x32_10([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox4x32_10([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        let counter = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        let key = [0xa409_3822, 0x299f_31d0];
        assert_eq!(
            philox4x32_10(counter, key),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn uniform_numbers_fill_the_unit_interval_evenly() {
        let stream = RandomStream::new(7, 0);
        let mut counts = [0; 10];
        for place in 0..10_000 {
            let number = stream.uniform(place);
            assert!((0.0..1.0).contains(&number));
            counts[(number * 10.0) as usize] += 1;
        }
        // Each bin expects 1000 with a standard deviation of 30.
        assert!(
            counts.iter().all(|count| (850..1150).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn seeds_indices_and_places_all_change_the_number() {
        let number = RandomStream::new(7, 0).uniform(0);
        assert_ne!(number, RandomStream::new(8, 0).uniform(0));
        assert_ne!(number, RandomStream::new(7 + (1 << 32), 0).uniform(0));
        assert_ne!(number, RandomStream::new(7, 1).uniform(0));
        assert_ne!(number, RandomStream::new(7, 0).uniform(1));
    }
}
