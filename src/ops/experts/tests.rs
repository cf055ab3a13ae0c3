use candle_core::DType;

use super::*;
use crate::ops::sort_by_expert;
use crate::ops::testing::{floats, indices, poisoned, poisoned_indices, tensor, values};

const HIDDEN: usize = 19;
const WIDTH: usize = 21;

struct Case {
    x: Tensor,
    inner: Tensor,
    outer: Tensor,
    experts: Vec<u32>,
    top_k: usize,
    num_experts: usize,
}

impl Case {
    fn new(experts: &[u32], top_k: usize, num_experts: usize, dtype: DType) -> Self {
        let tokens = experts.len() / top_k;
        let weights = |seed, n, k| {
            tensor(&floats(seed, num_experts * n * k), &[num_experts, n, k])
                .to_dtype(dtype)
                .unwrap()
        };
        Self {
            x: tensor(&floats(1, tokens * HIDDEN), &[tokens, HIDDEN]),
            inner: weights(2, WIDTH, HIDDEN),
            outer: weights(3, HIDDEN, WIDTH),
            experts: experts.to_vec(),
            top_k,
            num_experts,
        }
    }

    /// Through the ops: what each pair's expert says.
    fn pairs(&self) -> Vec<f32> {
        let count = self.experts.len();
        let (order, offsets) = (
            poisoned_indices(count),
            poisoned_indices(self.num_experts + 1),
        );
        let experts = indices(&self.experts)
            .reshape((count / self.top_k, self.top_k))
            .unwrap();
        sort_by_expert(&experts, &order, &offsets).unwrap();
        let routing = Routing {
            order: &order,
            offsets: &offsets,
            top_k: self.top_k,
        };
        let (middle, out) = (poisoned(&[count, WIDTH]), poisoned(&[count, HIDDEN]));
        grouped_linear(
            &self.x,
            &self.inner.clone().into(),
            routing,
            Side::In,
            &middle,
        )
        .unwrap();
        grouped_linear(
            &middle,
            &self.outer.clone().into(),
            routing,
            Side::Out,
            &out,
        )
        .unwrap();
        values(&out)
    }

    /// Pair by pair in f64.
    fn slow(&self) -> Vec<f64> {
        let wide = |tensor: &Tensor| values(&tensor.to_dtype(DType::F32).unwrap());
        let (x, inner, outer) = (values(&self.x), wide(&self.inner), wide(&self.outer));
        let apply = |w: &[f32], n: usize, row: &[f64]| -> Vec<f64> {
            let k = row.len();
            (0..n)
                .map(|j| (0..k).map(|c| row[c] * w[j * k + c] as f64).sum())
                .collect()
        };
        let size = WIDTH * HIDDEN;
        (0..self.experts.len())
            .flat_map(|pair| {
                let token = pair / self.top_k;
                let expert = self.experts[pair] as usize;
                let row: Vec<f64> = x[token * HIDDEN..][..HIDDEN]
                    .iter()
                    .map(|&x| x as f64)
                    .collect();
                let middle = apply(&inner[expert * size..][..size], WIDTH, &row);
                apply(&outer[expert * size..][..size], HIDDEN, &middle)
            })
            .collect()
    }
}

#[test]
fn pairs_agree_with_a_slow_twin_with_empty_experts_and_crowded_ones() {
    for dtype in [DType::F32, DType::BF16] {
        for case in [
            Case::new(&[3, 1, 0, 3, 3, 1, 1, 0], 2, 5, dtype),
            Case::new(&[2; 9], 1, 3, dtype),
            Case::new(&[0], 1, 1, dtype),
            Case::new(&[4, 0, 2, 1, 0, 4], 3, 5, dtype),
        ] {
            for (ours, exact) in case.pairs().into_iter().zip(case.slow()) {
                // Two products: inputs up to √HIDDEN, then up to √(HIDDEN · WIDTH).
                let tolerance =
                    f32::EPSILON as f64 * (HIDDEN as f64).sqrt() * (WIDTH as f64).sqrt();
                assert!((ours as f64 - exact).abs() <= tolerance, "{ours} {exact}");
            }
        }
    }
}

#[test]
fn a_token_alone_gets_the_bits_it_gets_in_a_crowd() {
    let experts: Vec<u32> = (0..40)
        .flat_map(|token| [token * 7 % 5, (token * 7 + 1 + token % 3) % 5])
        .collect();
    let crowd = Case::new(&experts, 2, 5, DType::BF16);
    let together = crowd.pairs();
    for token in 0..40 {
        let alone = Case {
            x: crowd.x.narrow(0, token, 1).unwrap(),
            inner: crowd.inner.clone(),
            outer: crowd.outer.clone(),
            experts: experts[2 * token..][..2].to_vec(),
            ..crowd
        };
        assert_eq!(
            alone.pairs(),
            together[2 * token * HIDDEN..][..2 * HIDDEN],
            "token {token}"
        );
    }
}

#[test]
fn experts_are_added_by_rank_with_their_weights() {
    let pairs = tensor(&[1.0, 2.0, 10.0, 20.0, 3.0, 4.0, 30.0, 40.0], &[4, 2]);
    let weights = tensor(&[0.75, 0.25, 0.5, 0.5], &[2, 2]);
    let out = poisoned(&[2, 2]);
    combine_experts(&pairs, &weights, &out).unwrap();
    assert_eq!(values(&out), [3.25, 6.5, 16.5, 22.0]);
}

#[test]
fn a_routing_that_points_outside_is_refused() {
    let case = Case::new(&[0, 1], 1, 2, DType::F32);
    let out = poisoned(&[2, WIDTH]);
    let run = |order: &[u32], offsets: &[u32]| {
        let (order, offsets) = (indices(order), indices(offsets));
        let routing = Routing {
            order: &order,
            offsets: &offsets,
            top_k: 1,
        };
        grouped_linear(&case.x, &case.inner.clone().into(), routing, Side::In, &out)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        run(&[0, 2], &[0, 1, 2]),
        "grouped_linear: `routing.order` holds 2, which is not below 2"
    );
    assert!(
        run(&[0, 1], &[0, 2, 1]).contains("`routing.offsets` is [0, 2, 1], expected ascending")
    );
    assert!(run(&[0, 1], &[0, 1, 3]).contains("expected ascending from 0 to 2"));
}
