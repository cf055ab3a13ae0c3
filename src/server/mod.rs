//! HTTP and wire formats. Knows no tensors and no keys.
