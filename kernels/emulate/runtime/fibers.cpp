// Each CUDA thread a fiber: switches, barriers, and where the lanes of a warp meet. Compiled without instrumentation.

#include "machine.h"

#include <sys/mman.h>

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

namespace emulated::runtime {

Machine &machine() {
  static Machine *it = new Machine;  // never destroyed: buffers may outlive main's statics
  return *it;
}

dim3 index_of(unsigned thread) {
  const dim3 &size = machine().size;
  return {thread % size.x, thread / size.x % size.y, thread / size.x / size.y};
}

[[noreturn]] static void leave() {
  Machine &m = machine();
  void *unused;
  emulated_switch(&unused, m.scheduler);
  __builtin_unreachable();
}

static void describe(const Fiber *fiber, const char *format, va_list list) {
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

void fail(const char *format, ...) {
  va_list list;
  va_start(list, format);
  describe(machine().now, format, list);
  va_end(list);
  leave();
}

void fail_block(const char *format, ...) {
  va_list list;
  va_start(list, format);
  describe(nullptr, format, list);
  va_end(list);
}

static void yield() {
  Machine &m = machine();
  Fiber *me = m.now;
  emulated_switch(&me->stack_pointer, m.scheduler);
}

static void run_thread() {
  Machine &m = machine();
  m.entry->call(m.arguments);
  if (!m.now->pending.empty()) fail("ends with a cp.async that it has not waited for");
  if (!m.now->products.empty()) fail("ends with a wgmma that it has not waited for");
  if (m.programmatic && !m.now->waited) fail("ends without having waited for the kernel before");
  m.now->state = Fiber::DONE;
  leave();
}

static void prepare(Fiber &fiber, unsigned index) {
  if (!fiber.stack) {
    void *stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED) std::abort();
    fiber.stack = static_cast<unsigned char *>(stack);
  }
  fiber.index = index;
  fiber.state = Fiber::RUNS;
  fiber.pending.clear();
  fiber.groups = 0;
  fiber.waited = false;
  fiber.shared_fences = 0;
  fiber.fenced = false;
  fiber.products.clear();
  fiber.product_groups = 0;
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

static void met_at_barrier(unsigned id, unsigned expected) {
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
static bool release() {
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

}  // namespace emulated::runtime

using namespace emulated::runtime;

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

void wait_for_previous() { machine().now->waited = true; }

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

}  // namespace emulated
