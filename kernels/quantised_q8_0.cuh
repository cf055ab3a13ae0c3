// q8_0 weights: signed bytes, a weight is scale * code, an f16 scale for each 32 of k.
// Shapes, grid, needs and twin: quantised_gemm.cuh.
//
// A step of a strip: four groups of 64 bytes of scales, then codes, of which a lane has two words in a run of 32. A word is a
// fragment, 16 of k: bytes 0 and 2 are elements 0 and 1, bytes 1 and 3 elements 8 and 9, all after 2 * (lane % 4).
#pragma once

#include "quantised.cuh"

namespace {

struct Q8_0 {
  static constexpr unsigned BITS = 8, GROUP = 32, RUN = 32, CODES_AT = 256, STEP_BYTES = 4352, SHARED_BYTES = STEP_BYTES;
  static constexpr bool HAS_MINIMA = false;

  static __device__ __forceinline__ unsigned piece_at(unsigned step, unsigned piece) { return step * STEP_BYTES + piece * 16; }

  // 0x4300 is 128 in bf16 and its last bit counts 1: with the code's low seven bits it is 128 more than they say. The
  // code's sign in the same place makes 128 into 256. Their difference, exact, is the code.
  static __device__ __forceinline__ unsigned pair(unsigned word) {
    const unsigned low = and_or(word, 0x007f007fu, 0x43004300u), sign = and_or(word, 0x00800080u, 0x43004300u);
    return fma_bf16x2(sign, 0xbf80bf80u, low);
  }
  static __device__ __forceinline__ void decode(const unsigned (&codes)[2], unsigned fragment, unsigned (&b)[2]) {
    b[0] = pair(codes[fragment]);
    b[1] = pair(codes[fragment] >> 8);
  }

  template <unsigned TILES>
  static __device__ __forceinline__ void scales(const unsigned char *strip, unsigned group, unsigned mine,
                                                float (&scales)[TILES][2]) {
    f16_scales(strip, group, mine, scales);
  }
};

}  // namespace
