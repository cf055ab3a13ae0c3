// ldmatrix and mma.sync, lane by lane, by the layouts in the PTX ISA ("Matrix Fragments for mma.m16n8k16", "… m16n8k32",
// "ldmatrix"). With g = lane / 4 and t = lane % 4:
//
//   16-bit A, 16x16: register r holds row g + 8 (r % 2), columns 2t, 2t + 1 (+ 8 for r = 2, 3)
//   16-bit B, 16x8:  register r holds rows 2t, 2t + 1 (+ 8 for r = 1), column g
//   8-bit  A, 16x32: register r holds row g + 8 (r % 2), columns 4t … 4t + 3 (+ 16 for r = 2, 3)
//   8-bit  B, 32x8:  register r holds rows 4t … 4t + 3 (+ 16 for r = 1), column g
//   C and D, 16x8:   element i is at row g + 8 (i / 2), column 2t + i % 2
//
// Floats add as the launch's architecture adds them, to the last bit: arithmetic.h.

#include "arithmetic.h"
#include "machine.h"
#include "traffic.h"

#include <functional>

namespace emulated {

using namespace runtime;

namespace {

constexpr unsigned EVERYBODY = 0xffffffffu;

struct Operands {
  unsigned a[4], b[2];
};
static_assert(sizeof(Operands) <= stride, "what a lane brings fits its place");

// What a row of A or a column of B is made of, in the order of k.
union Bytes {
  unsigned words[8];
  std::uint16_t numbers[16];
  unsigned char codes[32];
};

Bytes row_of_a(const unsigned char *all, unsigned row) {
  Bytes bytes;
  for (unsigned quarter = 0; quarter < 4; ++quarter) {
    const auto lane = from_lane<Operands>(all, row % 8 * 4 + quarter);
    for (unsigned half = 0; half < 2; ++half) bytes.words[4 * half + quarter] = lane.a[2 * half + row / 8];
  }
  return bytes;
}

Bytes column_of_b(const unsigned char *all, unsigned column) {
  Bytes bytes;
  for (unsigned quarter = 0; quarter < 4; ++quarter) {
    const auto lane = from_lane<Operands>(all, column * 4 + quarter);
    for (unsigned half = 0; half < 2; ++half) bytes.words[4 * half + quarter] = lane.b[half];
  }
  return bytes;
}

// The four elements of D that the calling lane owns: `sum(d, row of A, column of B)`, each made of its bytes by `take` once.
template <class Element, class Take, class Sum> void each_element(const unsigned char *all, Element *d, Take take, Sum sum) {
  const unsigned g = lane() / 4, t = lane() % 4;
  const auto upper = take(row_of_a(all, g)), lower = take(row_of_a(all, g + 8));
  const auto left = take(column_of_b(all, 2 * t)), right = take(column_of_b(all, 2 * t + 1));
  d[0] = sum(d[0], upper, left);
  d[1] = sum(d[1], upper, right);
  d[2] = sum(d[2], lower, left);
  d[3] = sum(d[3], lower, right);
}

}  // namespace

void load_matrix(unsigned *fragment, unsigned count, bool transposed, const void *row) {
  if (lane() < 8 * count) {
    touch(row, 16, false, false);
    runtime::count(__builtin_return_address(0), reinterpret_cast<std::uintptr_t>(row), 16, false);
  }
  const unsigned char *all = meet(EVERYBODY, MATRIX, &row, sizeof row);
  const unsigned g = lane() / 4, t = lane() % 4;
  for (unsigned matrix = 0; matrix < count; ++matrix) {
    std::uint16_t two[2];
    for (unsigned i = 0; i < 2; ++i) {
      const unsigned from_row = transposed ? 2 * t + i : g, column = transposed ? g : 2 * t + i;
      const auto *address = from_lane<const unsigned char *>(all, 8 * matrix + from_row);
      __builtin_memcpy(&two[i], address + 2 * column, 2);
    }
    fragment[matrix] = two[0] | unsigned(two[1]) << 16;
  }
}

void mma_m16n8k16(float *d, const unsigned *a, const unsigned *b, Type type) {
  const Operands mine = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  count_products(16 * 8 * 16 / LANES);
  const unsigned char *all = meet(EVERYBODY, MMA, &mine, sizeof mine);
  const auto apart = [=](const Bytes &bytes) { return Factors(bytes.numbers, 16, type); };
  const Architecture whose = machine().architecture;
  each_element(all, d, apart, [=](float c, const Factors &a, const Factors &b) { return dot_add_16(c, a, b, type, whose); });
}

void mma_m16n8k32_s8(int *d, const unsigned *a, const unsigned *b) {
  const Operands mine = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  count_products(16 * 8 * 32 / LANES);
  const unsigned char *all = meet(EVERYBODY, MMA, &mine, sizeof mine);
  each_element(all, d, std::identity(), [](int c, const Bytes &a, const Bytes &b) {
    for (unsigned k = 0; k < 32; ++k) c += std::int8_t(a.codes[k]) * std::int8_t(b.codes[k]);
    return c;
  });
}

void mma_m16n8k32_e4m3(float *d, const unsigned *a, const unsigned *b) {
  if (machine().architecture == AMPERE) fail("multiplies E4M3, which Ampere's tensor cores do not");
  const Operands mine = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  count_products(16 * 8 * 32 / LANES);
  const unsigned char *all = meet(EVERYBODY, MMA, &mine, sizeof mine);
  each_element(all, d, std::identity(), [](float c, const Bytes &a, const Bytes &b) {
    return dot_add_32_e4m3(c, a.codes, b.codes);
  });
}

}  // namespace emulated
