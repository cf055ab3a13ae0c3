// The mixture's gate, without a word from the host: which experts see a token, with which weight, and who sits where.
#include "device.cuh"

// route: each token's `top_k` most probable experts, their probabilities scaled to sum to one; of equals the lower index.
//   normed   [num_tokens, hidden]       bf16
//   gate     [num_experts, hidden]      bf16
//   experts  [num_tokens, top_k]        u32, written, by falling probability
//   weights  [num_tokens, top_k]        f32, written
// Grid: one warp per token, blockDim.x / 32 tokens per block. Needs hidden % 8 == 0, num_experts <= 32, top_k <= num_experts.
// Twin: src/ops/linear.rs, then route.rs: sums in another order; where two logits are equal to rounding, either may be first.
// Bound: memory (the gate stays in L2); not measured yet.
KERNEL __launch_bounds__(256)
route(const bf16 *normed, const bf16 *gate, unsigned *experts, float *weights, unsigned num_tokens, unsigned hidden,
      unsigned num_experts, unsigned top_k) {
  const unsigned lane = threadIdx.x % WARP, token = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
  let_next_begin();
  wait_for_previous();
  if (token >= num_tokens) return;  // whole warps
  const bf16 *row = normed + size_t(token) * hidden;

  // Lane e ends with expert e's logit. Eight experts at a time share one reading of the row.
  float logit = -INFINITY;
  for (unsigned first = 0; first < num_experts; first += 8) {
    float sums[8] = {};
    for (unsigned i = 8 * lane; i < hidden; i += 8 * WARP) {
      float x[8], w[8];
      unpack(load8(row + i), x);
#pragma unroll
      for (unsigned e = 0; e < 8; ++e) {
        if (first + e >= num_experts) break;
        unpack(load8(gate + size_t(first + e) * hidden + i), w);
#pragma unroll
        for (int j = 0; j < 8; ++j) sums[e] += x[j] * w[j];
      }
    }
#pragma unroll
    for (unsigned e = 0; e < 8; ++e) {
      const float sum = warp_sum(sums[e]);
      if (lane == first + e && lane < num_experts) logit = sum;
    }
  }

  // The softmax's denominator cancels: the chosen are scaled to sum to one.
  float best = 0.0f, kept = 0.0f, mine = 0.0f;
  unsigned rank = top_k;  // of the expert that this lane stands for
  for (unsigned k = 0; k < top_k; ++k) {
    float value = rank == top_k ? logit : -INFINITY;
    unsigned who = rank == top_k && lane < num_experts ? lane : WARP;
#pragma unroll
    for (int bits = WARP / 2; bits > 0; bits /= 2) {
      const float its = __shfl_xor_sync(ALL_LANES, value, bits);
      const unsigned its_who = __shfl_xor_sync(ALL_LANES, who, bits);
      const bool better = its_who < WARP && (who == WARP || its > value || (its == value && its_who < who));
      if (better) {
        value = its;
        who = its_who;
      }
    }
    if (k == 0) best = value;
    const float weight = __expf(value - best);
    kept += weight;
    if (lane == who) {
      rank = k;
      mine = weight;
    }
  }
  if (rank < top_k) {
    experts[size_t(token) * top_k + rank] = lane;
    weights[size_t(token) * top_k + rank] = mine / kept;
  }
}
EMULATED(route)

// sort_by_expert: the pairs (token, rank), expert by expert, in their order within each: a stable counting sort.
//   experts  [num_pairs]        u32: pair p goes to expert experts[p]
//   order    [num_pairs]        u32, written
//   offsets  [num_experts + 1]  u32, written: expert e has order[offsets[e] .. offsets[e + 1]]
// Grid: one block of whole warps. Each warp has a stretch of pairs. Dynamic shared memory: (warps + 1) * num_experts words.
// Needs num_experts <= 32 and experts below num_experts (route writes no other).
// Twin: src/ops/route.rs, sort_by_expert (exact).  Bound: latency; not measured yet.
KERNEL __launch_bounds__(1024)
sort_by_expert(const unsigned *experts, unsigned *order, unsigned *offsets, unsigned num_pairs, unsigned num_experts) {
  let_next_begin();
  wait_for_previous();
  DYNAMIC_SHARED(memory);
  auto *next = reinterpret_cast<unsigned *>(memory);  // [warps][num_experts]: where this warp's next pair of it goes
  const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
  auto *totals = next + warps * num_experts;
  const unsigned turns = (num_pairs + blockDim.x - 1) / blockDim.x;
  const unsigned from = warp * turns * WARP;

  unsigned count = 0;  // of expert `lane` in this warp's stretch
  for (unsigned turn = 0; turn < turns; ++turn) {
    const unsigned pair = from + turn * WARP + lane;
    const unsigned expert = pair < num_pairs ? experts[pair] : WARP;
    for (unsigned e = 0; e < num_experts; ++e) {
      const unsigned votes = __ballot_sync(ALL_LANES, expert == e);
      if (lane == e) count += __popc(votes);
    }
  }
  if (lane < num_experts) next[warp * num_experts + lane] = count;
  __syncthreads();

  // One thread per expert: what earlier warps have of it, then what earlier experts have in all.
  if (threadIdx.x < num_experts) {
    unsigned sum = 0;
    for (unsigned w = 0; w < warps; ++w) {
      const unsigned its = next[w * num_experts + threadIdx.x];
      next[w * num_experts + threadIdx.x] = sum;
      sum += its;
    }
    totals[threadIdx.x] = sum;
  }
  __syncthreads();
  unsigned start = 0;  // of expert `lane`
  if (lane < num_experts)
    for (unsigned e = 0; e < lane; ++e) start += totals[e];
  if (warp == 0 && lane < num_experts) {
    offsets[lane] = start;
    if (lane == num_experts - 1) offsets[num_experts] = start + totals[lane];
  }
  unsigned place = lane < num_experts ? start + next[warp * num_experts + lane] : 0;

  for (unsigned turn = 0; turn < turns; ++turn) {
    const unsigned pair = from + turn * WARP + lane;
    const unsigned expert = pair < num_pairs ? experts[pair] : WARP;
    for (unsigned e = 0; e < num_experts; ++e) {
      const unsigned votes = __ballot_sync(ALL_LANES, expert == e);
      const unsigned first = __shfl_sync(ALL_LANES, place, e);
      if (expert == e) order[first + __popc(votes & ((1u << lane) - 1))] = pair;
      if (lane == e) place += __popc(votes);
    }
  }
}
EMULATED(sort_by_expert)
