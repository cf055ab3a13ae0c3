//! The gate from outside: tokens forged by hand, one test module per class of attack.

mod builtin;
mod config;
mod credentials;
mod families;
mod form;
mod header;
mod key_choice;
mod kinds;
mod kit;
mod shape;
mod shares;
mod times;
mod transport;
