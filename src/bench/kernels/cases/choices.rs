//! Kernels around the choice of a token: bound by memory, all of them.

use super::Choice;
use super::rows::moves;
use crate::bench::kernels::pool::{Case, Pool};
use crate::bench::kernels::{KernelBenchError, Shape};
use crate::ops::{self, Device, IN_PROMPT, Logprobs, Sample, SampleRow};

/// Per row: its logits (f32), how to choose (16 words), the chosen id. To read logits once is the least there is. Penalties
/// read a table of counts beside them and write one, a mask has a bit for each.
pub(super) fn sample<D: Device>(
    pool: &mut Pool<'_, D>,
    shape: &Shape,
    choice: Choice,
    m: usize,
) -> Result<Case, KernelBenchError> {
    let vocab = shape.vocab;
    let (has_counts, has_mask) = (choice == Choice::Penalties, choice == Choice::Mask);
    let mask_words = vocab.div_ceil(32);
    let more = usize::from(has_counts) * (vocab * 4 + 4) + usize::from(has_mask) * mask_words * 4;
    pool.case(moves(m * (vocab * 4 + 16 * 4 + 4 + more)), |pool, set| {
        let words: Vec<u32> = (0..m as u32)
            .flat_map(|row| sample_row(choice, set as u64, row).words())
            .collect();
        let rows = pool.words(&words)?;
        // What no row names may be anywhere.
        let (mut masks, mut counts, mut adjusted) = (rows, rows, rows);
        if has_mask {
            masks = pool.filled(&[0x77; 64], m * mask_words * 4)?;
        }
        if has_counts {
            let table: Vec<u32> = (0..vocab as u32).map(count).collect();
            counts = pool.filled(bytemuck::cast_slice(&table), m * vocab * 4)?;
        }
        if has_mask || has_counts {
            adjusted = pool.empty(m * vocab * 4)?;
        }
        let tensors = Sample {
            logits: pool.floats(m * vocab)?,
            rows,
            bias: rows,
            masks,
            counts,
            adjusted,
            ids: pool.empty(m * 4)?,
        };
        Ok(vec![ops::sample_launch(tensors, m as u32, vocab as u32)])
    })
}

/// Every third token is in the prompt, every fifth in the output.
fn count(id: u32) -> u32 {
    (u32::from(id.is_multiple_of(3)) * IN_PROMPT) | u32::from(id.is_multiple_of(5))
}

/// Logits are spread evenly between −1 and 1: of 32,000, at temperature 0.01, top-p 0.95 keeps some 480, which are those
/// within `ln 20` × 0.01 of the highest; so does min-p 0.05.
fn sample_row(choice: Choice, seed: u64, stream: u32) -> SampleRow {
    let drawn = SampleRow {
        temperature: 0.01,
        seed,
        stream,
        ..SampleRow::default()
    };
    match choice {
        Choice::Greedy => SampleRow {
            temperature: 0.0,
            ..SampleRow::default()
        },
        Choice::TopK => SampleRow {
            top_k: Some(50),
            ..drawn
        },
        Choice::TopP => SampleRow {
            top_p: 0.95,
            ..drawn
        },
        Choice::MinP => SampleRow {
            min_p: 0.05,
            ..drawn
        },
        Choice::Penalties => SampleRow {
            repetition_penalty: 1.1,
            frequency_penalty: 0.1,
            presence_penalty: 0.1,
            counts: Some(stream),
            ..drawn
        },
        Choice::Mask => SampleRow {
            mask: Some(stream),
            ..drawn
        },
    }
}

/// Per row: its logits (f32), what is asked (16 words), the chosen id; its log-probability written, and ids and
/// log-probabilities of the 20 likeliest.
pub(super) fn logprobs<D: Device>(
    pool: &mut Pool<'_, D>,
    shape: &Shape,
    m: usize,
) -> Result<Case, KernelBenchError> {
    let vocab = shape.vocab;
    let per_row = vocab * 4 + 16 * 4 + 4 + 4 + TOP * 8;
    let asked = SampleRow {
        logprobs: Some(TOP as u32),
        ..SampleRow::default()
    };
    pool.case(moves(m * per_row), |pool, _| {
        let ids: Vec<u32> = (0..m).map(|row| (row * 17 % vocab) as u32).collect();
        let tensors = Logprobs {
            logits: pool.floats(m * vocab)?,
            rows: pool.words(&asked.words().repeat(m))?,
            ids: pool.words(&ids)?,
            chosen: pool.empty(m * 4)?,
            top_ids: pool.empty(m * TOP * 4)?,
            top_logprobs: pool.empty(m * TOP * 4)?,
        };
        let sizes = [m, vocab, TOP].map(|size| size as u32);
        Ok(vec![ops::logprobs_launch(
            tensors, sizes[0], sizes[1], sizes[2],
        )])
    })
}

/// Per sequence: its tokens read, where they begin and end (3 words), which table; the table written.
pub(super) fn count_tokens<D: Device>(
    pool: &mut Pool<'_, D>,
    shape: &Shape,
    m: usize,
) -> Result<Case, KernelBenchError> {
    let vocab = shape.vocab;
    let length = shape.contexts.iter().copied().min().unwrap_or(0);
    pool.case(
        moves(m * (length * 4 + 3 * 4 + 4 + vocab * 4)),
        |pool, _| {
            let tokens: Vec<u32> = (0..m * length).map(|at| (at * 7 % vocab) as u32).collect();
            let extents: Vec<u32> = (0..m)
                .flat_map(|row| [row * length, row * length + length / 2, (row + 1) * length])
                .map(|place| place as u32)
                .collect();
            let which: Vec<u32> = (0..m as u32).collect();
            let tensors = [
                pool.words(&tokens)?,
                pool.words(&extents)?,
                pool.words(&which)?,
                pool.empty(m * vocab * 4)?,
            ];
            Ok(vec![ops::count_tokens_launch(
                tensors,
                m as u32,
                vocab as u32,
            )])
        },
    )
}

/// Log-probabilities that are asked for: the most that OpenAI's API allows.
const TOP: usize = 20;
