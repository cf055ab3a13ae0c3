// What Rust calls: buffers, copies, launches.

#include "machine.h"
#include "traffic.h"

using namespace emulated::runtime;
using emulated::Entry;

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

// Runs a kernel, one that begins before the kernel before has ended if `programmatic`; 0, or 1 with a sentence in `fault`.
// `architecture` is a number of enum Architecture. What is moved is added to `traffic`, unless that is null.
extern "C" int emulated_launch(const char *name, const unsigned *grid, const unsigned *block, unsigned dynamic_bytes,
                               bool programmatic, unsigned architecture, void *const *arguments, unsigned count, Traffic *traffic,
                               char *fault, std::size_t room) {
  Machine &m = machine();
  m.entry = nullptr;
  for (unsigned i = 0; i < emulated_entry_count; ++i)
    if (!std::strcmp(emulated_entries[i]->name, name)) m.entry = emulated_entries[i];
  const auto refuse = [&](const char *why) {
    std::snprintf(fault, room, "%s: %s", name, why);
    return 1;
  };
  if (!m.entry) return refuse("there is no such kernel");
  const std::uint64_t threads = std::uint64_t(block[0]) * block[1] * block[2];
  if (threads == 0 || threads > MOST_THREADS || block[2] > 64) return refuse("a block has 1 to 1024 threads");
  if (!grid[0] || !grid[1] || !grid[2] || grid[1] > 65535 || grid[2] > 65535) return refuse("no such grid");
  if (dynamic_bytes > DYNAMIC) return refuse("a block has at most 227 KiB of dynamic shared memory");
  if (architecture == AMPERE && dynamic_bytes > AMPERE_DYNAMIC)
    return refuse("a block has at most 163 KiB of dynamic shared memory");
  if (m.entry->count != count) return refuse("the kernel has another number of arguments");
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
  m.programmatic = programmatic;
  m.architecture = Architecture(architecture);
  m.fault = fault;
  m.fault_room = room;
  m.failed = false;
  m.launch_serial = m.block_serial + 1;
  count_into(traffic);
  for (unsigned z = 0; z < grid[2] && !m.failed; ++z)
    for (unsigned y = 0; y < grid[1] && !m.failed; ++y)
      for (unsigned x = 0; x < grid[0] && !m.failed; ++x) {
        m.block = {x, y, z};
        run_block();
        count_block_ended();
      }
  m.now = nullptr;
  count_into(nullptr);
  return m.failed;
}
