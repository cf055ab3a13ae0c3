// Judges every access that a kernel makes, and those of cp.async when they arrive. Compiled without instrumentation.
//
// Who may read what was written: each warp has a clock that ticks at every barrier it passes, and knows of each other warp
// the clock up to which the two have met. A write by another thread is visible if it is older than what is known of its
// warp; within a warp, if the clock has ticked since (__syncwarp ticks, a shuffle does not: it orders no memory).

#include "machine.h"
#include "traffic.h"

namespace emulated::runtime {

Shadow *shadow_of(std::uintptr_t at, unsigned bytes, bool write, bool &shared, std::size_t &offset) {
  Machine &m = machine();
  const Fiber &fiber = *m.now;
  const auto stack = reinterpret_cast<std::uintptr_t>(fiber.stack);
  if (at >= stack && at < stack + STACK) return nullptr;
  const auto snapshots = reinterpret_cast<std::uintptr_t>(m.snapshots);
  if (at >= snapshots && at < snapshots + std::size_t(MOST_WARPS) * SNAPSHOTS * LANES * emulated::stride) return nullptr;

  const char *verb = write ? "writes" : "reads";
  const auto start = reinterpret_cast<std::uintptr_t>(__start_emulated_shared);
  const auto stop = reinterpret_cast<std::uintptr_t>(__stop_emulated_shared);
  const auto dynamic = reinterpret_cast<std::uintptr_t>(m.dynamic_memory);
  if (at >= start && at < stop) {
    shared = true;
    offset = at - start;
    if (at + bytes > stop) fail("%s %u bytes past the end of static shared memory", verb, bytes);
    return m.static_shared.data() + offset;
  }
  if (at >= dynamic && at < dynamic + DYNAMIC) {
    shared = true;
    offset = at - dynamic;
    if (offset + bytes > m.dynamic_bytes)
      fail("%s %u bytes at %zu of dynamic shared memory, of which the launch has %u", verb, bytes, offset, m.dynamic_bytes);
    return m.dynamic_shared.data() + offset;
  }
  shared = false;
  if (!m.last || at < m.last->from || at >= m.last->to) {
    auto above = m.buffers.upper_bound(at);
    m.last = above == m.buffers.begin() ? nullptr : std::prev(above)->second.get();
  }
  if (m.last && at >= m.last->from && at < m.last->to) {
    offset = at - m.last->from;
    if (at + bytes > m.last->to)
      fail("%s %u bytes at %zu of a buffer of %zu", verb, bytes, offset, std::size_t(m.last->to - m.last->from));
    return m.last->shadow.data() + offset;
  }
  for (const Fiber &other : m.fibers) {
    const auto its = reinterpret_cast<std::uintptr_t>(other.stack);
    if (its && at >= its && at < its + STACK) fail("%s local memory of another thread", verb);
  }
  // Near a buffer it is that buffer that was meant.
  auto above = m.buffers.upper_bound(at);
  if (above != m.buffers.begin()) {
    const Buffer &below = *std::prev(above)->second;
    if (at - below.to < 4096)
      fail("%s %u bytes, %zu after the end of a buffer of %zu", verb, bytes, std::size_t(at - below.to),
           std::size_t(below.to - below.from));
  }
  if (above != m.buffers.end() && above->second->from - at <= 4096)
    fail("%s %u bytes, %zu before a buffer", verb, bytes, std::size_t(above->second->from - at));
  fail("%s %u bytes at address %#zx, where no buffer is", verb, bytes, std::size_t(at));
}

static bool happened_before(unsigned other, std::uint32_t clock, unsigned me) {
  const Machine &m = machine();
  const Warp &mine = m.warps[warp_of(me)];
  if (warp_of(other) == warp_of(me)) return clock < mine.clock;
  return clock <= mine.known[warp_of(other)];
}

void judge(std::uintptr_t at, unsigned bytes, bool write, bool atomic, bool checks_alignment) {
  Machine &m = machine();
  if (!m.now) return;  // constructors and the runtime's own callers
  if (checks_alignment && at % bytes) fail("%s %u bytes at a misaligned address (%#zx)", write ? "writes" : "reads", bytes, std::size_t(at));
  bool shared;
  std::size_t offset;
  Shadow *shadow = shadow_of(at, bytes, write, shared, offset);
  if (!shadow) return;
  const unsigned me = m.now->index;
  const char *place = shared ? "shared memory" : "a buffer";
  const bool early = m.programmatic && !m.now->waited && !shared;
  if (early && write) fail("writes %u bytes at %zu of a buffer before it has waited for the kernel before", bytes, offset);
  for (unsigned i = 0; i < bytes; ++i) {
    Shadow &byte = shadow[i];
    const bool here = byte.written_in == m.block_serial;
    if (early && byte.written_in)
      fail("reads %u bytes at %zu of a buffer, which a kernel wrote, before it has waited for the kernel before", bytes, offset);
    if (!here && shared) byte.in_flight = false;  // of a block before, which a fault ended
    if (byte.in_flight)
      fail("%s %u bytes at %zu of %s, where a cp.async has not been waited for", write ? "writes" : "reads", bytes, offset, place);
    if (!write || atomic) {
      if (shared ? !here : !byte.initialised)
        fail("reads %u bytes at %zu of %s, byte %u of which nobody has written", bytes, offset, place, i);
    }
    if (here && byte.writer != me && byte.writer != NOBODY && !(atomic && byte.writer == ATOMIC)) {
      const unsigned writer = byte.writer;
      if (writer == ATOMIC ? byte.written_at >= m.warps[warp_of(me)].clock : !happened_before(writer, byte.written_at, me)) {
        if (writer == ATOMIC)
          fail("%s %u bytes at %zu of %s, which an atomic wrote since the last barrier", write ? "writes" : "reads", bytes, offset, place);
        const dim3 other = index_of(writer);
        fail("%s %u bytes at %zu of %s, which thread (%u, %u, %u) wrote since the last barrier", write ? "writes" : "reads",
             bytes, offset, place, other.x, other.y, other.z);
      }
    }
    if (!shared && !here && byte.written_in >= m.launch_serial && !(atomic && byte.writer == ATOMIC))
      fail("%s %u bytes at %zu of %s, which another block wrote in the same launch", write ? "writes" : "reads", bytes, offset, place);
    if (write && byte.read_in == m.block_serial && byte.reader != me && byte.reader != NOBODY &&
        !happened_before(byte.reader, byte.read_at, me)) {
      const dim3 other = index_of(byte.reader);
      fail("writes %u bytes at %zu of %s, which thread (%u, %u, %u) read since the last barrier", bytes, offset, place, other.x,
           other.y, other.z);
    }
    if (write && !shared && byte.read_in >= m.launch_serial && byte.read_in != m.block_serial)
      fail("writes %u bytes at %zu of %s, which another block read in the same launch", bytes, offset, place);
    const std::uint32_t clock = m.warps[warp_of(me)].clock;
    if (write) {
      byte.written_in = m.block_serial;
      byte.written_at = clock;
      byte.writer = atomic ? ATOMIC : me;
      byte.fences = std::uint16_t(m.now->shared_fences);
      byte.initialised = true;
    } else {
      byte.read_in = m.block_serial;
      byte.read_at = clock;
      byte.reader = me;
    }
  }
}

}  // namespace emulated::runtime

using namespace emulated::runtime;

// Which place in the program this is.
#define CALLER __builtin_return_address(0)

namespace emulated {

void touch(const void *at, unsigned bytes, bool write, bool atomic) {
  judge(reinterpret_cast<std::uintptr_t>(at), bytes, write, atomic, true);
}

uint4 load16(const void *at) {
  touch(at, 16, false, false);
  count(CALLER, reinterpret_cast<std::uintptr_t>(at), 16, false);
  return *static_cast<const uint4 *>(at);
}

uint2 load8(const void *at) {
  touch(at, 8, false, false);
  count(CALLER, reinterpret_cast<std::uintptr_t>(at), 8, false);
  return *static_cast<const uint2 *>(at);
}

unsigned load4(const void *at) {
  touch(at, 4, false, false);
  count(CALLER, reinterpret_cast<std::uintptr_t>(at), 4, false);
  return *static_cast<const unsigned *>(at);
}

void store16(void *at, const uint4 &value) {
  touch(at, 16, true, false);
  count(CALLER, reinterpret_cast<std::uintptr_t>(at), 16, true);
  *static_cast<uint4 *>(at) = value;
}

void store8(void *at, const uint2 &value) {
  touch(at, 8, true, false);
  count(CALLER, reinterpret_cast<std::uintptr_t>(at), 8, true);
  *static_cast<uint2 *>(at) = value;
}

void store4(void *at, unsigned value) {
  touch(at, 4, true, false);
  count(CALLER, reinterpret_cast<std::uintptr_t>(at), 4, true);
  *static_cast<unsigned *>(at) = value;
}

void copy_async(void *to, const void *from, unsigned bytes, unsigned valid) {
  Machine &m = machine();
  if (bytes != 4 && bytes != 8 && bytes != 16) fail("copies %u bytes by cp.async: 4, 8 or 16", bytes);
  if (valid > bytes) fail("copies %u valid bytes of %u by cp.async", valid, bytes);
  const auto target = reinterpret_cast<std::uintptr_t>(to), source = reinterpret_cast<std::uintptr_t>(from);
  if (source % bytes) fail("copies %u bytes by cp.async from a misaligned address (%#zx)", bytes, std::size_t(source));
  if (valid) judge(source, valid, false, false, false);
  judge(target, bytes, true, false, true);
  bool shared = false;
  std::size_t offset;
  Shadow *shadow = shadow_of(target, bytes, true, shared, offset);
  if (!shadow || !shared) fail("copies by cp.async to what is no shared memory");
  for (unsigned i = 0; i < bytes; ++i) shadow[i].in_flight = true;
  if (valid) count(CALLER, source, valid, false);
  count(CALLER, target, bytes, true);
  m.now->pending.push_back({static_cast<unsigned char *>(to), static_cast<const unsigned char *>(from), bytes, valid, m.now->groups});
}

void commit_async() { ++machine().now->groups; }

void wait_async(unsigned allowed) {
  Fiber &me = *machine().now;
  std::vector<Pending> left;
  for (const Pending &copy : me.pending) {
    // A group is waited for unless it is one of the last `allowed`; what is not committed is in none.
    const bool waits = copy.group < me.groups && me.groups - copy.group > allowed;
    if (!waits) {
      left.push_back(copy);
      continue;
    }
    bool shared;
    std::size_t offset;
    const auto target = reinterpret_cast<std::uintptr_t>(copy.to);
    Shadow *shadow = shadow_of(target, copy.bytes, true, shared, offset);
    for (unsigned i = 0; i < copy.bytes; ++i) shadow[i].in_flight = false;
    judge(target, copy.bytes, true, false, true);
    std::memcpy(copy.to, copy.from, copy.valid);
    std::memset(copy.to + copy.valid, 0, copy.bytes - copy.valid);
  }
  me.pending.swap(left);
}

}  // namespace emulated

template <class T, class F> static T atomically(T *at, F next) {
  emulated::touch(at, sizeof(T), true, true);
  const T old = *at;
  *at = next(old);
  return old;
}
#define ATOMIC_OPERATION(T, name, next) \
  T name(T *at, T value) { return atomically(at, [=](T x) -> T { return next; }); }
ATOMIC_OPERATION(unsigned, atomicAdd, x + value)
ATOMIC_OPERATION(int, atomicAdd, int(unsigned(x) + unsigned(value)))
ATOMIC_OPERATION(float, atomicAdd, x + value)
ATOMIC_OPERATION(unsigned long long, atomicAdd, x + value)
ATOMIC_OPERATION(unsigned, atomicSub, x - value)
ATOMIC_OPERATION(unsigned, atomicExch, (void(x), value))
ATOMIC_OPERATION(float, atomicExch, (void(x), value))
ATOMIC_OPERATION(unsigned, atomicMin, value < x ? value : x)
ATOMIC_OPERATION(int, atomicMin, value < x ? value : x)
ATOMIC_OPERATION(unsigned, atomicMax, x < value ? value : x)
ATOMIC_OPERATION(int, atomicMax, x < value ? value : x)
ATOMIC_OPERATION(unsigned, atomicAnd, x & value)
ATOMIC_OPERATION(unsigned, atomicOr, x | value)
ATOMIC_OPERATION(unsigned, atomicXor, x ^ value)
#define COMPARE_AND_SWAP(T) \
  T atomicCAS(T *at, T expected, T value) { return atomically(at, [=](T x) { return x == expected ? value : x; }); }
COMPARE_AND_SWAP(unsigned)
COMPARE_AND_SWAP(unsigned long long)

// What the compiler calls before each access.
#define AT reinterpret_cast<std::uintptr_t>(at)
extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void **, void *) {}
void __tsan_vptr_read(void **) {}
#define ACCESS(bytes) \
  void __tsan_read##bytes(void *at) { judge(AT, bytes, false, false, true); count(CALLER, AT, bytes, false); } \
  void __tsan_write##bytes(void *at) { judge(AT, bytes, true, false, true); count(CALLER, AT, bytes, true); } \
  void __tsan_volatile_read##bytes(void *at) { judge(AT, bytes, false, false, true); } \
  void __tsan_volatile_write##bytes(void *at) { judge(AT, bytes, true, false, true); } \
  void __tsan_unaligned_read##bytes(void *at) { judge(AT, bytes, false, false, false); } \
  void __tsan_unaligned_write##bytes(void *at) { judge(AT, bytes, true, false, false); }
ACCESS(1) ACCESS(2) ACCESS(4) ACCESS(8) ACCESS(16)
void __tsan_read_range(void *at, std::size_t bytes) { judge(AT, unsigned(bytes), false, false, false); }
void __tsan_write_range(void *at, std::size_t bytes) { judge(AT, unsigned(bytes), true, false, false); }
}
