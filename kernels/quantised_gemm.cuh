// Products with quantised weights on tensor cores, the experts' and plain ones: what the formats share. Each format has a file
// of its own, quantised_<format>.cuh, with its codes and its scales.
//
// experts_in_*:   y[i] = act(x[order[i] / top_k] * w[expert]^T)   x [num_tokens, k] bf16   y [num_rows, n / 2] bf16, sorted
// experts_out_*:  y[order[i]] = x[i] * w[expert]^T                x [num_rows, k] bf16     y [num_rows, n] f32, by pair
//   act      columns are gate and up in turn: silu(gate) * up, both rounded to bf16 first
//   w        [num_experts, ceil(n / 32), k / 128] steps of a strip, as src/ops/quantised/packed.rs writes them
//   order    [num_rows]           u32: pairs token * top_k + rank, expert by expert
//   offsets  [num_experts + 1]    u32: expert e has order[offsets[e] .. offsets[e + 1]]
// experts_out_* with null for `order` and `offsets` is a plain linear layer: y[i] = x[i] * w^T.
// Grid: x = tiles of n, y = blocks of rows: at most min(num_experts, num_rows) + num_rows / BM of them; if plain,
// ceil(num_rows / BM). Needs k % 128 == 0 (q4_k: % 256), n % 8 == 0, num_experts <= 32.
// Twin: an f64 sum over decoded weights (src/ops/parity/quantised.rs).  Bound: memory up to some 50 rows per expert at 4 bits
// and 100 at 8, then arithmetic; not measured yet.
//
// A strip is 32 columns of w, a step 128 elements of k. Of a strip and step, codes and scales lie together, each weight once:
//
//   | scales: by group of k, then by (column % 8) / 2, column / 8, column % 2 | codes: by tile of 8 columns, run of k, lane |
//
// So what a lane reads at once are its fragments of mma's B, and the scales of the columns whose sums it holds. Codes become
// bf16 without rounding. A run, 32 or 64 of k with one scale, is summed by mma from zero, and the sum in f32 is multiplied by
// the scale: sums += scale * run. Runs are added one after the other, whatever the tile: an output has the same bits in all.
//
// A warp whose rows are not there, or half of them, multiplies no more than there is: an expert of 16 rows in a tile of 64 would
// otherwise wait for shared memory, not for its weights.
//
// STAGES steps are under way by cp.async, as in grouped_gemm.cu. Rows of x are 256 bytes in shared memory, their chunks of 16
// bytes permuted by the row's number, so that the eight rows of an ldmatrix lie in different banks.
#pragma once

#include "quantised.cuh"

// Rows of x beside each other, the chunks of each permuted by the row's number.
struct Permuted {
  static constexpr unsigned ROW_BYTES = X_BYTES;
  static __device__ __forceinline__ unsigned place(unsigned row, unsigned chunk) {
    return row * X_BYTES + (chunk ^ (row % 8)) * 16;
  }
};

// sum = a * b, or sum += a * b.
__device__ __forceinline__ void add_product(float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2], bool from_zero) {
  if (from_zero)
    mma_bf16_from_zero(sum, a, b);
  else
    mma_bf16(sum, a, b);
}

// How many of a warp's rows there are, as far as it matters.
enum Present { ALL_ROWS, HALF_OF_THEM };

// Adds a step of k to a warp's sums. `x_tile` begins with the warp's rows, `tile` is its first tile in the strip. Of the rows
// that are not there, neither x is read nor products are made, as far as `PRESENT` tells; their sums are dropped.
template <class Format, Present PRESENT, unsigned TILES_M, unsigned TILES_N>
__device__ __forceinline__ void add_step(float (&sums)[TILES_M][TILES_N][4], const unsigned char *x_tile,
                                         const unsigned char *strip, unsigned tile) {
  constexpr unsigned RUNS = STEP / Format::RUN, FRAGMENTS = Format::RUN / 16, WORDS = Format::RUN * Format::BITS / 128;
  // A run's mma wait for each other. A warp with few sums has all runs under way; one with many has no registers for that.
  constexpr unsigned AT_ONCE = TILES_M == 1 ? RUNS : 1;
  // Tiles of rows that are there. Of a single one, eight rows may be: two fragments of those are one ldmatrix.
  constexpr bool EIGHT_ROWS = PRESENT == HALF_OF_THEM && TILES_M == 1;
  constexpr unsigned LIVE = PRESENT == HALF_OF_THEM && TILES_M > 1 ? TILES_M / 2 : TILES_M;
  const unsigned lane = threadIdx.x % WARP, mine = lane % 4 * 16 + tile * 4;
  const unsigned x_mine = EIGHT_ROWS ? Permuted::place(lane % 8, lane / 8) : Permuted::place(lane % 16, lane / 16);
#pragma unroll 1
  for (unsigned first = 0; first < RUNS; first += AT_ONCE) {
    unsigned codes[AT_ONCE][TILES_N][WORDS], two[AT_ONCE][4];
    float runs[AT_ONCE][LIVE][TILES_N][4], x_sums[AT_ONCE][LIVE][4];
#pragma unroll
    for (unsigned run = 0; run < AT_ONCE; ++run)
#pragma unroll
      for (unsigned j = 0; j < TILES_N; ++j)
        load_words(strip + Format::CODES_AT + (((tile + j) * RUNS + first + run) * WARP + lane) * WORDS * 4, codes[run][j]);
#pragma unroll
    for (unsigned fragment = 0; fragment < FRAGMENTS; ++fragment)
#pragma unroll
      for (unsigned run = 0; run < AT_ONCE; ++run) {
        unsigned a[LIVE][4];
        // Two chunks further on for each fragment: an even number, and a multiple of four for each second one, so that it
        // changes the swizzled place as it does the plain one.
        const unsigned chunk = 2 * ((first + run) * FRAGMENTS + fragment);
        if constexpr (EIGHT_ROWS) {
          if (fragment % 2 == 0) load_matrix_x4(two[run], x_tile + (x_mine ^ chunk * 16));
          a[0][0] = two[run][fragment % 2 * 2], a[0][1] = 0, a[0][2] = two[run][fragment % 2 * 2 + 1], a[0][3] = 0;
        } else {
#pragma unroll
          for (unsigned i = 0; i < LIVE; ++i) load_matrix_x4(a[i], x_tile + i * 16 * X_BYTES + (x_mine ^ chunk * 16));
        }
        if constexpr (Format::HAS_MINIMA) {
          const unsigned ones[2] = {0x3f803f80u, 0x3f803f80u};
#pragma unroll
          for (unsigned i = 0; i < LIVE; ++i) add_product(x_sums[run][i], a[i], ones, fragment == 0);
        }
#pragma unroll
        for (unsigned j = 0; j < TILES_N; ++j) {
          unsigned b[2];
          Format::decode(codes[run][j], fragment, b);
#pragma unroll
          for (unsigned i = 0; i < LIVE; ++i) add_product(runs[run][i][j], a[i], b, fragment == 0);
        }
      }
#pragma unroll
    for (unsigned run = 0; run < AT_ONCE; ++run) {
      const unsigned group = (first + run) * Format::RUN / Format::GROUP;
      if constexpr (Format::HAS_MINIMA) {
        float minima[TILES_N][2];
        Format::minima(strip, group, mine, minima);
#pragma unroll
        for (unsigned j = 0; j < TILES_N; ++j)
#pragma unroll
          for (unsigned i = 0; i < LIVE; ++i)
#pragma unroll
            for (unsigned e = 0; e < 4; ++e) sums[i][j][e] = fmaf(-minima[j][e % 2], x_sums[run][i][e], sums[i][j][e]);
      }
      float scales[TILES_N][2];
      Format::scales(strip, group, mine, scales);
#pragma unroll
      for (unsigned j = 0; j < TILES_N; ++j)
#pragma unroll
        for (unsigned i = 0; i < LIVE; ++i)
#pragma unroll
          for (unsigned e = 0; e < 4; ++e) sums[i][j][e] = fmaf(scales[j][e % 2], runs[run][i][j][e], sums[i][j][e]);
    }
  }
}

// BM x BN per block, WM x WN per warp. `order` and `offsets` may be null if the rule is OUT.
template <class Format, unsigned BM, unsigned BN, unsigned WM, unsigned WN, unsigned STAGES, QuantisedRule RULE, class Out>
__device__ __forceinline__ void multiply_quantised(const bf16 *x, const unsigned char *w, const unsigned *order,
                                                   const unsigned *offsets, Out *y, unsigned num_rows, unsigned n, unsigned k,
                                                   unsigned num_experts, unsigned top_k) {
  constexpr unsigned WARPS_N = BN / WN, THREADS = BM / WM * WARPS_N * WARP, TILES_M = WM / 16, TILES_N = WN / 8;
  constexpr unsigned STRIPS = BN / STRIP;
  static_assert(BM % WM == 0 && BN % WN == 0 && WM % 16 == 0 && STRIP % WN == 0, "warps cover the block, each in one strip");

  const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  const bool plain = RULE == QUANTISED_OUT && order == nullptr;
  let_next_begin();
  if (!plain) wait_for_previous();  // a kernel writes which rows are whose
  const Rows its = plain ? plain_rows<BM>(num_rows) : rows_of_block<BM>(offsets, num_experts);
  const unsigned first = its.first, rows = its.count;
  if (!plain && rows == 0) return;  // all of the block alike
  const unsigned column = its.tile * BN;

  DYNAMIC_SHARED(memory);
  unsigned char *x_tiles = memory;                            // [STAGES][BM][X_BYTES]
  unsigned char *w_strips = memory + STAGES * BM * X_BYTES;  // [STAGES][STRIPS][SHARED_BYTES]

  const Copies<Format, Permuted, BM, BN, THREADS, STAGES, RULE> copies(memory, x, w, order, its, column, n, k, top_k);

  // Weights no kernel writes: of a plain product, they are on their way while the kernel before ends.
  const unsigned steps = k / STEP, begun = min(steps, STAGES - 1);
  for (unsigned stage = 0; stage < begun; ++stage) copies.ask_w(stage, stage);
  if (plain) wait_for_previous();
  for (unsigned stage = 0; stage + 1 < STAGES; ++stage) {
    if (stage < begun) copies.ask_x(stage, stage);
    commit_async();
  }

  float sums[TILES_M][TILES_N][4] = {};
  const unsigned warp_m = warp / WARPS_N * WM, warp_n = warp % WARPS_N * WN;
  const unsigned present = rows > warp_m ? rows - warp_m : 0;  // of this warp's rows, at least
  unsigned stage = 0;
  for (unsigned step = 0; step < steps; ++step) {
    wait_async<STAGES - 2>();
    // Everybody's copies of this step are there, and everybody is done with the one that is overwritten next.
    __syncthreads();
    if (step + STAGES - 1 < steps) {
      const unsigned free = stage == 0 ? STAGES - 1 : stage - 1;
      copies.ask_x(free, step + STAGES - 1);
      copies.ask_w(free, step + STAGES - 1);
    }
    commit_async();
    const unsigned char *strip = w_strips + (stage * STRIPS + warp_n / STRIP) * Format::SHARED_BYTES;
    const unsigned char *x_tile = x_tiles + (stage * BM + warp_m) * X_BYTES;
    // Warps of 16 rows and several tiles have registers for one way only, and time for the rows that are not there.
    constexpr bool IS_ONE_WAY = TILES_M == 1 && TILES_N > 1;
    if (present > (IS_ONE_WAY ? 0 : WM / 2))
      add_step<Format, ALL_ROWS>(sums, x_tile, strip, warp_n % STRIP / 8);
    else if (!IS_ONE_WAY && present > 0)
      add_step<Format, HALF_OF_THEM>(sums, x_tile, strip, warp_n % STRIP / 8);
    stage = stage + 1 == STAGES ? 0 : stage + 1;
  }

#pragma unroll
  for (unsigned i = 0; i < TILES_M; ++i)
#pragma unroll
    for (unsigned half = 0; half < 2; ++half) {
      const unsigned row = warp_m + i * 16 + half * 8 + lane / 4;
      const bool is_there = row < rows;
      const size_t to = RULE == QUANTISED_OUT && !plain && is_there ? order[first + row] : first + row;
      store_row<RULE == QUANTISED_IN>(y, to, is_there, n, column + warp_n, sums[i], half);
    }
}

#define QUANTISED_PRODUCT(name, Rule, Out, Format, threads, blocks, BM, BN, WM, WN, STAGES)                                    \
  KERNEL __launch_bounds__(threads, blocks)                                                                                    \
  name(const bf16 *x, const unsigned char *w, const unsigned *order, const unsigned *offsets, Out *y, unsigned num_rows,       \
       unsigned n, unsigned k, unsigned num_experts, unsigned top_k) {                                                         \
    multiply_quantised<Format, BM, BN, WM, WN, STAGES, Rule>(x, w, order, offsets, y, num_rows, n, k, num_experts, top_k);     \
  }
#define QUANTISED_TILE(tile, format, ...)                                                                                      \
  QUANTISED_PRODUCT(experts_in_##format##_##tile, QUANTISED_IN, bf16, __VA_ARGS__)                                             \
  QUANTISED_PRODUCT(experts_out_##format##_##tile, QUANTISED_OUT, float, __VA_ARGS__)

// Of each product four: 16 rows by 32 columns, so that a single token's step has blocks for all of a GPU; 16 by 128 for
// decoding; 64 by 128 for large batches; 128 by 128 for prompts. Then threads, blocks per SM that registers should allow,
// BM, BN, WM, WN and STAGES: for 16 rows as many as leave an SM of an A100 room for two blocks and more.
// Dynamic shared memory: STAGES * (BM * 256 + BN / 32 * SHARED_BYTES) bytes.
#define QUANTISED_KERNELS(format, Format)                                                                                      \
  QUANTISED_TILE(m16n32, format, Format, 128, 4, 16u, 32, 16, 8, Format::BITS == 4 ? 8 : 6)                                    \
  QUANTISED_TILE(m16, format, Format, 128, 4, 16u, 128, 16, 32, Format::BITS == 4 ? 4 : 3)                                     \
  QUANTISED_TILE(m64, format, Format, 256, 2, 64u, 128, 32, 32, 3)                                                             \
  QUANTISED_TILE(m128, format, Format, 256, 1, 128u, 128, 64, 32, 3)
