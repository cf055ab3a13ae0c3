//! The gate from outside: tokens forged by hand, one test module per class of attack.

mod builtin;
mod config;
mod families;
mod form;
mod header;
mod identity_providers;
mod key_choice;
mod key_sources;
mod kinds;
pub(in crate::auth) mod kit;
mod rotation;
mod shape;
mod shares;
mod times;
mod transport;
