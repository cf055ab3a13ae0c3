//! What a kernel moves, as a GPU would have to move it (`runtime/traffic.h`).

use std::ops::AddAssign;

/// The accesses of one kind. Those that a warp's lanes make together are one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Moved {
    /// How often a warp asks.
    pub requests: u64,
    /// What its lanes ask for, all of them together.
    pub bytes: u64,
    /// Global memory: sectors of 32 bytes. Shared memory: passes over its 32 banks of 4 bytes.
    pub passes: u64,
    /// How many would do if what each request asks for lay without gaps and conflicts.
    pub least: u64,
}

/// What launches move in all. Caches are not known: what several requests ask for counts for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Traffic {
    /// From global memory, by loads and `cp.async`.
    pub global_reads: Moved,
    /// To global memory.
    pub global_writes: Moved,
    /// From shared memory, by loads and `ldmatrix`, not by `wgmma`.
    pub shared_reads: Moved,
    /// To shared memory, by stores and `cp.async`.
    pub shared_writes: Moved,
    /// Multiply-adds on tensor cores.
    pub products: u64,
}

impl AddAssign for Moved {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.bytes += other.bytes;
        self.passes += other.passes;
        self.least += other.least;
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.global_reads += other.global_reads;
        self.global_writes += other.global_writes;
        self.shared_reads += other.shared_reads;
        self.shared_writes += other.shared_writes;
        self.products += other.products;
    }
}
