// add_rms_norm: residual += x, then out = weight * residual / sqrt(mean(residual^2) + eps), row by row.
//   x         [num_tokens, hidden]  f32
//   residual  [num_tokens, hidden]  f32, read and written
//   weight    [hidden]              f32
//   out       [num_tokens, hidden]  bf16, written
// Grid: one block per token, 128 to 1024 threads, four elements per thread and turn. Needs hidden % 4 == 0.
// The residual stream stays f32, so that 64 additions do not round to bf16; its traffic is 1/1000 of the weights'.
// Twin: src/ops/rms_norm.rs (the sum in another order, then one rounding to bf16).  Bound: memory; not measured yet.
#include "device.cuh"

KERNEL __launch_bounds__(1024)
add_rms_norm(const float *x, float *residual, const float *weight, bf16 *out, unsigned hidden, float eps) {
  __shared__ float scratch[WARP];
  const size_t row = size_t(blockIdx.x) * hidden;
  let_next_begin();
  // The weights of this thread's first elements, which are often all it has, come while the kernel before ends.
  const unsigned mine = 4 * threadIdx.x;
  const float4 weights = mine < hidden ? load_floats(weight + mine) : float4{0.0f, 0.0f, 0.0f, 0.0f};
  wait_for_previous();
  float squares = 0.0f;
  for (unsigned i = mine; i < hidden; i += 4 * blockDim.x) {
    const float4 a = load_floats(x + row + i), b = load_floats(residual + row + i);
    const float4 sum = {a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w};
    store_floats(residual + row + i, sum);
    squares += sum.x * sum.x + sum.y * sum.y + sum.z * sum.z + sum.w * sum.w;
  }
  const float scale = rsqrtf(block_sum(squares, scratch) / float(hidden) + eps);
  // Each thread reads again what it has written itself.
  for (unsigned i = mine; i < hidden; i += 4 * blockDim.x) {
    const float4 sum = load_floats(residual + row + i), w = i == mine ? weights : load_floats(weight + i);
    store_bf16x4(out + row + i, sum.x * scale * w.x, sum.y * scale * w.y, sum.z * scale * w.z, sum.w * scale * w.w);
  }
}
EMULATED(add_rms_norm)
