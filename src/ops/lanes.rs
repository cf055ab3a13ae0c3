//! Vector arithmetic that gives the same bits on every machine.
//!
//! [`widest!`] compiles a plain loop once per instruction set and picks one at run time. Rust never reorders float
//! arithmetic, so the choice changes speed and not results. Sums go through 16 lanes: lane `j` adds the elements
//! `j, j + 16, …` in order, and [`tree`] adds the lanes.

use std::sync::OnceLock;

/// Lanes of a sum, whatever the width of the machine's registers.
pub const LANES: usize = 16;

/// What the machine can do, of what there is code for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Plain Rust.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, VL and DQ.
    Avx512,
}

impl Isa {
    /// The best of this machine.
    pub fn best() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| Self::available().last().copied().unwrap_or(Isa::Portable))
    }

    /// Its name, as compilers spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// All that this machine has, the best last.
    pub fn available() -> Vec<Self> {
        let mut available = vec![Isa::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                available.push(Isa::Avx2);
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
                {
                    available.push(Isa::Avx512);
                }
            }
        }
        available
    }
}

/// Defines a function that runs the given `#[inline(always)]` body, compiled for the best instruction set.
macro_rules! widest {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)? = $body:path;) => {
        $(#[$meta])*
        // To call what was compiled for more than the baseline, once the machine is known to have it.
        #[allow(unsafe_code, clippy::too_many_arguments)]
        $vis fn $name($($arg: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $type),*) $(-> $result)? {
                    $body($($arg),*)
                }
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx2,fma")]
                fn avx512($($arg: $type),*) $(-> $result)? {
                    $body($($arg),*)
                }
                // SAFETY: Isa::best() names only what this machine was found to have.
                unsafe {
                    match $crate::ops::lanes::Isa::best() {
                        $crate::ops::lanes::Isa::Avx512 => return avx512($($arg),*),
                        $crate::ops::lanes::Isa::Avx2 => return avx2($($arg),*),
                        $crate::ops::lanes::Isa::Portable => {}
                    }
                }
            }
            $body($($arg),*)
        }
    };
}
pub(super) use widest;

/// Adds 16 lanes, always in the same order: halves onto halves.
#[inline(always)]
pub fn tree(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// e to the `x`, within 2 units in the last place; 0 below −87.3, infinity above 88.7.
///
/// Cody-Waite reduction by ln 2 and a degree-7 Taylor polynomial on |r| ≤ ln 2 / 2, whose remainder is below
/// 0.35⁸ / 8! = 6e-9. One formula for every platform, unlike the C library's.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Adding 1.5 × 2²³ rounds to an integer that sits in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.clamp(-87.336_54, 88.722_83);
    let shifted = clamped.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN_2_LOW, n.mul_add(-LN_2_HIGH, clamped));
    let mut p = 1.0 / 5040.0;
    p = r.mul_add(p, 1.0 / 720.0);
    p = r.mul_add(p, 1.0 / 120.0);
    p = r.mul_add(p, 1.0 / 24.0);
    p = r.mul_add(p, 1.0 / 6.0);
    p = r.mul_add(p, 0.5);
    p = r.mul_add(p, 1.0);
    p = r.mul_add(p, 1.0);
    // Two factors, because 2^128 alone is not a number though 2^128 × p may be.
    let bits = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let half = bits >> 1;
    let power = |n: i32| f32::from_bits(((n + 127) << 23) as u32);
    let result = p * power(half) * power(bits - half);
    if x < -87.336_54 {
        0.0
    } else if x > 88.722_83 {
        f32::INFINITY
    } else {
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::floats;

    #[test]
    fn exp_is_within_two_units_in_the_last_place_over_its_whole_range() {
        let mut worst = 0.0f64;
        for step in -87_300..=88_700 {
            let x = step as f32 / 1000.0;
            let exact = (x as f64).exp();
            worst = worst.max((exp(x) as f64 - exact).abs() / (exact * f32::EPSILON as f64));
        }
        assert!(worst <= 2.0, "{worst} units");
    }

    #[test]
    fn exp_is_exact_at_its_ends_and_keeps_nan() {
        assert_eq!((exp(0.0), exp(-0.0)), (1.0, 1.0));
        assert_eq!((exp(-88.0), exp(f32::NEG_INFINITY)), (0.0, 0.0));
        assert_eq!(
            (exp(89.0), exp(f32::INFINITY)),
            (f32::INFINITY, f32::INFINITY)
        );
        assert!(exp(88.722_83).is_finite() && exp(f32::NAN).is_nan());
    }

    fn exp_all(from: &[f32], to: &mut [f32]) {
        widest! {
            fn wide(from: &[f32], to: &mut [f32]) = narrow;
        }
        #[inline(always)]
        fn narrow(from: &[f32], to: &mut [f32]) {
            for (to, from) in to.iter_mut().zip(from) {
                *to = exp(*from);
            }
        }
        wide(from, to);
    }

    #[test]
    fn the_widest_instructions_give_the_bits_of_plain_ones() {
        let from: Vec<f32> = floats(1, 1003).iter().map(|x| 100.0 * x).collect();
        let mut to = vec![f32::NAN; from.len()];
        exp_all(&from, &mut to);
        for (from, to) in from.iter().zip(&to) {
            assert_eq!(exp(*from).to_bits(), to.to_bits());
        }
    }

    #[test]
    fn the_tree_adds_halves_onto_halves() {
        let mut lanes = [0.0; LANES];
        // Only this order loses nothing: the large ones cancel in the first level.
        (lanes[3], lanes[11], lanes[5]) = (1e30, -1e30, 1.0);
        assert_eq!(tree(lanes), 1.0);
    }
}
