//! The gate's choice: which experts see a token, and with which weight.

use candle_core::Tensor;

use super::OpError;
use super::access::{check_dims, check_index, dims, read, shape, write};
use super::lanes::exp;
use super::launch::{Address, Launch, WARP, threads_for};

/// Picks each token's most probable experts and scales their probabilities to sum to one.
///
/// Softmax over all experts, then top-k, then renormalisation, as transformers' Mixtral does. Of equally probable
/// experts the lower index comes first. Ranks descend by probability. A logit that is NaN counts as minus infinity, and
/// infinite logits that are equal have equal weights, so that any row has `top_k` experts and weights that sum to one.
///
/// - `logits`: `[num_tokens, num_experts]`, f32, contiguous
/// - `experts`: `[num_tokens, top_k]`, u32, written
/// - `weights`: `[num_tokens, top_k]`, f32, written
///
/// # Errors
/// [`OpError::Shape`] naming the argument.
pub fn route(logits: &Tensor, experts: &Tensor, weights: &Tensor) -> Result<(), OpError> {
    const OP: &str = "route";
    let [num_tokens, num_experts] = dims(OP, "logits", logits)?;
    let [_, top_k] = dims(OP, "experts", experts)?;
    check_dims(OP, "experts", experts, &[num_tokens, top_k])?;
    check_dims(OP, "weights", weights, &[num_tokens, top_k])?;
    if top_k == 0 || top_k > num_experts {
        return Err(shape(
            OP,
            "experts",
            format!("1 to {num_experts} wide"),
            format!("{top_k} wide"),
        ));
    }
    let rows = &*read::<f32>(OP, "logits", logits)?;
    write(
        OP,
        "experts",
        experts,
        &[logits, weights],
        |experts: &mut [u32]| {
            write(
                OP,
                "weights",
                weights,
                &[logits],
                |weights: &mut [f32]| {
                    let chosen = experts
                        .chunks_exact_mut(top_k)
                        .zip(weights.chunks_exact_mut(top_k));
                    for (row, (experts, weights)) in rows.chunks_exact(num_experts).zip(chosen) {
                        choose(row, experts, weights);
                    }
                },
            )
        },
    )?
}

fn choose(logits: &[f32], experts: &mut [u32], weights: &mut [f32]) {
    // The larger of NaN and a number is the number.
    let logit = |expert: usize| logits[expert].max(f32::NEG_INFINITY);
    let maximum = (0..logits.len())
        .map(logit)
        .fold(f32::NEG_INFINITY, f32::max);
    // Of infinities the difference is no number, and equals have the same share.
    let share = |x: f32| match x == maximum {
        true => 1.0,
        false => exp(x - maximum),
    };
    let total: f32 = (0..logits.len()).map(|expert| share(logit(expert))).sum();
    for rank in 0..experts.len() {
        let mut best = usize::MAX;
        for expert in 0..logits.len() {
            let taken = experts[..rank].contains(&(expert as u32));
            if !taken && (best == usize::MAX || logit(expert) > logit(best)) {
                best = expert;
            }
        }
        experts[rank] = best as u32;
        weights[rank] = share(logit(best)) / total;
    }
    let kept: f32 = weights.iter().sum();
    for weight in weights {
        *weight /= kept;
    }
}

/// Sorts the pairs (token, rank) by expert, keeping their order within an expert: a counting sort.
///
/// - `experts`: `[num_tokens, top_k]`, u32: pair `p = token * top_k + rank` goes to expert `experts[p]`
/// - `order`: `[num_tokens * top_k]`, u32, written: the pairs, expert by expert
/// - `offsets`: `[num_experts + 1]`, u32, written: expert `e` has `order[offsets[e]..offsets[e + 1]]`
///
/// # Errors
/// [`OpError::Shape`] naming the argument; [`OpError::Index`] for an expert that does not exist.
pub fn sort_by_expert(experts: &Tensor, order: &Tensor, offsets: &Tensor) -> Result<(), OpError> {
    const OP: &str = "sort_by_expert";
    let [num_tokens, top_k] = dims(OP, "experts", experts)?;
    let [ends] = dims(OP, "offsets", offsets)?;
    check_dims(OP, "order", order, &[num_tokens * top_k])?;
    let num_experts = ends.saturating_sub(1);
    let pairs = &*read::<u32>(OP, "experts", experts)?;
    for &expert in pairs {
        check_index(OP, "experts", expert as usize, num_experts)?;
    }
    write(
        OP,
        "order",
        order,
        &[experts, offsets],
        |order: &mut [u32]| {
            write(
                OP,
                "offsets",
                offsets,
                &[experts],
                |offsets: &mut [u32]| {
                    offsets.fill(0);
                    // While pairs are placed, offsets[e + 1] is where expert e's next pair goes; then it is where e ends.
                    for &expert in pairs {
                        if let Some(count) = offsets.get_mut(expert as usize + 2) {
                            *count += 1;
                        }
                    }
                    for expert in 2..offsets.len() {
                        offsets[expert] += offsets[expert - 1];
                    }
                    for (pair, &expert) in pairs.iter().enumerate() {
                        let next = &mut offsets[expert as usize + 1];
                        order[*next as usize] = pair as u32;
                        *next += 1;
                    }
                },
            )
        },
    )?
}

/// Sizes of the mixture that the device's kernels route.
#[derive(Debug, Clone, Copy)]
pub struct RouteSizes {
    /// Tokens of the step.
    pub num_tokens: u32,
    /// A multiple of 8.
    pub hidden: u32,
    /// At most 32.
    pub num_experts: u32,
    /// At most `num_experts`.
    pub top_k: u32,
}

/// Where the tensors of [`route_launches`] lie.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// `[num_tokens, hidden]`, bf16
    pub normed: Address,
    /// `[num_experts, hidden]`, bf16
    pub gate: Address,
    /// `[num_tokens]`, u32, uploaded: [`u32::MAX`] for a token that only fills the batch and goes to no expert
    pub slots: Address,
    /// `[num_tokens, top_k]`, u32, written; 32 for what only fills the batch
    pub experts: Address,
    /// `[num_tokens, top_k]`, f32, written but for what only fills the batch
    pub weights: Address,
    /// `[num_tokens * top_k]`, u32, written for the pairs that go to an expert
    pub order: Address,
    /// `[num_experts + 1]`, u32, written
    pub offsets: Address,
}

/// Launches the gate's product, [`route`] and [`sort_by_expert`] on a device (`kernels/route.cu`): one kernel where few tokens
/// share a block, or else two. A token's choice has the same bits in both.
pub fn route_launches(at: Route, sizes: RouteSizes) -> Vec<Launch> {
    if sizes.num_tokens <= FEW_TOKENS && sizes.num_experts <= FEW_EXPERTS {
        return vec![route_few_launch(at, sizes)];
    }
    let pairs = sizes.num_tokens * sizes.top_k;
    let tensors = [at.experts, at.order, at.offsets];
    let sort = sort_by_expert_launch(tensors, pairs, sizes.num_experts);
    vec![route_launch(at, sizes), sort]
}

fn route_few_launch(at: Route, sizes: RouteSizes) -> Launch {
    let RouteSizes {
        num_tokens,
        hidden,
        num_experts,
        top_k,
    } = sizes;
    let arguments = vec![
        at.normed.into(),
        at.gate.into(),
        at.slots.into(),
        at.experts.into(),
        at.weights.into(),
        at.order.into(),
        at.offsets.into(),
        num_tokens.into(),
        hidden.into(),
        num_experts.into(),
        top_k.into(),
    ];
    // Logits, choices, and what the sort takes of a warp for each expert.
    let words = FEW_TOKENS * (num_experts + top_k) + (num_experts + 1) * num_experts;
    Launch {
        shared_bytes: 4 * words,
        ..Launch::linear("route_few", 1, num_experts * WARP, arguments)
    }
}

/// Launches the gate's product and [`route`], for any number of tokens.
pub(super) fn route_launch(at: Route, sizes: RouteSizes) -> Launch {
    let arguments = vec![
        at.normed.into(),
        at.gate.into(),
        at.slots.into(),
        at.experts.into(),
        at.weights.into(),
        sizes.num_tokens.into(),
        sizes.hidden.into(),
        sizes.num_experts.into(),
        sizes.top_k.into(),
    ];
    // A token alone has a block of its own; many share one, which keeps the gate's rows in the cache.
    let warps = sizes.num_tokens.div_ceil(128).clamp(1, 8);
    let blocks = sizes.num_tokens.div_ceil(warps);
    Launch::linear("route", blocks, warps * WARP, arguments)
}

/// Launches [`sort_by_expert`] of `[num_pairs]` experts; pairs of expert 32, which stands for none, are left out.
pub(super) fn sort_by_expert_launch(
    [experts, order, offsets]: [Address; 3],
    num_pairs: u32,
    num_experts: u32,
) -> Launch {
    let threads = threads_for(num_pairs, 1024);
    let arguments = vec![
        experts.into(),
        order.into(),
        offsets.into(),
        num_pairs.into(),
        num_experts.into(),
    ];
    Launch {
        shared_bytes: (threads / WARP + 1) * num_experts * 4,
        ..Launch::linear("sort_by_expert", 1, threads, arguments)
    }
}

/// Stands for no expert; `kernels/device.cuh` has the same.
#[cfg(test)]
pub(super) const NO_EXPERT: u32 = WARP;

/// Tokens and experts that `route_few` takes; `kernels/route.cu` has the same numbers.
const FEW_TOKENS: u32 = 4;
const FEW_EXPERTS: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{floats, indices, poisoned, poisoned_indices, tensor, values};

    fn routed(logits: &[f32], num_experts: usize, top_k: usize) -> (Vec<u32>, Vec<f32>) {
        let num_tokens = logits.len() / num_experts;
        let experts = poisoned_indices(num_tokens * top_k)
            .reshape((num_tokens, top_k))
            .unwrap();
        let weights = poisoned(&[num_tokens, top_k]);
        route(
            &tensor(logits, &[num_tokens, num_experts]),
            &experts,
            &weights,
        )
        .unwrap();
        (
            experts.flatten_all().unwrap().to_vec1().unwrap(),
            values(&weights),
        )
    }

    #[test]
    fn weights_agree_with_a_slow_twin() {
        let (num_experts, top_k) = (5, 3);
        let logits: Vec<f32> = floats(11, 40 * num_experts)
            .iter()
            .map(|x| x * 8.0)
            .collect();
        let (experts, weights) = routed(&logits, num_experts, top_k);
        for (token, row) in logits.chunks(num_experts).enumerate() {
            let mut ranked: Vec<usize> = (0..num_experts).collect();
            ranked.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
            let kept: f64 = ranked[..top_k].iter().map(|&e| (row[e] as f64).exp()).sum();
            for rank in 0..top_k {
                assert_eq!(experts[token * top_k + rank] as usize, ranked[rank]);
                let exact = (row[ranked[rank]] as f64).exp() / kept;
                assert!(
                    (weights[token * top_k + rank] as f64 - exact).abs()
                        < 8.0 * f32::EPSILON as f64
                );
            }
        }
    }

    #[test]
    fn ties_go_to_the_lower_expert() {
        assert_eq!(
            routed(&[1.0, 2.0, 2.0, 2.0], 4, 2),
            (vec![1, 2], vec![0.5, 0.5])
        );
        assert_eq!(routed(&[0.0; 4], 4, 4).0, vec![0, 1, 2, 3]);
    }

    #[test]
    fn nan_counts_as_minus_infinity_and_equal_infinities_share() {
        const NAN: f32 = f32::NAN;
        const INF: f32 = f32::INFINITY;
        assert_eq!(routed(&[NAN; 4], 4, 2), (vec![0, 1], vec![0.5, 0.5]));
        assert_eq!(
            routed(&[NAN, -1.0, -INF, 0.0], 4, 3).0,
            vec![3, 1, 0],
            "NaN is no higher than minus infinity"
        );
        assert_eq!(
            routed(&[1.0, INF, NAN, INF], 4, 3),
            (vec![1, 3, 0], vec![0.5, 0.5, 0.0])
        );
        assert_eq!(routed(&[-0.0, 0.0], 2, 2), (vec![0, 1], vec![0.5, 0.5]));
    }

    #[test]
    fn logits_far_apart_do_not_overflow() {
        assert_eq!(
            routed(&[-1e30, 1e30, 0.0], 3, 2),
            (vec![1, 2], vec![1.0, 0.0])
        );
    }

    fn sorted(experts: &[u32], num_experts: usize) -> (Vec<u32>, Vec<u32>) {
        let (order, offsets) = (
            poisoned_indices(experts.len()),
            poisoned_indices(num_experts + 1),
        );
        let pairs = indices(experts).reshape((experts.len(), 1)).unwrap();
        sort_by_expert(&pairs, &order, &offsets).unwrap();
        (order.to_vec1().unwrap(), offsets.to_vec1().unwrap())
    }

    #[test]
    fn pairs_are_grouped_by_expert_in_their_order_and_empty_experts_have_no_rows() {
        assert_eq!(
            sorted(&[3, 1, 3, 1, 0], 5),
            (vec![4, 1, 3, 0, 2], vec![0, 1, 3, 3, 5, 5])
        );
        assert_eq!(sorted(&[2, 2, 2], 3), (vec![0, 1, 2], vec![0, 0, 0, 3]));
        assert_eq!(sorted(&[0, 0], 1), (vec![0, 1], vec![0, 2]));
    }

    #[test]
    fn an_expert_that_does_not_exist_is_refused() {
        let error = sort_by_expert(
            &indices(&[0, 3]).reshape((1, 2)).unwrap(),
            &poisoned_indices(2),
            &poisoned_indices(4),
        );
        assert_eq!(
            error.unwrap_err().to_string(),
            "sort_by_expert: `experts` holds 3, which is not below 3"
        );
    }
}
