//! Mixgate: a Mixtral inference server with the gate built in.

fn main() {}
