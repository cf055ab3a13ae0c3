// The fused dot-add in integers. A product of significands has at most 22 bits, so aligned to F = 25 places below the largest
// exponent all fit into 27, and a sum of 17 into 32 and a sign.

#include "arithmetic.h"

#include <algorithm>
#include <bit>

namespace emulated::runtime {
namespace {

// Exponents out of all range: with any other one added, ZERO stays below each, and OUTSIDE (infinite, or no number) above.
constexpr int ZERO = -4096, OUTSIDE = 1 << 20, LARGEST = 1 << 12;
constexpr unsigned NOT_A_NUMBER = 0x7fffffffu, INFINITE = 0x7f800000u;

constexpr int fraction_bits(Type type) { return type == BF16 ? 7 : 10; }
constexpr int least_exponent(Type type) { return type == BF16 ? -126 : -14; }

// What is outside: a significand of 1 or -1 is an infinity, one of 0 is no number.
struct Part {
  int significand, exponent;
};

Part part_of(std::uint32_t bits, int exponent_bits, int fraction_bits) {
  const std::uint32_t fraction = bits & ((1u << fraction_bits) - 1), above = (1u << exponent_bits) - 1;
  const std::uint32_t exponent = bits >> fraction_bits & above;
  const int sign = bits >> (fraction_bits + exponent_bits) & 1 ? -1 : 1;
  if (exponent == above) return {fraction ? 0 : sign, OUTSIDE};
  const std::uint32_t magnitude = exponent ? fraction | 1u << fraction_bits : fraction;
  if (!magnitude) return {0, ZERO};
  return {sign * int(magnitude), int(std::max(exponent, 1u)) - int(above / 2)};
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

}  // namespace

void take_apart(Factors &factors, unsigned at, std::uint16_t bits, Type type) {
  const int fraction = fraction_bits(type);
  const Part part = part_of(bits, 15 - fraction, fraction);
  factors.significand[at] = part.significand;
  factors.exponent[at] = part.exponent;
}

float fused_dot_add(float c, const Factors &a, const Factors &b, unsigned from, unsigned count, Type type, Architecture whose) {
  const int places = whose == AMPERE ? 24 : 25;
  const Part add = part_of(__float_as_uint(c), 8, 23);
  int exponent[16], largest = std::max(add.exponent, -108 - places);
  for (unsigned k = 0; k < count; ++k) {
    exponent[k] = a.exponent[from + k] + b.exponent[from + k];
    largest = std::max(largest, exponent[k]);
  }
  if (largest > LARGEST) return sum_outside(add, a, b, from, count);
  const int more = places - 2 * fraction_bits(type);
  std::int64_t sum = cut(add.significand * (1 << (places - 23)), largest - add.exponent);
  for (unsigned k = 0; k < count; ++k)
    sum += cut(a.significand[from + k] * b.significand[from + k] * (1 << more), largest - exponent[k]);
  return rounded_toward_zero(sum, largest - places);
}

float dot_add_16(float c, const Factors &a, const Factors &b, Type type, Architecture whose) {
  if (whose == HOPPER) return fused_dot_add(c, a, b, 0, 16, type, HOPPER);
  return fused_dot_add(fused_dot_add(c, a, b, 0, 8, type, AMPERE), a, b, 8, 8, type, AMPERE);
}

float fused_dot_add(float c, const float *a, const float *b, unsigned count, Type type) {
  const auto bits = [type](float x) {
    return type == BF16 ? std::uint16_t(__float_as_uint(x) >> 16) : emulated_float_to_half(x);
  };
  Factors left, right;
  for (unsigned k = 0; k < count; ++k) {
    take_apart(left, k, bits(a[k]), type);
    take_apart(right, k, bits(b[k]), type);
  }
  return fused_dot_add(c, left, right, 0, count, type, HOPPER);
}

float dot_add_32_e4m3(float c, const unsigned char *a, const unsigned char *b) {
  float sum = 0.0f;
  for (unsigned half = 0; half < 2; ++half) {
    Factors left, right;
    for (unsigned k = 0; k < 16; ++k) {
      const unsigned at = k / 2 * 4 + 2 * half + k % 2;
      take_apart(left, k, half_of_e4m3(a[at]), F16);
      take_apart(right, k, half_of_e4m3(b[at]), F16);
    }
    sum = dot_add_16(sum, left, right, F16, HOPPER);
  }
  const float d = c + sum;
  return d == d ? d : __uint_as_float(NOT_A_NUMBER);
}

}  // namespace emulated::runtime
