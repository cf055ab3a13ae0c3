//! Measures: a server from outside, as its clients see it ([`load`]), or the engine without HTTP ([`engine`]), or kernels
//! one by one ([`kernels`]); and says on what machine ([`machine`]), and how far from what is
//! possible ([`floor`]) and what was aimed at ([`targets`]).

pub mod datasheet;
pub mod engine;
pub mod floor;
pub mod kernels;
pub mod load;
pub mod machine;
pub mod targets;

mod stats;

pub use stats::Distribution;
