// silu_mul: out = silu(gate) * up, where silu(x) = x / (1 + e^-x).
//   gate_up  [rows, 2 * width]  bf16: each row a gate, then an up
//   out      [rows, width]      bf16, written
// Grid: x covers a row eight elements per thread, y the rows. `rows` is read on the device, so that a captured launch
// with room for more does nothing for those that are not there. Needs width % 8 == 0.
// Twin: src/ops/silu_mul.rs (one rounding to bf16).  Bound: memory; not measured yet.
#include "device.cuh"

KERNEL __launch_bounds__(256) silu_mul(const bf16 *gate_up, bf16 *out, const unsigned *rows, unsigned width) {
  let_next_begin();
  wait_for_previous();
  const unsigned i = 8 * (blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= width) return;
  const unsigned count = *rows;
  for (unsigned row = blockIdx.y; row < count; row += gridDim.y) {
    const bf16 *from = gate_up + size_t(row) * 2 * width + i;
    float gate[8], up[8];
    unpack(load8(from), gate);
    unpack(load8(from + width), up);
#pragma unroll
    for (int j = 0; j < 8; ++j) up[j] *= gate[j] / (1.0f + __expf(-gate[j]));
    store8(out + size_t(row) * width + i, pack(up));
  }
}
EMULATED(silu_mul)
