// The mixture's gate, without a word from the host: which experts see a token, with which weight, and who sits where.
#include "device.cuh"

namespace {

// The choice of one token by a warp, of which lane e has expert e's logit, and the rest whatever. Returns the rank of this
// lane's expert, or top_k, and its weight. NaN counts as minus infinity, so that any logits have an order, all lanes see the
// same one, and each rank has an expert.
__device__ __forceinline__ unsigned choose(float logit, unsigned num_experts, unsigned top_k, float &weight) {
  const unsigned lane = threadIdx.x % WARP;
  logit = fmaxf(logit, -INFINITY);
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
    // Of infinities the difference is no number, and equals have the same share.
    const float share = value == best ? 1.0f : __expf(value - best);
    kept += share;
    if (lane == who) {
      rank = k;
      mine = share;
    }
  }
  weight = mine / kept;
  return rank;
}

// sort_by_expert, by all of a block: each warp has a stretch of pairs. `next`: (warps + 1) * num_experts words of shared memory,
// where a warp's next pair of an expert goes, [warps][num_experts], and how many each expert has.
__device__ __forceinline__ void sort_pairs(const unsigned *experts, unsigned *order, unsigned *offsets, unsigned num_pairs,
                                           unsigned num_experts, unsigned *next) {
  const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
  auto *totals = next + warps * num_experts;
  const unsigned turns = (num_pairs + blockDim.x - 1) / blockDim.x;
  const unsigned from = warp * turns * WARP;

  unsigned count = 0;  // of expert `lane` in this warp's stretch
  for (unsigned turn = 0; turn < turns; ++turn) {
    const unsigned pair = from + turn * WARP + lane;
    const unsigned expert = pair < num_pairs ? experts[pair] : NO_EXPERT;
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
    const unsigned expert = pair < num_pairs ? experts[pair] : NO_EXPERT;
    for (unsigned e = 0; e < num_experts; ++e) {
      const unsigned votes = __ballot_sync(ALL_LANES, expert == e);
      const unsigned first = __shfl_sync(ALL_LANES, place, e);
      if (expert == e) order[first + __popc(votes & ((1u << lane) - 1))] = pair;
      if (lane == e) place += __popc(votes);
    }
  }
}

// Logits of up to TOKENS tokens by all warps, each its own expert's: written to logits[token * num_experts + expert]. Each sum is
// in the order of `route`. What is not there is asked for again and multiplied by zero or dropped, so that without branches all
// loads are under way at once.
template <unsigned TOKENS>
__device__ __forceinline__ void logits_of_expert(const bf16 *normed, const bf16 *gate, float *logits, unsigned num_tokens,
                                                 unsigned hidden, unsigned num_experts) {
  constexpr unsigned AHEAD = 8 / TOKENS;
  const unsigned lane = threadIdx.x % WARP, expert = threadIdx.x / WARP;
  float sums[TOKENS] = {};
  for (unsigned from = 8 * lane; from < hidden; from += AHEAD * 8 * WARP) {
    Bf16x8 w[AHEAD], x[AHEAD][TOKENS];
#pragma unroll
    for (unsigned a = 0; a < AHEAD; ++a) {
      const unsigned i = from + a * 8 * WARP;
      w[a] = i < hidden ? load8(gate + size_t(expert) * hidden + i) : Bf16x8{{0, 0, 0, 0}};
#pragma unroll
      for (unsigned token = 0; token < TOKENS; ++token)
        x[a][token] = load8(normed + size_t(min(token, num_tokens - 1)) * hidden + (i < hidden ? i : from));
    }
#pragma unroll
    for (unsigned a = 0; a < AHEAD; ++a) {
      float weights[8], values[8];
      unpack(w[a], weights);
#pragma unroll
      for (unsigned token = 0; token < TOKENS; ++token) {
        unpack(x[a][token], values);
#pragma unroll
        for (int j = 0; j < 8; ++j) sums[token] += values[j] * weights[j];
      }
    }
  }
#pragma unroll
  for (unsigned token = 0; token < TOKENS; ++token) {
    const float sum = warp_sum(sums[token]);
    if (lane == 0 && token < num_tokens) logits[token * num_experts + expert] = sum;
  }
}

constexpr unsigned FEW_TOKENS = 4;

}  // namespace

// route: each token's `top_k` most probable experts, their probabilities scaled to sum to one; of equals the lower index. A
// logit that is NaN counts as minus infinity. A token without a slot goes to no expert, so that weights are read for nobody.
//   normed   [num_tokens, hidden]       bf16
//   gate     [num_experts, hidden]      bf16
//   slots    [num_tokens]               u32, uploaded: NO_SLOT for a token that only fills the batch
//   experts  [num_tokens, top_k]        u32, written, by falling probability; NO_EXPERT for a token without a slot
//   weights  [num_tokens, top_k]        f32, written; of a token without a slot they are not
// Grid: one warp per token, blockDim.x / 32 tokens per block. Needs hidden % 8 == 0, num_experts <= 32, top_k <= num_experts.
// Twin: src/ops/linear.rs, then route.rs: sums in another order; where two logits are equal to rounding, either may be first.
// Bound: memory (the gate stays in L2); not measured yet.
KERNEL __launch_bounds__(256, 2)
route(const bf16 *normed, const bf16 *gate, const unsigned *slots, unsigned *experts, float *weights, unsigned num_tokens,
      unsigned hidden, unsigned num_experts, unsigned top_k) {
  const unsigned lane = threadIdx.x % WARP, token = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
  let_next_begin();
  const bool is_filler = token < num_tokens && slots[token] == NO_SLOT;
  wait_for_previous();
  if (token >= num_tokens) return;  // whole warps
  if (is_filler) {
    if (lane < top_k) experts[size_t(token) * top_k + lane] = NO_EXPERT;
    return;
  }
  const bf16 *row = normed + size_t(token) * hidden;

  // Lane e ends with expert e's logit. Eight experts at a time share one reading of the row; where there are fewer, the last
  // one is read again and dropped, so that all loads are under way at once.
  float logit = -INFINITY;
  for (unsigned first = 0; first < num_experts; first += 8) {
    float sums[8] = {};
    for (unsigned i = 8 * lane; i < hidden; i += 8 * WARP) {
      const Bf16x8 mine = load8(row + i);
      Bf16x8 gates[8];
#pragma unroll
      for (unsigned e = 0; e < 8; ++e) gates[e] = load8(gate + size_t(min(first + e, num_experts - 1)) * hidden + i);
      float x[8], w[8];
      unpack(mine, x);
#pragma unroll
      for (unsigned e = 0; e < 8; ++e) {
        unpack(gates[e], w);
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

  float weight;
  const unsigned rank = choose(logit, num_experts, top_k, weight);
  if (rank < top_k) {
    experts[size_t(token) * top_k + rank] = lane;
    weights[size_t(token) * top_k + rank] = weight;
  }
}
EMULATED(route)

// sort_by_expert: the pairs (token, rank), expert by expert, in their order within each: a stable counting sort.
//   experts  [num_pairs]        u32: pair p goes to expert experts[p], or to none if that is NO_EXPERT
//   order    [num_pairs]        u32, written up to offsets[num_experts]: the pairs that go to one
//   offsets  [num_experts + 1]  u32, written: expert e has order[offsets[e] .. offsets[e + 1]]
// Grid: one block of whole warps. Each warp has a stretch of pairs. Dynamic shared memory: (warps + 1) * num_experts words.
// Needs num_experts <= 32 and experts below num_experts, or NO_EXPERT (route writes no other).
// Twin: src/ops/route.rs, sort_by_expert (exact).  Bound: latency; not measured yet.
KERNEL __launch_bounds__(1024)
sort_by_expert(const unsigned *experts, unsigned *order, unsigned *offsets, unsigned num_pairs, unsigned num_experts) {
  let_next_begin();
  wait_for_previous();
  DYNAMIC_SHARED(memory);
  sort_pairs(experts, order, offsets, num_pairs, num_experts, reinterpret_cast<unsigned *>(memory));
}
EMULATED(sort_by_expert)

// route_few: route and sort_by_expert of at most four tokens to sixteen experts, to the same bits.
//   normed, gate, slots, experts, weights, order, offsets: as above
// Grid: one block, a warp for each expert. Dynamic shared memory: (4 + warps + 1) * num_experts + 4 * top_k words. Needs what
// route needs, num_tokens <= 4, num_experts <= 16.  Twin: as theirs.  Bound: latency; not measured yet.
KERNEL __launch_bounds__(512)
route_few(const bf16 *normed, const bf16 *gate, const unsigned *slots, unsigned *experts, float *weights, unsigned *order,
          unsigned *offsets, unsigned num_tokens, unsigned hidden, unsigned num_experts, unsigned top_k) {
  DYNAMIC_SHARED(memory);
  auto *logits = reinterpret_cast<float *>(memory);                                 // [FEW_TOKENS][num_experts]
  auto *chosen = reinterpret_cast<unsigned *>(logits + FEW_TOKENS * num_experts);  // [FEW_TOKENS][top_k]
  unsigned *next = chosen + FEW_TOKENS * top_k;
  const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
  let_next_begin();
  for (unsigned i = 64 * lane; i < hidden; i += 64 * WARP) prefetch(gate + size_t(warp) * hidden + i);
  wait_for_previous();
  if (num_tokens == 1)
    logits_of_expert<1>(normed, gate, logits, num_tokens, hidden, num_experts);
  else if (num_tokens == 2)
    logits_of_expert<2>(normed, gate, logits, num_tokens, hidden, num_experts);
  else
    logits_of_expert<FEW_TOKENS>(normed, gate, logits, num_tokens, hidden, num_experts);
  __syncthreads();
  for (unsigned token = warp; token < num_tokens; token += warps) {
    if (slots[token] == NO_SLOT) {
      if (lane < top_k) chosen[token * top_k + lane] = experts[token * top_k + lane] = NO_EXPERT;
      continue;
    }
    float weight;
    const float logit = lane < num_experts ? logits[token * num_experts + lane] : -INFINITY;
    const unsigned rank = choose(logit, num_experts, top_k, weight);
    if (rank < top_k) {
      const unsigned pair = token * top_k + rank;
      chosen[pair] = experts[pair] = lane;
      weights[pair] = weight;
    }
  }
  __syncthreads();
  sort_pairs(chosen, order, offsets, num_tokens * top_k, num_experts, next);
}
EMULATED(route_few)
