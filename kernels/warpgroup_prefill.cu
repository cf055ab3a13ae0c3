// Attention of sequences that have several query rows in this step, by warpgroups: tiles of 128 rows. Arguments, grid and twin
// are paged_prefill.cu's, and so is every bit.  Bound: arithmetic; not measured yet.
//
// paged_prefill_d*_warpgroups. Grid: x = heads, so that those of one key head read its keys from L2 at about the same time;
// y = tiles: at most num_tokens / 128 + num_seqs. Dynamic shared memory: 5 * 2 * 64 * head_dim bf16: five tiles of keys and
// values.
//
// Each of two warpgroups has 64 rows. Their queries stay in registers: a product of 64 x 64 x 16 that reads both sides from
// shared memory reads 4 KiB in its 32 clocks, as much as there is. Values are the right matrix of p * v as they lie in the
// cache, with rows of k; p, the weights, are in registers.
//
// A step of a warpgroup: scores of tile t and sums of tile t - 1 are asked for, in this order. When the scores are there their
// softmax is taken, while the sums are added up, and then the other warpgroup's products. Both meet once a step, when each has
// asked: one may take its softmax while the other has already asked for the next, so that tensor cores have some product before
// them. Of the STAGES tiles in shared memory keys of t and values of t - 1 are being read, t + 1 is there or about to be, two
// are under way.
//
// Tiles of keys are those of paged_prefill.cu, and a row's scores, weights and sums are made of the same numbers in the same
// order. Tiles that only the other warpgroup's rows see are not multiplied; they would add nothing (attention.cuh).
#include "attention.cuh"
#include "warpgroup.cuh"

namespace {

constexpr unsigned ROWS = 128, THREADS = ROWS / 64 * WARPGROUP, STAGES = 5;
// A barrier to which warpgroups come from different places, which __syncthreads does not allow.
constexpr unsigned STEP = 1;

// Products of 16 of k, with as many columns as d has.
template <bool FROM_ZERO, bool BY_ROWS_OF_K>
__device__ __forceinline__ void product(float (&d)[8][4], const unsigned (&a)[4], std::uint64_t b) {
  warpgroup_product_64<FROM_ZERO, BY_ROWS_OF_K>(d, a, b);
}
template <bool FROM_ZERO, bool BY_ROWS_OF_K>
__device__ __forceinline__ void product(float (&d)[16][4], const unsigned (&a)[4], std::uint64_t b) {
  warpgroup_product_128<FROM_ZERO, BY_ROWS_OF_K>(d, a, b);
}

template <unsigned D>
__device__ __forceinline__ void prefill(const bf16 *q, const bf16 *k_cache, const bf16 *v_cache, const unsigned *block_tables,
                                        const unsigned *table_starts, const unsigned *cu_seqlens_q,
                                        const unsigned *context_lens, bf16 *out, unsigned num_seqs, unsigned block_size,
                                        unsigned kv_heads, unsigned window, float scale) {
  // A tile of keys or values is matrices of 64 columns beside each other.
  constexpr unsigned CHUNKS = D / 8, MATRIX_BYTES = KEYS * SHARED_ROW_BYTES, TILE_BYTES = D / 64 * MATRIX_BYTES;
  constexpr unsigned STAGE_BYTES = 2 * TILE_BYTES;
  static_assert(ROWS * D * sizeof(bf16) <= STAGE_BYTES, "at first the queries lie where the last stage's tiles will");
  let_next_begin();
  const unsigned head = blockIdx.x, heads = gridDim.x, kv_head = head / (heads / kv_heads);
  // Last tiles first: they have the most keys, and would be waited for if they began at the end.
  const Tile tile = tile_of<ROWS>(cu_seqlens_q, context_lens, num_seqs, gridDim.y - 1 - blockIdx.y);
  wait_for_previous();
  if (tile.sequence == num_seqs) return;  // all of the block alike
  const unsigned token = cu_seqlens_q[tile.sequence] + tile.row;
  const unsigned rows_left = cu_seqlens_q[tile.sequence + 1] - token, rows = min(ROWS, rows_left);
  // Position of the tile's first row, and the keys that some row of it sees; tiles of keys, counted from position 0.
  const unsigned position = context_lens[tile.sequence] - rows_left, end = position + rows;
  const unsigned first = first_seen(position, window);
  const unsigned begin_tile = first / KEYS, end_tile = (end + KEYS - 1) / KEYS;
  const unsigned *table = block_tables + table_starts[tile.sequence];

  DYNAMIC_SHARED(memory);  // [STAGES], each keys [D / 64][KEYS][128 bytes], then values alike
  const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;

  // Queries, in matrices of 64 columns.
  unsigned char *queries = memory + (STAGES - 1) * STAGE_BYTES;
  const auto place_of_query = [&](unsigned row, unsigned chunk) {
    return queries + chunk / 8 * (ROWS * SHARED_ROW_BYTES) + shared_place(row, chunk % 8);
  };
#pragma unroll
  for (unsigned turn = 0; turn < ROWS * CHUNKS / THREADS; ++turn) {
    const unsigned item = turn * THREADS + threadIdx.x, row = item / CHUNKS, chunk = item % CHUNKS;
    const bool valid = row < rows;
    const size_t place = (size_t(token + (valid ? row : 0)) * heads + head) * D + chunk * 8;
    copy_async16(place_of_query(row, chunk), q + place, valid);
  }
  commit_async();

  // Each warp copies the rows of eight keys, eight lanes the 128 bytes of a matrix's row. Where a key lies one lane finds for
  // all, by a look into the table; a tile ahead, as the table is far. `its_row` counts rows of one key head in the cache, of
  // which 2^32 would be half a terabyte.
  unsigned asked = begin_tile, stage_of_asked = 0;
  unsigned at = begin_tile * KEYS + warp * 8 + lane % 8, block = at / block_size, offset = at % block_size;
  const unsigned blocks_of_tile = KEYS / block_size, rest_of_tile = KEYS % block_size;
  const auto row_of_key = [&] {
    return at >= first && at < end ? (table[block] * block_size + offset) * kv_heads + kv_head : NO_SLOT;
  };
  unsigned its_row = row_of_key();
  const size_t column = lane % 8 * 8;
  const unsigned place_in_tile = shared_place(warp * 8 + lane / 8, lane % 8);
  const auto ask_next = [&] {
    if (asked < end_tile) {
      unsigned char *stage = memory + stage_of_asked * STAGE_BYTES;
#pragma unroll
      for (unsigned turn = 0; turn < 2; ++turn) {
        const unsigned found = __shfl_sync(ALL_LANES, its_row, turn * 4 + lane / 8);
        const bool valid = found != NO_SLOT;
        const size_t place = size_t(valid ? found : 0) * D + column;
        // Four rows further on, chunks are permuted by one more bit.
        unsigned char *to = stage + (turn == 0 ? place_in_tile : (place_in_tile ^ 64) + 4 * SHARED_ROW_BYTES);
#pragma unroll
        for (unsigned matrix = 0; matrix < D / 64; ++matrix) {
          copy_async16(to + matrix * MATRIX_BYTES, k_cache + place + matrix * 64, valid);
          copy_async16(to + TILE_BYTES + matrix * MATRIX_BYTES, v_cache + place + matrix * 64, valid);
        }
      }
      ++asked, at += KEYS, block += blocks_of_tile, offset += rest_of_tile;
      if (offset >= block_size) offset -= block_size, ++block;
      its_row = row_of_key();
      stage_of_asked = (stage_of_asked + 1) % STAGES;
    }
    commit_async();
  };
#pragma unroll 1
  for (unsigned ahead = 0; ahead + 2 < STAGES; ++ahead) ask_next();

  // The queries and the first tile are there.
  wait_async<STAGES - 3>();
  fence_shared();
  __syncthreads();
  unsigned of_queries[D / 16][4];
#pragma unroll
  for (unsigned step = 0; step < D / 16; ++step)
    load_matrix_x4(of_queries[step], place_of_query(warp * 16 + lane % 16, 2 * step + lane / 16));

  // All have asked for this step's products, so they have waited for those of the step before, and the values that these took
  // may be overwritten. Everybody's copies of the next step's tile are there.
  const auto prepare_next = [&] {
    wait_async<STAGES - 4>();
    fence_shared();
    named_barrier(STEP, THREADS);
    ask_next();
  };

  // The tiles that this warpgroup's rows see; for one without rows, those after all.
  const unsigned first_row = threadIdx.x / WARPGROUP * 64, top = position + first_row;
  const bool has_rows = first_row < rows;
  const unsigned my_begin = has_rows ? first_seen(top, window) / KEYS : end_tile;
  const unsigned my_end = has_rows ? (position + min(rows, first_row + 64) + KEYS - 1) / KEYS : end_tile;

  float sums[D / 8][4] = {}, scores[KEYS / 8][4], kept[2];
  unsigned weights[KEYS / 16][4];
  Softmax softmax;
  std::uint64_t keys = shared_matrix(memory), values = shared_matrix_by_rows_of_k(memory + TILE_BYTES, MATRIX_BYTES);
  const auto ask_for_scores = [&](unsigned stage) {
    const std::uint64_t b = keys + stage * (STAGE_BYTES / 16);
#pragma unroll
    for (unsigned step = 0; step < D / 16; ++step) {
      const std::uint64_t its = b + (step / 4 * MATRIX_BYTES + step % 4 * 32) / 16;
      if (step == 0)
        product<true, false>(scores, of_queries[step], its);
      else
        product<false, false>(scores, of_queries[step], its);
    }
    commit_products();
  };
  const auto ask_for_sums = [&](unsigned stage) {
    const std::uint64_t b = values + stage * (STAGE_BYTES / 16);
#pragma unroll
    for (unsigned step = 0; step < KEYS / 16; ++step)
      product<false, true>(sums, weights[step], b + step * (16 * SHARED_ROW_BYTES / 16));
    commit_products();
  };
  const auto pack_all = [&] {
#pragma unroll
    for (unsigned step = 0; step < KEYS / 16; ++step) pack_weights(scores, step, weights[step]);
  };

  unsigned now = begin_tile;
#pragma unroll 1
  for (; now < my_begin; ++now) prepare_next();
  if (my_begin < my_end) {
    unsigned stage = (now - begin_tile) % STAGES;
    warpgroup_fence();
    ask_for_scores(stage);
    prepare_next();
    wait_for_products(scores);
    hide_unseen(scores, now * KEYS, top + warp % 4 * 16, window);
    softmax.take(scores, scale, kept);
    pack_all();
#pragma unroll 1
    for (++now; now < my_end; ++now) {
      // From a shuffle, so that the compiler knows it to be one number in a warp, as descriptors are.
      const unsigned before = __shfl_sync(ALL_LANES, stage, 0);
      stage = (before + 1) % STAGES;
      warpgroup_fence();
      ask_for_scores(stage);
      ask_for_sums(before);
      prepare_next();
      wait_for_all_but_last(scores);
      hide_unseen(scores, now * KEYS, top + warp % 4 * 16, window);
      softmax.take(scores, scale, kept);
      finish_before_waiting(fminf(softmax.weight[0], softmax.weight[1]));
      wait_for_products(sums);
      multiply_by(sums, kept);
      pack_all();
    }
    warpgroup_fence();
    ask_for_sums(stage);
    wait_for_products(sums);
#pragma unroll 1
    for (; now < end_tile; ++now) prepare_next();
    store_rows(out + (size_t(token) * heads + head) * D, sums, softmax, warp * 16 + lane / 4, rows, size_t(heads) * D);
  }
}

}  // namespace

#define PREFILL(D)                                                                                                             \
  KERNEL __launch_bounds__(THREADS, 1)                                                                                         \
  paged_prefill_d##D##_warpgroups(const bf16 *q, const bf16 *k_cache, const bf16 *v_cache, const unsigned *block_tables,       \
                                  const unsigned *table_starts, const unsigned *cu_seqlens_q, const unsigned *context_lens,    \
                                  bf16 *out, unsigned num_seqs, unsigned block_size, unsigned kv_heads, unsigned window,       \
                                  float scale) {                                                                               \
    prefill<D>(q, k_cache, v_cache, block_tables, table_starts, cu_seqlens_q, context_lens, out, num_seqs, block_size,         \
               kv_heads, window, scale);                                                                                       \
  }

PREFILL(64)
PREFILL(128)
EMULATED(paged_prefill_d64_warpgroups)
EMULATED(paged_prefill_d128_warpgroups)
