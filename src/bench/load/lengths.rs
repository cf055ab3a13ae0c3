//! How many tokens prompts and answers have.

use rand::Rng;
use rand_distr::{Distribution, LogNormal};

use super::{Purpose, random};

/// Lengths of prompts and answers, in tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lengths {
    /// Tokens of a prompt, on average.
    pub input: u32,
    /// Tokens of an answer, at most; exactly with `ignore_eos`; on average.
    pub output: u32,
    /// How they are spread.
    pub kind: LengthKind,
}

/// How lengths are spread around their mean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LengthKind {
    /// All the same.
    Fixed,
    /// Evenly from `mean × (1 − ratio)` to `mean × (1 + ratio)`, both included; the ratio is below 1.
    Uniform(f64),
    /// Many short and few long ones: lognormal, with the means of the sample of chats that vLLM is measured with
    /// (202 and 179 tokens), cut to 4..=1024. It shares no text with that sample, and no more than the means.
    SharegptLike,
}

impl Lengths {
    /// `count` pairs of (prompt, answer) lengths; neither is ever zero.
    pub fn draw(&self, count: usize, seed: u64) -> Vec<(u32, u32)> {
        let mut inputs = random(seed, Purpose::InputLengths);
        let mut outputs = random(seed, Purpose::OutputLengths);
        (0..count)
            .map(|_| {
                (
                    self.kind.draw(self.input, SHAREGPT_INPUT, &mut inputs),
                    self.kind.draw(self.output, SHAREGPT_OUTPUT, &mut outputs),
                )
            })
            .collect()
    }
}

impl LengthKind {
    fn draw(self, mean: u32, log_mean: f64, random: &mut impl Rng) -> u32 {
        match self {
            Self::Fixed => mean.max(1),
            Self::Uniform(ratio) => {
                let mean = f64::from(mean);
                let low = (mean * (1.0 - ratio)).floor().max(1.0) as u32;
                let high = (mean * (1.0 + ratio)).ceil() as u32;
                random.random_range(low..=high.max(low))
            }
            Self::SharegptLike => {
                let lengths = LogNormal::new(log_mean, 1.0)
                    .expect("1 is a good standard deviation. This is a bug.");
                loop {
                    let length = lengths.sample(random).round();
                    // Drawn again, not clipped: clipping would pile lengths up at the ends.
                    if SHAREGPT_RANGE.contains(&length) {
                        return length as u32;
                    }
                }
            }
        }
    }
}

/// Means of the logarithms such that, with a standard deviation of 1 and cut to the range below, the mean lengths are
/// 202 and 179.
const SHAREGPT_INPUT: f64 = 4.966_015;
const SHAREGPT_OUTPUT: f64 = 4.810_569;
const SHAREGPT_RANGE: std::ops::RangeInclusive<f64> = 4.0..=1024.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(kind: LengthKind) -> Vec<(u32, u32)> {
        let lengths = Lengths {
            input: 100,
            output: 50,
            kind,
        };
        lengths.draw(10_000, 1)
    }

    fn mean(lengths: impl Iterator<Item = u32>) -> f64 {
        lengths.map(f64::from).sum::<f64>() / 10_000.0
    }

    #[test]
    fn fixed_lengths_are_all_the_same() {
        assert!(
            draw(LengthKind::Fixed)
                .iter()
                .all(|pair| *pair == (100, 50))
        );
    }

    #[test]
    fn uniform_lengths_fill_their_range_and_keep_the_mean() {
        let pairs = draw(LengthKind::Uniform(0.2));
        assert_eq!(pairs.iter().map(|pair| pair.0).min(), Some(80));
        assert_eq!(pairs.iter().map(|pair| pair.0).max(), Some(120));
        assert_eq!(pairs.iter().map(|pair| pair.1).min(), Some(40));
        assert!((mean(pairs.iter().map(|pair| pair.0)) - 100.0).abs() < 0.5);
    }

    #[test]
    fn sharegpt_like_lengths_have_its_means_and_a_long_tail() {
        let pairs = draw(LengthKind::SharegptLike);
        let input = mean(pairs.iter().map(|pair| pair.0));
        let output = mean(pairs.iter().map(|pair| pair.1));
        assert!((input / 202.0 - 1.0).abs() < 0.03, "{input}");
        assert!((output / 179.0 - 1.0).abs() < 0.03, "{output}");
        let mut inputs: Vec<u32> = pairs.iter().map(|pair| pair.0).collect();
        inputs.sort_unstable();
        assert!(inputs[5_000] < 160, "the median is below the mean");
        assert!(inputs[0] >= 4 && inputs[9_999] <= 1024 && inputs[9_900] > 700);
    }

    #[test]
    fn a_longer_run_begins_as_a_shorter_one() {
        let lengths = Lengths {
            input: 10,
            output: 10,
            kind: LengthKind::Uniform(0.9),
        };
        assert_eq!(lengths.draw(20, 5)[..10], lengths.draw(10, 5)[..]);
    }
}
