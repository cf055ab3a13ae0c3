// Attention of sequences that have several query rows in this step, on tensor cores.
//
// paged_prefill_d*: tiles of 64 rows of one head of one sequence; the keys that they see, 64 at a time, through the block table.
//   q                 [num_tokens, heads, head_dim]  bf16, turned by position
//   k_cache, v_cache  [num_blocks, block_size, kv_heads, head_dim]  bf16, this step's keys included
//   block_tables      [num_seqs, max_blocks]  u32     cu_seqlens_q  [num_seqs + 1]  u32     context_lens  [num_seqs]  u32
//   out               [num_tokens, heads, head_dim]  bf16, written
// Grid: x = heads, y = tiles: at most num_tokens / 64 + num_seqs, those beyond the last end at once; which sequence a tile is of it
// finds itself. Sequences of one row are left to paged_decode. A row sees keys up to its own position, `window` of them at most;
// 0 for all. Dynamic shared memory: 5 * 64 * head_dim bf16: the queries, two tiles of keys, two of values.
// Twin: src/ops/paged_attention.rs (other order of sums; weights of the values are rounded to bf16).  Bound: arithmetic; not measured yet.
//
// Four warps, 16 rows each. Scores stay in registers: the accumulator of q * k^T is the fragment that p * v takes.
// Tiles of keys begin at multiples of 64 of the position, and what a row does not see adds exact zeros: how a prompt is cut into
// steps, or who shares them, changes nothing.
#include "device.cuh"

namespace {

constexpr unsigned ROWS = 64, KEYS = 64, THREADS = 128;

// Where chunk `chunk` (8 elements) of row `row` lies in a tile, such that eight rows of an ldmatrix lie in different banks.
template <unsigned D> __device__ __forceinline__ unsigned swizzled(unsigned row, unsigned chunk) {
  constexpr unsigned CHUNKS = D / 8;
  return row * D + (CHUNKS >= 8 ? chunk ^ (row % 8) : chunk ^ (row / 2 % 4)) * 8;
}

// A tile's sequence, and its first row counted within it. `sequence` is num_seqs if there is no such tile.
struct Tile {
  unsigned sequence, row;
};

__device__ __forceinline__ Tile tile_of(const unsigned *cu_seqlens_q, unsigned num_seqs, unsigned tile) {
  const unsigned lane = threadIdx.x % WARP;
  unsigned before = 0;
  for (unsigned first = 0; first < num_seqs; first += WARP) {
    const unsigned sequence = first + lane;
    const unsigned rows = sequence < num_seqs ? cu_seqlens_q[sequence + 1] - cu_seqlens_q[sequence] : 0;
    const unsigned own = rows > 1 ? (rows + ROWS - 1) / ROWS : 0;
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

template <unsigned D>
__device__ __forceinline__ void prefill(const bf16 *q, const bf16 *k_cache, const bf16 *v_cache, const unsigned *block_tables,
                                        const unsigned *cu_seqlens_q, const unsigned *context_lens, bf16 *out, unsigned num_seqs,
                                        unsigned max_blocks, unsigned block_size, unsigned kv_heads, unsigned window, float scale) {
  constexpr unsigned CHUNKS = D / 8, TILES_D = D / 8, TILES_K = KEYS / 8;
  const unsigned head = blockIdx.x, heads = gridDim.x, kv_head = head / (heads / kv_heads);
  const Tile tile = tile_of(cu_seqlens_q, num_seqs, blockIdx.y);
  if (tile.sequence == num_seqs) return;  // all of the block alike
  const unsigned token = cu_seqlens_q[tile.sequence] + tile.row;
  const unsigned rows_left = cu_seqlens_q[tile.sequence + 1] - token, rows = min(ROWS, rows_left);
  // Position of the tile's first row, and the keys that some row of it sees.
  const unsigned position = context_lens[tile.sequence] - rows_left;
  const unsigned end = position + rows;
  const unsigned begin = window != 0 && position + 1 > window ? (position + 1 - window) / KEYS * KEYS : 0;
  const unsigned *table = block_tables + size_t(tile.sequence) * max_blocks;

  DYNAMIC_SHARED(memory);
  auto *queries = reinterpret_cast<bf16 *>(memory);   // [ROWS][D]
  bf16 *keys = queries + ROWS * D;                    // [2][KEYS][D]
  bf16 *values = keys + 2 * KEYS * D;                 // [2][KEYS][D]

  for (unsigned item = threadIdx.x; item < ROWS * CHUNKS; item += THREADS) {
    const unsigned row = item / CHUNKS, chunk = item % CHUNKS;
    const bool valid = row < rows;
    copy_async16(queries + swizzled<D>(row, chunk), q + (size_t(token + (valid ? row : 0)) * heads + head) * D + chunk * 8, valid);
  }
  const auto ask = [&](unsigned stage, unsigned from) {
    for (unsigned item = threadIdx.x; item < KEYS * CHUNKS; item += THREADS) {
      const unsigned row = item / CHUNKS, chunk = item % CHUNKS, at = from + row;
      const bool valid = at < end;
      const size_t slot = valid ? size_t(table[at / block_size]) * block_size + at % block_size : 0;
      const size_t place = (slot * kv_heads + kv_head) * D + chunk * 8;
      copy_async16(keys + stage * KEYS * D + swizzled<D>(row, chunk), k_cache + place, valid);
      copy_async16(values + stage * KEYS * D + swizzled<D>(row, chunk), v_cache + place, valid);
    }
  };
  ask(0, begin);
  commit_async();

  const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  // This lane's rows of the tile are `own` and own + 8.
  const unsigned own = warp * 16 + lane / 4;
  float sums[TILES_D][4] = {}, maximum[2] = {-INFINITY, -INFINITY}, weight[2] = {};
  for (unsigned from = begin, stage = 0; from < end; from += KEYS, stage ^= 1) {
    wait_async<0>();
    // This tile is there, and everybody is done with the one before, which the next overwrites.
    __syncthreads();
    if (from + KEYS < end) ask(stage ^ 1, from + KEYS);
    commit_async();
    const bf16 *k_tile = keys + stage * KEYS * D, *v_tile = values + stage * KEYS * D;

    float scores[TILES_K][4] = {};
#pragma unroll
    for (unsigned step = 0; step < D / 16; ++step) {
      unsigned a[4];
      load_matrix_x4(a, queries + swizzled<D>(warp * 16 + lane % 16, 2 * step + lane / 16));
#pragma unroll
      for (unsigned j = 0; j < TILES_K; j += 2) {
        unsigned b[4];
        load_matrix_x4(b, k_tile + swizzled<D>(j * 8 + lane / 16 * 8 + lane % 8, 2 * step + lane / 8 % 2));
        const unsigned left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
        mma_bf16(scores[j], a, left);
        mma_bf16(scores[j + 1], a, right);
      }
    }

#pragma unroll
    for (unsigned half = 0; half < 2; ++half) {
      const unsigned at = position + own + 8 * half;  // this row's position
      float best = maximum[half];
#pragma unroll
      for (unsigned j = 0; j < TILES_K; ++j)
#pragma unroll
        for (unsigned c = 2 * half; c < 2 * half + 2; ++c) {
          const unsigned key = from + j * 8 + lane % 4 * 2 + c % 2;
          const bool seen = key <= at && (window == 0 || key + window > at);
          scores[j][c] = seen ? scores[j][c] * scale : -INFINITY;
          best = fmaxf(best, scores[j][c]);
        }
      // Four lanes share a row.
      best = fmaxf(best, __shfl_xor_sync(ALL_LANES, best, 1));
      best = fmaxf(best, __shfl_xor_sync(ALL_LANES, best, 2));
      // A row that sees no key yet has no maximum; anything finite will do.
      const float base = best == -INFINITY ? 0.0f : best, kept = exp2f(maximum[half] - base);
      maximum[half] = best;
      weight[half] *= kept;
#pragma unroll
      for (unsigned j = 0; j < TILES_K; ++j)
#pragma unroll
        for (unsigned c = 2 * half; c < 2 * half + 2; ++c) {
          scores[j][c] = exp2f(scores[j][c] - base);
          weight[half] += scores[j][c];
        }
#pragma unroll
      for (unsigned j = 0; j < TILES_D; ++j) {
        sums[j][2 * half] *= kept;
        sums[j][2 * half + 1] *= kept;
      }
    }

#pragma unroll
    for (unsigned step = 0; step < KEYS / 16; ++step) {
      const float(&low)[4] = scores[2 * step], (&high)[4] = scores[2 * step + 1];
      const unsigned a[4] = {pack_two(low[0], low[1]), pack_two(low[2], low[3]), pack_two(high[0], high[1]), pack_two(high[2], high[3])};
#pragma unroll
      for (unsigned j = 0; j < TILES_D; j += 2) {
        unsigned b[4];
        load_matrix_x4_transposed(b, v_tile + swizzled<D>(step * 16 + lane / 8 % 2 * 8 + lane % 8, j + lane / 16));
        const unsigned left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
        mma_bf16(sums[j], a, left);
        mma_bf16(sums[j + 1], a, right);
      }
    }
  }

#pragma unroll
  for (unsigned half = 0; half < 2; ++half) {
    float all = weight[half];
    all += __shfl_xor_sync(ALL_LANES, all, 1);
    all += __shfl_xor_sync(ALL_LANES, all, 2);
    const unsigned row = own + 8 * half;
    if (row >= rows) continue;
    bf16 *to = out + (size_t(token + row) * heads + head) * D + lane % 4 * 2;
#pragma unroll
    for (unsigned j = 0; j < TILES_D; ++j) store_word(to + j * 8, pack_two(sums[j][2 * half] / all, sums[j][2 * half + 1] / all));
  }
}

}  // namespace

#define PREFILL(D)                                                                                                               \
  KERNEL __launch_bounds__(THREADS)                                                                                              \
  paged_prefill_d##D(const bf16 *q, const bf16 *k_cache, const bf16 *v_cache, const unsigned *block_tables,                      \
                     const unsigned *cu_seqlens_q, const unsigned *context_lens, bf16 *out, unsigned num_seqs,                   \
                     unsigned max_blocks, unsigned block_size, unsigned kv_heads, unsigned window, float scale) {                \
    prefill<D>(q, k_cache, v_cache, block_tables, cu_seqlens_q, context_lens, out, num_seqs, max_blocks, block_size, kv_heads,   \
               window, scale);                                                                                                   \
  }

PREFILL(32)
PREFILL(64)
PREFILL(128)
EMULATED(paged_prefill_d32)
EMULATED(paged_prefill_d64)
EMULATED(paged_prefill_d128)
