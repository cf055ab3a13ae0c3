// embedding: the row of each id, widened; and a residual stream of zeros, which the first norm adds it to.
//   table  [vocab, hidden]  bf16        ids  [num_tokens]  u32: an id, or CARRIED + a row of `chosen`
//   chosen  [rows]  u32: ids that the step before has chosen
//   out, residual  [num_tokens, hidden]  f32, written
// Grid: one block per token. Needs hidden % 8 == 0 and ids below vocab (the caller checks).
// Twin: src/ops/embedding.rs (exact).  Bound: memory; not measured yet.
#include "device.cuh"

// src/model/batch.rs has the same.
constexpr unsigned CARRIED = 1u << 31;

KERNEL __launch_bounds__(256) embedding(const bf16 *table, const unsigned *ids, const unsigned *chosen, float *out,
                                        float *residual, unsigned hidden) {
  constexpr float4 ZERO = {0.0f, 0.0f, 0.0f, 0.0f};
  let_next_begin();
  wait_for_previous();
  const unsigned given = ids[blockIdx.x], id = given & CARRIED ? chosen[given & ~CARRIED] : given;
  const bf16 *from = table + size_t(id) * hidden;
  float *to = out + size_t(blockIdx.x) * hidden;
  for (unsigned i = 8 * threadIdx.x; i < hidden; i += 8 * blockDim.x) {
    float values[8];
    unpack(load8(from + i), values);
    store_floats(to + i, {values[0], values[1], values[2], values[3]});
    store_floats(to + i + 4, {values[4], values[5], values[6], values[7]});
    store_floats(residual + size_t(blockIdx.x) * hidden + i, ZERO);
    store_floats(residual + size_t(blockIdx.x) * hidden + i + 4, ZERO);
  }
}
EMULATED(embedding)

// gather_rows: rows of a bf16 matrix, such as those that logits are due of.
//   from  [rows, width]  bf16        indices  [count]  u32        out  [count, width]  bf16, written
// Grid: one block per index. Needs width % 8 == 0 and indices below rows (the caller checks).  Twin: exact.
KERNEL __launch_bounds__(256) gather_rows(const bf16 *from, const unsigned *indices, bf16 *out, unsigned width) {
  let_next_begin();
  wait_for_previous();
  const bf16 *row = from + size_t(indices[blockIdx.x]) * width;
  for (unsigned i = 8 * threadIdx.x; i < width; i += 8 * blockDim.x) store8(out + size_t(blockIdx.x) * width + i, load8(row + i));
}
EMULATED(gather_rows)
