//! The kernels in the binary, as `build.rs` compiled them.

/// The machine code of one file of `kernels/`.
pub(super) struct Image {
    pub kernels: &'static [&'static str],
    /// Whether it is sm_90a's alone: Hopper's own instructions.
    pub is_for_hopper: bool,
    pub fatbin: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/images.rs"));
