// Puts a warp's requests together from what its lanes do one after the other, and counts what each costs.

#include "traffic.h"

#include "machine.h"

#include <algorithm>
#include <deque>
#include <unordered_map>

namespace emulated::runtime {

namespace {

constexpr unsigned SECTOR = 32, BANKS = 32, WORD = 4, MOST_BYTES = 16;

struct Request {
  std::uintptr_t addresses[LANES];
  unsigned lanes = 0;  // who is in it
};

// One place in the program, seen by one warp. The lanes' n-th accesses are request `first + n`.
struct Place {
  Way way;
  unsigned bytes;
  std::uint64_t first = 0, counts[LANES] = {};
  std::deque<Request> open;
};

struct Key {
  const void *place;
  unsigned warp, kind;  // way and bytes: one place may read both memories
  bool operator==(const Key &) const = default;
};
struct Hash {
  std::size_t operator()(const Key &key) const {
    return reinterpret_cast<std::uintptr_t>(key.place) * 0x9e3779b97f4a7c15ull ^ key.warp * 0xff51afd7ed558ccdull ^ key.kind;
  }
};

Traffic *counting = nullptr;
std::unordered_map<Key, Place, Hash> places;

// What accesses touch, each once.
class Touched {
 public:
  void add(std::uintptr_t unit) {
    if (count && unit == units[count - 1]) return;
    in_order = in_order && (!count || units[count - 1] < unit);
    units[count++] = unit;
  }
  // In order; how many there are.
  unsigned settle() {
    if (!in_order) {
      std::sort(units, units + count);
      count = unsigned(std::unique(units, units + count) - units);
      in_order = true;
    }
    return count;
  }
  std::uintptr_t units[LANES * MOST_BYTES / WORD];

 private:
  unsigned count = 0;
  bool in_order = true;
};

// What the lanes of `part` touch, in units of `size` bytes.
Touched touched(const Request &request, unsigned part, unsigned bytes, unsigned size) {
  Touched all;
  for (unsigned lane = 0; lane < LANES; ++lane)
    if (request.lanes & part & 1u << lane)
      for (std::uintptr_t unit = request.addresses[lane] / size; unit <= (request.addresses[lane] + bytes - 1) / size; ++unit)
        all.add(unit);
  return all;
}

// Passes over the banks for the lanes of `part`.
unsigned passes(const Request &request, unsigned part, unsigned bytes) {
  Touched words = touched(request, part, bytes, WORD);
  unsigned of_bank[BANKS] = {}, most = 0;
  for (unsigned i = 0, count = words.settle(); i < count; ++i) most = std::max(most, ++of_bank[words.units[i] % BANKS]);
  return most;
}

void finish(const Place &place, const Request &request) {
  Moved &moved = counting->moved[place.way];
  ++moved.requests;
  moved.bytes += std::uint64_t(__builtin_popcount(request.lanes)) * place.bytes;
  if (place.way == GLOBAL_READS || place.way == GLOBAL_WRITES) {
    const unsigned unit = std::min(place.bytes, WORD);
    moved.passes += touched(request, ~0u, place.bytes, SECTOR).settle();
    moved.least += (touched(request, ~0u, place.bytes, unit).settle() * unit + SECTOR - 1) / SECTOR;
    return;
  }
  const unsigned at_once = place.bytes <= 4 ? LANES : place.bytes == 8 ? LANES / 2 : LANES / 4;
  for (unsigned from = 0; from < LANES; from += at_once)
    moved.passes += passes(request, unsigned((1ull << at_once) - 1) << from, place.bytes);
  moved.least += (touched(request, ~0u, place.bytes, WORD).settle() + BANKS - 1) / BANKS;
}

}  // namespace

void count_into(Traffic *traffic) {
  counting = traffic;
  places.clear();
}

void count_block_ended() {
  if (!counting) return;
  for (const auto &[_, place] : places)
    for (const Request &request : place.open) finish(place, request);
  places.clear();
}

void count(const void *at_place, std::uintptr_t at, unsigned bytes, bool write) {
  if (!counting || !machine().now) return;
  const Machine &m = machine();
  bool shared = false;
  std::size_t offset;
  if (!shadow_of(at, bytes, write, shared, offset)) return;
  const Way way = shared ? (write ? SHARED_WRITES : SHARED_READS) : (write ? GLOBAL_WRITES : GLOBAL_READS);
  const unsigned warp = warp_of(m.now->index), lane = m.now->index % LANES;
  Place &place = places[{at_place, warp, way << 8 | bytes}];
  place.way = way, place.bytes = bytes;
  const std::uint64_t number = place.counts[lane]++ - place.first;
  if (number >= place.open.size()) place.open.resize(number + 1);
  Request &request = place.open[number];
  request.addresses[lane] = shared ? offset : at;
  request.lanes |= 1u << lane;
  while (!place.open.empty() && place.open.front().lanes == ~0u) {
    finish(place, place.open.front());
    place.open.pop_front();
    ++place.first;
  }
}

void count_products(std::uint64_t multiply_adds) {
  if (counting) counting->products += multiply_adds;
}

}  // namespace emulated::runtime
