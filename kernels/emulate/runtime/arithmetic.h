// How tensor cores add: what is exact in their sums, what is cut off, and where.
//
// A tensor core does not add in f32 one product after the other. It takes `count` products and the accumulator at once, a
// fused dot-add: all are aligned to the largest exponent among them, each is cut off (toward zero) at F binary places below
// it, what is left is added exactly, and the sum is cut off to f32. Measured and published by "MMA-Sim: Bit-Accurate Reference
// Model of Tensor Cores and Matrix Cores" (arXiv:2511.10909, Python package `mmasim`), of which this holds, for bf16 and f16
// with f32 sums:
//
//   Ampere  mma.sync          8 products in one fused dot-add, F = 24; k = 16 is two of them, k 0 … 7 first
//   Hopper  mma.sync, wgmma  16 products in one fused dot-add, F = 25: both instructions give the same bits
//
// (wgmma in E4M3 keeps 13 places only, of the sum too. It is not here, as no kernel asks for it.)
//
// A product's exponent is the sum of its factors', whatever its leading digit; a subnormal's exponent is its type's least. A
// product or an accumulator of zero counts as if it had exponent −108 − F. NaN, infinity times zero and infinities of both
// signs give the NaN 0x7fffffff; a sum beyond f32 is an infinity; there is no −0.
//
// ../goldens, which scripts/goldens/tensor_cores.py writes by that package, holds this to its bits.
#pragma once

#include "../device/emulate.h"

namespace emulated::runtime {

// Whose tensor cores: a launch's, as emulated_launch takes it.
enum Architecture : unsigned { AMPERE, HOPPER };

// The factors of at most 16 products, taken apart. A factor is significand * 2^exponent with the binary point where its type
// has it; the exponent of one that is zero, infinite or no number is out of all range.
struct Factors {
  int significand[16], exponent[16];
  // The first `count` of 16, from numbers of `type` by their bits.
  Factors(const std::uint16_t *bits, unsigned count, Type type);
};

// c + the sum of sixteen products of bf16 or f16, as an mma of k = 16 adds them.
float dot_add_16(float c, const Factors &a, const Factors &b, Type type, Architecture whose);

// Hopper's mma.sync of k = 32 in E4M3, whose bits its hardware knows nothing of: nvcc 13.0 turns it into two mma of f16, from
// zero, the first with the lower two of each register's four elements (k % 4 < 2), then an f32 addition of c, to nearest even.
float dot_add_32_e4m3(float c, const unsigned char *a, const unsigned char *b);

}  // namespace emulated::runtime
