//! What was typed, and what is true: Args become Config; file < environment < flags.
