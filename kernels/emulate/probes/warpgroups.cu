// Products by warpgroups, right and wrong on purpose. Shared memory: 64 + 8 + 256 rows of 128 bytes.
#include "warpgroup.cuh"

enum Fault : unsigned {
  NONE, SHARED_NOT_FENCED, NO_BARRIER, REGISTERS_NOT_FENCED, READ_TOO_EARLY, NEVER_WAITED_FOR, OVERWRITTEN, ELSEWHERE
};

namespace {

// Rows of 64 bf16 to shared memory, chunks permuted.
__device__ __forceinline__ void fill(unsigned char *matrix, const bf16 *from, unsigned rows) {
  for (unsigned item = threadIdx.x; item < rows * 8; item += blockDim.x)
    copy_async16(matrix + shared_place(item / 8, item % 8), from + item * 8, true);
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
  if (fault != READ_TOO_EARLY) wait_for_products(sums);
  const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  for (unsigned j = 0; j < 32; ++j)
    for (unsigned e = 0; e < 4; ++e)
      out[(warp * 16 + e / 2 * 8 + lane / 4) * 256 + j * 8 + lane % 4 * 2 + e % 2] = sums[j][e];
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
  const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  unsigned fragment[4];
  for (unsigned r = 0; r < 4; ++r)
    fragment[r] = load_word(a + (warp * 16 + lane / 4 + r % 2 * 8) * 16 + lane % 4 * 2 + r / 2 * 8);
  float sums[16][4];
  warpgroup_fence();
  warpgroup_product_128<true>(sums, fragment, shared_matrix(memory) + at * 2);
  commit_products();
  wait_for_products(sums);
  for (unsigned j = 0; j < 16; ++j)
    for (unsigned e = 0; e < 4; ++e)
      out[(warp * 16 + e / 2 * 8 + lane / 4) * 128 + j * 8 + lane % 4 * 2 + e % 2] = sums[j][e];
}
EMULATED(probe_warpgroup_registers)
