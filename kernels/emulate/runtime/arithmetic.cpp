// The fused dot-add in integers. A product of significands is below 4, so at F = 25 places below the largest exponent below
// 2^27, and the sum of 16 below 2^31: it fits an int.

#include "arithmetic.h"

#include <algorithm>
#include <bit>

namespace emulated::runtime {
namespace {

// Exponents out of all range: with any other one added, ZERO stays below each, and OUTSIDE (infinite, or no number) above.
constexpr int ZERO = -4096, OUTSIDE = 1 << 20, LARGEST = 1 << 12;
constexpr unsigned NOT_A_NUMBER = 0x7fffffffu, INFINITE = 0x7f800000u;

constexpr int fraction_bits(Type type) { return type == BF16 ? 7 : 10; }

// What is outside: a significand of 1 or -1 is an infinity, one of 0 is no number.
struct Part {
  int significand, exponent;
};

template <int exponent_bits, int fraction_bits> inline Part part_of(std::uint32_t bits) {
  constexpr int above = (1 << exponent_bits) - 1, one = 1 << fraction_bits;
  const int exponent = bits >> fraction_bits & above, fraction = bits & (one - 1);
  const int sign = bits >> (fraction_bits + exponent_bits) & 1 ? -1 : 1;
  if (exponent == above) [[unlikely]] return {fraction ? 0 : sign, OUTSIDE};
  const int magnitude = exponent ? fraction | one : fraction;
  return {sign * magnitude, magnitude ? std::max(exponent, 1) - above / 2 : ZERO};
}

// OCP 8-bit floating point, E4M3, which f16 holds exactly: no infinities, one NaN.
std::uint16_t half_of_e4m3(unsigned char bits) {
  const unsigned exponent = bits >> 3 & 15, fraction = bits & 7, sign = unsigned(bits & 0x80) << 8;
  if (exponent == 15 && fraction == 7) return 0x7fff;
  if (exponent) return std::uint16_t(sign | (exponent + 8) << 10 | fraction << 7);
  return std::uint16_t(sign | emulated_float_to_half(float(fraction) * 0x1p-9f));
}

// x cut off at 2^places, toward zero. |x| < 2^28.
inline int cut(int x, int places) {
  const int sign = x >> 31;
  return (((x ^ sign) - sign) >> std::min(places, 31) ^ sign) - sign;
}

// sum * 2^exponent, cut off to f32.
float rounded_toward_zero(std::int64_t sum, int exponent) {
  const std::uint64_t magnitude = sum < 0 ? -sum : sum;
  if (!magnitude) return 0.0f;
  // The place of the result's last digit; all subnormals have one.
  const int last = std::max(int(std::bit_width(magnitude)) + exponent - 24, -149), by = last - exponent;
  const std::uint64_t digits = by >= 64 ? 0 : by >= 0 ? magnitude >> by : magnitude << -by;
  if (!digits) return 0.0f;
  // The first digit of a number that is not subnormal adds one to the exponent's field.
  const std::uint64_t bits = (std::uint64_t(last + 149) << 23) + digits;
  return __uint_as_float(std::min(unsigned(std::min<std::uint64_t>(bits, INFINITE)), INFINITE) | (sum < 0 ? 1u << 31 : 0u));
}

// A sum of which a term is infinite or no number.
float sum_outside(Part c, const Factors &a, const Factors &b, unsigned from, unsigned count) {
  bool plus = false, minus = false, none = false;
  const auto term = [&](int significand) {
    plus |= significand > 0;
    minus |= significand < 0;
    none |= significand == 0;
  };
  if (c.exponent == OUTSIDE) term(c.significand);
  // No number and zero both have a significand of 0, which a product with them keeps.
  for (unsigned k = from; k < from + count; ++k)
    if (a.exponent[k] == OUTSIDE || b.exponent[k] == OUTSIDE) term(a.significand[k] * b.significand[k]);
  if (none || (plus && minus)) return __uint_as_float(NOT_A_NUMBER);
  return __uint_as_float(plus ? INFINITE : INFINITE | 1u << 31);
}

// c + the sum of a[k] * b[k] for k in from .. from + count. Inlined, so that `count` and `places` (F) are constants.
__attribute__((always_inline)) inline float fused(float c, const Factors &a, const Factors &b, unsigned from, unsigned count,
                                                  int places, Type type) {
  const Part add = part_of<8, 23>(__float_as_uint(c));
  int exponent[16], largest = std::max(add.exponent, -108 - places);
  for (unsigned k = 0; k < count; ++k) {
    exponent[k] = a.exponent[from + k] + b.exponent[from + k];
    largest = std::max(largest, exponent[k]);
  }
  if (largest > LARGEST) return sum_outside(add, a, b, from, count);
  const int more = places - 2 * fraction_bits(type);
  int sum = 0;
  for (unsigned k = 0; k < count; ++k)
    sum += cut(a.significand[from + k] * b.significand[from + k] * (1 << more), largest - exponent[k]);
  const int addend = cut(add.significand * (1 << (places - 23)), largest - add.exponent);
  return rounded_toward_zero(std::int64_t(sum) + addend, largest - places);
}

}  // namespace

Factors::Factors(const std::uint16_t *bits, unsigned count, Type type) {
  for (unsigned k = 0; k < count; ++k) {
    const Part part = type == BF16 ? part_of<8, 7>(bits[k]) : part_of<5, 10>(bits[k]);
    significand[k] = part.significand;
    exponent[k] = part.exponent;
  }
}

float dot_add_16(float c, const Factors &a, const Factors &b, Type type, Architecture whose) {
  if (whose == HOPPER) return fused(c, a, b, 0, 16, 25, type);
  return fused(fused(c, a, b, 0, 8, 24, type), a, b, 8, 8, 24, type);
}

float dot_add_32_e4m3(float c, const unsigned char *a, const unsigned char *b) {
  const auto apart = [](const unsigned char *codes, unsigned half) {
    std::uint16_t bits[16];
    for (unsigned k = 0; k < 16; ++k) bits[k] = half_of_e4m3(codes[k / 2 * 4 + 2 * half + k % 2]);
    return Factors(bits, 16, F16);
  };
  float sum = 0.0f;
  for (unsigned half = 0; half < 2; ++half) sum = dot_add_16(sum, apart(a, half), apart(b, half), F16, HOPPER);
  const float d = c + sum;
  return d == d ? d : __uint_as_float(NOT_A_NUMBER);
}

}  // namespace emulated::runtime
