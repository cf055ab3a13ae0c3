//! Measures: a server from outside, as its clients see it ([`load`]), or the engine without HTTP ([`engine`]), or kernels
//! one by one ([`kernels`]); and says on what machine ([`machine`]).

pub mod engine;
pub mod kernels;
pub mod load;
pub mod machine;

mod stats;

pub use stats::Distribution;
