//! Kernels around the experts: the gate's choice, the sort, the sum.

use mixgate_emulate::Buffer;

use super::{at, narrow_floats, narrowed, run};
use crate::ops::testing::{floats, indices, poisoned, poisoned_indices, tensor, values};
use crate::ops::{self, RouteSizes};

fn routed(normed: &[f32], gate: &[f32], sizes: RouteSizes) -> (Vec<u32>, Vec<f32>) {
    let (normed, gate) = (narrowed(normed), narrowed(gate));
    let pairs = (sizes.num_tokens * sizes.top_k) as usize;
    let (experts, weights) = (
        Buffer::<u32>::poisoned(pairs),
        Buffer::<f32>::poisoned(pairs),
    );
    run(ops::route_launch(
        [at(&normed), at(&gate), at(&experts), at(&weights)],
        sizes,
    ));
    (experts.values(), weights.values())
}

#[test]
fn route_matches_cpu() {
    for (tokens, hidden, experts, top_k) in [
        (1, 8, 8, 2),
        (3, 264, 5, 3),
        (130, 64, 8, 2),
        (2, 4096, 8, 2),
        (4, 16, 32, 1),
        (2, 8, 1, 1),
    ] {
        let (normed, gate) = (
            narrow_floats(8, tokens * hidden),
            narrow_floats(9, experts * hidden),
        );
        let sizes = RouteSizes {
            num_tokens: tokens as u32,
            hidden: hidden as u32,
            num_experts: experts as u32,
            top_k: top_k as u32,
        };
        let (chosen, weights) = routed(&normed, &gate, sizes);

        let logits = poisoned(&[tokens, experts]);
        let (x, w) = (
            tensor(&normed, &[tokens, hidden]),
            tensor(&gate, &[experts, hidden]),
        );
        ops::linear(&x, &w, &logits).unwrap();
        let twin = poisoned_indices(tokens * top_k)
            .reshape((tokens, top_k))
            .unwrap();
        let twin_weights = poisoned(&[tokens, top_k]);
        ops::route(&logits, &twin, &twin_weights).unwrap();
        assert_eq!(
            chosen,
            twin.flatten_all().unwrap().to_vec1::<u32>().unwrap()
        );
        // The logits' sums have another order: their error, about eps times the root of their terms, is the exponent's.
        let tolerance = f32::EPSILON * (8.0 + 4.0 * (hidden as f32).sqrt());
        for (given, exact) in weights.iter().zip(values(&twin_weights)) {
            assert!((given - exact).abs() <= tolerance, "{given}, not {exact}");
        }
    }
}

#[test]
fn equal_logits_go_to_the_lower_expert_and_huge_ones_do_not_overflow() {
    let sizes = |num_experts, top_k| RouteSizes {
        num_tokens: 1,
        hidden: 8,
        num_experts,
        top_k,
    };
    let one = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    let gate = |logits: &[f32]| -> Vec<f32> {
        logits
            .iter()
            .flat_map(|&logit| one.map(|x| x * logit))
            .collect()
    };
    assert_eq!(
        routed(&one, &gate(&[1.0, 2.0, 2.0, 2.0]), sizes(4, 2)),
        (vec![1, 2], vec![0.5, 0.5])
    );
    assert_eq!(
        routed(&one, &gate(&[0.0; 8]), sizes(8, 8)).0,
        (0..8).collect::<Vec<_>>()
    );
    assert_eq!(
        routed(&one, &gate(&[-1e30, 1e30, 0.0]), sizes(3, 2)),
        (vec![1, 2], vec![1.0, 0.0])
    );
}

#[test]
fn sort_by_expert_matches_cpu() {
    let random = |seed: u64, count: usize, experts: u32| -> Vec<u32> {
        floats(seed, count)
            .iter()
            .map(|x| ((x + 1.0) / 2.0 * experts as f32) as u32 % experts)
            .collect()
    };
    let cases = [
        (vec![3, 1, 3, 1, 0], 5),
        (vec![0], 1),
        (vec![2; 100], 3),        // all on one
        (random(10, 33, 8), 8),   // one more than a warp
        (random(11, 1024, 8), 8), // a full block
        (random(12, 1025, 8), 8), // two turns of it
        (random(13, 8192, 8), 8), // a prefill of 4,096 tokens
        (random(14, 700, 32), 32),
        ((0..96).map(|i| if i % 2 == 0 { 1 } else { 6 }).collect(), 8), // most are empty
    ];
    for (pairs, experts) in cases {
        let (from, order, offsets) = (
            Buffer::new(&pairs),
            Buffer::<u32>::poisoned(pairs.len()),
            Buffer::<u32>::poisoned(experts + 1),
        );
        let tensors = [at(&from), at(&order), at(&offsets)];
        run(ops::sort_by_expert_launch(
            tensors,
            pairs.len() as u32,
            experts as u32,
        ));
        let (twin, twin_offsets) = (poisoned_indices(pairs.len()), poisoned_indices(experts + 1));
        let column = indices(&pairs).reshape((pairs.len(), 1)).unwrap();
        ops::sort_by_expert(&column, &twin, &twin_offsets).unwrap();
        assert_eq!(order.values(), twin.to_vec1::<u32>().unwrap());
        assert_eq!(offsets.values(), twin_offsets.to_vec1::<u32>().unwrap());
    }
}

#[test]
fn combine_experts_matches_cpu() {
    for (tokens, hidden, top_k) in [(1, 4, 1), (3, 100, 2), (2, 4096, 2), (2, 36, 3)] {
        let (pairs, weights) = (
            floats(15, tokens * top_k * hidden),
            floats(16, tokens * top_k),
        );
        let (pairs_at, weights_at) = (Buffer::new(&pairs), Buffer::new(&weights));
        let out = Buffer::<f32>::poisoned(tokens * hidden);
        let tensors = [at(&pairs_at), at(&weights_at), at(&out)];
        run(ops::combine_experts_launch(
            tensors,
            tokens as u32,
            hidden as u32,
            top_k as u32,
        ));
        let exact = |i: usize| -> (f64, f64) {
            let terms = (0..top_k).map(|rank| {
                let pair = i / hidden * top_k + rank;
                weights[pair] as f64 * pairs[pair * hidden + i % hidden] as f64
            });
            terms.fold((0.0, 0.0), |(sum, size), term| {
                (sum + term, size + term.abs())
            })
        };
        for (i, given) in out.values().into_iter().enumerate() {
            let (sum, size) = exact(i);
            // One rounding for each term.
            assert!((given as f64 - sum).abs() <= top_k as f64 * size * f32::EPSILON as f64);
        }
        let twin = poisoned(&[tokens, hidden]);
        let (pairs, weights) = (
            tensor(&pairs, &[tokens * top_k, hidden]),
            tensor(&weights, &[tokens, top_k]),
        );
        ops::combine_experts(&pairs, &weights, &twin).unwrap();
        for (given, twin) in out.values().iter().zip(values(&twin)) {
            assert!((given - twin).abs() <= 4.0 * f32::EPSILON, "{given} {twin}");
        }
    }
}
