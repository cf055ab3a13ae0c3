// w4a16 weights: 4-bit codes, a weight is scale * (code - 8), an f16 scale for each 128 of k.
// Shapes, grid, needs and twin: quantised_gemm.cuh.
//
// A step of a strip: 64 bytes of scales, then codes, of which a lane has two words in a run of 64. A word holds two fragments,
// 32 of k: four bits each, from bit 0 on elements 0, 8, 16 and 24, from bit 16 on 1, 9, 17 and 25, all after 2 * (lane % 4).
#pragma once

#include "quantised.cuh"

namespace {

struct W4a16 {
  static constexpr unsigned BITS = 4, GROUP = 128, RUN = 64, CODES_AT = 64, STEP_BYTES = 2112, SHARED_BYTES = STEP_BYTES;
  static constexpr bool HAS_MINIMA = false;

  static __device__ __forceinline__ unsigned piece_at(unsigned step, unsigned piece) { return step * STEP_BYTES + piece * 16; }

  // 0x4300 is 128 in bf16 and its last bit counts 1, so a code in its low bits adds itself. 136 less, exactly, is the weight.
  static __device__ __forceinline__ unsigned pair(unsigned word) {
    return fma_bf16x2(and_or(word, 0x000f000fu, 0x43004300u), 0x3f803f80u, 0xc308c308u);
  }
  static __device__ __forceinline__ void decode(const unsigned (&codes)[2], unsigned fragment, unsigned (&b)[2]) {
    const unsigned word = codes[fragment / 2] >> (fragment % 2 * 8);
    b[0] = pair(word);
    b[1] = pair(word >> 4);
  }

  template <unsigned TILES>
  static __device__ __forceinline__ void scales(const unsigned char *strip, unsigned group, unsigned mine,
                                                float (&scales)[TILES][2]) {
    f16_scales(strip, group, mine, scales);
  }
};

}  // namespace
