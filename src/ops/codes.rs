//! Sixteen codes of a quantised block become sixteen f32 lanes, in the registers of each instruction set.
//!
//! A block is opened once, which makes of its scales what its pieces need, and then gives lanes `16 * piece..`. Every
//! product of a scale and a code is exact in f32, so that a weight has the same bits here as from
//! `quantised::*::dequantise`, in whatever order it is computed.
#![allow(unsafe_code)] // SIMD loads

/// Decoders by arithmetic, from the operations around them.
macro_rules! formats {
    ($lanes:ty, $(#[$feature:meta])?) => {
        pub mod q8_0 {
            use super::*;
            use crate::ops::quantised::q8_0::{Block, header};

            /// The scale.
            pub type Open = $lanes;

            #[inline]
            $(#[$feature])?
            pub fn open(block: &Block) -> Open {
                splat(header(block))
            }

            #[inline]
            $(#[$feature])?
            pub fn piece(block: &Block, scale: &Open, piece: usize) -> $lanes {
                // SAFETY: slicing checks that there are 16 bytes.
                mul(unsafe { load_signed(block[2 + 16 * piece..][..16].as_ptr()) }, *scale)
            }
        }

        pub mod fp8 {
            use super::*;
            use crate::ops::quantised::fp8::{Block, header};

            /// The scale.
            pub type Open = $lanes;

            #[inline]
            $(#[$feature])?
            pub fn open(block: &Block) -> Open {
                splat(header(block))
            }

            #[inline]
            $(#[$feature])?
            pub fn piece(block: &Block, scale: &Open, piece: usize) -> $lanes {
                // SAFETY: slicing checks that there are 16 bytes.
                mul(unsafe { load_e4m3(block[2 + 16 * piece..][..16].as_ptr()) }, *scale)
            }
        }

        pub mod w4a16 {
            use super::*;
            use crate::ops::quantised::w4a16::{Block, header};

            /// The scale, and what code 0 is.
            pub type Open = [$lanes; 2];

            #[inline]
            $(#[$feature])?
            pub fn open(block: &Block) -> Open {
                let scale = header(block);
                [splat(scale), splat(-8.0 * scale)]
            }

            #[inline]
            $(#[$feature])?
            pub fn piece(block: &Block, [scale, least]: &Open, piece: usize) -> $lanes {
                // SAFETY: slicing checks that there are 8 bytes.
                let codes = unsafe { load_pairs(block[2 + 8 * piece..][..8].as_ptr()) };
                fma(codes, *scale, *least)
            }
        }

        pub mod q4_k {
            use super::*;
            use crate::ops::quantised::q4_k::{Block, Header, header};

            /// The scales and minima.
            pub type Open = Header;

            #[inline]
            $(#[$feature])?
            pub fn open(block: &Block) -> Open {
                header(block)
            }

            #[inline]
            $(#[$feature])?
            pub fn piece(block: &Block, header: &Open, piece: usize) -> $lanes {
                let group = piece / 2;
                let from = block[16 + group / 2 * 32 + piece % 2 * 16..][..16].as_ptr();
                // SAFETY: slicing has checked that there are 16 bytes.
                let codes = unsafe { if group % 2 == 0 { load_low(from) } else { load_high(from) } };
                fma(codes, splat(header.scales[group]), splat(-header.minima[group]))
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
pub mod portable;
