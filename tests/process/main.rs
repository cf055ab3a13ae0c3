//! The real binary as a process, with the model that it carries: what it prints, answers, keeps to itself and returns.

#![cfg(feature = "seedling")]
#![allow(clippy::unwrap_used)] // Outside of test functions clippy does not know that this is all test.

mod abuse;
mod audit;
mod bench;
mod build_script;
mod commands;
#[path = "../common/mod.rs"]
mod common;
mod costs;
mod doors;
mod dtype;
mod fields;
mod harness;
mod leaks;
mod ledger;
mod memory;
mod null;
mod paste;
mod policy;
mod rights;
mod serve;
mod sharing;
mod tenants;
