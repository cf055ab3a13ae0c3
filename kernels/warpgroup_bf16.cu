// The products of grouped_gemm.cu for prompts, by warpgroups: blocks of 128 rows of x and 256 columns of w. Shapes, grid, needs
// and twin are the same, and so are the bits.  Bound: arithmetic; not measured yet.
//
// Each of two warpgroups multiplies 64 rows with all columns, 64 elements of k at a time, both from shared memory. Of the
// STAGES tiles there one is being multiplied, the one before may be still, and STAGES - 2 are under way.
#include "expert_rows.cuh"
#include "warpgroup.cuh"

namespace {

constexpr unsigned BM = 128, BN = 256, BK = 64, CHUNK = 8, CHUNKS = BK / CHUNK, STAGES = 4, THREADS = BM / 64 * WARPGROUP;
constexpr unsigned X_BYTES = BM * SHARED_ROW_BYTES, W_BYTES = BN * SHARED_ROW_BYTES, STAGE_BYTES = X_BYTES + W_BYTES;

enum Rule { IN, OUT, PLAIN };

// `order` is not read by PLAIN. Only PLAIN waits for the kernel before: the others' rows are found after their wait.
template <Rule RULE, class Out>
__device__ __forceinline__ void multiply(const bf16 *x, const bf16 *w, const unsigned *order, Rows its, Out *y, unsigned n,
                                         unsigned k, unsigned top_k) {
  const unsigned first = its.first, rows = its.count;
  if (RULE != PLAIN && rows == 0) return;  // all of the block alike
  const unsigned column = its.tile * BN;
  const bf16 *weights = w + size_t(its.expert) * n * k;
  DYNAMIC_SHARED(memory);  // [STAGES], each x [BM][128 bytes], then w [BN][128 bytes]

  // A thread copies the same chunk of every APART-th row.
  constexpr unsigned APART = THREADS / CHUNKS;
  const unsigned my_row = threadIdx.x / CHUNKS, my_column = threadIdx.x % CHUNKS * CHUNK;
  unsigned char *slot = memory + shared_place(my_row, threadIdx.x % CHUNKS);
  static_assert(APART % 8 == 0, "a thread's chunks lie alike in their rows");
  size_t sources[BM / APART];
#pragma unroll
  for (unsigned turn = 0; turn < BM / APART; ++turn) {
    const unsigned row = my_row + turn * APART;
    const unsigned source = row >= rows ? 0 : RULE == IN ? order[first + row] / top_k : first + row;
    sources[turn] = size_t(source) * k + my_column;
  }
  const auto ask_x = [&](unsigned stage, unsigned from) {
#pragma unroll
    for (unsigned turn = 0; turn < BM / APART; ++turn) {
      const bool valid = my_row + turn * APART < rows && from + my_column < k;
      copy_async16(slot + stage * STAGE_BYTES + turn * APART * SHARED_ROW_BYTES, x + (valid ? sources[turn] + from : 0), valid);
    }
  };
  const auto ask_w = [&](unsigned stage, unsigned from) {
    const bf16 *source = weights + size_t(column + my_row) * k + my_column + from;
#pragma unroll
    for (unsigned turn = 0; turn < BN / APART; ++turn) {
      const bool valid = column + my_row + turn * APART < n && from + my_column < k;
      copy_async16(slot + stage * STAGE_BYTES + X_BYTES + turn * APART * SHARED_ROW_BYTES,
                   valid ? source + size_t(turn * APART) * k : weights, valid);
    }
  };

  const unsigned tiles = (k + BK - 1) / BK, begun = min(tiles, STAGES - 2);
  // Weights no kernel writes: of a plain product, they are on their way while the kernel before ends.
#pragma unroll 1
  for (unsigned stage = 0; stage < begun; ++stage) ask_w(stage, stage * BK);
  if constexpr (RULE == PLAIN) wait_for_previous();
  for (unsigned stage = 0; stage + 2 < STAGES; ++stage) {
    if (stage < begun) ask_x(stage, stage * BK);
    commit_async();
  }

  const unsigned warpgroup = threadIdx.x / WARPGROUP;
  float sums[BN / 8][4] = {};
  for (unsigned tile = 0; tile < tiles; ++tile) {
    wait_async<STAGES - 3>();
    fence_shared();
    // Everybody's copies of this tile are there. What is left of products is of the tile before, so that the one before that is
    // overwritten next.
    __syncthreads();
    const unsigned next = tile + STAGES - 2;
    if (next < tiles) {
      ask_x(next % STAGES, next * BK);
      ask_w(next % STAGES, next * BK);
    }
    commit_async();

    const unsigned char *stage = memory + tile % STAGES * STAGE_BYTES;
    const std::uint64_t a = shared_matrix(stage + warpgroup * 64 * SHARED_ROW_BYTES), b = shared_matrix(stage + X_BYTES);
    warpgroup_fence();
#pragma unroll
    for (unsigned step = 0; step < BK / 16; ++step) warpgroup_product_256<false>(sums, a + step * 2, b + step * 2);
    commit_products();
    wait_for_all_but_last();
  }
  wait_for_products(sums);

  const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
#pragma unroll
  for (unsigned half = 0; half < 2; ++half) {
    const unsigned row = warp * 16 + half * 8 + lane / 4;
    const bool is_there = row < rows;
    const size_t to = RULE == OUT && is_there ? order[first + row] : first + row;
    store_row<RULE == IN>(y, to, is_there, n, column, sums, half);
  }
}

}  // namespace

// Dynamic shared memory: 4 * (128 + 256) * 128 bytes.
KERNEL __launch_bounds__(THREADS, 1)
experts_in_bf16_warpgroups(const bf16 *x, const bf16 *w, const unsigned *order, const unsigned *offsets, bf16 *y, unsigned n,
                           unsigned k, unsigned num_experts, unsigned top_k) {
  let_next_begin();
  wait_for_previous();
  multiply<IN>(x, w, order, rows_of_block<BM>(offsets, num_experts), y, n, k, top_k);
}
EMULATED(experts_in_bf16_warpgroups)

KERNEL __launch_bounds__(THREADS, 1)
experts_out_bf16_warpgroups(const bf16 *x, const bf16 *w, const unsigned *order, const unsigned *offsets, float *y, unsigned n,
                            unsigned k, unsigned num_experts, unsigned top_k) {
  let_next_begin();
  wait_for_previous();
  multiply<OUT>(x, w, order, rows_of_block<BM>(offsets, num_experts), y, n, k, top_k);
}
EMULATED(experts_out_bf16_warpgroups)

KERNEL __launch_bounds__(THREADS, 1)
linear_bf16_warpgroups(const bf16 *x, const bf16 *w, float *y, unsigned num_rows, unsigned n, unsigned k) {
  let_next_begin();
  multiply<PLAIN>(x, w, nullptr, plain_rows<BM>(num_rows), y, n, k, 1);
}
EMULATED(linear_bf16_warpgroups)
