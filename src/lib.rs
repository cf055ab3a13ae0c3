//! Mixgate serves Mixtral-family mixture-of-experts models over the OpenAI API, to callers who prove who they are.
//!
//! # The map, in reading order
//!
//! A request passes six rooms and crosses two channels (the engine's inbox, its own event stream):
//!
//! 1. [`server`]: the route table; each row names the access that it asks for.
//! 2. [`auth`]: a header becomes an [`auth::Identity`], then a [`auth::Permit`], before a body byte is read.
//! 3. [`text`]: messages become token ids; ids become text again.
//! 4. [`engine`]: one thread, one step: plan, run, commit, emit.
//! 5. [`model`]: flat arrays in, logits out.
//! 6. [`ops`]: one device operation per file.
//!
//! Imports run one way: `cli → server → {auth, text, engine}`, `engine → {auth::Permit, model}`, `model → ops`.
//! [`config`] hands each module its own part, [`telemetry`] too; [`ledger`] (who used how much, on disk), [`clock`], [`watch`]
//! (files that change) and `strict_json` are leaves. [`bench`] measures:
//! a server from outside, as a client, or the engine alone; only `cli` imports it.
//!
//! # Invariants
//!
//! - Only [`auth`] can make a `Permit`; [`engine::Engine::reserve`] takes one by value.
//! - Every route is in the table; all but the health probes and the two
//!   `/.well-known` pages of the gate answer 401 without a token, unknown paths included.
//! - `scheduler`, `block_manager`, `prefix_cache`, `fairness` and `queue` import nothing from candle, tokio or the clock.
//! - The engine never sees text; the server never sees a tensor.
//! - A sequence's tokens are the same alone, batched, chunked, preempted and on cached prefixes, bit for bit.

pub mod auth;
pub mod bench;
pub mod cli;
pub mod clock;
pub mod config;
pub mod engine;
#[doc(hidden)]
pub mod fuzz;
pub mod ledger;
pub mod model;
pub mod ops;
pub mod server;
mod strict_json;
pub mod telemetry;
pub mod text;
pub mod watch;
