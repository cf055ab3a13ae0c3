// Residual and normalisation: residual += added, then out = weight * residual / sqrt(mean(residual^2) + eps), row by row.
//   residual  [num_tokens, hidden]  f32, read and written
//   weight    [hidden]              f32
//   out       [num_tokens, hidden]  bf16, written
// What is added:
//   add_rms_norm           x        [num_tokens, hidden]  f32
//   add_experts_rms_norm   pairs    [num_tokens * top_k, hidden]  f32: pair p = token * top_k + rank
//                          weights  [num_tokens, top_k]  f32: the sum over ranks of weight * pair, rounded to f32
//                          slots    [num_tokens]  u32, uploaded: to a token with NO_SLOT, which no expert has seen, nothing is
//                                   added, and its pairs and weights are not read
// Grid: one block per token, 128 to 1024 threads, four elements per thread and turn. Needs hidden % 4 == 0.
// The residual stream stays f32, so that 64 additions do not round to bf16; its traffic is 1/1000 of the weights'.
// Twin: src/ops/rms_norm.rs (the sum of squares in another order, then one rounding to bf16), and combine_experts in
// src/ops/experts.rs (fused multiply-adds in rank order).  Bound: memory; not measured yet.
#include "device.cuh"

namespace {

// `added(i)`: four elements, from the i-th of the row on, of what is added to it.
template <class Added>
__device__ __forceinline__ void add_and_normalise(Added added, float *residual, const float *weight, bf16 *out, unsigned hidden,
                                                  float eps, float *scratch) {
  const size_t row = size_t(blockIdx.x) * hidden;
  let_next_begin();
  // A thread's first elements, which are often all it has, stay in registers; their weights come while the kernel before ends.
  const unsigned mine = 4 * threadIdx.x;
  float4 first_sum = {0.0f, 0.0f, 0.0f, 0.0f}, first_weight = first_sum;
  if (mine < hidden) first_weight = load_floats(weight + mine);
  wait_for_previous();
  float squares = 0.0f;
  for (unsigned i = mine; i < hidden; i += 4 * blockDim.x) {
    const float4 a = added(i), b = load_floats(residual + row + i);
    const float4 sum = {a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w};
    store_floats(residual + row + i, sum);
    if (i == mine) first_sum = sum;
    squares += sum.x * sum.x + sum.y * sum.y + sum.z * sum.z + sum.w * sum.w;
  }
  const float scale = rsqrtf(block_sum(squares, scratch) / float(hidden) + eps);
  // Each thread reads again what it has written itself.
  for (unsigned i = mine; i < hidden; i += 4 * blockDim.x) {
    const float4 sum = i == mine ? first_sum : load_floats(residual + row + i);
    const float4 w = i == mine ? first_weight : load_floats(weight + i);
    store_bf16x4(out + row + i, sum.x * scale * w.x, sum.y * scale * w.y, sum.z * scale * w.z, sum.w * scale * w.w);
  }
}

}  // namespace

KERNEL __launch_bounds__(1024)
add_rms_norm(const float *x, float *residual, const float *weight, bf16 *out, unsigned hidden, float eps) {
  __shared__ float scratch[WARP];
  const float *row = x + size_t(blockIdx.x) * hidden;
  add_and_normalise([&](unsigned i) { return load_floats(row + i); }, residual, weight, out, hidden, eps, scratch);
}
EMULATED(add_rms_norm)

KERNEL __launch_bounds__(1024, 1)
add_experts_rms_norm(const float *pairs, const float *weights, const unsigned *slots, float *residual, const float *weight,
                     bf16 *out, unsigned hidden, unsigned top_k, float eps) {
  __shared__ float scratch[WARP];
  const size_t first = size_t(blockIdx.x) * top_k;
  const unsigned ranks = slots[blockIdx.x] == NO_SLOT ? 0 : top_k;
  const auto combined = [&](unsigned i) {
    float4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
    // Two at a time, as most models have: more would take registers that the next kernel's blocks come up in.
#pragma unroll 2
    for (unsigned rank = 0; rank < ranks; ++rank) {
      const float its = weights[first + rank];
      const float4 x = load_floats(pairs + (first + rank) * hidden + i);
      sum = {fmaf(its, x.x, sum.x), fmaf(its, x.y, sum.y), fmaf(its, x.z, sum.z), fmaf(its, x.w, sum.w)};
    }
    return sum;
  };
  add_and_normalise(combined, residual, weight, out, hidden, eps, scratch);
}
EMULATED(add_experts_rms_norm)
