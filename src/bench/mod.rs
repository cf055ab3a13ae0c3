//! Measures: a server from outside, as its clients see it ([`load`]), or the engine without HTTP ([`engine`]); and says on
//! what machine ([`machine`]).

pub mod engine;
pub mod load;
pub mod machine;

mod stats;

pub use stats::Distribution;
