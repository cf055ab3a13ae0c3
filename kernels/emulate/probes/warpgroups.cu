// Products by warpgroups, right and wrong on purpose. Shared memory: 64 + 8 + 256 rows of 128 bytes.
#include "warpgroup.cuh"

enum Fault : unsigned {
  NONE, SHARED_NOT_FENCED, NO_BARRIER, REGISTERS_NOT_FENCED, READ_TOO_EARLY, NEVER_WAITED_FOR, OVERWRITTEN, ELSEWHERE, COPIED_OVER
};

namespace {

// Rows of 64 bf16 to shared memory, chunks permuted.
__device__ __forceinline__ void fill(unsigned char *matrix, const bf16 *from, unsigned rows) {
  for (unsigned item = threadIdx.x; item < rows * 8; item += blockDim.x)
    copy_async16(matrix + shared_place(item / 8, item % 8), from + item * 8, true);
}

// A warp's fragments of a[64][16].
__device__ __forceinline__ void load_fragment(unsigned (&fragment)[4], const bf16 *a) {
  const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  for (unsigned r = 0; r < 4; ++r)
    fragment[r] = load_word(a + (warp * 16 + lane / 4 + r % 2 * 8) * 16 + lane % 4 * 2 + r / 2 * 8);
}

template <unsigned TILES> __device__ __forceinline__ void store_sums(float *out, const float (&sums)[TILES][4]) {
  const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  for (unsigned j = 0; j < TILES; ++j)
    for (unsigned e = 0; e < 4; ++e)
      out[(warp * 16 + e / 2 * 8 + lane / 4) * TILES * 8 + j * 8 + lane % 4 * 2 + e % 2] = sums[j][e];
}

}  // namespace

// out[64][256] = a[64][64] * b[256][64]^T by one warpgroup, both from shared memory, in two groups of products.
KERNEL probe_warpgroup(const bf16 *a, const bf16 *b, float *out, unsigned fault) {
  DYNAMIC_SHARED(memory);
  unsigned char *left = memory + (fault == ELSEWHERE ? 128 : 0), *right = memory + 72 * SHARED_ROW_BYTES;
  fill(left, a, 64);
  fill(right, b, 256);
  commit_async();
  wait_async<0>();
  if (fault != SHARED_NOT_FENCED || threadIdx.x != 5) fence_shared();
  if (fault != NO_BARRIER) __syncthreads();
  float sums[32][4] = {};
  std::uint64_t left_matrix = shared_matrix(left), right_matrix = shared_matrix(right);
  if (fault != REGISTERS_NOT_FENCED) warpgroup_fence();
  warpgroup_product_256<true>(sums, left_matrix, right_matrix);
  warpgroup_product_256<false>(sums, next_16(left_matrix), next_16(right_matrix));
  commit_products();
  left_matrix = next_16(next_16(left_matrix)), right_matrix = next_16(next_16(right_matrix));
  warpgroup_product_256<false>(sums, left_matrix, right_matrix);
  warpgroup_product_256<false>(sums, next_16(left_matrix), next_16(right_matrix));
  commit_products();
  if (fault == NEVER_WAITED_FOR) return;
  wait_for_all_but_last();
  if (fault == OVERWRITTEN) {
    __syncthreads();
    if (threadIdx.x == 7) store_word(left + shared_place(0, 6), 0x40004000u);
    __syncthreads();
  }
  if (fault == COPIED_OVER) {
    __syncthreads();
    if (threadIdx.x == 7) copy_async16(left + shared_place(0, 6), a, true);
    commit_async();
    __syncthreads();
  }
  if (fault != READ_TOO_EARLY) wait_for_products(sums);
  store_sums(out, sums);
  wait_for_products(sums);
}
EMULATED(probe_warpgroup)

// out[64][128] = a[64][16] * b[128][16]^T, a from registers; b lies in rows of 64, from element 16 `at` on.
KERNEL probe_warpgroup_registers(const bf16 *a, const bf16 *b, float *out, unsigned at) {
  DYNAMIC_SHARED(memory);
  fill(memory, b, 128);
  commit_async();
  wait_async<0>();
  fence_shared();
  __syncthreads();
  unsigned fragment[4];
  load_fragment(fragment, a);
  float sums[16][4];
  warpgroup_fence();
  warpgroup_product_128<true>(sums, fragment, shared_matrix(memory) + at * 2);
  commit_products();
  wait_for_products(sums);
  store_sums(out, sums);
}
EMULATED(probe_warpgroup_registers)

// out[64][columns] = a[64][16] * what a descriptor, given by its upper and lower half, makes of these bytes at the beginning of
// shared memory. Columns: 64 or 128; the matrix's rows are columns, or k.
KERNEL probe_warpgroup_described(const bf16 *a, const unsigned char *bytes, unsigned num_bytes, float *out, unsigned upper,
                                 unsigned lower, unsigned columns, unsigned by_rows_of_k) {
  DYNAMIC_SHARED(memory);
  for (unsigned at = threadIdx.x * 16; at < num_bytes; at += blockDim.x * 16) copy_async16(memory + at, bytes + at, true);
  commit_async();
  wait_async<0>();
  fence_shared();
  __syncthreads();
  unsigned fragment[4];
  load_fragment(fragment, a);
  const std::uint64_t b = std::uint64_t(upper) << 32 | lower;
  float of_64[8][4], of_128[16][4];
  warpgroup_fence();
  if (columns == 64 && by_rows_of_k) warpgroup_product_64<true, true>(of_64, fragment, b);
  if (columns == 64 && !by_rows_of_k) warpgroup_product_64<true>(of_64, fragment, b);
  if (columns == 128 && by_rows_of_k) warpgroup_product_128<true, true>(of_128, fragment, b);
  if (columns == 128 && !by_rows_of_k) warpgroup_product_128<true>(of_128, fragment, b);
  commit_products();
  if (columns == 64) {
    wait_for_products(of_64);
    store_sums(out, of_64);
  } else {
    wait_for_products(of_128);
    store_sums(out, of_128);
  }
}
EMULATED(probe_warpgroup_described)

// out[64][128] = a[64][16] * b[16][128], where b is part of rows of k, 16 `at` on, laid out and described as kernels do it. If
// `overwritten`, a number of the right matrix changes before the product was waited for.
KERNEL probe_warpgroup_rows_of_k(const bf16 *a, const bf16 *b, float *out, unsigned at, unsigned overwritten) {
  constexpr unsigned ROWS = 64, MATRIX_BYTES = ROWS * SHARED_ROW_BYTES;
  DYNAMIC_SHARED(memory);
  for (unsigned item = threadIdx.x; item < ROWS * 16; item += blockDim.x) {
    const unsigned row = item / 16, chunk = item % 16;
    copy_async16(memory + chunk / 8 * MATRIX_BYTES + shared_place(row, chunk % 8), b + item * 8, true);
  }
  commit_async();
  wait_async<0>();
  fence_shared();
  __syncthreads();
  unsigned fragment[4];
  load_fragment(fragment, a);
  float sums[16][4];
  std::uint64_t matrix = shared_matrix_by_rows_of_k(memory, MATRIX_BYTES);
  for (unsigned step = 0; step < at; ++step) matrix = next_16_rows(matrix);
  warpgroup_fence();
  warpgroup_product_128<true, true>(sums, fragment, matrix);
  commit_products();
  __syncthreads();
  if (overwritten && threadIdx.x == 9) store_word(memory + MATRIX_BYTES + shared_place(16 * at + 3, 5), 0x40004000u);
  __syncthreads();
  wait_for_products(sums);
  store_sums(out, sums);
}
EMULATED(probe_warpgroup_rows_of_k)
