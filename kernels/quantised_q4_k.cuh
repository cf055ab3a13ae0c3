// q4_k weights: 4-bit codes, a weight is d * scale * code - dmin * min, with a scale and a minimum of 6 bits for
// each 32 of k, and f16 d and dmin for each 256. Shapes, grid, needs and twin: quantised_gemm.cuh. Needs k % 256 == 0.
//
// Two steps of a strip share d and dmin:
//
//   | d: 64 bytes | dmin: 64 bytes | a step's groups: 4 x 64 bytes | its codes | the other step's groups | its codes |
//
// Of a group, each column has a byte for its scale and one for its minimum. Of codes, a lane has one word in a run of 32, as in
// quantised_w4a16.cuh. The minimum is the same for all 32 of k, so it is subtracted times their sum of x, which mma gives with
// ones for weights.
#pragma once

#include "quantised.cuh"

namespace {

struct Q4K {
  static constexpr unsigned BITS = 4, GROUP = 32, RUN = 32, FACTORS = 128, GROUPS_BYTES = 4 * 64;
  static constexpr unsigned CODES_AT = FACTORS + GROUPS_BYTES, SHARED_BYTES = CODES_AT + 2048;
  static constexpr unsigned STEP_BYTES = SHARED_BYTES - FACTORS / 2;  // on average
  static constexpr bool HAS_MINIMA = true;

  static __device__ __forceinline__ unsigned piece_at(unsigned step, unsigned piece) {
    const unsigned shared = step / 2 * 2 * STEP_BYTES + piece * 16;
    return piece < FACTORS / 16 ? shared : shared + step % 2 * (SHARED_BYTES - FACTORS);
  }

  // As in quantised_w4a16.cu, from 0 to 15.
  static __device__ __forceinline__ unsigned pair(unsigned word) {
    return fma_bf16x2(and_or(word, 0x000f000fu, 0x43004300u), 0x3f803f80u, 0xc300c300u);
  }
  static __device__ __forceinline__ void decode(const unsigned (&codes)[1], unsigned fragment, unsigned (&b)[2]) {
    const unsigned word = codes[fragment / 2] >> (fragment % 2 * 8);
    b[0] = pair(word);
    b[1] = pair(word >> 4);
  }

  // factor * a byte. As the low byte of 2^23, whose last bit counts 1, it is that much too large; what is taken off again is
  // exact, and so is the result: 11 digits times 6.
  static __device__ __forceinline__ float scaled(float factor, unsigned word, unsigned at) {
    return fmaf(factor, __uint_as_float(__byte_perm(word, 0x4b000000u, 0x7650u + at)), factor * -8388608.0f);
  }
  // The factors lie at `factors` of the strip, the bytes second of two if they are minima's.
  template <unsigned TILES>
  static __device__ __forceinline__ void scaled(const unsigned char *strip, unsigned factors, unsigned group, unsigned second,
                                                unsigned mine, float (&numbers)[TILES][2]) {
    unsigned words[TILES], bytes[TILES];
    load_words(strip + factors + mine, words);
    load_words(strip + FACTORS + group * 64 + mine, bytes);
#pragma unroll
    for (unsigned j = 0; j < TILES; ++j) {
      unpack_f16x2(words[j], numbers[j]);
#pragma unroll
      for (unsigned i = 0; i < 2; ++i) numbers[j][i] = scaled(numbers[j][i], bytes[j], 2 * i + second);
    }
  }
  template <unsigned TILES>
  static __device__ __forceinline__ void scales(const unsigned char *strip, unsigned group, unsigned mine,
                                                float (&scales)[TILES][2]) {
    scaled(strip, 0, group, 0, mine, scales);
  }
  template <unsigned TILES>
  static __device__ __forceinline__ void minima(const unsigned char *strip, unsigned group, unsigned mine,
                                                float (&minima)[TILES][2]) {
    scaled(strip, FACTORS / 2, group, 1, mine, minima);
  }
};

}  // namespace
