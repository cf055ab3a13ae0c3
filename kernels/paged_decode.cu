// Attention of sequences that have one query row in this step, to their keys in the paged cache.
//
// paged_decode_d*_g*: every sequence's keys are cut into splits, one block each; all query heads of a key head share what is
// read.
//   q                 [num_tokens, heads, head_dim]  bf16, turned by position
//   k_cache, v_cache  [num_blocks, block_size, kv_heads, head_dim]  bf16
//   block_tables      u32: sequence s has its blocks, in order, from table_starts[s] on     table_starts  [num_seqs]  u32
//   cu_seqlens_q      [num_seqs + 1]  u32     context_lens  [num_seqs]  u32
//   scratch           [num_seqs, heads, SPLITS, head_dim + 2]  f32, written: sums, their maximum, their weight
//   out               [num_tokens, heads, head_dim]  bf16, written where one split has all the keys
// Grid: x = splits (at most SPLITS), y = key heads, z = sequences. A sequence with more rows, or none of its context here, is
// left to others. Dynamic shared memory: 4 * G * (head_dim + 2) floats. `window`: how many keys a row sees, its own the last;
// 0 for all. Keys that the row does not see are not read.
// Twin: src/ops/paged_attention.rs (other order of sums; bf16 in and out).  Bound: memory; not measured yet.
//
//   keys of a sequence   |  split 0  |  split 1  |  split 2 |
//   a split              | rows of K and V, LANES lanes to each, 16 bytes per lane: GROUPS of them at a time, UNROLL times |
//
// The length of a split follows from that of the sequence alone, and so does the order of all sums: who shares the batch, or
// how large the grid is, changes nothing.
#include "device.cuh"

namespace {

constexpr unsigned SPLITS = 32, SPLIT_KEYS = 128, THREADS = 128, WARPS = THREADS / WARP, UNROLL = 4;

// Keys of each split of a context: 128, or as many times that as it takes to have no more than SPLITS.
__device__ __forceinline__ unsigned split_keys(unsigned context) {
  return SPLIT_KEYS * ((context + SPLITS * SPLIT_KEYS - 1) / (SPLITS * SPLIT_KEYS));
}

// A sequence's keys and how they are split. `end` is 0 for one that is not decoded here.
struct Span {
  unsigned first, end, per_split, first_split, end_split;
};

__device__ __forceinline__ Span span_of(unsigned rows, unsigned context, unsigned window) {
  if (rows != 1 || context == 0) return {0, 0, 1, 0, 0};
  const unsigned first = window != 0 && context > window ? context - window : 0, per_split = split_keys(context);
  return {first, context, per_split, first / per_split, (context + per_split - 1) / per_split};
}

template <unsigned D, unsigned G>
__device__ __forceinline__ void decode(const bf16 *q, const bf16 *k_cache, const bf16 *v_cache, const unsigned *block_tables,
                                       const unsigned *table_starts, const unsigned *cu_seqlens_q,
                                       const unsigned *context_lens, float *scratch, bf16 *out, unsigned block_size,
                                       unsigned kv_heads, unsigned window, float scale) {
  constexpr unsigned LANES = D / 8, GROUPS_OF_WARP = WARP / LANES, GROUPS = WARPS * GROUPS_OF_WARP;
  DYNAMIC_SHARED(memory);
  auto *sums_of = reinterpret_cast<float *>(memory);  // [WARPS][G][D]
  float *maxima_of = sums_of + WARPS * G * D;         // [WARPS][G]
  float *weights_of = maxima_of + WARPS * G;          // [WARPS][G]

  let_next_begin();
  const unsigned split = blockIdx.x, kv_head = blockIdx.y, sequence = blockIdx.z;
  const unsigned token = cu_seqlens_q[sequence];
  const Span span = span_of(cu_seqlens_q[sequence + 1] - token, context_lens[sequence], window);
  if (split < span.first_split || split >= span.end_split) {  // all of the block alike
    wait_for_previous();
    return;
  }
  const unsigned first = max(span.first, split * span.per_split), end = min(span.end, (split + 1) * span.per_split);

  const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  const unsigned group = warp * GROUPS_OF_WARP + lane / LANES, part = lane % LANES * 8;
  const unsigned *table = block_tables + table_starts[sequence];
  const unsigned heads = kv_heads * G;

  // Each turn a warp takes OF_WARP keys, those of its groups at `from + u * GROUPS`. Where a key lies one lane finds for all,
  // by a division and a look into the table; a turn ahead, so that the rows need not wait for it.
  constexpr unsigned OF_WARP = UNROLL * GROUPS_OF_WARP;
  static_assert(OF_WARP <= WARP, "a lane finds one key at most");
  const unsigned ahead = lane % OF_WARP / GROUPS_OF_WARP * GROUPS + warp * GROUPS_OF_WARP + lane % GROUPS_OF_WARP;
  const auto find = [&](unsigned from) {
    const unsigned at = from + ahead;
    return at < end ? table[at / block_size] * block_size + at % block_size : NO_SLOT;
  };
  unsigned found = find(first);
  wait_for_previous();

  float query[G][8];
#pragma unroll
  for (unsigned g = 0; g < G; ++g) {
    unpack(load8(q + (size_t(token) * heads + kv_head * G + g) * D + part), query[g]);
#pragma unroll
    for (unsigned i = 0; i < 8; ++i) query[g][i] *= scale;
  }

  float sums[G][8] = {}, maximum[G], weight[G] = {};
#pragma unroll
  for (unsigned g = 0; g < G; ++g) maximum[g] = -INFINITY;
  // The same number of turns for all lanes of the warp, so that they meet in the shuffles.
  for (unsigned from = first; from < end; from += UNROLL * GROUPS) {
    Bf16x8 keys[UNROLL], values[UNROLL];
#pragma unroll
    for (unsigned u = 0; u < UNROLL; ++u) {
      const unsigned slot = __shfl_sync(ALL_LANES, found, u * GROUPS_OF_WARP + lane / LANES);
      if (slot != NO_SLOT) {
        const size_t place = (size_t(slot) * kv_heads + kv_head) * D + part;
        keys[u] = load8(k_cache + place);
        values[u] = load8(v_cache + place);
      } else {
        keys[u] = values[u] = {{0, 0, 0, 0}};
      }
    }
    found = find(from + UNROLL * GROUPS);
#pragma unroll
    for (unsigned g = 0; g < G; ++g) {
      float scores[UNROLL], best = maximum[g];
#pragma unroll
      for (unsigned u = 0; u < UNROLL; ++u) {
        float key[8], score = 0.0f;
        unpack(keys[u], key);
#pragma unroll
        for (unsigned i = 0; i < 8; ++i) score += query[g][i] * key[i];
#pragma unroll
        for (unsigned bits = LANES / 2; bits > 0; bits /= 2) score += __shfl_xor_sync(ALL_LANES, score, bits);
        scores[u] = from + u * GROUPS + group < end ? score : -INFINITY;
        best = fmaxf(best, scores[u]);
      }
      // A group without a key so far has no maximum; its sums are zero and stay so.
      const float kept = best == -INFINITY ? 0.0f : power_of_two(maximum[g] - best);
      maximum[g] = best;
      weight[g] *= kept;
#pragma unroll
      for (unsigned i = 0; i < 8; ++i) sums[g][i] *= kept;
#pragma unroll
      for (unsigned u = 0; u < UNROLL; ++u) {
        const float share = scores[u] == -INFINITY ? 0.0f : power_of_two(scores[u] - best);
        float value[8];
        unpack(values[u], value);
        weight[g] += share;
#pragma unroll
        for (unsigned i = 0; i < 8; ++i) sums[g][i] += share * value[i];
      }
    }
  }

  // Groups of a warp, pairwise: both sides compute the same sum.
#pragma unroll
  for (unsigned bits = LANES; bits < WARP; bits *= 2)
#pragma unroll
    for (unsigned g = 0; g < G; ++g) {
      const float its = __shfl_xor_sync(ALL_LANES, maximum[g], bits), best = fmaxf(maximum[g], its);
      const float kept = best == -INFINITY ? 0.0f : power_of_two(maximum[g] - best);
      const float taken = best == -INFINITY ? 0.0f : power_of_two(its - best);
      maximum[g] = best;
      weight[g] = weight[g] * kept + __shfl_xor_sync(ALL_LANES, weight[g], bits) * taken;
#pragma unroll
      for (unsigned i = 0; i < 8; ++i) sums[g][i] = sums[g][i] * kept + __shfl_xor_sync(ALL_LANES, sums[g][i], bits) * taken;
    }
  if (lane < LANES) {
#pragma unroll
    for (unsigned g = 0; g < G; ++g) {
#pragma unroll
      for (unsigned i = 0; i < 8; i += 4)
        store_floats(sums_of + (warp * G + g) * D + part + i, {sums[g][i], sums[g][i + 1], sums[g][i + 2], sums[g][i + 3]});
      if (lane == 0) {
        maxima_of[warp * G + g] = maximum[g];
        weights_of[warp * G + g] = weight[g];
      }
    }
  }
  __syncthreads();

  // Warps, in their order. The first has a key, and so a maximum.
  const bool alone = span.end_split - span.first_split == 1;
  for (unsigned item = threadIdx.x; item < G * D; item += THREADS) {
    const unsigned g = item / D, i = item % D, head = kv_head * G + g;
    float best = -INFINITY, all = 0.0f, sum = 0.0f;
#pragma unroll
    for (unsigned w = 0; w < WARPS; ++w) best = fmaxf(best, maxima_of[w * G + g]);
#pragma unroll
    for (unsigned w = 0; w < WARPS; ++w) {
      const float share = power_of_two(maxima_of[w * G + g] - best);
      all += weights_of[w * G + g] * share;
      sum += sums_of[(w * G + g) * D + i] * share;
    }
    if (alone) {
      out[(size_t(token) * heads + head) * D + i] = to_bf16(sum / all);
    } else {
      float *to = scratch + ((size_t(sequence) * heads + head) * SPLITS + split) * (D + 2);
      to[i] = sum;
      if (i == 0) {
        to[D] = best;
        to[D + 1] = all;
      }
    }
  }
}

// Blocks of a multiprocessor that registers are to be enough for: as many as spill nothing. Each has 16 KiB on its way.
constexpr unsigned blocks_for(unsigned group) { return group > 4 ? 2 : group == 4 ? 3 : group == 2 ? 4 : 6; }

}  // namespace

#define DECODE(D, G)                                                                                                           \
  KERNEL __launch_bounds__(THREADS, blocks_for(G))                                                                             \
  paged_decode_d##D##_g##G(const bf16 *q, const bf16 *k_cache, const bf16 *v_cache, const unsigned *block_tables,              \
                           const unsigned *table_starts, const unsigned *cu_seqlens_q, const unsigned *context_lens,           \
                           float *scratch, bf16 *out, unsigned block_size, unsigned kv_heads, unsigned window, float scale) {  \
    decode<D, G>(q, k_cache, v_cache, block_tables, table_starts, cu_seqlens_q, context_lens, scratch, out, block_size,        \
                 kv_heads, window, scale);                                                                                     \
  }

DECODE(32, 1)
DECODE(32, 2)
DECODE(32, 4)
DECODE(32, 6)
DECODE(32, 8)
DECODE(64, 1)
DECODE(64, 2)
DECODE(64, 4)
DECODE(64, 6)
DECODE(64, 8)
DECODE(128, 1)
DECODE(128, 2)
DECODE(128, 4)
DECODE(128, 6)
DECODE(128, 8)
EMULATED(paged_decode_d32_g1)
EMULATED(paged_decode_d32_g2)
EMULATED(paged_decode_d32_g4)
EMULATED(paged_decode_d32_g6)
EMULATED(paged_decode_d32_g8)
EMULATED(paged_decode_d64_g1)
EMULATED(paged_decode_d64_g2)
EMULATED(paged_decode_d64_g4)
EMULATED(paged_decode_d64_g6)
EMULATED(paged_decode_d64_g8)
EMULATED(paged_decode_d128_g1)
EMULATED(paged_decode_d128_g2)
EMULATED(paged_decode_d128_g4)
EMULATED(paged_decode_d128_g6)
EMULATED(paged_decode_d128_g8)

// combine_splits: puts together what the splits of a sequence left in `scratch`, in their order.
//   scratch, cu_seqlens_q, context_lens, out: as above
// Grid: x = heads, y = sequences; a thread per element of a head. Nothing to do where one split had all the keys.
KERNEL __launch_bounds__(128)
combine_splits(const float *scratch, const unsigned *cu_seqlens_q, const unsigned *context_lens, bf16 *out, unsigned head_dim,
               unsigned window) {
  let_next_begin();
  const unsigned head = blockIdx.x, heads = gridDim.x, sequence = blockIdx.y, i = threadIdx.x;
  const unsigned token = cu_seqlens_q[sequence];
  const Span span = span_of(cu_seqlens_q[sequence + 1] - token, context_lens[sequence], window);
  wait_for_previous();
  if (span.end_split - span.first_split < 2) return;
  const float *from = scratch + (size_t(sequence) * heads + head) * SPLITS * (head_dim + 2);
  float best = -INFINITY, all = 0.0f, sum = 0.0f;
  for (unsigned split = span.first_split; split < span.end_split; ++split)
    best = fmaxf(best, from[split * (head_dim + 2) + head_dim]);
  for (unsigned split = span.first_split; split < span.end_split; ++split) {
    const float *its = from + split * (head_dim + 2);
    const float share = power_of_two(its[head_dim] - best);
    all += its[head_dim + 1] * share;
    sum += its[i] * share;
  }
  out[(size_t(token) * heads + head) * head_dim + i] = to_bf16(sum / all);
}
EMULATED(combine_splits)
