//! Random numbers without state: Philox4x32-10, where the n-th number is a function of the key and n alone.
//!
//! A generator with state would have to be saved and rewound when a sequence is preempted. Here, the draw for the n-th
//! token of a sequence is the same however the tokens before it were computed.
//!
//! A device draws the same numbers: what makes them is beside its kernels (`ops/sample/philox.rs`).

use crate::model::random_bits;

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
        let bits = random_bits(self.seed, self.index, num_generated as u64) >> 11;
        bits as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
