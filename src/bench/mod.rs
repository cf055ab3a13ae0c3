//! Measures: the engine without HTTP ([`engine`]), and says on what machine ([`machine`]).

pub mod engine;
pub mod machine;

mod stats;

pub use stats::Distribution;
