//! Sums of one sign, which tensor cores make too small: what they cut off adds up.

use mixgate_emulate::Architecture;

use super::{Buffer, at, narrow_floats, narrowed, run_as};
use crate::ops::linear::linear_launch_with;
use crate::ops::tile::Tile;

/// What a sum of these terms, all positive, may lose at most on tensor cores.
///
/// A fused dot-add of `count` products and an accumulator (`kernels/emulate/runtime/arithmetic.h`) cuts each of these off at
/// F places below the largest exponent, which is no larger than their sum: that loses less than `(count + 1) · 2⁻F` of the sum
/// so far. That is cut off to f32, which loses less than `2⁻²³` of it.
///
/// All is cut toward zero. Where signs differ, losses do too, and the `√k` roundings that other tests allow are ample.
fn most_lost(terms: &[f64], architecture: Architecture) -> f64 {
    let (count, places) = match architecture {
        Architecture::Ampere => (8, 24),
        Architecture::Hopper => (16, 25),
    };
    let share = (count + 1) as f64 * 2f64.powi(-places) + 2f64.powi(-23);
    let mut sum = 0.0;
    let losses = terms.chunks(count).map(|products| {
        sum += products.iter().sum::<f64>();
        share * sum
    });
    losses.sum()
}

#[test]
fn sums_of_one_sign_lose_more_than_to_rounding_and_no_more_than_is_cut_off() {
    let (m, n, k) = (3, 8, 4096);
    let sizes = |seed, count| -> Vec<f32> {
        let signed = narrow_floats(seed, count);
        signed.into_iter().map(f32::abs).collect()
    };
    let (x, w) = (sizes(41, m * k), sizes(42, n * k));
    for architecture in [Architecture::Hopper, Architecture::Ampere] {
        let (x_at, w_at, y) = (narrowed(&x), narrowed(&w), Buffer::<f32>::poisoned(m * n));
        let tensors = [at(&x_at), at(&w_at), at(&y)];
        let launch = linear_launch_with(Tile::Rows16, tensors, [m as u32, n as u32, k as u32]);
        run_as(&launch, architecture);
        for (i, given) in y.values().into_iter().enumerate() {
            let product = |j| x[i / n * k + j] as f64 * w[i % n * k + j] as f64;
            let terms: Vec<f64> = (0..k).map(product).collect();
            let exact: f64 = terms.iter().sum();
            // More than a sum would that rounds to nearest, which the other tests' tolerance is for.
            let least = f64::from(f32::EPSILON) * (k as f64).sqrt() * exact;
            let (lost, most) = (exact - given as f64, most_lost(&terms, architecture));
            assert!(
                (least..most).contains(&lost),
                "{architecture:?}, {i}: {given}, not {exact}, loses {lost:e}, not {least:e} to {most:e}"
            );
        }
    }
}
