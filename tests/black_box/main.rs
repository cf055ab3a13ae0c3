//! A real server on a free port, real signed tokens, real bytes. Only the model is a stand-in: [`parrot`] answers what
//! it was told to, as fast or as slowly as a test needs.

#![allow(clippy::unwrap_used)] // Outside of test functions clippy does not know that this is all test.

mod auth;
mod bad_input;
mod cache;
mod chat;
#[path = "../common/mod.rs"]
mod common;
mod ends;
mod harness;
mod lifecycle;
mod observe;
mod parrot;
mod queue;
mod rights;
mod streaming;
mod usage;
