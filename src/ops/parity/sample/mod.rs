//! The choice of a token: the same id as the twin's, whatever the row, the parameters and the company.

mod around;
mod odd_rows;
mod parameters;

pub(super) use around::{check_logprobs, count_tokens_matches_cpu};
pub(super) use parameters::check_vocabulary;

use super::{Buffer, at, run};
use crate::ops::testing::floats;
use crate::ops::{self, IN_PROMPT, Sample, SampleRow, SampleTables, sample_row};

/// Rows of one launch, and the tables that they name parts of.
#[derive(Clone, Default)]
struct Batch {
    vocab: usize,
    logits: Vec<f32>,
    rows: Vec<SampleRow>,
    bias: Vec<(u32, f32)>,
    masks: Vec<u32>,
    counts: Vec<u32>,
}

impl Batch {
    fn words(&self) -> Buffer<u32> {
        let words: Vec<u32> = self.rows.iter().flat_map(SampleRow::words).collect();
        Buffer::new(&words)
    }

    /// What the device chooses, and its table of counts after that.
    fn sampled(&self) -> (Vec<u32>, Vec<u32>) {
        let bias = self
            .bias
            .iter()
            .flat_map(|&(id, bias)| [id, bias.to_bits()]);
        let (logits, rows, bias, masks, counts) = (
            Buffer::new(&self.logits),
            self.words(),
            Buffer::new(&bias.collect::<Vec<u32>>()),
            Buffer::new(&self.masks),
            Buffer::new(&self.counts),
        );
        let adjusted = Buffer::<f32>::poisoned(self.logits.len());
        let ids = Buffer::<u32>::poisoned(self.rows.len());
        let tensors = Sample {
            logits: at(&logits),
            rows: at(&rows),
            bias: at(&bias),
            masks: at(&masks),
            counts: at(&counts),
            adjusted: at(&adjusted),
            ids: at(&ids),
        };
        let sizes = [self.rows.len(), self.vocab].map(|size| size as u32);
        run(ops::sample_launch(tensors, sizes[0], sizes[1]));
        let unchanged = logits.values().into_iter().map(f32::to_bits);
        assert!(unchanged.eq(self.logits.iter().map(|x| x.to_bits())));
        (ids.values(), counts.values())
    }

    /// What the twin chooses.
    fn expected(&self) -> Vec<u32> {
        let tables = SampleTables {
            bias: &self.bias,
            masks: &self.masks,
            counts: &self.counts,
        };
        let rows = self.logits.chunks(self.vocab).zip(&self.rows);
        rows.map(|(logits, row)| sample_row(logits, row, tables))
            .collect()
    }

    /// Compares the two, and the counts with one more of each chosen token. Returns the ids.
    fn check(&self) -> Vec<u32> {
        let (ids, counted) = self.sampled();
        let expected = self.expected();
        for (row, how) in self.rows.iter().enumerate() {
            assert_eq!(
                ids[row], expected[row],
                "row {row} of {}: {how:?}",
                self.vocab
            );
        }
        let mut counts = self.counts.clone();
        for (row, id) in self.rows.iter().zip(&ids) {
            if let Some(table) = row.counts {
                counts[table as usize * self.vocab + *id as usize] += 1;
            }
        }
        assert_eq!(counted, counts);
        ids
    }

    /// A row of `logits`, to be sampled like `row`.
    fn push(&mut self, logits: &[f32], row: SampleRow) {
        self.vocab = logits.len();
        self.logits.extend(logits);
        self.rows.push(row);
    }

    /// Gives the last row a mask of these ids.
    fn mask(&mut self, allows: impl Fn(usize) -> bool) {
        let words = self.vocab.div_ceil(32);
        let word = |word: usize| {
            let ids = (32 * word..self.vocab.min(32 * word + 32)).filter(|&id| allows(id));
            ids.fold(0, |bits, id| bits | 1 << (id % 32))
        };
        let row = self.rows.last_mut().unwrap();
        row.mask = Some((self.masks.len() / words) as u32);
        self.masks.extend((0..words).map(word));
    }

    /// Gives the last row biases.
    fn bias(&mut self, entries: &[(u32, f32)]) {
        let start = self.bias.len() as u32;
        self.bias.extend(entries);
        self.rows.last_mut().unwrap().bias = start..self.bias.len() as u32;
    }

    /// Gives the last row a table with every third token in the prompt and every fifth in the output.
    fn count(&mut self) {
        let row = self.rows.last_mut().unwrap();
        row.counts = Some((self.counts.len() / self.vocab) as u32);
        let count = |id: u32| u32::from(id.is_multiple_of(5)) * (id % 4 + 1);
        let prompt = |id: u32| u32::from(id.is_multiple_of(3)) * IN_PROMPT;
        let ids = 0..self.vocab as u32;
        self.counts.extend(ids.map(|id| prompt(id) | count(id)));
    }
}

/// Random logits in −8..8.
fn logits(seed: u64, vocab: usize) -> Vec<f32> {
    floats(seed, vocab).iter().map(|x| 8.0 * x).collect()
}

/// Each parameter alone, in two strengths, then together.
fn parameters() -> Vec<SampleRow> {
    let plain = SampleRow::default;
    let mut rows = vec![plain()];
    rows.extend(
        [
            0.0,
            -1.0,
            f32::NAN,
            0.1,
            3.0,
            f32::MIN_POSITIVE,
            f32::INFINITY,
        ]
        .map(|temperature| SampleRow {
            temperature,
            ..plain()
        }),
    );
    rows.extend([0, 1, 2, 20, u32::MAX].map(|k| SampleRow {
        top_k: Some(k),
        ..plain()
    }));
    rows.extend(
        [-1.0, 0.0, 1e-30, 0.3, 0.9, 0.999_999_9, 2.0, f32::NAN]
            .map(|top_p| SampleRow { top_p, ..plain() }),
    );
    rows.extend([1e-30, 0.05, 0.5, 1.0, 7.0, f32::NAN].map(|min_p| SampleRow { min_p, ..plain() }));
    for (top_k, top_p, min_p) in [
        (5, 0.8, 0.0),
        (30, 0.95, 0.02),
        (3, 1.0, 0.3),
        (700, 0.5, 0.1),
        (2, 0.01, 0.99),
    ] {
        for temperature in [0.7, 1.5] {
            rows.push(SampleRow {
                temperature,
                top_k: Some(top_k),
                top_p,
                min_p,
                ..plain()
            });
        }
    }
    rows
}
