// What a kernel moves, counted as a GPU would have to move it: the accesses of a warp's lanes at one place in the program, made
// for the n-th time, are one request; what it costs follows from its addresses alone.
//
//   global memory   in sectors of 32 bytes (CUDA C++ Best Practices Guide, "Coalesced Access to Global Memory")
//   shared memory   in passes over 32 banks of 4 bytes: lanes that want other words of one bank wait for each other. Of 8 bytes a
//                   half of the warp is served at once, of 16 bytes a quarter (Programming Guide, "Shared Memory", of cc 5.x to
//                   9.0; by quarters and halves: measured by others, and what ldmatrix, eight rows at a time, is documented as)
//
// What would do at least: the bytes that are wanted, each once, without gaps. Caches are not known here: a sector that several
// requests want counts for each. wgmma reads shared memory by itself and is not counted; its layout has no conflicts.
#pragma once

#include <cstdint>

namespace emulated::runtime {

enum Way : unsigned { GLOBAL_READS, GLOBAL_WRITES, SHARED_READS, SHARED_WRITES, WAYS };

struct Moved {
  std::uint64_t requests, bytes, passes, least;  // bytes: of all lanes; passes and least: sectors, or passes over the banks
};

// In the form that Rust reads it.
struct Traffic {
  Moved moved[WAYS];
  std::uint64_t products;  // multiply-adds on tensor cores
};

// Begins to count into `traffic`; null: counts no more.
void count_into(Traffic *traffic);
// The same for each block: lanes of different blocks share no request.
void count_block_ended();

// An access by the running thread, from this place in the program. Nothing if nobody counts.
void count(const void *place, std::uintptr_t at, unsigned bytes, bool write);
void count_products(std::uint64_t multiply_adds);

}  // namespace emulated::runtime
