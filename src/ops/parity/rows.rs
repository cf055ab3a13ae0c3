//! Kernels that work on a token at a time.

use candle_core::Device;

use super::{Buffer, assert_rounded, at, narrow_floats, narrowed, run, tried, widened};
use crate::ops::test_device::TestDevice;
use crate::ops::testing::{floats, indices, poisoned, tensor, values};
use crate::ops::{self, RopeStoreKv, RopeTable};

#[test]
fn add_rms_norm_matches_cpu() {
    // Fewer elements than threads, a tail beyond a full turn of a block, Mixtral's own.
    check_add_rms_norm(&[(1, 4), (3, 100), (2, 132), (2, 4096), (1, 4100)]);
}

/// Tokens, width.
pub(super) fn check_add_rms_norm(cases: &[(usize, usize)]) {
    for &(tokens, hidden) in cases {
        let count = tokens * hidden;
        let (x, before, weight) = (floats(1, count), floats(2, count), floats(3, hidden));
        let (x_at, residual, weight_at) =
            (Buffer::new(&x), Buffer::new(&before), Buffer::new(&weight));
        let out = Buffer::<u16>::poisoned(count);
        let tensors = [at(&x_at), at(&residual), at(&weight_at), at(&out)];
        run(ops::add_rms_norm_launch(
            tensors,
            tokens as u32,
            hidden as u32,
            1e-5,
        ));

        let twin = tensor(&before, &[tokens, hidden]);
        let twin_out = poisoned(&[tokens, hidden]);
        let (x, weight) = (tensor(&x, &[tokens, hidden]), tensor(&weight, &[hidden]));
        ops::add_rms_norm(&x, &twin, &weight, 1e-5, &twin_out).unwrap();
        assert_eq!(residual.values(), values(&twin), "the sum has one order");
        let exact: Vec<f64> = values(&twin_out).into_iter().map(f64::from).collect();
        assert_rounded(&widened(&out.values()), &exact, 64);
    }
}

#[test]
fn add_experts_rms_norm_matches_cpu() {
    check_add_experts_rms_norm(&[
        (1, 4, 1, &[]),
        (3, 100, 2, &[]),
        (2, 4096, 2, &[]),
        (1, 4100, 3, &[]),
        (4, 100, 2, &[1, 3]),
        (4, 72, 3, &[0, 1, 2]),
        (2, 4096, 2, &[1]),
    ]);
}

/// Tokens, width, ranks, and which tokens only fill the batch.
pub(super) fn check_add_experts_rms_norm(cases: &[(usize, usize, usize, &[usize])]) {
    for &(tokens, hidden, top_k, fillers) in cases {
        let count = tokens * hidden;
        let (mut pairs, mut shares) = (floats(15, count * top_k), floats(16, tokens * top_k));
        let (before, weight) = (floats(2, count), floats(3, hidden));
        // What no expert has seen, nobody has written.
        let (pairs_at, shares_at) = (
            Buffer::poisoned(count * top_k),
            Buffer::poisoned(tokens * top_k),
        );
        let mut slots: Vec<u32> = (0..tokens as u32).collect();
        for (token, slot) in slots.iter_mut().enumerate() {
            let (its, its_pairs) = (
                token * top_k..(token + 1) * top_k,
                token * top_k * hidden..(token + 1) * top_k * hidden,
            );
            if fillers.contains(&token) {
                *slot = u32::MAX;
                shares[its].fill(0.0);
                pairs[its_pairs].fill(0.0);
            } else {
                shares_at.write(its.start, &shares[its]);
                pairs_at.write(its_pairs.start, &pairs[its_pairs]);
            }
        }
        let slots = Buffer::new(&slots);
        let (residual, weight_at) = (Buffer::new(&before), Buffer::new(&weight));
        let out = Buffer::<u16>::poisoned(count);
        let tensors = [
            at(&pairs_at),
            at(&shares_at),
            at(&slots),
            at(&residual),
            at(&weight_at),
            at(&out),
        ];
        let sizes = [tokens, hidden, top_k].map(|size| size as u32);
        let launch = ops::add_experts_rms_norm_launch(tensors, sizes[0], sizes[1], sizes[2], 1e-5);
        run(launch);

        // Fused multiply-adds in rank order from zero, and then one addition: the sum has one order, and so its own bits.
        let sums: Vec<f32> = (0..count)
            .map(|i| {
                let (token, column) = (i / hidden, i % hidden);
                let terms = (token * top_k..(token + 1) * top_k)
                    .map(|pair| (shares[pair], pairs[pair * hidden + column]));
                terms.fold(0.0, |sum, (share, x)| share.mul_add(x, sum)) + before[i]
            })
            .collect();
        assert_eq!(residual.values(), sums);
        let (sums, weight) = (tensor(&sums, &[tokens, hidden]), tensor(&weight, &[hidden]));
        let twin_out = poisoned(&[tokens, hidden]);
        ops::rms_norm(&sums, &weight, 1e-5, &twin_out).unwrap();
        let exact: Vec<f64> = values(&twin_out).into_iter().map(f64::from).collect();
        assert_rounded(&widened(&out.values()), &exact, 64);

        // The CPU rounds each product before it adds it: one rounding for each term.
        let delta = poisoned(&[tokens, hidden]);
        let (pairs, shares) = (
            tensor(&pairs, &[tokens * top_k, hidden]),
            tensor(&shares, &[tokens, top_k]),
        );
        ops::combine_experts(&pairs, &shares, &delta).unwrap();
        for ((given, delta), before) in residual.values().iter().zip(values(&delta)).zip(&before) {
            let error = (given - (delta + before)).abs();
            assert!(error <= (top_k + 2) as f32 * f32::EPSILON * 2.0, "{given}");
        }
    }
}

#[test]
fn rope_store_kv_matches_cpu() {
    check_rope_store_kv(&[(4, 2, 8), (3, 1, 24), (32, 8, 128)]);
}

/// Query heads, key and value heads, their width.
pub(super) fn check_rope_store_kv(cases: &[(usize, usize, usize)]) {
    for &(heads, kv_heads, head_dim) in cases {
        let (tokens, block_size, num_blocks) = (5usize, 4usize, 6usize);
        let width = (heads + 2 * kv_heads) * head_dim;
        let qkv = floats(4, tokens * width);
        let positions = [0u32, 7, 63, 1, 30];
        // Page boundaries on both sides, blocks out of order, and one token that only fills the batch.
        let slots = [3u32, 4, 23, u32::MAX, 8];
        let table = RopeTable::new(64, head_dim, 1e6, &Device::Cpu).unwrap();
        let (cos, sin) = table.angles();

        let kept = num_blocks * block_size * kv_heads * head_dim;
        let (qkv_at, positions_at, slots_at) = (
            Buffer::new(&qkv),
            Buffer::new(&positions),
            Buffer::new(&slots),
        );
        let (cos_at, sin_at) = (Buffer::new(&values(cos)), Buffer::new(&values(sin)));
        let q = Buffer::<u16>::poisoned(tokens * heads * head_dim);
        let (k_cache, v_cache) = (Buffer::<u16>::poisoned(kept), Buffer::<u16>::poisoned(kept));
        let tensors = RopeStoreKv {
            qkv: at(&qkv_at),
            positions: at(&positions_at),
            slots: at(&slots_at),
            cos: at(&cos_at),
            sin: at(&sin_at),
            q: at(&q),
            k_cache: at(&k_cache),
            v_cache: at(&v_cache),
        };
        let sizes = [tokens, heads, kv_heads, head_dim].map(|size| size as u32);
        let [tokens_u32, heads_u32, kv_heads_u32, head_dim_u32] = sizes;
        run(ops::rope_store_kv_launch(
            tensors,
            tokens_u32,
            heads_u32,
            kv_heads_u32,
            head_dim_u32,
        ));

        let part = |from: usize, heads: usize| -> Vec<f32> {
            let rows = qkv.chunks(width);
            rows.flat_map(|row| row[from * head_dim..][..heads * head_dim].to_vec())
                .collect()
        };
        let turned = |from: usize, heads: usize| -> Vec<f32> {
            let x = tensor(&part(from, heads), &[tokens, heads, head_dim]);
            ops::rope(&x, &indices(&positions), &table).unwrap();
            values(&x)
        };
        // A turn is a difference of products: its error counts against its inputs, which are below one.
        let near = |given: f32, exact: f32| {
            let tolerance = exact.abs() / 256.0 + 4.0 * f32::EPSILON;
            assert!((given - exact).abs() <= tolerance, "{given}, not {exact}");
        };
        for (given, exact) in widened(&q.values()).iter().zip(turned(0, heads)) {
            near(*given, exact);
        }
        let row = kv_heads * head_dim;
        let keys = turned(heads, kv_heads);
        let plain = part(heads + kv_heads, kv_heads);
        for (cache, rows) in [(&k_cache, keys), (&v_cache, plain)] {
            let cache = cache.raw_values();
            for (slot, stored) in cache.chunks(row).enumerate() {
                match slots.iter().position(|&it| it as usize == slot) {
                    Some(token) => {
                        for (given, exact) in widened(stored).iter().zip(&rows[token * row..]) {
                            near(*given, *exact);
                        }
                    }
                    None => assert!(stored.iter().all(|&bits| bits == 0xcccc), "slot {slot}"),
                }
            }
        }
    }
}

#[test]
fn embedding_matches_cpu() {
    check_embedding(&[(5, 8, &[4, 0, 4]), (7, 2056, &[6]), (3, 4096, &[1, 2])]);
}

/// Rows of the table, width, ids.
pub(super) fn check_embedding(cases: &[(usize, usize, &[u32])]) {
    for &(vocab, hidden, ids) in cases {
        let table = narrow_floats(5, vocab * hidden);
        let (table_at, ids_at) = (narrowed(&table), Buffer::new(ids));
        let out = Buffer::<f32>::poisoned(ids.len() * hidden);
        let residual = Buffer::<f32>::poisoned(ids.len() * hidden);
        let tensors = [
            at(&table_at),
            at(&ids_at),
            at(&ids_at),
            at(&out),
            at(&residual),
        ];
        run(ops::embedding_launch(
            tensors,
            ids.len() as u32,
            hidden as u32,
        ));
        assert!(residual.values().iter().all(|&x| x == 0.0));
        let twin = poisoned(&[ids.len(), hidden]);
        ops::embedding(&tensor(&table, &[vocab, hidden]), &indices(ids), &twin).unwrap();
        assert_eq!(out.values(), values(&twin));
    }
}

#[test]
fn an_id_that_the_step_before_has_chosen_is_taken_from_there() {
    let table = narrow_floats(5, 9 * 8);
    let carried = |row: u32| 1 << 31 | row;
    let (ids, chosen) = ([4, carried(2), 1, carried(0)], [7, 3, 8]);
    let (ids_at, chosen_at, table_at) = (Buffer::new(&ids), Buffer::new(&chosen), narrowed(&table));
    let (out, residual) = (Buffer::<f32>::poisoned(32), Buffer::<f32>::poisoned(32));
    let tensors = [
        at(&table_at),
        at(&ids_at),
        at(&chosen_at),
        at(&out),
        at(&residual),
    ];
    run(ops::embedding_launch(tensors, 4, 8));
    let rows: Vec<f32> = [4, 8, 1, 7]
        .iter()
        .flat_map(|row| &table[8 * row..][..8])
        .copied()
        .collect();
    assert_eq!(out.values(), rows);
}

#[test]
fn an_id_beyond_the_table_does_not_pass_unseen() {
    if !TestDevice::default().is_emulated() {
        return; // a GPU would be lost for all tests that follow
    }
    let (table, ids) = (narrowed(&narrow_floats(5, 16)), Buffer::new(&[2u32]));
    let out = Buffer::<f32>::poisoned(8);
    let residual = Buffer::<f32>::poisoned(8);
    let tensors = [at(&table), at(&ids), at(&ids), at(&out), at(&residual)];
    let launch = ops::embedding_launch(tensors, 1, 8);
    assert_eq!(
        tried(&launch).unwrap_err().to_string(),
        "embedding: block (0, 0, 0), thread (0, 0, 0) reads 16 bytes, 0 after the end of a buffer of 32"
    );
}

#[test]
pub(super) fn gather_rows_matches_cpu() {
    let (rows, width) = (6, 264);
    let from = narrow_floats(6, rows * width);
    let (from_at, chosen) = (narrowed(&from), [5u32, 0, 3]);
    let (chosen_at, out) = (Buffer::new(&chosen), Buffer::<u16>::poisoned(3 * width));
    run(ops::gather_rows_launch(
        [at(&from_at), at(&chosen_at), at(&out)],
        3,
        width as u32,
    ));
    let expected: Vec<f32> = chosen
        .iter()
        .flat_map(|&row| from[row as usize * width..][..width].to_vec())
        .collect();
    assert_eq!(widened(&out.values()), expected);
}
