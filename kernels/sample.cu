// The next token of each row, chosen where the logits are: only ids go back to the host.
#include "sampling.cuh"

// sample: one id per row: bias, penalties, mask, temperature, top-k, top-p, min-p, then a draw in order of id. A row whose
// repetition penalty is 0, which nobody may ask for, only fills the batch: nothing is read or written for it.
//   logits    [num_rows, vocab]  f32, left as they are
//   rows      [num_rows]         SampleRow, 64 bytes each
//   bias      [num_biases, 2]    u32: id and the bits of what is added to it; row r has bias_first .. bias_end
//   masks     [masks, ceil(vocab / 32)]  u32: bit id % 32 of word id / 32 says that the id is allowed
//   counts    [tables, vocab]    u32: occurrences of a token in the output, IN_PROMPT on top; the chosen one is counted
//   adjusted  [num_rows, vocab]  f32, scratch: written for rows with biases, mask or counts
//   ids       [num_rows]         u32, written but for rows that fill the batch
// bias, masks, counts and adjusted are not touched for rows that name none.
// Grid: one block per row, threads for each token up to 1024. Needs vocab < 2^19, and no two rows with the same counts.
// Twin: src/ops/sample (exact).  Bound: latency, passes over a row in L2: one for greedy, two for plain sampling, and for each
// of top-k and top-p one more per turn of its search: 2 to 13 for random rows of ordinary logits, 22 at most; not timed yet.
KERNEL __launch_bounds__(1024)
sample(const float *logits, const SampleRow *rows, const unsigned *bias, const unsigned *masks, unsigned *counts,
       float *adjusted, unsigned *ids, unsigned vocab) {
  __shared__ Mass scratch[4 * WARP];
  let_next_begin();
  wait_for_previous();
  const SampleRow how = load_row(rows, blockIdx.x);
  if (how.repetition == 0.0f) return;  // all of the block alike
  const float *given = logits + size_t(blockIdx.x) * vocab;
  float *mine = adjusted + size_t(blockIdx.x) * vocab;
  unsigned *seen = how.counts == 0 ? nullptr : counts + size_t(how.counts - 1) * vocab;
  const unsigned *mask = how.mask == 0 ? nullptr : masks + size_t(how.mask - 1) * ((vocab + 31) / 32);
  const bool biased = how.bias_first < how.bias_end, changed = biased || seen || mask;
  const Row row = {changed ? mine : given, vocab, scratch};

  if (biased) {
    for (unsigned id = threadIdx.x; id < vocab; id += blockDim.x) mine[id] = given[id];
    __syncthreads();
    // An id's first entry adds all of that id, in their order.
    for (unsigned entry = how.bias_first + threadIdx.x; entry < how.bias_end; entry += blockDim.x) {
      const unsigned id = bias[2 * entry];
      bool first = id < vocab;
      for (unsigned other = how.bias_first; first && other < entry; ++other) first = bias[2 * other] != id;
      for (unsigned other = entry; first && other < how.bias_end; ++other)
        if (bias[2 * other] == id) mine[id] += __uint_as_float(bias[2 * other + 1]);
    }
    __syncthreads();
  }

  // The highest key and the lowest id that has it; the lowest key above minus infinity, as its complement; how many there are.
  Mass extremes[2] = {}, counted[1] = {};
  walk(biased ? mine : given, threadIdx.x, vocab, blockDim.x, [&](unsigned id, float value) {
    const unsigned occurred = seen ? seen[id] : 0, times = occurred & ~IN_PROMPT;
    if (occurred) value = value > 0.0f ? value / how.repetition : product(value, how.repetition);
    if (times) value = value - (product(how.frequency, float(times)) + how.presence);
    if (mask && !(mask[id / 32] >> id % 32 & 1)) value = -INFINITY;
    value = cleaned(value);
    if (changed) mine[id] = value;
    const unsigned key = key_of(value);
    const Mass place = Mass(key) << 32 | (NO_TOKEN - id), low = key > NOTHING ? ~key : 0;
    extremes[0] = max(extremes[0], place);
    extremes[1] = max(extremes[1], low);
    counted[0] += key > NOTHING;
  });
  row.highest(extremes);
  const unsigned highest = unsigned(extremes[0] >> 32), likeliest = NO_TOKEN - unsigned(extremes[0]);
  unsigned chosen = likeliest;

  if (highest <= NOTHING) {
    // Nothing has a probability: the lowest id that is not forbidden, or else 0.
    Mass allowed[1] = {};
    for (unsigned id = threadIdx.x; id < vocab; id += blockDim.x) {
      bool may = !mask || mask[id / 32] >> id % 32 & 1;
      for (unsigned entry = how.bias_first; may && entry < how.bias_end; ++entry)
        may = bias[2 * entry] != id || __uint_as_float(bias[2 * entry + 1]) != -INFINITY;
      if (may) allowed[0] = max(allowed[0], Mass(NO_TOKEN - id));
    }
    row.highest(allowed);
    chosen = allowed[0] ? NO_TOKEN - unsigned(allowed[0]) : 0;
  } else if (how.temperature > 0.0f) {
    row.sum(counted);
    const unsigned lowest = ~unsigned(extremes[1]);
    unsigned kept = unsigned(counted[0]);
    const Scale scale(value_of(highest), how.temperature);
    Cut cut = {lowest, NO_TOKEN};
    if (how.top_k > 0 && how.top_k < kept) {
      cut = row.narrow<false>(cut, how.top_k, scale, kept, lowest, highest);
      kept = how.top_k;
    }
    if (how.top_p < 1.0f) {
      Mass total[1] = {};
      row.each([&](unsigned id, float value, unsigned key) {
        if (cut.keeps(key, id)) total[0] += scale.weight(value);
      });
      row.sum(total);
      // top_p has 24 binary digits: times 2^64 it is a whole number unless it is tiny. What the product with it has below its
      // upper half counts as one more, since all of it must be reached.
      const Mass part = how.top_p > 0.0f ? Mass(product(how.top_p, 18446744073709551616.0f)) : 0;
      const Mass wanted = high_product(part, total[0]) + (part * total[0] != 0);
      cut = row.narrow<true>(cut, max(wanted, Mass(1)), scale, kept, lowest, highest);
    }
    // The likeliest has UNIT, so it stays whatever was asked.
    const Mass least = how.min_p > 0.0f ? Mass(ceilf(product(fminf(how.min_p, 1.0f), float(UNIT)))) : 0;
    const unsigned counter[4] = {how.place, 0, how.stream, 0};
    // 53 bits, as the CPU's sampler draws them.
    const Mass random = philox(counter, how.seed_low, how.seed_high) & ~Mass(0x7ff);
    const auto weight = [&](unsigned id, float value) {
      if (!cut.keeps(key_of(value), id)) return Mass(0);
      const Mass its = scale.weight(value);
      return its >= least ? its : 0;
    };
    chosen = row.find_in_order(weight, [&](Mass total) { return high_product(random, total); });
  }
  if (threadIdx.x == 0) {
    ids[blockIdx.x] = chosen;
    if (seen) ++seen[chosen];
  }
}
EMULATED(sample)

// count_tokens: makes the tables of counts of sequences that were admitted, or moved to other ones.
//   tokens   [num_tokens]      u32: prompt and output, sequence by sequence; ids from vocab on are passed over
//   extents  [num_tables, 3]   u32: where a sequence's tokens start, where its prompt ends, where its output ends
//   which    [num_tables]      u32: rows of counts, each once
//   counts   [tables, vocab]   u32, written in the rows that `which` names
// Grid: one block per table.
// Twin: src/ops/sample, count_tokens (exact).  Bound: memory; not measured yet.
KERNEL __launch_bounds__(1024)
count_tokens(const unsigned *tokens, const unsigned *extents, const unsigned *which, unsigned *counts, unsigned vocab) {
  let_next_begin();
  wait_for_previous();
  const unsigned start = extents[3 * blockIdx.x], prompt_end = extents[3 * blockIdx.x + 1], end = extents[3 * blockIdx.x + 2];
  unsigned *table = counts + size_t(which[blockIdx.x]) * vocab;
  for (unsigned id = threadIdx.x; id < vocab; id += blockDim.x) table[id] = 0;
  __syncthreads();
  for (unsigned at = start + threadIdx.x; at < prompt_end; at += blockDim.x)
    if (tokens[at] < vocab) atomicMax(table + tokens[at], IN_PROMPT);
  __syncthreads();
  for (unsigned at = prompt_end + threadIdx.x; at < end; at += blockDim.x)
    if (tokens[at] < vocab) atomicAdd(table + tokens[at], 1u);
}
EMULATED(count_tokens)
