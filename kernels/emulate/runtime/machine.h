// What the emulated machine is made of: fibers, warps with their clocks, memory with what is known of each byte. fibers.cpp
// runs it, judge.cpp watches each access, host.cpp is what Rust calls.
#pragma once

#include "arithmetic.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <vector>

extern "C" unsigned char __start_emulated_shared[], __stop_emulated_shared[];
// Leaves the running fiber's place at *from, and goes on where `to` was left.
extern "C" void emulated_switch(void **from, void *to);

namespace emulated::runtime {

constexpr unsigned MOST_THREADS = 1024, LANES = 32, MOST_WARPS = MOST_THREADS / LANES, BARRIERS = 16;
constexpr std::size_t STACK = 64 << 10, DYNAMIC = 227 << 10, AMPERE_DYNAMIC = 163 << 10;
constexpr unsigned NOBODY = 0xffff, ATOMIC = 0xfffe;

// What is known of one byte. `block` numbers blocks over all launches from 1, so that nothing has to be cleared; a byte of a
// buffer that no kernel has written since it was uploaded has 0.
struct Shadow {
  std::uint32_t written_in = 0, written_at = 0;  // block, clock of the writer's warp
  std::uint32_t read_in = 0, read_at = 0;
  std::uint16_t writer = NOBODY, reader = NOBODY;
  std::uint16_t fences = 0;  // how often its writer had fenced shared memory
  bool initialised = false, in_flight = false;
};

struct Buffer {
  std::uintptr_t from, to;
  std::vector<Shadow> shadow;
};

struct Pending {
  unsigned char *to;
  const unsigned char *from;
  unsigned bytes, valid, group;
};

// A product that a warpgroup has asked for, as far as it is a thread's: its elements of d, with the rows of a and the columns of
// b that they are sums of, as they were when it was asked for.
struct Product {
  float *d;
  unsigned tiles, group;
  bool from_zero;
  std::vector<float> before;                               // d as it was, once nothing before adds to it any more
  std::vector<std::uint16_t> rows, columns;                // 16 elements of k each: two rows, two columns of each tile
  std::vector<const unsigned char *> rows_at, columns_at;  // where they lie, in pieces; none from registers
  unsigned column_piece = 8;                               // elements; of rows there are 8 to a piece
};

struct Fiber {
  void *stack_pointer;
  unsigned char *stack;
  unsigned index;
  enum { RUNS, AT_BARRIER, AT_MEETING, DONE } state;
  unsigned barrier, expected;  // 0: all
  unsigned mask, kind, bytes;
  unsigned char payload[emulated::stride];
  const unsigned char *met;
  std::vector<Pending> pending;
  unsigned groups;  // committed so far
  bool waited;      // for the kernel before
  unsigned shared_fences;
  bool fenced;  // its registers, since it last waited for products
  std::vector<Product> products;
  unsigned product_groups;
};

struct Warp {
  std::uint32_t clock;
  std::uint32_t known[MOST_WARPS];
  unsigned next_snapshot;
};

// One lane cannot be two meetings ahead of another in the same mask; 64 leaves room for disjoint masks.
constexpr unsigned SNAPSHOTS = 64;

struct Machine {
  std::map<std::uintptr_t, std::unique_ptr<Buffer>> buffers;
  Buffer *last = nullptr;
  std::vector<Shadow> static_shared, dynamic_shared;
  unsigned char *dynamic_memory = nullptr, *snapshots = nullptr;
  std::vector<Fiber> fibers;
  Warp warps[MOST_WARPS];
  void *scheduler;
  Fiber *now = nullptr;
  const Entry *entry;
  void *const *arguments;
  dim3 grid, size, block;
  unsigned threads, dynamic_bytes;
  bool programmatic;  // the kernel before may still run
  Architecture architecture;
  std::uint32_t block_serial = 0, launch_serial = 0;
  char *fault;
  std::size_t fault_room;
  bool failed;
};

Machine &machine();
dim3 index_of(unsigned thread);
inline unsigned warp_of(unsigned thread) { return thread / LANES; }

// Ends the launch with a sentence about the running thread, or about the block.
__attribute__((format(printf, 1, 2))) [[noreturn]] void fail(const char *format, ...);
__attribute__((format(printf, 1, 2))) void fail_block(const char *format, ...);

// Runs the block that the machine is set to, to its end or its first fault.
void run_block();

// The shadow of memory that threads share, or null for what is a thread's own. Fails on what is nobody's.
Shadow *shadow_of(std::uintptr_t at, unsigned bytes, bool write, bool &shared, std::size_t &offset);

// One access by the running thread. `at` points into a table, program text or the like if it is constant: those are read
// through __ldg-like helpers only, so they need not be known here.
void judge(std::uintptr_t at, unsigned bytes, bool write, bool atomic, bool checks_alignment);

}  // namespace emulated::runtime
