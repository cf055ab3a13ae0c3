// Products on tensor cores: the experts', with rows sorted by expert and each expert's weights read once per block of rows,
// and plain ones.
//
// experts_in_*:   y[i] = act(x[order[i] / top_k] * w[expert]^T)   x [num_tokens, k] bf16   y [num_pairs, n / 2] bf16, sorted
// experts_out_*:  y[order[i]] = x[i] * w[expert]^T                x [num_pairs, k] bf16    y [num_pairs, n] f32, by pair
//   act      columns are gate and up in turn: silu(gate) * up, both rounded to bf16 first
//   w        [num_experts, n, k]  bf16
//   order    [num_pairs]          u32: pairs token * top_k + rank, expert by expert
//   offsets  [num_experts + 1]    u32: expert e has order[offsets[e] .. offsets[e + 1]]
// linear_*:       y[i] = x[i] * w^T                        x [num_rows, k] bf16     y [num_rows, n] f32     w [n, k] bf16
// Grid: x = tiles of n, y = blocks of rows. Of linear ceil(num_rows / BM), of the others at most min(num_experts, num_pairs) +
// num_pairs / BM of them. Which expert and which rows a block has it finds in `offsets`, so that nothing waits for the host;
// blocks beyond the last end at once.
// Needs k % 8 == 0, n % 8 == 0, num_experts <= 32.
// Twins: src/ops/experts.rs, grouped_linear, then silu_mul.rs; and linear.rs (sums in another order).  Bound: memory up to some
// 300 rows per expert, then arithmetic; not measured yet.
//
// A block multiplies BM rows with BN columns of w, 64 elements of k at a time. STAGES tiles are under way by cp.async:
//
//   | being multiplied | arrived or arriving … STAGES - 2 of them | being asked for, where the last one was |
//
// Rows of a tile are 128 bytes. Their eight chunks of 16 bytes are permuted by the row's number, so that the eight rows of an
// ldmatrix lie in different banks.
#include "expert_rows.cuh"

namespace {

constexpr unsigned BK = 64, CHUNK = 8, CHUNKS = BK / CHUNK;

// Where chunk `chunk` of row `row` lies in a tile.
__device__ __forceinline__ unsigned swizzled(unsigned row, unsigned chunk) { return row * BK + (chunk ^ (row % CHUNKS)) * CHUNK; }

enum Rule { IN, OUT, PLAIN };

// BM x BN per block, WM x WN per warp. `order` is not read by PLAIN. Only PLAIN waits for the kernel before: the others' rows
// are found after their wait.
template <unsigned BM, unsigned BN, unsigned WM, unsigned WN, unsigned STAGES, Rule RULE, class Out>
__device__ __forceinline__ void multiply(const bf16 *x, const bf16 *w, const unsigned *order, Rows its, Out *y, unsigned n,
                                         unsigned k, unsigned top_k) {
  constexpr unsigned WARPS_N = BN / WN, WARPS = BM / WM * WARPS_N, THREADS = WARPS * WARP;
  constexpr unsigned TILES_M = WM / 16, TILES_N = WN / 8;
  static_assert(BM % WM == 0 && BN % WN == 0 && WM % 16 == 0 && WN % 16 == 0, "warps cover the block in whole mma tiles");
  static_assert(BM * CHUNKS % WARP == 0, "rows are copied by whole warps");

  const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  const unsigned first = its.first, rows = its.count;
  if (RULE != PLAIN && rows == 0) return;  // all of the block alike
  const unsigned column = its.tile * BN;

  DYNAMIC_SHARED(memory);
  auto *x_tiles = reinterpret_cast<bf16 *>(memory);  // [STAGES][BM][BK]
  auto *w_tiles = x_tiles + STAGES * BM * BK;        // [STAGES][BN][BK]
  const bf16 *weights = w + size_t(its.expert) * n * k;

  const auto ask_x = [&](unsigned stage, unsigned from) {
    for (unsigned item = threadIdx.x; item < BM * CHUNKS; item += THREADS) {
      const unsigned row = item / CHUNKS, chunk = item % CHUNKS, at = from + chunk * CHUNK;
      const bool valid = row < rows && at < k;
      const size_t source = !valid ? 0 : RULE == IN ? order[first + row] / top_k : first + row;
      copy_async16(x_tiles + stage * BM * BK + swizzled(row, chunk), x + source * k + (valid ? at : 0), valid);
    }
  };
  const auto ask_w = [&](unsigned stage, unsigned from) {
#pragma unroll
    for (unsigned turn = 0; turn < BN * CHUNKS / THREADS; ++turn) {
      const unsigned item = turn * THREADS + threadIdx.x;
      const unsigned row = item / CHUNKS, chunk = item % CHUNKS, at = from + chunk * CHUNK;
      const bool valid = column + row < n && at < k;
      copy_async16(w_tiles + stage * BN * BK + swizzled(row, chunk), weights + (valid ? size_t(column + row) * k + at : 0), valid);
    }
  };

  const unsigned tiles = (k + BK - 1) / BK;
  // Weights no kernel writes: of a plain product, they are on their way while the kernel before ends.
  const unsigned begun = min(tiles, STAGES - 1);
#pragma unroll 1
  for (unsigned stage = 0; stage < begun; ++stage) ask_w(stage, stage * BK);
  if constexpr (RULE == PLAIN) wait_for_previous();
  for (unsigned stage = 0; stage + 1 < STAGES; ++stage) {
    if (stage < begun) ask_x(stage, stage * BK);
    commit_async();
  }

  float sums[TILES_M][TILES_N][4] = {};
  const unsigned warp_m = warp / WARPS_N * WM, warp_n = warp % WARPS_N * WN;
  for (unsigned tile = 0; tile < tiles; ++tile) {
    wait_async<STAGES - 2>();
    // Everybody's copies of this tile are there, and everybody is done with the one that is overwritten next.
    __syncthreads();
    const unsigned next = tile + STAGES - 1;
    if (next < tiles) {
      ask_x(next % STAGES, next * BK);
      ask_w(next % STAGES, next * BK);
    }
    commit_async();

    const bf16 *x_tile = x_tiles + tile % STAGES * BM * BK, *w_tile = w_tiles + tile % STAGES * BN * BK;
#pragma unroll
    for (unsigned step = 0; step < BK / 16; ++step) {
      unsigned a[TILES_M][4];
#pragma unroll
      for (unsigned i = 0; i < TILES_M; ++i)
        load_matrix_x4(a[i], x_tile + swizzled(warp_m + i * 16 + lane % 16, 2 * step + lane / 16));
#pragma unroll
      for (unsigned j = 0; j < TILES_N; j += 2) {
        unsigned b[4];
        load_matrix_x4(b, w_tile + swizzled(warp_n + j * 8 + lane / 16 * 8 + lane % 8, 2 * step + lane / 8 % 2));
        const unsigned left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
#pragma unroll
        for (unsigned i = 0; i < TILES_M; ++i) {
          mma_bf16(sums[i][j], a[i], left);
          mma_bf16(sums[i][j + 1], a[i], right);
        }
      }
    }
  }

#pragma unroll
  for (unsigned i = 0; i < TILES_M; ++i)
#pragma unroll
    for (unsigned half = 0; half < 2; ++half) {
      const unsigned row = warp_m + i * 16 + half * 8 + lane / 4;
      const bool is_there = row < rows;
      const size_t to = RULE == OUT && is_there ? order[first + row] : first + row;
      store_row<RULE == IN>(y, to, is_there, n, column + warp_n, sums[i], half);
    }
}

}  // namespace

// Of each product three: 16 rows, for decoding, by four warps side by side over 128 columns; 64 rows, for large batches, by
// four warps, two by two; 128 rows, for prompts, by eight warps, two by four. Dynamic shared memory: 4 * (BM + 128) * 128 bytes.
#define PRODUCTS(tile, threads, BM, WM, WN)                                                                                      \
  KERNEL __launch_bounds__(threads)                                                                                              \
  experts_in_bf16_##tile(const bf16 *x, const bf16 *w, const unsigned *order, const unsigned *offsets, bf16 *y, unsigned n,      \
                         unsigned k, unsigned num_experts, unsigned top_k) {                                                     \
    let_next_begin();                                                                                                            \
    wait_for_previous();                                                                                                         \
    multiply<BM, 128, WM, WN, 4, IN>(x, w, order, rows_of_block<BM>(offsets, num_experts), y, n, k, top_k);                      \
  }                                                                                                                              \
  KERNEL __launch_bounds__(threads)                                                                                              \
  experts_out_bf16_##tile(const bf16 *x, const bf16 *w, const unsigned *order, const unsigned *offsets, float *y, unsigned n,    \
                          unsigned k, unsigned num_experts, unsigned top_k) {                                                    \
    let_next_begin();                                                                                                            \
    wait_for_previous();                                                                                                         \
    multiply<BM, 128, WM, WN, 4, OUT>(x, w, order, rows_of_block<BM>(offsets, num_experts), y, n, k, top_k);                     \
  }                                                                                                                              \
  KERNEL __launch_bounds__(threads)                                                                                              \
  linear_bf16_##tile(const bf16 *x, const bf16 *w, float *y, unsigned num_rows, unsigned n, unsigned k) {                        \
    let_next_begin();                                                                                                            \
    multiply<BM, 128, WM, WN, 4, PLAIN>(x, w, nullptr, plain_rows<BM>(num_rows), y, n, k, 1);                                    \
  }

PRODUCTS(m16, 128, 16u, 16, 32)
PRODUCTS(m64, 128, 64u, 32, 64)
PRODUCTS(m128, 256, 128u, 64, 32)
EMULATED(experts_in_bf16_m16)
EMULATED(experts_out_bf16_m16)
EMULATED(linear_bf16_m16)
EMULATED(experts_in_bf16_m64)
EMULATED(experts_out_bf16_m64)
EMULATED(linear_bf16_m64)
EMULATED(experts_in_bf16_m128)
EMULATED(experts_out_bf16_m128)
EMULATED(linear_bf16_m128)
