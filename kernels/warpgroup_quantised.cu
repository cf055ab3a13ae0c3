// The products of quantised_gemm.cuh for prompts, by warpgroups: blocks of 128 rows of x and 128 columns of w. Shapes, grid,
// needs and twin are the same, and so are the bits.  Bound: arithmetic; not measured yet.
//
// w is the left matrix here, because that one may come from registers: what quantised_gemm.cuh decodes into two fragments of
// mma's B, of 8 columns each, is one fragment of 16 rows of A. A warpgroup has 64 columns, a warp two tiles of 8; the rows of x
// are wgmma's B, in shared memory. While wgmma multiplies a run, a thread decodes the next; then it scales the sums of the
// first, while the other warpgroup's run is multiplied.
//
// Of the STAGES steps in shared memory one is being multiplied, the one before may be still, and STAGES - 2 are under way.
#include "quantised_fp8.cuh"
#include "quantised_q8_0.cuh"
#include "quantised_w4a16.cuh"
#include "warpgroup.cuh"

namespace {

constexpr unsigned BM = 128, BN = 128, THREADS = BN / 64 * WARPGROUP;

// Two matrices of 64 elements of each row.
struct Halves {
  static constexpr unsigned ROW_BYTES = SHARED_ROW_BYTES, BYTES = BM * ROW_BYTES;
  static __device__ __forceinline__ unsigned place(unsigned row, unsigned chunk) {
    return chunk / 8 * BYTES + shared_place(row, chunk % 8);
  }
};

// sums += scale * runs; a thread has columns of w at lane / 4 and eight further on.
__device__ __forceinline__ void add_runs(float (&sums)[16][4], const float (&runs)[16][4], const float (&scales)[2]) {
#pragma unroll
  for (unsigned j = 0; j < 16; ++j)
#pragma unroll
    for (unsigned e = 0; e < 4; ++e) sums[j][e] = fmaf(scales[e / 2], runs[j][e], sums[j][e]);
}

// Four neighbouring sums of a row, as store_row writes two.
template <bool ACTIVATES, class Out>
__device__ __forceinline__ void store_four(Out *y, size_t row, unsigned n, unsigned at, const float4 &sums) {
  if (at >= n) return;
  if constexpr (ACTIVATES) {
    const bf16 two[2] = {activated(sums.x, sums.y), activated(sums.z, sums.w)};
    store_word(y + row * (n / 2) + at / 2, pack_two(to_float(two[0]), to_float(two[1])));
  } else {
    store_floats(y + row * n + at, sums);
  }
}

template <class Format, unsigned STAGES, QuantisedRule RULE, class Out>
__device__ __forceinline__ void multiply(const bf16 *x, const unsigned char *w, const unsigned *order, const unsigned *offsets,
                                         Out *y, unsigned num_rows, unsigned n, unsigned k, unsigned num_experts,
                                         unsigned top_k) {
  constexpr unsigned RUNS = STEP / Format::RUN, FRAGMENTS = Format::RUN / 16, WORDS = Format::RUN * Format::BITS / 128;
  constexpr unsigned STAGE_BYTES = BM * X_BYTES, STRIPS = BN / STRIP, SUM_COLUMNS = BN + 4;
  static_assert(!Format::HAS_MINIMA, "sums of x would be one more product");
  static_assert(BM * SUM_COLUMNS * 4 <= STAGES * STAGE_BYTES, "in the end the sums take the place of x");

  const bool plain = RULE == QUANTISED_OUT && order == nullptr;
  let_next_begin();
  if (!plain) wait_for_previous();  // a kernel writes which rows are whose
  const Rows its = plain ? plain_rows<BM>(num_rows) : rows_of_block<BM>(offsets, num_experts);
  if (!plain && its.count == 0) return;  // all of the block alike
  const unsigned column = its.tile * BN;

  DYNAMIC_SHARED(memory);  // x [STAGES][2][BM][128 bytes], then w [STAGES][STRIPS][SHARED_BYTES]
  const Copies<Format, Halves, BM, BN, THREADS, STAGES, RULE> copies(memory, x, w, order, its, column, n, k, top_k);
  const unsigned steps = k / STEP, begun = min(steps, STAGES - 2);
  for (unsigned stage = 0; stage < begun; ++stage) copies.ask_w(stage, stage);
  if (plain) wait_for_previous();
  for (unsigned stage = 0; stage + 2 < STAGES; ++stage) {
    if (stage < begun) copies.ask_x(stage, stage);
    commit_async();
  }

  // The warp's 16 columns: tiles `tile` and `tile + 1` of one strip.
  const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, tile = warp % 2 * 2;
  const unsigned mine = lane / 8 * 16 + tile * 4, second = lane / 4 % 2;
  const unsigned char *strips = memory + STAGES * STAGE_BYTES + warp / 2 * Format::SHARED_BYTES;
  float sums[16][4] = {}, runs[16][4] = {}, scales[2] = {};
  unsigned stage = 0;
  for (unsigned step = 0; step < steps; ++step) {
    wait_async<STAGES - 3>();
    fence_shared();
    // Everybody's copies of this step are there. All but the last run of the step before has been waited for, so that the step
    // before that one is overwritten next.
    __syncthreads();
    if (step + STAGES - 2 < steps) {
      const unsigned free = stage < 2 ? stage + STAGES - 2 : stage - 2;
      copies.ask_x(free, step + STAGES - 2);
      copies.ask_w(free, step + STAGES - 2);
    }
    commit_async();

    const unsigned char *strip = strips + stage * STRIPS * Format::SHARED_BYTES;
    std::uint64_t rows = shared_matrix(memory + stage * STAGE_BYTES);
#pragma unroll
    for (unsigned run = 0; run < RUNS; ++run) {
      unsigned codes[2][WORDS], a[FRAGMENTS][4];
#pragma unroll
      for (unsigned j = 0; j < 2; ++j)
        load_words(strip + Format::CODES_AT + (((tile + j) * RUNS + run) * WARP + lane) * WORDS * 4, codes[j]);
#pragma unroll
      for (unsigned fragment = 0; fragment < FRAGMENTS; ++fragment) {
        unsigned left[2], right[2];
        Format::decode(codes[0], fragment, left);
        Format::decode(codes[1], fragment, right);
        a[fragment][0] = left[0], a[fragment][1] = right[0], a[fragment][2] = left[1], a[fragment][3] = right[1];
      }
      float pairs[2][2];
      Format::scales(strip, run * Format::RUN / Format::GROUP, mine, pairs);

      wait_for_products(runs);
      add_runs(sums, runs, scales);
      scales[0] = second ? pairs[0][1] : pairs[0][0];
      scales[1] = second ? pairs[1][1] : pairs[1][0];
      warpgroup_fence();
#pragma unroll
      for (unsigned fragment = 0; fragment < FRAGMENTS; ++fragment) {
        const unsigned at = run * FRAGMENTS + fragment;
        const std::uint64_t b = rows + (at / 4 * Halves::BYTES + at % 4 * 32) / 16;
        if (fragment == 0)
          warpgroup_product_128<true>(runs, a[fragment], b);
        else
          warpgroup_product_128<false>(runs, a[fragment], b);
      }
      commit_products();
    }
    stage = stage + 1 == STAGES ? 0 : stage + 1;
  }
  wait_for_products(runs);
  add_runs(sums, runs, scales);

  // Columns lie across lanes: by way of shared memory, a warp writes whole rows of y.
  __syncthreads();
  auto *all = reinterpret_cast<float *>(memory);  // [BM][SUM_COLUMNS]
#pragma unroll
  for (unsigned j = 0; j < 16; ++j)
#pragma unroll
    for (unsigned e = 0; e < 4; ++e)
      all[(j * 8 + lane % 4 * 2 + e % 2) * SUM_COLUMNS + warp * 16 + e / 2 * 8 + lane / 4] = sums[j][e];
  __syncthreads();
  for (unsigned row = warp; row < its.count; row += THREADS / WARP) {
    const size_t to = RULE == QUANTISED_OUT && !plain ? order[its.first + row] : its.first + row;
    store_four<RULE == QUANTISED_IN>(y, to, n, column + lane * 4, load_floats(all + row * SUM_COLUMNS + lane * 4));
  }
}

}  // namespace

#define WARPGROUP_PRODUCT(name, Rule, Out, Format, STAGES)                                                                     \
  KERNEL __launch_bounds__(THREADS, 1)                                                                                         \
  name(const bf16 *x, const unsigned char *w, const unsigned *order, const unsigned *offsets, Out *y, unsigned num_rows,       \
       unsigned n, unsigned k, unsigned num_experts, unsigned top_k) {                                                         \
    multiply<Format, STAGES, Rule>(x, w, order, offsets, y, num_rows, n, k, num_experts, top_k);                               \
  }
// Dynamic shared memory: STAGES * (128 * 256 + 4 * SHARED_BYTES) bytes.
#define WARPGROUP_PRODUCTS(format, Format, STAGES)                                                                             \
  WARPGROUP_PRODUCT(experts_in_##format##_warpgroups, QUANTISED_IN, bf16, Format, STAGES)                                      \
  WARPGROUP_PRODUCT(experts_out_##format##_warpgroups, QUANTISED_OUT, float, Format, STAGES)

WARPGROUP_PRODUCTS(w4a16, W4a16, 5)
WARPGROUP_PRODUCTS(q8_0, Q8_0, 4)
WARPGROUP_PRODUCTS(fp8, Fp8, 4)
EMULATED(experts_in_w4a16_warpgroups)
EMULATED(experts_out_w4a16_warpgroups)
EMULATED(experts_in_q8_0_warpgroups)
EMULATED(experts_out_q8_0_warpgroups)
EMULATED(experts_in_fp8_warpgroups)
EMULATED(experts_out_fp8_warpgroups)
