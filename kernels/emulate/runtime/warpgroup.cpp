// wgmma: what a warpgroup asks for is read and added up later. Here it is read at once, what is wrong about that is told, and the
// sums come when they are waited for; until then they are NaN. Whether what was read has been overwritten meanwhile is told then.
//
// By the PTX ISA ("Asynchronous Warpgroup Level Matrix Instructions", "Matrix Descriptor Format"): a and b are rows of 16
// elements of k, at 128 bytes from each other, eight rows at the descriptor's stride from the next eight, with the chunks of 16
// bytes permuted by bits 7 to 9 of the address. Fragments of a and d are mma.m16n8k16's, 16 rows to a warp.

#include "machine.h"
#include "traffic.h"

namespace emulated {

using namespace runtime;

namespace {

constexpr unsigned EVERYBODY = 0xffffffffu, GROUP = 128, K = 16;
constexpr float POISON = __builtin_nanf("0xdead");

struct Asked {
  unsigned a[4];
  std::uint64_t matrices[2];
};
static_assert(sizeof(Asked) <= stride, "what a lane brings fits its place");

// Half a row of a matrix that a descriptor tells of: 8 elements.
const unsigned char *half_row(std::uint64_t matrix, unsigned row, unsigned half) {
  const unsigned start = unsigned(matrix & 0x3fff) << 4, stride_of_8 = unsigned(matrix >> 32 & 0x3fff) << 4;
  if (matrix >> 62 != 1) fail("multiplies a matrix that is not permuted by 128 bytes, which is all that the emulation knows");
  if (matrix >> 49 & 7 || (start & ~127u) % 1024) fail("multiplies a matrix whose pattern begins at %u, no multiple of 1024", start);
  unsigned address = start + row / 8 * stride_of_8 + row % 8 * 128 + half * 16;
  address ^= (address >> 7 & 7) << 4;
  return machine().dynamic_memory + address;
}

// Reads it as the instruction does.
void take(const unsigned char *at, std::uint16_t *elements) {
  touch(at, 16, false, false);
  Machine &m = machine();
  bool shared;
  std::size_t offset;
  const Shadow *bytes = shadow_of(reinterpret_cast<std::uintptr_t>(at), 16, false, shared, offset);
  for (unsigned i = 0; i < 16; ++i) {
    const Shadow &byte = bytes[i];
    if (byte.writer != NOBODY && byte.writer != ATOMIC && m.fibers[byte.writer].shared_fences <= byte.fences) {
      const dim3 writer = index_of(byte.writer);
      fail("multiplies what lies at %zu of shared memory, which thread (%u, %u, %u) has not fenced since it wrote it", offset,
           writer.x, writer.y, writer.z);
    }
  }
  std::memcpy(elements, at, 16);
}

void take_row(std::uint64_t matrix, unsigned row, std::vector<std::uint16_t> &elements, std::vector<const unsigned char *> &places) {
  elements.resize(elements.size() + K);
  for (unsigned half = 0; half < 2; ++half) {
    places.push_back(half_row(matrix, row, half));
    take(places.back(), elements.data() + elements.size() - K + half * 8);
  }
}

void check_unchanged(const std::vector<std::uint16_t> &elements, const std::vector<const unsigned char *> &places) {
  for (std::size_t i = 0; i < places.size(); ++i)
    if (std::memcmp(places[i], elements.data() + i * 8, 16))
      fail("waits for a wgmma whose operand at %zu of shared memory was overwritten meanwhile",
           std::size_t(places[i] - machine().dynamic_memory));
}

// Adds up a product that has been waited for. `later` adds to the same sums, if anything does.
void finish(const Product &product, Product *later) {
  check_unchanged(product.rows, product.rows_at);
  check_unchanged(product.columns, product.columns_at);
  const Factors rows[2] = {{product.rows.data(), K, BF16}, {product.rows.data() + K, K, BF16}};
  std::vector<float> sums(product.tiles * 4);
  for (unsigned tile = 0; tile < product.tiles; ++tile)
    for (unsigned i = 0; i < 2; ++i) {
      const Factors column(product.columns.data() + (tile * 2 + i) * K, K, BF16);
      for (unsigned half = 0; half < 2; ++half) {
        const unsigned at = tile * 4 + half * 2 + i;
        sums[at] = dot_add_16(product.from_zero ? 0.0f : product.before[at], rows[half], column, BF16, HOPPER);
      }
    }
  if (later)
    later->before = sums;
  else
    std::memcpy(product.d, sums.data(), sums.size() * sizeof(float));
}

}  // namespace

unsigned shared_address(const void *at) {
  const std::ptrdiff_t address = static_cast<const unsigned char *>(at) - machine().dynamic_memory;
  if (address < 0 || address >= std::ptrdiff_t(DYNAMIC)) fail("describes a matrix outside of dynamic shared memory");
  return unsigned(address);
}

void fence_shared() { ++machine().now->shared_fences; }

void warpgroup_fence() { machine().now->fenced = true; }

void commit_products() { ++machine().now->product_groups; }

void warpgroup_product(float *d, unsigned tiles, const unsigned *a, std::uint64_t a_matrix, std::uint64_t b_matrix, bool from_zero) {
  Machine &m = machine();
  if (m.architecture != HOPPER) fail("multiplies by warpgroups, which Hopper alone does");
  if (m.threads % GROUP) fail("multiplies by warpgroups in a block of %u threads, which are no whole ones", m.threads);
  if (!m.now->fenced) fail("multiplies by warpgroups without a fence of its registers");
  count_products(std::uint64_t(64) * tiles * 8 * K / GROUP);
  Asked mine = {{}, {a_matrix, b_matrix}};
  if (a) std::memcpy(mine.a, a, sizeof mine.a);
  const unsigned char *all = meet(EVERYBODY, WGMMA, &mine, sizeof mine);
  const unsigned g = lane() / 4, t = lane() % 4, warp = m.now->index % GROUP / LANES;
  for (unsigned other = 0; other < LANES; ++other)
    if (std::memcmp(from_lane<Asked>(all, other).matrices, mine.matrices, sizeof mine.matrices))
      fail("multiplies other matrices than lane %u of its warp", other);

  Product product;
  product.d = d, product.tiles = tiles, product.group = m.now->product_groups, product.from_zero = from_zero;
  for (unsigned i = 0; i < 2; ++i) {
    const unsigned row = g + 8 * i;
    if (!a) {
      take_row(a_matrix, warp * 16 + row, product.rows, product.rows_at);
      continue;
    }
    for (unsigned k = 0; k < K; ++k) {
      const unsigned word = from_lane<Asked>(all, g * 4 + k % 8 / 2).a[k / 8 * 2 + i];
      product.rows.push_back(std::uint16_t(word >> (k % 2 * 16)));
    }
  }
  for (unsigned tile = 0; tile < tiles; ++tile)
    for (unsigned i = 0; i < 2; ++i) take_row(b_matrix, tile * 8 + 2 * t + i, product.columns, product.columns_at);
  bool is_first_of_d = true;
  for (const Product &earlier : m.now->products) is_first_of_d = is_first_of_d && earlier.d != d;
  if (is_first_of_d) product.before.assign(d, d + tiles * 4);
  for (unsigned i = 0; i < tiles * 4; ++i) d[i] = POISON;
  m.now->products.push_back(std::move(product));
}

void wait_products(unsigned allowed) {
  Fiber &me = *machine().now;
  me.fenced = false;
  while (!me.products.empty()) {
    const unsigned group = me.products.front().group;
    // As with cp.async: one of the last `allowed` groups is not waited for, and what is not committed is in none.
    if (group >= me.product_groups || me.product_groups - group <= allowed) return;
    const Product product = std::move(me.products.front());
    me.products.erase(me.products.begin());
    Product *later = nullptr;
    for (Product &other : me.products)
      if (!later && other.d == product.d) later = &other;
    finish(product, later);
  }
}

}  // namespace emulated
