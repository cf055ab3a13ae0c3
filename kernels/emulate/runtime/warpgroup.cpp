// wgmma: what a warpgroup asks for is read and added up later. Here it is read at once, what is wrong about that is told, and the
// sums come when they are waited for; until then they are NaN. Whether what was read has been overwritten meanwhile is told then.
//
// By the PTX ISA ("Asynchronous Warpgroup Level Matrix Instructions", "Matrix Descriptor Format", "Strides"), in matrices whose
// chunks of 16 bytes are permuted by bits 7 to 9 of the address:
//
//   K-major    (a; b)  rows of 16 elements of k, at 128 bytes from each other; eight rows at the stride from the next eight
//   MN-major   (b)     64 columns of one k in 128 bytes; eight k, one after the other, at the stride from the next eight; 64
//                      columns at the leading distance from the next 64
//
// Fragments of a and d are mma.m16n8k16's, 16 rows to a warp.

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

struct Described {
  unsigned start, leading, stride;
};

Described described(std::uint64_t matrix) {
  const auto field = [=](unsigned from) { return unsigned(matrix >> from & 0x3fff) << 4; };
  const Described it = {field(0), field(16), field(32)};
  if (matrix >> 62 != 1)
    fail("multiplies a matrix that is not permuted by 128 bytes, which is all that the emulation knows");
  if (matrix & 0x3fff'c000'c000'c000)
    fail("multiplies a matrix whose descriptor (%#llx) has bits that the emulation knows nothing of", static_cast<unsigned long long>(matrix));
  if ((it.start & ~127u) % 1024) fail("multiplies a matrix whose pattern begins at %u, no multiple of 1024", it.start);
  if (it.stride % 1024) fail("multiplies a matrix with %u bytes from eight rows to the next, no multiple of 1024", it.stride);
  return it;
}

const unsigned char *permuted(unsigned address) { return machine().dynamic_memory + (address ^ (address >> 7 & 7) << 4); }

// Half a row of a K-major matrix: 8 elements.
const unsigned char *half_row(std::uint64_t matrix, unsigned row, unsigned half) {
  const Described it = described(matrix);
  return permuted(it.start + row / 8 * it.stride + row % 8 * 128 + half * 16);
}

// Two columns of an MN-major matrix, from an even one on: elements beside each other.
const unsigned char *two_columns(std::uint64_t matrix, unsigned column, unsigned k) {
  const Described it = described(matrix);
  if (it.start % 1024) fail("multiplies rows of k from %u on, no multiple of 1024", it.start);
  if (column >= 64 && it.leading % 1024)
    fail("multiplies a matrix with %u bytes from 64 columns to the next, no multiple of 1024", it.leading);
  return permuted(it.start + column / 64 * it.leading + k / 8 * it.stride + k % 8 * 128 + column % 64 * 2);
}

// Reads it as the instruction does.
void take(const unsigned char *at, unsigned size, std::uint16_t *elements) {
  touch(at, size, false, false);
  Machine &m = machine();
  bool shared;
  std::size_t offset;
  const Shadow *bytes = shadow_of(reinterpret_cast<std::uintptr_t>(at), size, false, shared, offset);
  for (unsigned i = 0; i < size; ++i) {
    const Shadow &byte = bytes[i];
    if (byte.writer != NOBODY && byte.writer != ATOMIC && m.fibers[byte.writer].shared_fences <= byte.fences) {
      const dim3 writer = index_of(byte.writer);
      fail("multiplies what lies at %zu of shared memory, which thread (%u, %u, %u) has not fenced since it wrote it", offset,
           writer.x, writer.y, writer.z);
    }
  }
  std::memcpy(elements, at, size);
}

void take_row(std::uint64_t matrix, unsigned row, std::vector<std::uint16_t> &elements, std::vector<const unsigned char *> &places) {
  elements.resize(elements.size() + K);
  for (unsigned half = 0; half < 2; ++half) {
    places.push_back(half_row(matrix, row, half));
    take(places.back(), 16, elements.data() + elements.size() - K + half * 8);
  }
}

void take_two_columns(std::uint64_t matrix, unsigned column, std::vector<std::uint16_t> &elements,
                      std::vector<const unsigned char *> &places) {
  const std::size_t first = elements.size();
  elements.resize(first + 2 * K), places.resize(first + 2 * K);
  for (unsigned k = 0; k < K; ++k) {
    const unsigned char *at = two_columns(matrix, column, k);
    std::uint16_t two[2];
    take(at, sizeof two, two);
    for (unsigned i = 0; i < 2; ++i) elements[first + i * K + k] = two[i], places[first + i * K + k] = at + 2 * i;
  }
}

// Until now the product may have been reading. That counts as a read here, too: who has begun to copy there has not waited for it,
// nor has who writes there next without a barrier in between.
void check_unchanged(const std::vector<std::uint16_t> &elements, const std::vector<const unsigned char *> &places, unsigned piece) {
  for (std::size_t i = 0; i < places.size(); ++i) {
    if (std::memcmp(places[i], elements.data() + i * piece, 2 * piece))
      fail("waits for a wgmma whose operand at %zu of shared memory was overwritten meanwhile",
           std::size_t(places[i] - machine().dynamic_memory));
    touch(places[i], 2 * piece, false, false);
  }
}

// Adds up a product that has been waited for. `later` adds to the same sums, if anything does.
void finish(const Product &product, Product *later) {
  check_unchanged(product.rows, product.rows_at, 8);
  check_unchanged(product.columns, product.columns_at, product.column_piece);
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

void warpgroup_product(float *d, unsigned tiles, const unsigned *a, std::uint64_t a_matrix, std::uint64_t b_matrix,
                       bool from_zero, bool by_rows_of_k) {
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
  if (by_rows_of_k) product.column_piece = 1;
  for (unsigned tile = 0; tile < tiles; ++tile) {
    const unsigned column = tile * 8 + 2 * t;
    if (by_rows_of_k) take_two_columns(b_matrix, column, product.columns, product.columns_at);
    else
      for (unsigned i = 0; i < 2; ++i) take_row(b_matrix, column + i, product.columns, product.columns_at);
  }
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
