//! A real server on a free port, real signed tokens, real bytes. Only the model is a stand-in: [`parrot`] answers what
//! it was told to, as fast or as slowly as a test needs.

#![allow(clippy::unwrap_used)] // Outside of test functions clippy does not know that this is all test.

mod auth;
mod bad_input;
mod cache;
mod chat;
#[path = "../common/mod.rs"]
mod common;
mod cors;
mod doors;
mod ends;
mod harness;
#[path = "../common/idp.rs"]
mod idp;
mod issuers;
mod lifecycle;
mod limits;
mod metadata;
mod observe;
mod parrot;
mod patience;
mod queue;
mod streaming;
mod tls;
mod usage;
mod wire;
