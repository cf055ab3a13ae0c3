use half::bf16;

use super::*;
use crate::ops::testing::floats;

/// The documented order, one output at a time, without tiles.
fn documented(x: &[f32], w: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let k = x.len().next_multiple_of(LANES);
    for at in 0..k {
        let element = |row: &[f32]| row.get(at).copied().unwrap_or(0.0);
        lanes[at % LANES] = element(x).mul_add(element(w), lanes[at % LANES]);
    }
    for width in [8, 4, 2, 1] {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
    }
    lanes[0]
}

fn plain<'a, W>(x: &'a [f32], m: usize, w: &'a [W], n: usize, k: usize) -> Product<'a, W> {
    let (x_rows, y_rows) = (Rows::From(0), Rows::From(0));
    Product {
        x,
        x_stride: k,
        x_rows,
        m,
        w,
        w_stride: k,
        n,
        k,
        y_rows,
        y_stride: n,
    }
}

fn product<W: Weight>(
    isa: Isa,
    task: usize,
    x: &[f32],
    m: usize,
    w: &[W],
    n: usize,
    k: usize,
) -> Vec<f32> {
    let mut y = vec![f32::NAN; m * n];
    multiply_each(isa, task, &[plain(x, m, w, n, k)], &mut y);
    y
}

#[test]
fn every_instruction_set_gives_the_bits_of_the_documented_order() {
    for k in [1, 15, 16, 17, 31, 64, 100] {
        for m in 1..=9 {
            let n = 13;
            let x = floats(m as u64, m * k);
            let narrow: Vec<bf16> = floats(k as u64, n * k)
                .into_iter()
                .map(bf16::from_f32)
                .collect();
            let wide: Vec<f32> = narrow.iter().map(|w| w.to_f32()).collect();
            let expected: Vec<f32> = (0..m * n)
                .map(|at| documented(&x[at / n * k..][..k], &wide[at % n * k..][..k]))
                .collect();
            for isa in Isa::available() {
                assert_eq!(
                    product(isa, usize::MAX, &x, m, &wide, n, k),
                    expected,
                    "{isa:?} f32 {m}×{n}×{k}"
                );
                assert_eq!(
                    product(isa, usize::MAX, &x, m, &narrow, n, k),
                    expected,
                    "{isa:?} bf16 {m}×{n}×{k}"
                );
            }
        }
    }
}

#[test]
fn subnormal_and_negative_zero_tails_keep_their_bits_on_every_instruction_set() {
    let x = [-f32::MIN_POSITIVE / 4.0, -0.0, 1e-30, -1e-30, 0.0];
    let w = [f32::MIN_POSITIVE, 1.0, -1e-30, -1e-30, -1.0];
    let expected = documented(&x, &w).to_bits();
    for isa in Isa::available() {
        assert_eq!(
            product(isa, usize::MAX, &x, 1, &w, 1, 5)[0].to_bits(),
            expected,
            "{isa:?}"
        );
    }
}

#[test]
fn sums_are_within_a_root_of_k_roundings_of_the_exact_sum() {
    let k = 4096;
    let (x, w) = (floats(1, 4 * k), floats(2, 8 * k));
    for (at, y) in product(Isa::best(), usize::MAX, &x, 4, &w, 8, k)
        .into_iter()
        .enumerate()
    {
        let exact: f64 = (0..k)
            .map(|c| x[at / 8 * k + c] as f64 * w[at % 8 * k + c] as f64)
            .sum();
        // The sum of 256 products in a lane stays below 16, so that a rounding in it is at most 8 eps; over the lanes
        // they cancel to a small multiple of √k.
        assert!(
            (y as f64 - exact).abs() <= 4.0 * f32::EPSILON as f64 * (k as f64).sqrt(),
            "{y} {exact}"
        );
    }
}

#[test]
fn a_row_alone_equals_the_row_in_a_crowd_on_many_threads() {
    let (m, n, k) = (11, 530, 70);
    let (x, w) = (floats(3, m * k), floats(4, n * k));
    let threads = rayon::ThreadPoolBuilder::new()
        .num_threads(3)
        .build()
        .unwrap();
    let crowd = threads.install(|| product(Isa::best(), 1, &x, m, &w, n, k));
    for row in 0..m {
        let alone = product(Isa::best(), usize::MAX, &x[row * k..][..k], 1, &w, n, k);
        assert_eq!(alone, crowd[row * n..][..n], "row {row}");
    }
}

#[test]
fn listed_rows_are_gathered_and_scattered_and_others_left_alone() {
    let (n, k) = (5, 20);
    let (x, w) = (floats(5, 4 * k), floats(6, n * k));
    let all = product(Isa::best(), usize::MAX, &x, 4, &w, n, k);
    let (from, to) = ([6, 1, 7], [3, 0, 4]);
    let gathered = Product {
        x_rows: Rows::Listed(&from, 2),
        y_rows: Rows::Listed(&to, 1),
        ..plain(&x, 3, &w, n, k)
    };
    let mut y = vec![f32::NAN; 5 * n];
    multiply_here(&gathered, &mut y);
    for (from, to) in [(3, 3), (0, 0), (3, 4)] {
        assert_eq!(y[to * n..][..n], all[from * n..][..n]);
    }
    assert!(y[n..3 * n].iter().all(|y| y.is_nan()));
}

#[test]
#[should_panic(expected = "w is short")]
fn weights_that_end_early_are_never_read() {
    product(Isa::Portable, usize::MAX, &[0.0; 8], 2, &[0.0f32; 11], 3, 4);
}
