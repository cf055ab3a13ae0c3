//! The roofline against tables that were computed apart from this code, from the same formulas.

use super::*;
use crate::engine::fake;
use crate::engine::scheduler::Part;
use crate::engine::sequence::{SequenceId, Sequences};
use Precision::{Bf16, Fp8, Int8, Q4K, W4a16};

/// Sequences with tokens `start..start + num_tokens` each to compute, all of them due a token.
fn plan(sequences: u64, start: usize, num_tokens: usize) -> StepPlan {
    let mut slots = Sequences::default();
    let part = |request| Part {
        id: SequenceId { request, index: 0 },
        slot: slots.insert(fake::sequences(request, fake::request(&[5], 1), 0).remove(0)),
        start,
        num_tokens,
        due: true,
    };
    let mut plan = StepPlan::default();
    plan.parts.extend((0..sequences).map(part));
    plan
}

/// `sequences` that decode their 1,024th token.
fn decode(sequences: u64) -> StepPlan {
    plan(sequences, 1023, 1)
}

fn assert_near(given: f64, wanted: f64, rounding: f64, what: &str) {
    let limit = 0.02 * wanted + rounding;
    assert!(
        (given - wanted).abs() <= limit,
        "{what}: {given}, the table has {wanted}"
    );
}

/// Tokens per second of a step that decodes a token for each of B sequences with 1,024 tokens of context, at datasheet
/// rates: B, A100 PCIe, H100 NVL, H100 SXM, H200.
const DECODE: [(&[Precision], [[f64; 5]; 6]); 4] = [
    (
        &[Bf16],
        [
            [1.0, 75.0, 152.0, 130.0, 187.0],
            [8.0, 181.0, 365.0, 314.0, 450.0],
            [32.0, 633.0, 1276.0, 1096.0, 1570.0],
            [64.0, 1208.0, 2436.0, 2092.0, 2998.0],
            [128.0, 2216.0, 4467.0, 3837.0, 5498.0],
            [256.0, 3800.0, 7659.0, 6578.0, 9426.0],
        ],
    ),
    (
        &[Fp8, Int8],
        [
            [1.0, 150.0, 302.0, 259.0, 372.0],
            [8.0, 358.0, 721.0, 620.0, 888.0],
            [32.0, 1208.0, 2436.0, 2092.0, 2998.0],
            [64.0, 2216.0, 4467.0, 3837.0, 5497.0],
            [128.0, 3800.0, 7658.0, 6578.0, 9426.0],
            [256.0, 5912.0, 11916.0, 10235.0, 14666.0],
        ],
    ),
    (
        &[W4a16],
        [
            [1.0, 277.0, 560.0, 481.0, 689.0],
            [8.0, 667.0, 1344.0, 1154.0, 1654.0],
            [32.0, 2132.0, 4297.0, 3691.0, 5289.0],
            [64.0, 3675.0, 7407.0, 6363.0, 9117.0],
            [128.0, 5760.0, 11610.0, 9972.0, 14289.0],
            [256.0, 8041.0, 16207.0, 13921.0, 19947.0],
        ],
    ),
    (
        &[Q4K],
        [
            [1.0, 264.0, 532.0, 457.0, 655.0],
            [8.0, 623.0, 1256.0, 1079.0, 1547.0],
            [32.0, 2007.0, 4045.0, 3475.0, 4979.0],
            [64.0, 3488.0, 7030.0, 6039.0, 8653.0],
            [128.0, 5528.0, 11141.0, 9570.0, 13713.0],
            [256.0, 7812.0, 15745.0, 13524.0, 19378.0],
        ],
    ),
];
const CARDS: [Card; 4] = [Card::A100, Card::H100Nvl, Card::H100, Card::H200];

#[test]
fn decode_steps_take_the_time_to_move_their_bytes() {
    for (precisions, rows) in DECODE {
        for &precision in precisions {
            for [batch, rates @ ..] in rows {
                for (card, wanted) in CARDS.into_iter().zip(rates) {
                    let roofline = Roofline::at(Shape::Mixtral8x7b, card.datasheet(), precision);
                    let given = batch / roofline.step_time(&decode(batch as u64)).as_secs_f64();
                    assert_near(
                        given,
                        wanted,
                        0.5,
                        &format!("{precision:?} {card:?} {batch}"),
                    );
                }
            }
        }
    }
}

#[test]
fn measured_rates_are_used_where_there_are_any() {
    // Milliseconds at the measured copy rate: precision, batch, H100 SXM, H200.
    for (precision, batch, h100, h200) in [
        (Bf16, 1, 8.5, 6.0),
        (Bf16, 256, 43.5, 30.3),
        (Fp8, 8, 14.4, 10.1),
        (Fp8, 128, 21.7, 15.2),
        (W4a16, 32, 9.7, 6.8),
        (W4a16, 256, 20.5, 14.3),
        (Q4K, 64, 11.8, 8.3),
    ] {
        for (card, wanted) in [(Card::H100, h100), (Card::H200, h200)] {
            let roofline = Roofline::new(Shape::Mixtral8x7b, card, precision);
            let given = roofline.step_time(&decode(batch)).as_secs_f64() * 1e3;
            assert_near(
                given,
                wanted,
                0.05,
                &format!("{precision:?} {card:?} {batch}"),
            );
        }
    }
    let a100 = |rates| Roofline::at(Shape::Mixtral8x7b, rates, W4a16).step_time(&decode(8));
    assert_eq!(a100(Card::A100.rates()), a100(Card::A100.datasheet()));
}

#[test]
fn prefill_takes_the_time_of_its_arithmetic() {
    // One prompt in one step, in milliseconds: its length, A100 bf16, NVL bf16 and fp8, SXM and H200 bf16 and fp8.
    for (length, wanted) in [
        (1024, [84.0, 31.0, 16.0, 26.0, 13.0]),
        (2048, [169.0, 63.0, 32.0, 53.0, 27.0]),
        (8192, [719.0, 269.0, 145.0, 227.0, 122.0]),
        (32_768, [3553.0, 1327.0, 832.0, 1121.0, 702.0]),
    ] {
        let on = [
            (Card::A100, Bf16),
            (Card::H100Nvl, Bf16),
            (Card::H100Nvl, Fp8),
            (Card::H100, Bf16),
            (Card::H100, Fp8),
        ];
        let work = Work::of(&plan(1, 0, length));
        for ((card, precision), wanted) in on.into_iter().zip(wanted) {
            let roofline = Roofline::at(Shape::Mixtral8x7b, card.datasheet(), precision);
            let given = roofline.compute_seconds(&work) * 1e3;
            assert_near(
                given,
                wanted,
                0.5,
                &format!("{precision:?} {card:?} {length}"),
            );
        }
    }
    // The A100 in bf16 has so little arithmetic per byte that nothing else counts.
    let roofline = Roofline::at(Shape::Mixtral8x7b, Card::A100.datasheet(), Bf16);
    let seconds = roofline.step_time(&plan(1, 0, 8192)).as_secs_f64();
    assert_near(seconds, 0.719, 0.0, "step_time");
}

#[test]
fn chunks_of_a_prompt_do_the_attention_of_the_whole() {
    let whole = Work::of(&plan(1, 0, 4096));
    let chunks: f64 = (0..8)
        .map(|chunk| Work::of(&plan(1, chunk * 512, 512)).pairs)
        .sum();
    assert_eq!(chunks, whole.pairs);
    assert_eq!(whole.pairs, 4096.0 * 4097.0 / 2.0);
}

#[test]
fn a_step_costs_less_than_its_parts_apart() {
    let roofline = Roofline::new(Shape::Mixtral8x7b, Card::A100, W4a16);
    let alone = roofline.step_time(&decode(1));
    assert!(roofline.step_time(&decode(64)) < alone * 64);
    assert!(roofline.step_time(&decode(64)) > alone);
    let mut mixed = decode(64);
    mixed.parts.extend(plan(1, 0, 512).parts);
    let prefill = roofline.step_time(&plan(1, 0, 512));
    let decoding = roofline.step_time(&decode(64));
    assert!(roofline.step_time(&mixed) < prefill + decoding);
    assert!(roofline.step_time(&mixed) > prefill.max(decoding));
}

#[test]
fn shapes_have_their_published_numbers_of_parameters() {
    let parameters = Shape::ALL.map(|shape| shape.sizes().num_parameters());
    assert_eq!(parameters, [46_702_792_704, 140_630_071_296]);
    let sizes = Shape::Mixtral8x7b.sizes();
    assert_eq!(sizes.kv_bytes_per_token(), 128 << 10);
    assert_eq!(sizes.activation_bytes_per_token(), 11_010_048);
}
