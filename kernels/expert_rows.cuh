// What the grouped products share: which rows of which expert a block has, found on the device, and what they write.
#pragma once

#include "device.cuh"

// What goes on from an expert's first product: silu(gate) * up, where silu(x) = x / (1 + e^-x). Rounded to bf16 are gate, up
// and the result.
__device__ __forceinline__ bf16 activated(float gate, float up) {
  const float g = to_float(to_bf16(gate));
  return to_bf16(to_float(to_bf16(up)) * (g / (1.0f + __expf(-g))));
}

// Writes one row of a warp's sums, one of the two that a lane has of each tile of 8 columns: `half` 0 or 1. `column` is the
// first tile's. Nothing if the row is not there, which the lane's three neighbours know alike. Where gates and ups are columns
// in turn, two of them become one element of a row half as wide.
template <bool ACTIVATES, unsigned TILES, class Out>
__device__ __forceinline__ void store_row(Out *y, size_t row, bool is_there, unsigned n, unsigned column,
                                          const float (&sums)[TILES][4], unsigned half) {
  const unsigned lane = threadIdx.x % WARP, own = lane % 4;
  if constexpr (!ACTIVATES) {
#pragma unroll
    for (unsigned j = 0; j < TILES; ++j) {
      const unsigned at = column + j * 8 + own * 2;
      if (is_there && at < n) store_two(y + row * n + at, sums[j][2 * half], sums[j][2 * half + 1]);
    }
  } else if constexpr (TILES % 4 != 0) {
#pragma unroll
    for (unsigned j = 0; j < TILES; ++j) {
      const unsigned at = column + j * 8 + own * 2;
      if (is_there && at < n) y[row * (n / 2) + at / 2] = activated(sums[j][2 * half], sums[j][2 * half + 1]);
    }
  } else {
    // Of four tiles, each of four lanes has one element; it comes to have all four of one, which are 8 bytes. Together they
    // write 32, a whole sector.
    const unsigned low_first = own < 2 ? 0x5410u : 0x1054u;
#pragma unroll
    for (unsigned j = 0; j < TILES; j += 4) {
      unsigned pairs[2];
#pragma unroll
      for (unsigned i = 0; i < 2; ++i) {
        const float(&left)[4] = sums[j + 2 * i], (&right)[4] = sums[j + 2 * i + 1];
        pairs[i] = pack_two(to_float(activated(left[2 * half], left[2 * half + 1])),
                            to_float(activated(right[2 * half], right[2 * half + 1])));
      }
      // Tiles 0 and 1 to lanes 0 and 1, tiles 2 and 3 to lanes 2 and 3; then each the own one of two.
      const unsigned mine = own < 2 ? pairs[0] : pairs[1];
      const unsigned its = __shfl_xor_sync(ALL_LANES, own < 2 ? pairs[1] : pairs[0], 2);
      const unsigned even = __byte_perm(mine, its, low_first), odd = __byte_perm(mine, its, low_first + 0x2222u);
      const unsigned kept = own % 2 ? odd : even, got = __shfl_xor_sync(ALL_LANES, own % 2 ? even : odd, 1);
      const unsigned left = own % 2 ? got : kept, right = own % 2 ? kept : got;
      const unsigned at = column + (j + own) * 8;
      if (is_there && at < n)
        store_two_words(y + row * (n / 2) + at / 2, {__byte_perm(left, right, 0x5410u), __byte_perm(left, right, 0x7632u)});
    }
  }
}

// What a block multiplies: `count` rows from `first`, all of one expert, with tile `tile` of the columns. No rows if there is
// nothing to do.
//
// Blocks begin in the order of x, then y. Those that are all of one expert's take their rows first and then the next tile: so
// those that run at the same time share weights, which are read from memory once, however many rows there are.
struct Rows {
  unsigned expert, first, count, tile;
};

// Of a plain product.
template <unsigned BM> __device__ __forceinline__ Rows plain_rows(unsigned num_rows) {
  const unsigned place = blockIdx.y * gridDim.x + blockIdx.x, first = place % gridDim.y * BM;
  return {0, first, min(BM, num_rows - first), place / gridDim.y};
}

// Lane e counts the blocks of rows that expert e needs; the block's own number tells which is its. All warps alike.
template <unsigned BM> __device__ __forceinline__ Rows rows_of_block(const unsigned *offsets, unsigned num_experts) {
  const unsigned lane = threadIdx.x % WARP;
  const unsigned rows_of = lane < num_experts ? offsets[lane + 1] - offsets[lane] : 0;
  unsigned blocks_until = (rows_of + BM - 1) / BM;  // becomes the sum over experts 0..=lane
  const unsigned blocks_own = blocks_until;
#pragma unroll
  for (unsigned delta = 1; delta < WARP; delta *= 2) {
    const unsigned its = __shfl_up_sync(ALL_LANES, blocks_until, delta);
    if (lane >= delta) blocks_until += its;
  }
  const unsigned expert = __popc(__ballot_sync(ALL_LANES, blocks_until <= blockIdx.y));
  if (expert >= num_experts) return {0, 0, 0, 0};
  const unsigned blocks = __shfl_sync(ALL_LANES, blocks_own, expert);
  const unsigned first_block = __shfl_sync(ALL_LANES, blocks_until - blocks_own, expert);
  const unsigned place = (blockIdx.y - first_block) * gridDim.x + blockIdx.x;
  const unsigned first = offsets[expert] + place % blocks * BM;
  return {expert, first, min(BM, offsets[expert + 1] - first), place / blocks};
}
