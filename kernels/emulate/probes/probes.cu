// Kernels that show what the emulation can do, and others that do something wrong on purpose: its own tests run them.
#include "device.cuh"

// out[block] = the sum of in[block], of which each block has `count`.
KERNEL probe_block_sums(const float *in, float *out, unsigned count) {
  __shared__ float scratch[WARP];
  float sum = 0.0f;
  for (unsigned i = threadIdx.x; i < count; i += blockDim.x) sum += in[blockIdx.x * count + i];
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) out[blockIdx.x] = sum;
}
EMULATED(probe_block_sums)

// The same without the barrier between writing and reading.
KERNEL probe_missing_barrier(const float *in, float *out) {
  __shared__ float scratch[WARP];
  const float sum = warp_sum(in[threadIdx.x]);
  if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = sum;
  if (threadIdx.x == 0) out[0] = scratch[0] + scratch[1];
}
EMULATED(probe_missing_barrier)

// Writes again what others may still be reading.
KERNEL probe_write_after_read(float *out) {
  __shared__ float cell[1];
  if (threadIdx.x == 0) cell[0] = 1.0f;
  __syncthreads();
  out[threadIdx.x] = cell[0];
  if (threadIdx.x == 0) cell[0] = 2.0f;
}
EMULATED(probe_write_after_read)

// A neighbour's value within a warp, with or without __syncwarp between.
KERNEL probe_warp_neighbour(float *out, unsigned synchronised) {
  __shared__ float cells[WARP];
  cells[threadIdx.x] = float(threadIdx.x);
  if (synchronised) __syncwarp();
  out[threadIdx.x] = cells[(threadIdx.x + 1) % WARP];
}
EMULATED(probe_warp_neighbour)

KERNEL probe_copy(const float *in, float *out, unsigned from, unsigned to) { out[to + threadIdx.x] = in[from + threadIdx.x]; }
EMULATED(probe_copy)

KERNEL probe_load8(const bf16 *in, bf16 *out, unsigned from) { store8(out, load8(in + from)); }
EMULATED(probe_load8)

KERNEL probe_unwritten_shared(float *out) {
  __shared__ float cells[64];
  if (threadIdx.x != 7) cells[threadIdx.x] = 1.0f;
  __syncthreads();
  out[threadIdx.x] = cells[threadIdx.x];
}
EMULATED(probe_unwritten_shared)

KERNEL probe_dynamic_shared(unsigned *out) {
  DYNAMIC_SHARED(memory);
  auto *numbers = reinterpret_cast<unsigned *>(memory);
  numbers[threadIdx.x] = threadIdx.x;
  __syncthreads();
  out[threadIdx.x] = numbers[blockDim.x - 1 - threadIdx.x];
}
EMULATED(probe_dynamic_shared)

KERNEL probe_divergent_barrier() {
  if (threadIdx.x < WARP) __syncthreads();
  else named_barrier(1, 2 * WARP);
}
EMULATED(probe_divergent_barrier)

// The upper half of the block makes numbers, the lower half takes them, by two named barriers.
KERNEL probe_named_barriers(unsigned *out, unsigned forgetful) {
  __shared__ unsigned cell[WARP];
  const unsigned lane = threadIdx.x % WARP;
  if (threadIdx.x < WARP) {
    if (!forgetful) named_barrier(1, 2 * WARP);
    out[lane] = cell[(lane + 5) % WARP];
  } else {
    cell[lane] = lane * lane;
    if (!forgetful) named_barrier(1, 2 * WARP);
  }
}
EMULATED(probe_named_barriers)

KERNEL probe_lost_lane(unsigned *out) {
  if (threadIdx.x == 3) return;
  out[threadIdx.x] = __shfl_sync(ALL_LANES, threadIdx.x, 0);
}
EMULATED(probe_lost_lane)

KERNEL probe_warp_operations(unsigned *out) {
  const unsigned lane = threadIdx.x % WARP;
  out[0 * WARP + lane] = __shfl_up_sync(ALL_LANES, lane, 1);
  out[1 * WARP + lane] = __shfl_down_sync(ALL_LANES, lane, 4, 8);
  out[2 * WARP + lane] = __ballot_sync(ALL_LANES, lane % 3 == 0);
  out[3 * WARP + lane] = __any_sync(ALL_LANES, lane == 40) + 2 * __all_sync(ALL_LANES, lane < 32);
  // The two halves of a warp, each with a mask of its own.
  const unsigned half = lane < 16 ? 0x0000ffffu : 0xffff0000u;
  out[4 * WARP + lane] = __shfl_xor_sync(half, lane, 1);
}
EMULATED(probe_warp_operations)

// Lanes whose number is a multiple of three, and the others: each with a mask of its own.
KERNEL probe_masked_operations(unsigned *out) {
  const unsigned lane = threadIdx.x % WARP;
  const unsigned thirds = __ballot_sync(ALL_LANES, lane % 3 == 0), mine = lane % 3 == 0 ? thirds : ~thirds;
  unsigned *to = out + lane;
  *to = __ballot_sync(mine, lane > 15), to += WARP;
  *to = __any_sync(mine, lane == 4) + 2 * __all_sync(mine, lane % 3 == 0), to += WARP;
  *to = __reduce_add_sync(mine, lane), to += WARP;
  *to = unsigned(__reduce_min_sync(mine, 7 - int(lane))), to += WARP;
  *to = unsigned(__reduce_max_sync(mine, int(lane) - 40)), to += WARP;
  *to = __reduce_and_sync(mine, lane | 16), to += WARP;
  *to = __reduce_or_sync(mine, 1u << lane), to += WARP;
  *to = __reduce_xor_sync(mine, lane), to += WARP;
  *to = __match_any_sync(mine, lane / 8), to += WARP;
  int all = 0;
  *to = __match_all_sync(mine, lane % 3 == 0, &all) + (all ? 0 : 1);
}
EMULATED(probe_masked_operations)

// One block's threads on the same cells, each operation on two of them: what was there, and something else.
KERNEL probe_atomics(unsigned *cells, float *floats, unsigned long long *wide, unsigned *before) {
  const unsigned i = threadIdx.x;
  auto *whole = reinterpret_cast<int *>(cells);
  atomicAdd(cells + 0, i);
  atomicAdd(whole + 1, -int(i));
  atomicSub(cells + 2, i);
  atomicMin(cells + 3, i + 5);
  atomicMin(whole + 4, -int(i));
  atomicMax(cells + 5, i);
  atomicMax(whole + 6, -int(i));
  atomicAnd(cells + 7, ~(1u << i));
  atomicOr(cells + 8, 1u << i);
  atomicXor(cells + 9, i);
  before[i] = atomicExch(cells + 10, i + 1);
  before[blockDim.x + i] = atomicCAS(cells + 11, i, i + 1);
  atomicAdd(floats + 0, 0.5f);
  atomicExch(floats + 1, float(i));
  atomicAdd(wide + 0, 1ull << 33);
  atomicCAS(wide + 1, 1ull << 40, 1ull << 41);
}
EMULATED(probe_atomics)

// Copies asynchronously, in two groups; `early` reads before the wait, `alone` without a barrier after it.
KERNEL probe_copy_async(const float *in, float *out, unsigned early, unsigned alone) {
  __shared__ __align__(16) float cells[2][4 * WARP];
  const unsigned i = 4 * threadIdx.x;
  copy_async16(&cells[0][i], in + i, true);
  commit_async();
  copy_async16(&cells[1][i], in + 4 * WARP + i, threadIdx.x != 2);
  commit_async();
  if (early) out[threadIdx.x] = cells[0][i];
  wait_async<1>();
  if (!alone) __syncthreads();
  out[threadIdx.x] = cells[0][(i + 4) % (4 * WARP)];
  wait_async<0>();
  __syncthreads();
  for (unsigned k = 0; k < 4; ++k) out[WARP + i + k] = cells[1][i + k];
}
EMULATED(probe_copy_async)

KERNEL probe_blocks_meet(unsigned *cell, unsigned *out, unsigned by_atomics) {
  if (by_atomics) out[blockIdx.x] = atomicAdd(cell, 1u);
  else *cell = blockIdx.x;
}
EMULATED(probe_blocks_meet)

KERNEL probe_double(float *x) { x[blockIdx.x * blockDim.x + threadIdx.x] *= 2.0f; }
EMULATED(probe_double)

// Multiplies what no kernel writes with what one did; each mistake is one way to begin too early, made by the second block.
KERNEL probe_begins_early(const float *weights, const float *x, float *out, unsigned mistake) {
  __shared__ __align__(16) float cells[WARP];
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (blockIdx.x == 0) mistake = 0;
  let_next_begin();
  const float weight = weights[i];
  float early = 0.0f;
  if (mistake == 1) early = x[i];
  if (mistake == 2 && threadIdx.x % 4 == 0) copy_async16(&cells[threadIdx.x], x + i, true);
  if (mistake == 3) out[i] = weight;
  if (mistake == 4) atomicAdd(out + i, 0.0f);
  if (mistake == 4 || (mistake == 5 && threadIdx.x == 3)) return;
  wait_for_previous();
  commit_async();
  wait_async<0>();
  out[i] = weight * x[i] + 0.0f * early;
}
EMULATED(probe_begins_early)

// d[16][8] = a[16][16] · b[8][16]ᵀ: fragments by ldmatrix from shared memory, where each row is 16 bf16.
KERNEL probe_mma_bf16(const bf16 *a, const bf16 *b, float *d) {
  __shared__ __align__(16) bf16 a_rows[16][16], b_rows[8][16];
  const unsigned lane = threadIdx.x;
  store8(&a_rows[lane / 2][lane % 2 * 8], load8(a + lane * 8));
  if (lane < 16) store8(&b_rows[lane / 2][lane % 2 * 8], load8(b + lane * 8));
  __syncwarp();
  unsigned fragment_a[4], both[4];
  load_matrix_x4(fragment_a, &a_rows[lane % 8 + lane / 8 % 2 * 8][lane / 16 * 8]);
  load_matrix_x4(both, &b_rows[lane % 8][lane / 8 % 2 * 8]);
  const unsigned fragment_b[2] = {both[0], both[1]};
  float sum[4] = {};
  mma_bf16(sum, fragment_a, fragment_b);
  for (unsigned i = 0; i < 4; ++i) d[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sum[i];
}
EMULATED(probe_mma_bf16)

// The same product, where b is stored as b[16][8] and turned by ldmatrix, in f16.
KERNEL probe_mma_f16_transposed(const bf16 *a, const bf16 *b, float *d) {
  __shared__ __align__(16) bf16 a_rows[16][16], b_rows[16][8];
  const unsigned lane = threadIdx.x;
  store8(&a_rows[lane / 2][lane % 2 * 8], load8(a + lane * 8));
  if (lane < 16) store8(&b_rows[lane][0], load8(b + lane * 8));
  __syncwarp();
  unsigned fragment_a[4], both[4];
  load_matrix_x4(fragment_a, &a_rows[lane % 8 + lane / 8 % 2 * 8][lane / 16 * 8]);
  load_matrix_x4_transposed(both, &b_rows[lane % 16][0]);
  const unsigned fragment_b[2] = {both[0], both[1]};
  float sum[4] = {};
  mma_f16(sum, fragment_a, fragment_b);
  for (unsigned i = 0; i < 4; ++i) d[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sum[i];
}
EMULATED(probe_mma_f16_transposed)

// d[16][8] = a[16][32] · b[8][32]ᵀ in signed bytes, fragments straight from global memory.
KERNEL probe_mma_s8(const unsigned *a, const unsigned *b, int *d) {
  const unsigned lane = threadIdx.x, g = lane / 4, t = lane % 4;
  unsigned fragment_a[4], fragment_b[2];
  for (unsigned r = 0; r < 4; ++r) fragment_a[r] = a[(g + r % 2 * 8) * 8 + t + r / 2 * 4];
  for (unsigned r = 0; r < 2; ++r) fragment_b[r] = b[g * 8 + t + r * 4];
  int sum[4] = {};
  mma_s8(sum, fragment_a, fragment_b);
  for (unsigned i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + t * 2 + i % 2] = sum[i];
}
EMULATED(probe_mma_s8)

// The same in E4M3, summed in f32.
KERNEL probe_mma_e4m3(const unsigned *a, const unsigned *b, float *d) {
  const unsigned lane = threadIdx.x, g = lane / 4, t = lane % 4;
  unsigned fragment_a[4], fragment_b[2];
  for (unsigned r = 0; r < 4; ++r) fragment_a[r] = a[(g + r % 2 * 8) * 8 + t + r / 2 * 4];
  for (unsigned r = 0; r < 2; ++r) fragment_b[r] = b[g * 8 + t + r * 4];
  float sum[4] = {};
  mma_e4m3(sum, fragment_a, fragment_b);
  for (unsigned i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + t * 2 + i % 2] = sum[i];
}
EMULATED(probe_mma_e4m3)

// d[16][8] = a · bᵀ + c for each block, fragments from global memory: of bf16 (type 0) or f16 (1) with a[16][16] and
// b[8][16], or of E4M3 (2) with a[16][32] and b[8][32].
KERNEL probe_mma_sums(const unsigned *a, const unsigned *b, const float *c, float *d, unsigned type) {
  const unsigned lane = threadIdx.x, g = lane / 4, t = lane % 4;
  a += blockIdx.x * 128, b += blockIdx.x * 64, c += blockIdx.x * 128, d += blockIdx.x * 128;
  unsigned fragment_a[4], fragment_b[2];
  for (unsigned r = 0; r < 4; ++r) fragment_a[r] = a[(g + r % 2 * 8) * 8 + t + r / 2 * 4];
  for (unsigned r = 0; r < 2; ++r) fragment_b[r] = b[g * 8 + t + r * 4];
  float sum[4];
  for (unsigned i = 0; i < 4; ++i) sum[i] = c[(g + i / 2 * 8) * 8 + t * 2 + i % 2];
  if (type == 0) mma_bf16(sum, fragment_a, fragment_b);
  else if (type == 1) mma_f16(sum, fragment_a, fragment_b);
  else mma_e4m3(sum, fragment_a, fragment_b);
  for (unsigned i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + t * 2 + i % 2] = sum[i];
}
EMULATED(probe_mma_sums)

KERNEL probe_e4m3(const float *in, unsigned *codes, float *values, unsigned count) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
#ifdef MIXGATE_EMULATED
  const __nv_fp8_e4m3 narrow(in[i]);
  codes[i] = narrow.__x;
  values[i] = float(narrow);
#endif
}
EMULATED(probe_e4m3)

KERNEL probe_conversions(const float *in, unsigned *as_bf16, unsigned *as_half, float *half_back, unsigned count) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
#ifdef MIXGATE_EMULATED
  as_bf16[i] = to_bf16(in[i]).bits;
  as_half[i] = __float2half(in[i]).bits;
#endif
  half_back[i] = __half2float(__float2half(in[i]));
}
EMULATED(probe_conversions)
