// f16, as IEEE 754 rounds it, and E4M3, as the OCP's 8-bit formats (OFP8) and CUDA's saturating conversion have it.

#include "../device/emulate.h"

float emulated_half_to_float(std::uint16_t bits) {
  const unsigned sign = unsigned(bits & 0x8000) << 16, exponent = bits >> 10 & 31, fraction = bits & 1023;
  if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | fraction << 13);
  const float magnitude = exponent ? std::ldexp(float(1024 + fraction), int(exponent) - 25) : std::ldexp(float(fraction), -24);
  return sign ? -magnitude : magnitude;
}

std::uint16_t emulated_float_to_half(float x) {
  const unsigned bits = __float_as_uint(x), sign = bits >> 16 & 0x8000;
  const float magnitude = std::fabs(x);
  if (magnitude != magnitude) return 0x7fff;
  if (magnitude >= 65520.0f) return std::uint16_t(sign | 0x7c00);
  int exponent;
  std::frexp(magnitude, &exponent);
  // Units of the last place: 2^-24 below the smallest normal number, else 11 bits below the leading one.
  const int unit = exponent - 11 > -24 ? exponent - 11 : -24;
  const float scaled = std::ldexp(magnitude, -unit);
  unsigned whole = unsigned(std::nearbyint(scaled));  // ties to even
  if (magnitude == 0) return std::uint16_t(sign);
  if (whole == 2048) return std::uint16_t(sign | (unit + 26) << 10);
  if (whole < 1024) return std::uint16_t(sign | whole);  // subnormal
  return std::uint16_t(sign | (unit + 25) << 10 | (whole - 1024));
}

float emulated_e4m3_to_float(std::uint8_t bits) {
  const unsigned exponent = bits >> 3 & 15, fraction = bits & 7;
  float magnitude;
  if (exponent == 15 && fraction == 7)
    magnitude = __uint_as_float(0x7fffffffu);
  else
    magnitude = exponent ? std::ldexp(float(8 + fraction), int(exponent) - 10) : std::ldexp(float(fraction), -9);
  return bits & 0x80 ? -magnitude : magnitude;
}

std::uint8_t emulated_float_to_e4m3(float x) {
  const unsigned sign = __float_as_uint(x) >> 24 & 0x80;
  const float magnitude = std::fabs(x);
  if (magnitude != magnitude) return 0x7f;
  if (magnitude >= 448.0f) return std::uint8_t(sign | 0x7e);
  if (magnitude == 0) return std::uint8_t(sign);
  int exponent;
  std::frexp(magnitude, &exponent);
  // Units of the last place: 2^-9 below the smallest normal number, else four bits below the leading one.
  const int unit = exponent - 4 > -9 ? exponent - 4 : -9;
  const unsigned whole = unsigned(std::nearbyint(std::ldexp(magnitude, -unit)));  // ties to even
  if (whole == 16) return std::uint8_t(sign | (unit + 11) << 3);
  if (whole < 8) return std::uint8_t(sign | whole);  // subnormal
  return std::uint8_t(sign | (unit + 10) << 3 | (whole - 8));
}
