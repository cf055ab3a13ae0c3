// ldmatrix and mma.sync, lane by lane, by the layouts in the PTX ISA ("Matrix Fragments for mma.m16n8k16", "… m16n8k32",
// "ldmatrix"). With g = lane / 4 and t = lane % 4:
//
//   16-bit A, 16x16: register r holds row g + 8 (r % 2), columns 2t, 2t + 1 (+ 8 for r = 2, 3)
//   16-bit B, 16x8:  register r holds rows 2t, 2t + 1 (+ 8 for r = 1), column g
//   8-bit  A, 16x32: register r holds row g + 8 (r % 2), columns 4t … 4t + 3 (+ 16 for r = 2, 3)
//   8-bit  B, 32x8:  register r holds rows 4t … 4t + 3 (+ 16 for r = 1), column g
//   C and D, 16x8:   element i is at row g + 8 (i / 2), column 2t + i % 2

#include "../device/emulate.h"

namespace emulated {
namespace {

constexpr unsigned EVERYBODY = 0xffffffffu;

struct Operands {
  unsigned a[4], b[2];
};
static_assert(sizeof(Operands) <= stride, "what a lane brings fits its place");

float float_of(unsigned word, unsigned half, Type type) {
  const std::uint16_t bits = std::uint16_t(word >> (16 * half));
  return type == BF16 ? __bfloat162float({bits}) : emulated_half_to_float(bits);
}

// OCP 8-bit floating point, E4M3: no infinities, one NaN.
float float_of_e4m3(unsigned char bits) {
  const unsigned exponent = bits >> 3 & 15, fraction = bits & 7;
  float magnitude;
  if (exponent == 15 && fraction == 7)
    magnitude = __uint_as_float(0x7fffffffu);
  else
    magnitude = exponent ? std::ldexp(float(8 + fraction), int(exponent) - 10) : std::ldexp(float(fraction), -9);
  return bits & 0x80 ? -magnitude : magnitude;
}

// The four elements of D that the calling lane owns: sums over k of `product(a's lane, a's register, b's lane, b's
// register, position in the register)`. A register holds `in_register` elements of k.
template <class Sum, class Product>
void each_element(const unsigned char *all, unsigned in_register, Sum *d, Product product) {
  const unsigned g = lane() / 4, t = lane() % 4;
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = g + 8 * (i / 2), column = 2 * t + i % 2;
    Sum sum = d[i];
    for (unsigned k = 0; k < 8 * in_register; ++k) {
      const unsigned half = k / (4 * in_register), quarter = k / in_register % 4, position = k % in_register;
      const auto left = from_lane<Operands>(all, row % 8 * 4 + quarter);
      const auto right = from_lane<Operands>(all, column * 4 + quarter);
      sum += product(left.a[2 * half + row / 8], right.b[half], position);
    }
    d[i] = sum;
  }
}

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
  each_element(all, 2, d, [=](unsigned x, unsigned y, unsigned at) { return float_of(x, at, type) * float_of(y, at, type); });
}

void mma_m16n8k32_s8(int *d, const unsigned *a, const unsigned *b) {
  const Operands mine = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  const unsigned char *all = meet(EVERYBODY, MMA, &mine, sizeof mine);
  each_element(all, 4, d, [](unsigned x, unsigned y, unsigned at) {
    return int(std::int8_t(x >> (8 * at))) * int(std::int8_t(y >> (8 * at)));
  });
}

void mma_m16n8k32_e4m3(float *d, const unsigned *a, const unsigned *b) {
  const Operands mine = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  const unsigned char *all = meet(EVERYBODY, MMA, &mine, sizeof mine);
  each_element(all, 4, d, [](unsigned x, unsigned y, unsigned at) {
    return float_of_e4m3(std::uint8_t(x >> (8 * at))) * float_of_e4m3(std::uint8_t(y >> (8 * at)));
  });
}

}  // namespace emulated
