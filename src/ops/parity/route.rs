//! The gate's choice and the sort, by one kernel for few tokens and by two for many.

use super::{Buffer, at, narrow_floats, narrowed, run};
use crate::ops::route::{NO_EXPERT, route_launch, sort_by_expert_launch};
use crate::ops::testing::{floats, indices, poisoned, poisoned_indices, tensor, values};
use crate::ops::{self, Address, Launch, Route, RouteSizes};

/// The experts of each pair, their weights, the order of the pairs and where experts begin, as launches leave them. What is
/// not written, since a token only fills the batch, is left out.
#[derive(Debug, PartialEq)]
struct Routed {
    experts: Vec<u32>,
    weights: Vec<f32>,
    order: Vec<u32>,
    offsets: Vec<u32>,
}

fn routed_by(
    launches: impl Fn(Route, RouteSizes) -> Vec<Launch>,
    normed: &[f32],
    gate: &[f32],
    sizes: RouteSizes,
) -> Routed {
    routed_among(launches, normed, gate, sizes, |_| false)
}

/// `fills`: which tokens only fill the batch.
fn routed_among(
    launches: impl Fn(Route, RouteSizes) -> Vec<Launch>,
    normed: &[f32],
    gate: &[f32],
    sizes: RouteSizes,
    fills: impl Fn(u32) -> bool,
) -> Routed {
    let slot = |token| if fills(token) { u32::MAX } else { token };
    let slots = Buffer::new(&(0..sizes.num_tokens).map(slot).collect::<Vec<u32>>());
    let (normed, gate) = (narrowed(normed), narrowed(gate));
    let pairs = (sizes.num_tokens * sizes.top_k) as usize;
    let (experts, weights) = (
        Buffer::<u32>::poisoned(pairs),
        Buffer::<f32>::poisoned(pairs),
    );
    let (order, offsets) = (
        Buffer::<u32>::poisoned(pairs),
        Buffer::<u32>::poisoned(sizes.num_experts as usize + 1),
    );
    let tensors = Route {
        normed: at(&normed),
        gate: at(&gate),
        slots: at(&slots),
        experts: at(&experts),
        weights: at(&weights),
        order: at(&order),
        offsets: at(&offsets),
    };
    launches(tensors, sizes).into_iter().for_each(run);
    let ranks = |token| token * sizes.top_k as usize..(token + 1) * sizes.top_k as usize;
    let is_real = |token: &usize| !fills(*token as u32);
    let real = || (0..sizes.num_tokens as usize).filter(is_real).map(ranks);
    let offsets = offsets.values();
    let kept = offsets[sizes.num_experts as usize] as usize;
    Routed {
        experts: experts.values(),
        weights: real().flat_map(|its| weights.read(its)).collect(),
        order: order.read(0..kept),
        offsets,
    }
}

fn routed(normed: &[f32], gate: &[f32], sizes: RouteSizes) -> (Vec<u32>, Vec<f32>) {
    let all = routed_by(ops::route_launches, normed, gate, sizes);
    (all.experts, all.weights)
}

#[test]
fn route_matches_cpu() {
    check_route(&[
        (1, 8, 8, 2),
        (3, 264, 5, 3),
        (4, 72, 8, 2),
        (5, 72, 8, 2),
        (130, 64, 8, 2),
        (2, 4096, 8, 2),
        (4, 16, 32, 1),
        (4, 16, 16, 16),
        (8, 16, 32, 32),
        (3, 2056, 3, 2),
        (2, 8, 1, 1),
    ]);
}

/// Tokens, width, experts, experts of each token.
pub(super) fn check_route(cases: &[(usize, usize, usize, usize)]) {
    for &(tokens, hidden, experts, top_k) in cases {
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
        let given = routed_by(ops::route_launches, &normed, &gate, sizes);

        let logits = poisoned(&[tokens, experts]);
        let (x, w) = (
            tensor(&normed, &[tokens, hidden]),
            tensor(&gate, &[experts, hidden]),
        );
        ops::linear(&x, &w.into(), &logits).unwrap();
        let twin = poisoned_indices(tokens * top_k)
            .reshape((tokens, top_k))
            .unwrap();
        let twin_weights = poisoned(&[tokens, top_k]);
        ops::route(&logits, &twin, &twin_weights).unwrap();
        assert_eq!(
            given.experts,
            twin.flatten_all().unwrap().to_vec1::<u32>().unwrap()
        );
        // The logits' sums have another order: their error, about eps times the root of their terms, is the exponent's.
        let tolerance = f32::EPSILON * (8.0 + 4.0 * (hidden as f32).sqrt());
        for (given, exact) in given.weights.iter().zip(values(&twin_weights)) {
            assert!((given - exact).abs() <= tolerance, "{given}, not {exact}");
        }
        let (order, offsets) = (
            poisoned_indices(tokens * top_k),
            poisoned_indices(experts + 1),
        );
        ops::sort_by_expert(&twin, &order, &offsets).unwrap();
        assert_eq!(given.order, order.to_vec1::<u32>().unwrap());
        assert_eq!(given.offsets, offsets.to_vec1::<u32>().unwrap());
    }
}

#[test]
fn few_tokens_are_routed_to_the_bits_that_they_have_among_many() {
    let (hidden, experts) = (520, 8);
    let (normed, gate) = (
        narrow_floats(21, 4 * hidden),
        narrow_floats(22, experts * hidden),
    );
    for tokens in 1..=4 {
        let sizes = RouteSizes {
            num_tokens: tokens as u32,
            hidden: hidden as u32,
            num_experts: experts as u32,
            top_k: 2,
        };
        let few = &normed[..tokens * hidden];
        assert_eq!(
            routed_by(ops::route_launches, few, &gate, sizes),
            routed_by(by_two_kernels, few, &gate, sizes)
        );
    }
}

fn by_two_kernels(at: Route, sizes: RouteSizes) -> Vec<Launch> {
    let tensors = [at.experts, at.order, at.offsets];
    let pairs = sizes.num_tokens * sizes.top_k;
    let sort = sort_by_expert_launch(tensors, pairs, sizes.num_experts);
    vec![route_launch(at, sizes), sort]
}

/// Fillers in the middle, at the end, everywhere but for one token, and everywhere; by one kernel and by two.
#[test]
fn what_only_fills_a_batch_goes_to_no_expert_and_changes_nothing_for_others() {
    let (hidden, experts, top_k) = (72, 8, 2);
    let gate = narrow_floats(24, experts * hidden);
    let sizes = |num_tokens: usize| RouteSizes {
        num_tokens: num_tokens as u32,
        hidden: hidden as u32,
        num_experts: experts as u32,
        top_k: top_k as u32,
    };
    for (tokens, fillers) in [
        (1, vec![0]),
        (2, vec![0]),
        (4, vec![3]),
        (4, vec![1, 2]),
        (4, vec![0, 1, 3]),
        (8, vec![5, 6, 7]),
        (8, vec![2, 4]),
        (40, (0..40).filter(|&token| token != 17).collect()),
        (40, (0..40).collect()),
        (300, (250..300).chain([0, 128]).collect()),
    ] {
        let normed = narrow_floats(23, tokens * hidden);
        let is_filler = |token: u32| fillers.contains(&(token as usize));
        let real: Vec<usize> = (0..tokens)
            .filter(|&token| !is_filler(token as u32))
            .collect();
        let few = real
            .iter()
            .flat_map(|&token| &normed[token * hidden..][..hidden]);
        let alone = match real.is_empty() {
            true => Routed {
                experts: Vec::new(),
                weights: Vec::new(),
                order: Vec::new(),
                offsets: vec![0; experts + 1],
            },
            false => {
                let few: Vec<f32> = few.copied().collect();
                routed_by(by_two_kernels, &few, &gate, sizes(real.len()))
            }
        };
        // Where each pair is when nobody is left out.
        let among = |pair: u32| (real[pair as usize / top_k] * top_k) as u32 + pair % top_k as u32;
        let mut chosen = vec![NO_EXPERT; tokens * top_k];
        for (pair, &expert) in alone.experts.iter().enumerate() {
            chosen[among(pair as u32) as usize] = expert;
        }
        let wanted = Routed {
            experts: chosen,
            weights: alone.weights,
            order: alone.order.into_iter().map(among).collect(),
            offsets: alone.offsets,
        };
        let chosen = routed_among(
            ops::route_launches,
            &normed,
            &gate,
            sizes(tokens),
            is_filler,
        );
        assert_eq!(chosen, wanted, "{tokens} tokens without {fillers:?}");
        let by_two = routed_among(by_two_kernels, &normed, &gate, sizes(tokens), is_filler);
        assert_eq!(by_two, wanted, "{tokens} tokens without {fillers:?}");
    }
}

/// Logits that are no numbers, or none that a softmax is made for: every rank has its own expert, as on the CPU.
#[test]
fn any_logits_have_an_order_and_weights_that_sum_to_one() {
    const NAN: f32 = f32::NAN;
    const INF: f32 = f32::INFINITY;
    for (logits, top_k, experts, weights) in [
        ([NAN; 4], 2, [0, 1].as_slice(), [0.5, 0.5].as_slice()),
        ([NAN; 4], 4, &[0, 1, 2, 3], &[0.25; 4]),
        ([NAN, 1.0, NAN, 1.0], 2, &[1, 3], &[0.5, 0.5]),
        ([NAN, -3.0, NAN, NAN], 3, &[1, 0, 2], &[1.0, 0.0, 0.0]),
        ([-INF, NAN, -INF, NAN], 3, &[0, 1, 2], &[1.0 / 3.0; 3]),
        ([NAN, INF, 7.0, INF], 3, &[1, 3, 2], &[0.5, 0.5, 0.0]),
        (
            [INF, NAN, -INF, 0.0],
            4,
            &[0, 3, 1, 2],
            &[1.0, 0.0, 0.0, 0.0],
        ),
        ([0.0, -0.0, -0.0, 0.0], 3, &[0, 1, 2], &[1.0 / 3.0; 3]),
    ] {
        let on_cpu = poisoned_indices(top_k).reshape((1, top_k)).unwrap();
        let cpu_weights = poisoned(&[1, top_k]);
        ops::route(&tensor(&logits, &[1, 4]), &on_cpu, &cpu_weights).unwrap();
        let on_cpu = on_cpu.flatten_all().unwrap().to_vec1::<u32>().unwrap();
        let close = |given: &[f32]| {
            let off = |(a, b): (&f32, &f32)| (a - b).abs() <= 4.0 * f32::EPSILON;
            assert!(given.iter().zip(weights).all(off), "{logits:?}: {given:?}");
        };
        assert_eq!(on_cpu, experts, "{logits:?}");
        close(&values(&cpu_weights));
        // Alone, beside others in one block, and in more than share one.
        for tokens in [1, 3, 5] {
            let one = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
            let gate: Vec<f32> = logits
                .iter()
                .flat_map(|&logit| [logit, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
                .collect();
            let sizes = RouteSizes {
                num_tokens: tokens,
                hidden: 8,
                num_experts: 4,
                top_k: top_k as u32,
            };
            let normed = one.repeat(tokens as usize);
            let given = routed_by(ops::route_launches, &normed, &gate, sizes);
            assert_eq!(given.experts, experts.repeat(tokens as usize), "{logits:?}");
            given.weights.chunks(top_k).for_each(close);
            assert_eq!(given.order.len(), tokens as usize * top_k);
        }
    }
}

#[test]
fn four_tokens_to_sixteen_experts_share_a_block_and_more_do_not() {
    let nowhere = Address(0);
    let at = Route {
        normed: nowhere,
        gate: nowhere,
        slots: nowhere,
        experts: nowhere,
        weights: nowhere,
        order: nowhere,
        offsets: nowhere,
    };
    let kernels = |num_tokens, num_experts| -> Vec<&str> {
        let sizes = RouteSizes {
            num_tokens,
            hidden: 4096,
            num_experts,
            top_k: 2,
        };
        let launches = ops::route_launches(at, sizes);
        launches.iter().map(|launch| launch.kernel).collect()
    };
    assert_eq!(kernels(4, 16), ["route_few"]);
    assert_eq!(kernels(5, 16), ["route", "sort_by_expert"]);
    assert_eq!(kernels(4, 17), ["route", "sort_by_expert"]);
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
        (vec![7; 2049], 8), // all on the last, in more turns than one
    ];
    check_sort_by_expert(&cases);
}

/// The expert of each pair, and how many experts there are.
pub(super) fn check_sort_by_expert(cases: &[(Vec<u32>, usize)]) {
    for (pairs, experts) in cases {
        let (pairs, experts) = (&pairs[..], *experts);
        let (from, order, offsets) = (
            Buffer::new(pairs),
            Buffer::<u32>::poisoned(pairs.len()),
            Buffer::<u32>::poisoned(experts + 1),
        );
        let tensors = [at(&from), at(&order), at(&offsets)];
        run(sort_by_expert_launch(
            tensors,
            pairs.len() as u32,
            experts as u32,
        ));
        let (twin, twin_offsets) = (poisoned_indices(pairs.len()), poisoned_indices(experts + 1));
        let column = indices(pairs).reshape((pairs.len(), 1)).unwrap();
        ops::sort_by_expert(&column, &twin, &twin_offsets).unwrap();
        assert_eq!(order.values(), twin.to_vec1::<u32>().unwrap());
        assert_eq!(offsets.values(), twin_offsets.to_vec1::<u32>().unwrap());
    }
}
