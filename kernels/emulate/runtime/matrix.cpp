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

namespace emulated {

using namespace runtime;

namespace {

constexpr unsigned EVERYBODY = 0xffffffffu;

struct Operands {
  unsigned a[4], b[2];
};
static_assert(sizeof(Operands) <= stride, "what a lane brings fits its place");

std::uint16_t half_word(unsigned word, unsigned half) { return std::uint16_t(word >> (16 * half)); }
std::uint8_t byte_of(unsigned word, unsigned byte) { return std::uint8_t(word >> (8 * byte)); }

// Row `row` of A or column `column` of B: `take(register, position in it, k)` for each k. A register holds `in_register` of k.
template <class Take> void each_of_row(const unsigned char *all, unsigned row, unsigned in_register, Take take) {
  for (unsigned quarter = 0; quarter < 4; ++quarter) {
    const auto lane = from_lane<Operands>(all, row % 8 * 4 + quarter);
    for (unsigned half = 0; half < 2; ++half)
      for (unsigned at = 0; at < in_register; ++at)
        take(lane.a[2 * half + row / 8], at, (4 * half + quarter) * in_register + at);
  }
}
template <class Take> void each_of_column(const unsigned char *all, unsigned column, unsigned in_register, Take take) {
  for (unsigned quarter = 0; quarter < 4; ++quarter) {
    const auto lane = from_lane<Operands>(all, column * 4 + quarter);
    for (unsigned half = 0; half < 2; ++half)
      for (unsigned at = 0; at < in_register; ++at) take(lane.b[half], at, (4 * half + quarter) * in_register + at);
  }
}

// The four elements of D that the calling lane owns: `sum(d, row of A, column of B)`, each taken apart once by
// `put(vector, register, position in it, k)`.
template <class Vector, class Element, class Put, class Sum>
void each_element(const unsigned char *all, unsigned in_register, Element *d, Put put, Sum sum) {
  const unsigned g = lane() / 4, t = lane() % 4;
  Vector rows[2], columns[2];
  for (unsigned i = 0; i < 2; ++i) {
    each_of_row(all, g + 8 * i, in_register, [&](unsigned word, unsigned at, unsigned k) { put(rows[i], word, at, k); });
    each_of_column(all, 2 * t + i, in_register, [&](unsigned word, unsigned at, unsigned k) { put(columns[i], word, at, k); });
  }
  for (unsigned i = 0; i < 4; ++i) d[i] = sum(d[i], rows[i / 2], columns[i % 2]);
}

struct Bytes {
  unsigned char at[32];
};
void put_byte(Bytes &bytes, unsigned word, unsigned at, unsigned k) { bytes.at[k] = byte_of(word, at); }

}  // namespace

void load_matrix(unsigned *fragment, unsigned count, bool transposed, const void *row) {
  if (lane() < 8 * count) touch(row, 16, false, false);
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
  const unsigned char *all = meet(EVERYBODY, MMA, &mine, sizeof mine);
  const Architecture whose = machine().architecture;
  each_element<Factors>(
      all, 2, d,
      [=](Factors &factors, unsigned word, unsigned at, unsigned k) { take_apart(factors, k, half_word(word, at), type); },
      [=](float c, const Factors &row, const Factors &column) { return dot_add_16(c, row, column, type, whose); });
}

void mma_m16n8k32_s8(int *d, const unsigned *a, const unsigned *b) {
  const Operands mine = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  const unsigned char *all = meet(EVERYBODY, MMA, &mine, sizeof mine);
  each_element<Bytes>(all, 4, d, put_byte, [](int c, const Bytes &row, const Bytes &column) {
    for (unsigned k = 0; k < 32; ++k) c += int(std::int8_t(row.at[k])) * int(std::int8_t(column.at[k]));
    return c;
  });
}

void mma_m16n8k32_e4m3(float *d, const unsigned *a, const unsigned *b) {
  if (machine().architecture == AMPERE) fail("multiplies E4M3, which Ampere's tensor cores do not");
  const Operands mine = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  const unsigned char *all = meet(EVERYBODY, MMA, &mine, sizeof mine);
  each_element<Bytes>(all, 4, d, put_byte, [](float c, const Bytes &row, const Bytes &column) {
    return dot_add_32_e4m3(c, row.at, column.at);
  });
}

}  // namespace emulated
