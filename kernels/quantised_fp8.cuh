// fp8 weights: codes in E4M3, a weight is scale * code, an f16 scale for each 128 of k.
// Shapes, grid, needs and twin: quantised_gemm.cuh.
//
// A step of a strip: 64 bytes of scales, then codes, of which a lane has four words in a run of 64, each as in
// quantised_q8_0.cuh. The codes 0x7f and 0xff, which are no numbers, must not occur.
#pragma once

#include "quantised.cuh"

namespace {

struct Fp8 {
  static constexpr unsigned BITS = 8, GROUP = 128, RUN = 64, CODES_AT = 64, STEP_BYTES = 4160, SHARED_BYTES = STEP_BYTES;
  static constexpr bool HAS_MINIMA = false;

  static __device__ __forceinline__ unsigned piece_at(unsigned step, unsigned piece) { return step * STEP_BYTES + piece * 16; }

  // Codes in the high bytes. Exponent and fraction in their places of a bf16 are 2^-120 of the number (biases of 7 and 127),
  // subnormal or not.
  static __device__ __forceinline__ unsigned pair(unsigned word) {
    const unsigned small = and_or(word, 0x80008000u, (word & 0x7f007f00u) >> 4);
    return fma_bf16x2(small, 0x7b807b80u, 0x80008000u);
  }
  static __device__ __forceinline__ void decode(const unsigned (&codes)[4], unsigned fragment, unsigned (&b)[2]) {
    b[0] = pair(codes[fragment] << 8);
    b[1] = pair(codes[fragment]);
  }

  template <unsigned TILES>
  static __device__ __forceinline__ void scales(const unsigned char *strip, unsigned group, unsigned mine,
                                                float (&scales)[TILES][2]) {
    f16_scales(strip, group, mine, scales);
  }
};

}  // namespace
