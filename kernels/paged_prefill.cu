// Attention of sequences that have several query rows in this step, on tensor cores.
//
// paged_prefill_d*: tiles of 64 rows of one head of one sequence; the keys that they see, 64 at a time, through the table.
//   q                 [num_tokens, heads, head_dim]  bf16, turned by position
//   k_cache, v_cache  [num_blocks, block_size, kv_heads, head_dim]  bf16, this step's keys included
//   block_tables      u32: sequence s has its blocks, in order, from table_starts[s] on     table_starts  [num_seqs]  u32
//   cu_seqlens_q      [num_seqs + 1]  u32     context_lens  [num_seqs]  u32
//   out               [num_tokens, heads, head_dim]  bf16, written
// Grid: x = heads, y = tiles: at most num_tokens / 64 + num_seqs, those beyond the last end at once; which sequence a tile is
// of it finds itself. Left alone are sequences of one row, which are paged_decode's, and those whose context does not hold
// their rows (0 for one that fills a batch). A row sees keys up to its own position, `window` of them at most; 0 for all. Keys
// that no row of a tile sees are not read. Dynamic shared memory: 5 * 64 * head_dim bf16: queries, two tiles of
// keys, two of values.
// Twin: src/ops/paged_attention.rs (other order of sums; weights of the values are rounded to bf16).  Bound: the banks of shared
// memory, 1,280 passes for each tile of keys of 128, where products take 1,024 clocks of an A100; not measured yet.
//
// Four warps, 16 rows each. Scores stay in registers: the accumulator of q * k^T is the fragment that p * v takes.
// Tiles of keys begin at multiples of 64 of the position, and what a row does not see adds exact zeros: how a prompt is cut
// into chunks of two rows or more, or who shares the step, changes nothing. A chunk of one row differs by the rounding of the
// weights. On a Hopper, steps with more than 64 rows of a sequence are warpgroup_prefill.cu's, with the same bits.
#include "attention.cuh"

namespace {

constexpr unsigned ROWS = 64, THREADS = 128;

// Where chunk `chunk` (8 elements) of row `row` lies in a tile, such that eight rows of an ldmatrix lie in different banks.
template <unsigned D> __device__ __forceinline__ unsigned swizzled(unsigned row, unsigned chunk) {
  constexpr unsigned CHUNKS = D / 8;
  return row * D + (CHUNKS >= 8 ? chunk ^ (row % 8) : chunk ^ (row / 2 % 4)) * 8;
}

template <unsigned D>
__device__ __forceinline__ void prefill(const bf16 *q, const bf16 *k_cache, const bf16 *v_cache, const unsigned *block_tables,
                                        const unsigned *table_starts, const unsigned *cu_seqlens_q,
                                        const unsigned *context_lens, bf16 *out, unsigned num_seqs, unsigned block_size,
                                        unsigned kv_heads, unsigned window, float scale) {
  constexpr unsigned CHUNKS = D / 8, TILES_D = D / 8, TILES_K = KEYS / 8;
  let_next_begin();
  const unsigned head = blockIdx.x, heads = gridDim.x, kv_head = head / (heads / kv_heads);
  // Last tiles first: they have the most keys, and would be waited for if they began at the end.
  const Tile tile = tile_of<ROWS>(cu_seqlens_q, context_lens, num_seqs, gridDim.y - 1 - blockIdx.y);
  wait_for_previous();
  if (tile.sequence == num_seqs) return;  // all of the block alike
  const unsigned token = cu_seqlens_q[tile.sequence] + tile.row;
  const unsigned rows_left = cu_seqlens_q[tile.sequence + 1] - token, rows = min(ROWS, rows_left);
  // Position of the tile's first row, and the keys that some row of it sees.
  const unsigned position = context_lens[tile.sequence] - rows_left;
  const unsigned end = position + rows;
  const unsigned first = first_seen(position, window), begin = first / KEYS * KEYS;
  const unsigned *table = block_tables + table_starts[tile.sequence];

  DYNAMIC_SHARED(memory);
  auto *queries = reinterpret_cast<bf16 *>(memory);   // [ROWS][D]
  bf16 *keys = queries + ROWS * D;                    // [2][KEYS][D]
  bf16 *values = keys + 2 * KEYS * D;                 // [2][KEYS][D]

  const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  for (unsigned item = threadIdx.x; item < ROWS * CHUNKS; item += THREADS) {
    const unsigned row = item / CHUNKS, chunk = item % CHUNKS;
    const bool valid = row < rows;
    const size_t place = (size_t(token + (valid ? row : 0)) * heads + head) * D + chunk * 8;
    copy_async16(queries + swizzled<D>(row, chunk), q + place, valid);
  }
  // Each warp copies the rows of 16 keys. Where a key lies one lane finds, by a division and a look into the table, for all.
  const auto ask = [&](unsigned stage, unsigned from) {
    const unsigned at = from + warp * 16 + lane % 16;
    const unsigned found = at >= first && at < end ? table[at / block_size] * block_size + at % block_size : NO_SLOT;
#pragma unroll
    for (unsigned turn = 0; turn < 16 * CHUNKS / WARP; ++turn) {
      const unsigned item = turn * WARP + lane, row = item / CHUNKS, chunk = item % CHUNKS;
      const unsigned slot = __shfl_sync(ALL_LANES, found, row);
      const bool valid = slot != NO_SLOT;
      const size_t place = (size_t(valid ? slot : 0) * kv_heads + kv_head) * D + chunk * 8;
      const unsigned to = stage * KEYS * D + swizzled<D>(warp * 16 + row, chunk);
      copy_async16(keys + to, k_cache + place, valid);
      copy_async16(values + to, v_cache + place, valid);
    }
  };
  ask(0, begin);
  commit_async();

  // Queries stay in registers: the banks of shared memory have enough to do with keys and values, which each warp reads.
  wait_async<0>();
  __syncthreads();
  unsigned of_queries[D / 16][4];
#pragma unroll
  for (unsigned step = 0; step < D / 16; ++step)
    load_matrix_x4(of_queries[step], queries + swizzled<D>(warp * 16 + lane % 16, 2 * step + lane / 16));

  // This lane's rows of the tile are `own` and own + 8.
  const unsigned own = warp * 16 + lane / 4;
  float sums[TILES_D][4] = {};
  Softmax softmax;
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
#pragma unroll
      for (unsigned j = 0; j < TILES_K; j += 2) {
        unsigned b[4];
        load_matrix_x4(b, k_tile + swizzled<D>(j * 8 + lane / 16 * 8 + lane % 8, 2 * step + lane / 8 % 2));
        const unsigned left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
        mma_bf16(scores[j], of_queries[step], left);
        mma_bf16(scores[j + 1], of_queries[step], right);
      }
    }

    hide_unseen(scores, from, position + warp * 16, window);
    float kept[2];
    softmax.take(scores, scale, kept);
    multiply_by(sums, kept);

#pragma unroll
    for (unsigned step = 0; step < KEYS / 16; ++step) {
      unsigned a[4];
      pack_weights(scores, step, a);
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

  store_rows(out + (size_t(token) * heads + head) * D, sums, softmax, own, rows, size_t(heads) * D);
}

}  // namespace

#define PREFILL(D)                                                                                                             \
  KERNEL __launch_bounds__(THREADS)                                                                                            \
  paged_prefill_d##D(const bf16 *q, const bf16 *k_cache, const bf16 *v_cache, const unsigned *block_tables,                    \
                     const unsigned *table_starts, const unsigned *cu_seqlens_q, const unsigned *context_lens, bf16 *out,      \
                     unsigned num_seqs, unsigned block_size, unsigned kv_heads, unsigned window, float scale) {                \
    prefill<D>(q, k_cache, v_cache, block_tables, table_starts, cu_seqlens_q, context_lens, out, num_seqs, block_size,         \
               kv_heads, window, scale);                                                                                       \
  }

PREFILL(32)
PREFILL(64)
PREFILL(128)
EMULATED(paged_prefill_d32)
EMULATED(paged_prefill_d64)
EMULATED(paged_prefill_d128)
