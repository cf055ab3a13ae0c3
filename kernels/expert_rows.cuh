// What the grouped products share: which rows of which expert a block has, found on the device, and what they write.
#pragma once

#include "device.cuh"

// What goes on from an expert's first product: silu(gate) * up, where silu(x) = x / (1 + e^-x). Rounded to bf16 are gate, up
// and the result.
__device__ __forceinline__ bf16 activated(float gate, float up) {
  const float g = to_float(to_bf16(gate));
  return to_bf16(to_float(to_bf16(up)) * (g / (1.0f + __expf(-g))));
}

// Two neighbouring sums of a row of `n` columns, columns `at` and the next one. Where gates and ups are columns in turn, they
// become one element of a row half as wide.
template <bool ACTIVATES, class Out>
__device__ __forceinline__ void store_sums(Out *y, size_t row, unsigned n, unsigned at, float a, float b) {
  if (at >= n) return;
  if constexpr (ACTIVATES)
    y[row * (n / 2) + at / 2] = activated(a, b);
  else
    store_two(y + row * n + at, a, b);
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
