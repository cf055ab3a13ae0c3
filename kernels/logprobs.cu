// What the model itself thought of a chosen token, and which ones it liked best.
#include "sampling.cuh"

// logprobs: log-probabilities of the logits as they are: before bias, penalties, mask, temperature and filters.
//   logits        [num_rows, vocab]  f32
//   rows          [num_rows]         SampleRow; those with logprobs = 0 are passed over, their results not written
//   ids           [num_rows]         u32, below vocab: what `sample` chose
//   chosen        [num_rows]         f32, written: the chosen token's
//   top_ids       [num_rows, width]  u32, written: the `logprobs - 1` likeliest, of equals the lower id first; then NO_TOKEN
//   top_logprobs  [num_rows, width]  f32, written: theirs; then minus infinity
// Tokens of probability 0 are not among the likeliest. A row without any probability has minus infinity everywhere.
// Grid: one block per row, threads for each token up to 1024. Needs width <= 32, vocab < 2^19.
// Twin: src/ops/sample, logprobs (sums weights cut at 2^-44; ids exact).  Bound: latency, some ten passes over a row in L2;
// not measured yet.
KERNEL __launch_bounds__(1024)
logprobs(const float *logits, const SampleRow *rows, const unsigned *ids, float *chosen, unsigned *top_ids, float *top_logprobs,
         unsigned vocab, unsigned width) {
  __shared__ Mass scratch[4 * WARP], likeliest[WARP];
  __shared__ unsigned found;
  let_next_begin();
  wait_for_previous();
  const unsigned asked = load_row(rows, blockIdx.x).logprobs;
  if (asked == 0) return;
  const Row row = {logits + size_t(blockIdx.x) * vocab, vocab, scratch};

  Mass extremes[2] = {}, counted[1] = {};
  row.each([&](unsigned, float, unsigned key) {
    extremes[0] = max(extremes[0], Mass(key));
    extremes[1] = max(extremes[1], Mass(key > NOTHING ? ~key : 0));
    counted[0] += key > NOTHING;
  });
  row.highest(extremes);
  row.sum(counted);
  const unsigned highest = unsigned(extremes[0]), lowest = ~unsigned(extremes[1]), most = unsigned(counted[0]);
  const unsigned top = min(min(asked - 1, width), most);

  const Scale scale(value_of(highest), 1.0f);
  Mass total[1] = {};
  if (most > 0) {
    row.each([&](unsigned, float value, unsigned key) { total[0] += key > NOTHING ? scale.weight(value) : 0; });
    row.sum(total);
  }
  const float log_total = logf(float(total[0]) * (1.0f / float(UNIT)));
  const auto logprob = [&](unsigned id) {
    const float value = row.at(id);
    return key_of(value) > NOTHING ? value - scale.highest - log_total : -INFINITY;
  };
  if (threadIdx.x == 0) {
    chosen[blockIdx.x] = logprob(ids[blockIdx.x]);
    found = 0;
  }

  if (top > 0) {
    Cut cut = {lowest, NO_TOKEN};
    if (top < most) cut = row.narrow<false>(cut, top, scale, most, lowest, highest);
    __syncthreads();
    row.each([&](unsigned id, float, unsigned key) {
      if (cut.keeps(key, id)) likeliest[atomicAdd(&found, 1u)] = Mass(key) << 32 | (NO_TOKEN - id);
    });
    __syncthreads();
  }
  // They came in any order: a token's place is the number of those before it.
  unsigned *const to_ids = top_ids + size_t(blockIdx.x) * width;
  float *const to_logprobs = top_logprobs + size_t(blockIdx.x) * width;
  if (threadIdx.x < top) {
    const Mass own = likeliest[threadIdx.x];
    const unsigned id = NO_TOKEN - unsigned(own);
    unsigned place = 0;
    for (unsigned other = 0; other < top; ++other) place += likeliest[other] > own;
    to_ids[place] = id;
    to_logprobs[place] = logprob(id);
  } else if (threadIdx.x < width) {
    to_ids[threadIdx.x] = NO_TOKEN;
    to_logprobs[threadIdx.x] = -INFINITY;
  }
}
EMULATED(logprobs)
