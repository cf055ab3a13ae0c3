// What the kernels of attention of several rows share: paged_prefill.cu, by warps, and warpgroup_prefill.cu, by warpgroups.
// What decides a row's bits apart from the two products is here, so that a row has the same from both.
#pragma once

#include "device.cuh"

namespace {

// Keys of a tile. Tiles begin at multiples of this of the position.
constexpr unsigned KEYS = 64;

// A tile's sequence, and its first row counted within it. `sequence` is num_seqs if there is no such tile.
struct Tile {
  unsigned sequence, row;
};

// Tiles are of ROWS rows of one sequence. Sequences of one row have none, nor those whose context does not hold their rows.
template <unsigned ROWS>
__device__ __forceinline__ Tile tile_of(const unsigned *cu_seqlens_q, const unsigned *context_lens,
                                        unsigned num_seqs, unsigned tile) {
  const unsigned lane = threadIdx.x % WARP;
  unsigned before = 0;
  for (unsigned first = 0; first < num_seqs; first += WARP) {
    const unsigned sequence = first + lane;
    const unsigned rows = sequence < num_seqs ? cu_seqlens_q[sequence + 1] - cu_seqlens_q[sequence] : 0;
    const unsigned own = rows > 1 && context_lens[sequence] >= rows ? (rows + ROWS - 1) / ROWS : 0;
    unsigned until = own;
#pragma unroll
    for (unsigned delta = 1; delta < WARP; delta *= 2) {
      const unsigned its = __shfl_up_sync(ALL_LANES, until, delta);
      if (lane >= delta) until += its;
    }
    const unsigned votes = __ballot_sync(ALL_LANES, before + until > tile);
    if (votes != 0) {
      const unsigned who = __ffs(votes) - 1;
      const unsigned start = before + __shfl_sync(ALL_LANES, until - own, who);
      return {first + who, (tile - start) * ROWS};
    }
    before += __shfl_sync(ALL_LANES, until, WARP - 1);
  }
  return {num_seqs, 0};
}

// The first key that a row sees.
__device__ __forceinline__ unsigned first_seen(unsigned position, unsigned window) {
  return window != 0 && position + 1 > window ? position + 1 - window : 0;
}

// Scores of a warp's sixteen rows, from position `top` on, and of the keys from `from` on: those that a row does not see
// become -infinity. Only a tile at the edge of what some row sees has any.
__device__ __forceinline__ void hide_unseen(float (&scores)[KEYS / 8][4], unsigned from, unsigned top, unsigned window) {
  const unsigned bottom = top + 15;
  if (from + KEYS - 1 <= top && (window == 0 || bottom - from < window)) return;
  const unsigned lane = threadIdx.x % WARP;
#pragma unroll
  for (unsigned j = 0; j < KEYS / 8; ++j)
#pragma unroll
    for (unsigned c = 0; c < 4; ++c) {
      const unsigned key = from + j * 8 + lane % 4 * 2 + c % 2, at = top + lane / 4 + c / 2 * 8;
      if (key > at || (window != 0 && at - key >= window)) scores[j][c] = -INFINITY;
    }
}

// The softmax of a lane's two rows, lane / 4 of its warp's and eight further on, over tiles of keys.
struct Softmax {
  float maximum[2] = {-INFINITY, -INFINITY}, weight[2] = {};

  // Scores of the next tile become weights of its keys. What the tiles before came to is to be multiplied by `kept`.
  //
  // Of a tile that a row does not see, nothing is left: no key has weight, and `kept` is 1 and no power of what a product and
  // its rounding differ by. So it does not matter with which other rows a row shares a tile.
  __device__ __forceinline__ void take(float (&scores)[KEYS / 8][4], float scale, float (&kept)[2]) {
#pragma unroll
    for (unsigned half = 0; half < 2; ++half) {
      float best = maximum[half];
#pragma unroll
      for (unsigned j = 0; j < KEYS / 8; ++j) best = fmaxf(best, fmaxf(scores[j][2 * half], scores[j][2 * half + 1]));
      // Four lanes share a row.
      best = fmaxf(best, __shfl_xor_sync(ALL_LANES, best, 1));
      best = fmaxf(best, __shfl_xor_sync(ALL_LANES, best, 2));
      // A row that sees no key yet has no maximum; anything finite will do.
      const float base = best == -INFINITY ? 0.0f : best * scale;
      kept[half] = best == maximum[half] ? 1.0f : power_of_two(fmaf(maximum[half], scale, -base));
      maximum[half] = best;
#pragma unroll
      for (unsigned j = 0; j < KEYS / 8; ++j)
#pragma unroll
        for (unsigned c = 2 * half; c < 2 * half + 2; ++c) {
          scores[j][c] = power_of_two(fmaf(scores[j][c], scale, -base));
          // Said as one operation, which a compiler might make of it in one kernel and not in the other.
          weight[half] = j == 0 && c == 2 * half ? fmaf(weight[half], kept[half], scores[j][c]) : weight[half] + scores[j][c];
        }
    }
  }

  // All keys' weight.
  __device__ __forceinline__ float all(unsigned half) const {
    float all = weight[half];
    all += __shfl_xor_sync(ALL_LANES, all, 1);
    all += __shfl_xor_sync(ALL_LANES, all, 2);
    return all;
  }
};

// The weights of 16 keys as the left matrix of a product.
__device__ __forceinline__ void pack_weights(const float (&weights)[KEYS / 8][4], unsigned step, unsigned (&a)[4]) {
  const float(&low)[4] = weights[2 * step], (&high)[4] = weights[2 * step + 1];
  a[0] = pack_two(low[0], low[1]), a[1] = pack_two(low[2], low[3]);
  a[2] = pack_two(high[0], high[1]), a[3] = pack_two(high[2], high[3]);
}

// Most tiles hold no row's largest score so far, and then nothing changes.
template <unsigned TILES> __device__ __forceinline__ void multiply_by(float (&sums)[TILES][4], const float (&kept)[2]) {
  if (!__any_sync(ALL_LANES, kept[0] != 1.0f || kept[1] != 1.0f)) return;
#pragma unroll
  for (unsigned j = 0; j < TILES; ++j)
#pragma unroll
    for (unsigned c = 0; c < 4; ++c) sums[j][c] *= kept[c / 2];
}

// Writes a lane's rows, `own` and eight further on of the tile's `rows`; the tile's first is at `out`.
template <unsigned TILES>
__device__ __forceinline__ void store_rows(bf16 *out, const float (&sums)[TILES][4], const Softmax &softmax, unsigned own,
                                           unsigned rows, size_t row_elements) {
#pragma unroll
  for (unsigned half = 0; half < 2; ++half) {
    const float all = softmax.all(half);
    const unsigned row = own + 8 * half;
    if (row >= rows) continue;
    bf16 *to = out + row * row_elements + threadIdx.x % 4 * 2;
#pragma unroll
    for (unsigned j = 0; j < TILES; ++j)
      store_word(to + j * 8, pack_two(sums[j][2 * half] / all, sums[j][2 * half + 1] / all));
  }
}

}  // namespace
