//! Device operations, one file per op: its contract, its CPU implementation, later its CUDA launch.
