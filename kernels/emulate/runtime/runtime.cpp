// The runtime behind emulate.h: fibers, barriers, and a judge of every access. Compiled without instrumentation.
//
// Who may read what was written: each warp has a clock that ticks at every barrier it passes, and knows of each other warp
// the clock up to which the two have met. A write by another thread is visible if it is older than what is known of its
// warp; within a warp, if the clock has ticked since (__syncwarp ticks, a shuffle does not: it orders no memory).

#include "../device/emulate.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <vector>

#include <sys/mman.h>

extern "C" unsigned char __start_emulated_shared[], __stop_emulated_shared[];
// So that the section exists even if no kernel has static shared memory.
__attribute__((section("emulated_shared"), used)) static unsigned char at_least_one_byte[16];

#if defined(__x86_64__)
// Puts the callee's registers on this stack, leaves its address at *from, and goes on where `to` was left.
asm(R"(
.text
.globl emulated_switch
.type emulated_switch, @function
emulated_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emulated_switch, .-emulated_switch
)");
#elif defined(__aarch64__)
asm(R"(
.text
.globl emulated_switch
.type emulated_switch, %function
emulated_switch:
  sub sp, sp, #176
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x2, sp
  str x2, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #176
  ret
)");
#else
#error "fibers are written for x86-64 and AArch64"
#endif
extern "C" void emulated_switch(void **from, void *to);

namespace {

using emulated::Entry;

constexpr unsigned MOST_THREADS = 1024, LANES = 32, MOST_WARPS = MOST_THREADS / LANES, BARRIERS = 16;
constexpr std::size_t STACK = 64 << 10, DYNAMIC = 227 << 10;
constexpr unsigned NOBODY = 0xffff, ATOMIC = 0xfffe;

// What is known of one byte. `block` numbers blocks over all launches, so that nothing has to be cleared.
struct Shadow {
  std::uint32_t written_in = 0, written_at = 0;  // block, clock of the writer's warp
  std::uint32_t read_in = 0, read_at = 0;
  std::uint16_t writer = NOBODY, reader = NOBODY;
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
  std::uint32_t block_serial = 0, launch_serial = 0;
  char *fault;
  std::size_t fault_room;
  bool failed;
};

Machine &machine() {
  static Machine *it = new Machine;  // never destroyed: buffers may outlive main's statics
  return *it;
}

dim3 index_of(unsigned thread) {
  const dim3 &size = machine().size;
  return {thread % size.x, thread / size.x % size.y, thread / size.x / size.y};
}

[[noreturn]] void leave() {
  Machine &m = machine();
  void *unused;
  emulated_switch(&unused, m.scheduler);
  __builtin_unreachable();
}

void describe(const Fiber *fiber, const char *format, va_list list) {
  Machine &m = machine();
  if (m.failed) return;
  m.failed = true;
  int length = std::snprintf(m.fault, m.fault_room, "%s: block (%u, %u, %u)", m.entry->name, m.block.x, m.block.y, m.block.z);
  if (fiber) {
    const dim3 thread = index_of(fiber->index);
    length += std::snprintf(m.fault + length, m.fault_room - length, ", thread (%u, %u, %u)", thread.x, thread.y, thread.z);
  }
  length += std::snprintf(m.fault + length, m.fault_room - length, " ");
  std::vsnprintf(m.fault + length, m.fault_room - length, format, list);
}

__attribute__((format(printf, 1, 2))) [[noreturn]] void fail(const char *format, ...) {
  va_list list;
  va_start(list, format);
  describe(machine().now, format, list);
  va_end(list);
  leave();
}

__attribute__((format(printf, 1, 2))) void fail_block(const char *format, ...) {
  va_list list;
  va_start(list, format);
  describe(nullptr, format, list);
  va_end(list);
}

unsigned warp_of(unsigned thread) { return thread / LANES; }

// The shadow of memory that threads share, or null for what is a thread's own. Fails on what is nobody's.
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

bool happened_before(unsigned other, std::uint32_t clock, unsigned me) {
  const Machine &m = machine();
  const Warp &mine = m.warps[warp_of(me)];
  if (warp_of(other) == warp_of(me)) return clock < mine.clock;
  return clock <= mine.known[warp_of(other)];
}

// One access by the running thread. `at` points into a table, program text or the like if it is constant: those are read
// through __ldg-like helpers only, so they need not be known here.
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
  for (unsigned i = 0; i < bytes; ++i) {
    Shadow &byte = shadow[i];
    const bool here = byte.written_in == m.block_serial;
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
      byte.initialised = true;
    } else {
      byte.read_in = m.block_serial;
      byte.read_at = clock;
      byte.reader = me;
    }
  }
}

void yield() {
  Machine &m = machine();
  Fiber *me = m.now;
  emulated_switch(&me->stack_pointer, m.scheduler);
}

void run_thread() {
  Machine &m = machine();
  m.entry->call(m.arguments);
  if (!m.now->pending.empty()) fail("ends with a cp.async that it has not waited for");
  m.now->state = Fiber::DONE;
  leave();
}

void prepare(Fiber &fiber, unsigned index) {
  if (!fiber.stack) {
    void *stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED) std::abort();
    fiber.stack = static_cast<unsigned char *>(stack);
  }
  fiber.index = index;
  fiber.state = Fiber::RUNS;
  fiber.pending.clear();
  fiber.groups = 0;
  auto top = reinterpret_cast<std::uintptr_t>(fiber.stack + STACK) & ~std::uintptr_t(15);
#if defined(__x86_64__)
  auto *words = reinterpret_cast<void **>(top);
  *--words = nullptr;  // where a caller would be; keeps the stack aligned as a call leaves it
  *--words = reinterpret_cast<void *>(&run_thread);
  for (int i = 0; i < 6; ++i) *--words = nullptr;
  fiber.stack_pointer = words;
#else
  auto *words = reinterpret_cast<void **>(top - 176);
  for (int i = 0; i < 22; ++i) words[i] = nullptr;
  words[11] = reinterpret_cast<void *>(&run_thread);
  fiber.stack_pointer = words;
#endif
}

void met_at_barrier(unsigned id, unsigned expected) {
  Machine &m = machine();
  bool present[MOST_WARPS] = {};
  for (unsigned i = 0; i < m.threads; ++i) {
    Fiber &fiber = m.fibers[i];
    if (fiber.state != Fiber::AT_BARRIER || fiber.barrier != id) continue;
    fiber.state = Fiber::RUNS;
    present[warp_of(i)] = true;
  }
  (void)expected;
  // All that one of them has seen, all have seen now; then each begins a new stretch.
  const unsigned warps = (m.threads + LANES - 1) / LANES;
  std::uint32_t seen[MOST_WARPS] = {};
  for (unsigned w = 0; w < warps; ++w)
    if (present[w])
      for (unsigned v = 0; v < warps; ++v) {
        const std::uint32_t clock = v == w ? m.warps[w].clock : m.warps[w].known[v];
        if (clock > seen[v]) seen[v] = clock;
      }
  for (unsigned w = 0; w < warps; ++w)
    if (present[w]) {
      for (unsigned v = 0; v < warps; ++v) m.warps[w].known[v] = seen[v];
      ++m.warps[w].clock;
    }
}

// Lets threads go on that wait for nobody any more; false if there are none.
bool release() {
  Machine &m = machine();
  bool any = false;
  unsigned alive = 0, waiting[BARRIERS] = {}, expected[BARRIERS] = {};
  for (unsigned i = 0; i < m.threads; ++i) {
    const Fiber &fiber = m.fibers[i];
    if (fiber.state != Fiber::DONE) ++alive;
    if (fiber.state != Fiber::AT_BARRIER) continue;
    if (waiting[fiber.barrier] && expected[fiber.barrier] != fiber.expected) {
      fail_block("has threads at barrier %u that wait for %u and for %u", fiber.barrier, expected[fiber.barrier], fiber.expected);
      return false;
    }
    ++waiting[fiber.barrier];
    expected[fiber.barrier] = fiber.expected;
  }
  for (unsigned id = 0; id < BARRIERS; ++id)
    if (waiting[id] && waiting[id] == (expected[id] ? expected[id] : alive)) {
      met_at_barrier(id, expected[id]);
      any = true;
    }
  const unsigned warps = (m.threads + LANES - 1) / LANES;
  for (unsigned w = 0; w < warps; ++w)
    for (unsigned lane = 0; lane < LANES && w * LANES + lane < m.threads; ++lane) {
      Fiber &first = m.fibers[w * LANES + lane];
      if (first.state != Fiber::AT_MEETING) continue;
      bool all = true;
      for (unsigned other = 0; other < LANES && all; ++other) {
        if (!(first.mask >> other & 1)) continue;
        const unsigned index = w * LANES + other;
        // Lanes that the block does not have count as absent, which hardware takes for met.
        if (index >= m.threads) continue;
        const Fiber &fiber = m.fibers[index];
        if (fiber.state == Fiber::DONE) {
          fail_block("has lane %u of warp %u waiting for lane %u, which has ended", lane, w, other);
          return false;
        }
        if (fiber.state == Fiber::AT_MEETING && fiber.mask >> lane & 1 && (fiber.mask != first.mask || fiber.kind != first.kind)) {
          fail_block("has lanes %u and %u of warp %u in different warp operations or masks (%#x, %#x)", lane, other, w, first.mask, fiber.mask);
          return false;
        }
        all = fiber.state == Fiber::AT_MEETING && fiber.mask == first.mask;
      }
      if (!all) continue;
      unsigned char *snapshot = m.snapshots +
          (std::size_t(w) * SNAPSHOTS + m.warps[w].next_snapshot++ % SNAPSHOTS) * LANES * emulated::stride;
      const unsigned mask = first.mask, kind = first.kind;
      bool whole = true;
      for (unsigned other = 0; other < LANES; ++other) {
        const unsigned index = w * LANES + other;
        if (index >= m.threads) continue;
        Fiber &fiber = m.fibers[index];
        if (!(mask >> other & 1)) {
          whole = whole && fiber.state == Fiber::DONE;
          continue;
        }
        std::memcpy(snapshot + other * emulated::stride, fiber.payload, fiber.bytes);
        fiber.met = snapshot;
        fiber.state = Fiber::RUNS;
      }
      if (kind == emulated::SYNC && whole) ++m.warps[w].clock;
      any = true;
    }
  return any;
}

void run_block() {
  Machine &m = machine();
  ++m.block_serial;
  std::memset(__start_emulated_shared, 0xcc, __stop_emulated_shared - __start_emulated_shared);
  std::memset(m.dynamic_memory, 0xcc, m.dynamic_bytes);
  for (Warp &warp : m.warps) {
    warp.clock = 1;
    std::memset(warp.known, 0, sizeof warp.known);
    warp.next_snapshot = 0;
  }
  for (unsigned i = 0; i < m.threads; ++i) prepare(m.fibers[i], i);
  while (!m.failed) {
    bool ran = false;
    for (unsigned i = 0; i < m.threads && !m.failed; ++i) {
      Fiber &fiber = m.fibers[i];
      if (fiber.state != Fiber::RUNS) continue;
      ran = true;
      m.now = &fiber;
      emulated_switch(&m.scheduler, fiber.stack_pointer);
      m.now = nullptr;
    }
    if (m.failed) return;
    bool done = true;
    for (unsigned i = 0; i < m.threads; ++i) done = done && m.fibers[i].state == Fiber::DONE;
    if (done) return;
    if (!release() && !ran && !m.failed) {
      for (unsigned i = 0; i < m.threads; ++i) {
        const Fiber &fiber = m.fibers[i];
        if (fiber.state == Fiber::AT_BARRIER) {
          fail_block("waits for ever: thread %u at barrier %u, which others do not reach", i, fiber.barrier);
          return;
        }
      }
      fail_block("waits for ever in a warp operation that not all lanes of its mask reach");
    }
  }
}

}  // namespace

namespace emulated {

dim3 thread_index() { return index_of(machine().now->index); }
dim3 block_index() { return machine().block; }
dim3 block_size() { return machine().size; }
dim3 grid_size() { return machine().grid; }
unsigned char *dynamic_shared() { return machine().dynamic_memory; }
unsigned lane() { return machine().now->index % LANES; }

void barrier(unsigned id, unsigned count) {
  Fiber &me = *machine().now;
  if (id >= BARRIERS || count % LANES) fail("waits at barrier %u for %u threads: there are 16, for whole warps", id, count);
  me.state = Fiber::AT_BARRIER;
  me.barrier = id;
  me.expected = count;
  yield();
}

const unsigned char *meet(unsigned mask, unsigned kind, const void *mine, unsigned bytes) {
  Fiber &me = *machine().now;
  if (!(mask >> lane() & 1)) fail("calls a warp operation with a mask (%#x) that it is not in", mask);
  me.state = Fiber::AT_MEETING;
  me.mask = mask;
  me.kind = kind;
  me.bytes = bytes;
  if (bytes) std::memcpy(me.payload, mine, bytes);
  yield();
  return me.met;
}

void touch(const void *at, unsigned bytes, bool write, bool atomic) {
  judge(reinterpret_cast<std::uintptr_t>(at), bytes, write, atomic, true);
}

uint4 load16(const void *at) {
  touch(at, 16, false, false);
  return *static_cast<const uint4 *>(at);
}

uint2 load8(const void *at) {
  touch(at, 8, false, false);
  return *static_cast<const uint2 *>(at);
}

unsigned load4(const void *at) {
  touch(at, 4, false, false);
  return *static_cast<const unsigned *>(at);
}

void store16(void *at, const uint4 &value) {
  touch(at, 16, true, false);
  *static_cast<uint4 *>(at) = value;
}

void store8(void *at, const uint2 &value) {
  touch(at, 8, true, false);
  *static_cast<uint2 *>(at) = value;
}

void store4(void *at, unsigned value) {
  touch(at, 4, true, false);
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
unsigned atomicAdd(unsigned *at, unsigned value) { return atomically(at, [=](unsigned x) { return x + value; }); }
int atomicAdd(int *at, int value) { return atomically(at, [=](int x) { return x + value; }); }
float atomicAdd(float *at, float value) { return atomically(at, [=](float x) { return x + value; }); }
unsigned atomicMax(unsigned *at, unsigned value) { return atomically(at, [=](unsigned x) { return x > value ? x : value; }); }

float emulated_half_to_float(std::uint16_t bits) {
  const unsigned sign = unsigned(bits & 0x8000) << 16, exponent = bits >> 10 & 31, fraction = bits & 1023;
  if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | fraction << 13);
  const float magnitude = exponent ? std::ldexp(float(1024 + fraction), int(exponent) - 25) : std::ldexp(float(fraction), -24);
  return sign ? -magnitude : magnitude;
}

std::uint16_t emulated_float_to_half(float x) {
  const unsigned bits = __float_as_uint(x), sign = bits >> 16 & 0x8000;
  const float magnitude = std::fabs(x);
  if (magnitude != magnitude) return 0x7fff;
  if (magnitude >= 65520.0f) return std::uint16_t(sign | 0x7c00);
  int exponent;
  std::frexp(magnitude, &exponent);
  // Units of the last place: 2^-24 below the smallest normal number, else 11 bits below the leading one.
  const int unit = exponent - 11 > -24 ? exponent - 11 : -24;
  const float scaled = std::ldexp(magnitude, -unit);
  unsigned whole = unsigned(std::nearbyint(scaled));  // ties to even
  if (magnitude == 0) return std::uint16_t(sign);
  if (whole == 2048) return std::uint16_t(sign | (unit + 26) << 10);
  if (whole < 1024) return std::uint16_t(sign | whole);  // subnormal
  return std::uint16_t(sign | (unit + 25) << 10 | (whole - 1024));
}

// The table that build.rs writes: all kernels.
extern "C" const Entry *const emulated_entries[];
extern "C" const unsigned emulated_entry_count;

extern "C" void emulated_register(void *at, std::size_t bytes, bool initialised) {
  Machine &m = machine();
  auto buffer = std::make_unique<Buffer>();
  buffer->from = reinterpret_cast<std::uintptr_t>(at);
  buffer->to = buffer->from + bytes;
  buffer->shadow.resize(bytes);
  if (initialised)
    for (Shadow &byte : buffer->shadow) byte.initialised = true;
  m.buffers[buffer->from] = std::move(buffer);
}

extern "C" void emulated_unregister(void *at) {
  Machine &m = machine();
  m.buffers.erase(reinterpret_cast<std::uintptr_t>(at));
  m.last = nullptr;
}

// Whether all of these bytes are of one buffer.
extern "C" bool emulated_within(void *at, std::size_t bytes) {
  const auto from = reinterpret_cast<std::uintptr_t>(at);
  const Machine &m = machine();
  const auto above = m.buffers.upper_bound(from);
  return above != m.buffers.begin() && from + bytes <= std::prev(above)->second->to;
}

// Bytes that the host has written.
extern "C" void emulated_written(void *at, std::size_t bytes) {
  const auto from = reinterpret_cast<std::uintptr_t>(at);
  Machine &m = machine();
  Buffer &buffer = *std::prev(m.buffers.upper_bound(from))->second;
  for (std::size_t i = 0; i < bytes; ++i) buffer.shadow[from - buffer.from + i] = Shadow{.initialised = true};
}

// The number of bytes of a buffer that nobody has written.
extern "C" std::size_t emulated_unwritten(void *at) {
  std::size_t count = 0;
  for (const Shadow &byte : machine().buffers.at(reinterpret_cast<std::uintptr_t>(at))->shadow) count += !byte.initialised;
  return count;
}

// How many parameters a kernel has; -1 if there is none of that name.
extern "C" int emulated_parameters(const char *name) {
  for (unsigned i = 0; i < emulated_entry_count; ++i)
    if (!std::strcmp(emulated_entries[i]->name, name)) return int(emulated_entries[i]->count);
  return -1;
}

// Runs a kernel; 0, or 1 with a sentence in `fault`.
extern "C" int emulated_launch(const char *name, const unsigned *grid, const unsigned *block, unsigned dynamic_bytes,
                               void *const *arguments, unsigned count, char *fault, std::size_t room) {
  Machine &m = machine();
  m.entry = nullptr;
  for (unsigned i = 0; i < emulated_entry_count; ++i)
    if (!std::strcmp(emulated_entries[i]->name, name)) m.entry = emulated_entries[i];
  const auto refuse = [&](const char *why) {
    std::snprintf(fault, room, "%s: %s", name, why);
    return 1;
  };
  if (!m.entry) return refuse("there is no such kernel");
  if (m.entry->count != count) return refuse("the kernel has another number of arguments");
  const std::uint64_t threads = std::uint64_t(block[0]) * block[1] * block[2];
  if (threads == 0 || threads > MOST_THREADS || block[2] > 64) return refuse("a block has 1 to 1024 threads");
  if (!grid[0] || !grid[1] || !grid[2] || grid[1] > 65535 || grid[2] > 65535) return refuse("no such grid");
  if (dynamic_bytes > DYNAMIC) return refuse("a block has at most 227 KiB of dynamic shared memory");
  if (!m.dynamic_memory) {
    m.dynamic_memory = static_cast<unsigned char *>(std::aligned_alloc(1024, (DYNAMIC + 1023) / 1024 * 1024));
    m.snapshots = new unsigned char[std::size_t(MOST_WARPS) * SNAPSHOTS * LANES * emulated::stride];
    m.dynamic_shared.resize(DYNAMIC);
    m.static_shared.resize(__stop_emulated_shared - __start_emulated_shared);
    m.fibers.resize(MOST_THREADS);
  }
  m.arguments = arguments;
  m.grid = {grid[0], grid[1], grid[2]};
  m.size = {block[0], block[1], block[2]};
  m.threads = unsigned(threads);
  m.dynamic_bytes = dynamic_bytes;
  m.fault = fault;
  m.fault_room = room;
  m.failed = false;
  m.launch_serial = m.block_serial + 1;
  for (unsigned z = 0; z < grid[2] && !m.failed; ++z)
    for (unsigned y = 0; y < grid[1] && !m.failed; ++y)
      for (unsigned x = 0; x < grid[0] && !m.failed; ++x) {
        m.block = {x, y, z};
        run_block();
      }
  m.now = nullptr;
  return m.failed;
}

// What the compiler calls before each access.
#define AT reinterpret_cast<std::uintptr_t>(at)
extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void **, void *) {}
void __tsan_vptr_read(void **) {}
#define ACCESS(bytes) \
  void __tsan_read##bytes(void *at) { judge(AT, bytes, false, false, true); } \
  void __tsan_write##bytes(void *at) { judge(AT, bytes, true, false, true); } \
  void __tsan_volatile_read##bytes(void *at) { judge(AT, bytes, false, false, true); } \
  void __tsan_volatile_write##bytes(void *at) { judge(AT, bytes, true, false, true); } \
  void __tsan_unaligned_read##bytes(void *at) { judge(AT, bytes, false, false, false); } \
  void __tsan_unaligned_write##bytes(void *at) { judge(AT, bytes, true, false, false); }
ACCESS(1) ACCESS(2) ACCESS(4) ACCESS(8) ACCESS(16)
void __tsan_read_range(void *at, std::size_t bytes) { judge(AT, unsigned(bytes), false, false, false); }
void __tsan_write_range(void *at, std::size_t bytes) { judge(AT, unsigned(bytes), true, false, false); }
}
