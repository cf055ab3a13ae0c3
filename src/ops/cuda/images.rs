//! The kernels in the binary, as `build.rs` compiled them.

/// The machine code of one file of `kernels/`.
pub(super) struct Image {
    pub kernels: &'static [&'static str],
    pub fatbin: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/images.rs"));
