// rope_store_kv: turns queries and keys by their positions, writes queries for attention, keys and values into their slots
// of the paged cache. Element i of a head turns with element i + head_dim / 2.
//   qkv        [num_tokens, (heads + 2 * kv_heads) * head_dim]  f32: queries, then keys, then values
//   positions  [num_tokens]  u32         slots  [num_tokens]  u32: block * block_size + offset
//   cos, sin   [max_positions, head_dim / 2]  f32
//   q          [num_tokens, heads * head_dim]  bf16, written
//   k_cache, v_cache  [num_blocks * block_size, kv_heads * head_dim]  bf16, written
// Grid: one block per token. Needs head_dim % 8 == 0, positions and slots in range (the caller checks).
// A slot of NO_SLOT is a token of padding: nothing of it is written to the cache.
// Twin: src/ops/rope.rs and store_kv.rs (one rounding to bf16).  Bound: memory; not measured yet.
#include "device.cuh"

KERNEL __launch_bounds__(256)
rope_store_kv(const float *qkv, const unsigned *positions, const unsigned *slots, const float *cos, const float *sin, bf16 *q,
              bf16 *k_cache, bf16 *v_cache, unsigned heads, unsigned kv_heads, unsigned head_dim) {
  const unsigned token = blockIdx.x, half = head_dim / 2, quads = half / 4, turned = (heads + kv_heads) * quads;
  let_next_begin();
  const unsigned slot = slots[token];
  const float *row = qkv + size_t(token) * (heads + 2 * kv_heads) * head_dim;
  const size_t angles = size_t(positions[token]) * half, kept = size_t(slot) * kv_heads * head_dim;
  wait_for_previous();

  for (unsigned item = threadIdx.x; item < turned; item += blockDim.x) {
    const unsigned head = item / quads, i = item % quads * 4;
    if (head >= heads && slot == NO_SLOT) continue;
    const float4 a = load_floats(row + head * head_dim + i), b = load_floats(row + head * head_dim + half + i);
    const float4 c = load_floats(cos + angles + i), s = load_floats(sin + angles + i);
    bf16 *to = head < heads ? q + size_t(token) * heads * head_dim + head * head_dim : k_cache + kept + (head - heads) * head_dim;
    store_bf16x4(to + i, a.x * c.x - b.x * s.x, a.y * c.y - b.y * s.y, a.z * c.z - b.z * s.z, a.w * c.w - b.w * s.w);
    store_bf16x4(to + half + i, b.x * c.x + a.x * s.x, b.y * c.y + a.y * s.y, b.z * c.z + a.z * s.z, b.w * c.w + a.w * s.w);
  }
  if (slot == NO_SLOT) return;
  const float *values = row + (heads + kv_heads) * head_dim;
  for (unsigned i = 4 * threadIdx.x; i < kv_heads * head_dim; i += 4 * blockDim.x) {
    const float4 v = load_floats(values + i);
    store_bf16x4(v_cache + kept + i, v.x, v.y, v.z, v.w);
  }
}
EMULATED(rope_store_kv)
