// What the sampling kernels share: a row's parameters, weights as whole numbers, and searches of a row by a whole block.
//
// A token's weight is its probability relative to the likeliest, in units of 2^-44 and cut to whole ones. Sums of whole numbers
// are exact in any order: results depend neither on the number of threads nor on what shares the launch, and the twin on the
// CPU (src/ops/sample) finds the same bits. What is cut moves less than vocab * 2^-44 of the probability.
#pragma once
#include "device.cuh"

using Mass = unsigned long long;

// One row's parameters, as src/ops/sample writes them. See there for their meaning. A repetition penalty of zero, and so a row
// of zeros, stands for nobody: it fills up a captured batch.
struct SampleRow {
  float temperature, top_p, min_p, repetition, frequency, presence;
  unsigned top_k;  // 0 keeps all
  unsigned seed_low, seed_high, stream, place;
  unsigned counts, mask;          // one more than the row of that table; 0: none
  unsigned bias_first, bias_end;  // of the row's biases
  unsigned logprobs;              // one more than the likeliest that are asked for; 0: none, not even the chosen one's
};
static_assert(sizeof(SampleRow) == 64, "the Rust side writes 16 words");

constexpr unsigned NO_TOKEN = 0xffffffffu;
// In a table of counts: the bit of a token that the prompt has. The rest counts its occurrences in the output.
constexpr unsigned IN_PROMPT = 0x80000000u;

constexpr int UNIT_BITS = 44;
constexpr Mass UNIT = Mass(1) << UNIT_BITS;
constexpr float LARGEST = 3.402823466e38f;
// The key of minus infinity, below which there is none.
constexpr unsigned NOTHING = 0x007fffffu;

__device__ __forceinline__ SampleRow load_row(const SampleRow *rows, unsigned index) {
  const float *words = reinterpret_cast<const float *>(rows + index);
  const float4 a = load_floats(words), b = load_floats(words + 4);
  const uint4 c = load16(words + 8), d = load16(words + 12);
  return {a.x, a.y, a.z, a.w, b.x, b.y, __float_as_uint(b.z), __float_as_uint(b.w), c.x, c.y, c.z, c.w, d.x, d.y, d.z, d.w};
}

// A product that nvcc does not fuse with the sum after it: the twin rounds twice, too.
__device__ __forceinline__ float product(float a, float b) {
#ifdef MIXGATE_EMULATED
  return a * b;
#else
  return __fmul_rn(a, b);
#endif
}

// The upper 64 bits of the product.
__device__ __forceinline__ Mass high_product(Mass a, Mass b) {
#ifdef MIXGATE_EMULATED
  return Mass(static_cast<unsigned __int128>(a) * b >> 64);
#else
  return __umul64hi(a, b);
#endif
}

// A logit as the sampler sees it: NaN is minus infinity, infinity the largest number, and zero has one sign.
__device__ __forceinline__ float cleaned(float x) { return fminf(fmaxf(x, -INFINITY), LARGEST) + 0.0f; }

// Whole numbers in the order of cleaned logits, and back.
__device__ __forceinline__ unsigned key_of(float x) {
  const unsigned bits = __float_as_uint(x);
  return bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
}
__device__ __forceinline__ float value_of(unsigned key) {
  return __uint_as_float(key ^ (key >> 31 ? 0x80000000u : 0xffffffffu));
}

// How a row's logits become weights: relative to the highest, at a temperature.
struct Scale {
  float highest, factor;

  __device__ Scale(float highest, float temperature)
      : highest(highest), factor(fminf(float(1.4426950408889634 / double(temperature)), LARGEST)) {}

  // 2^44 * 2^((x - highest) * factor), cut to a whole number. Each step rounds as IEEE 754 says, fused where it says fmaf. The
  // power of two: a whole part, and Taylor's series over -1/2 .. 1/2, whose remainder is below 2^-27.
  __device__ __forceinline__ Mass weight(float x) const {
    const float y = fmaxf(product(x - highest, factor), -64.0f);
    const float rounded = y + 12582912.0f;  // 1.5 * 2^23: the last digit stands for one
    const int whole = int(__float_as_uint(rounded) - 0x4b400000u);
    const float rest = y - (rounded - 12582912.0f);
    float power = 1.52527338e-5f;
    power = fmaf(power, rest, 1.54035304e-4f);
    power = fmaf(power, rest, 1.33335581e-3f);
    power = fmaf(power, rest, 9.61812911e-3f);
    power = fmaf(power, rest, 5.55041087e-2f);
    power = fmaf(power, rest, 2.40226507e-1f);
    power = fmaf(power, rest, 6.93147181e-1f);
    power = fmaf(power, rest, 1.0f);
    const unsigned bits = __float_as_uint(power), digits = (bits & 0x7fffffu) | 0x800000u;
    const int shift = int(bits >> 23) - 127 + whole + UNIT_BITS - 23;
    return shift >= 0 ? Mass(digits) << shift : digits >> min(-shift, 31);
  }
};

// Calls `look` with each id from `first` below `end` by `step`, and the value there. Reads some ahead: a row comes from L2, and
// one value at a time would leave most of its bandwidth idle.
template <class Look>
__device__ __forceinline__ void walk(const float *values, unsigned first, unsigned end, unsigned step, Look look) {
  constexpr unsigned AHEAD = 4;
  for (unsigned id = first; id < end; id += AHEAD * step) {
    float ahead[AHEAD];
#pragma unroll
    for (unsigned j = 0; j < AHEAD; ++j) ahead[j] = id + j * step < end ? values[id + j * step] : 0.0f;
#pragma unroll
    for (unsigned j = 0; j < AHEAD; ++j)
      if (id + j * step < end) look(id + j * step, ahead[j]);
  }
}

// The tokens that are kept: those with a higher key, and of those with the same the ones up to `last`.
struct Cut {
  unsigned key, last;

  __device__ __forceinline__ bool keeps(unsigned its, unsigned id) const { return its > key || (its == key && id <= last); }
};

// One row of cleaned logits. The methods are for the whole block, 32 to 1024 threads in whole warps; more than 32 where the row
// has more tokens. `scratch`: [4][32] in shared memory.
struct Row {
  const float *values;
  unsigned vocab;
  Mass *scratch;

  __device__ __forceinline__ float at(unsigned id) const { return cleaned(values[id]); }

  // Combines what the threads bring, the same in each. `combine` minds neither the order nor zeroes.
  template <unsigned COUNT, class Combine>
  __device__ __forceinline__ void reduce(Mass (&values)[COUNT], Combine combine) const {
    const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    const auto across = [&](Mass x) {
#pragma unroll
      for (unsigned bits = WARP / 2; bits > 0; bits /= 2) x = combine(x, __shfl_xor_sync(ALL_LANES, x, bits));
      return x;
    };
#pragma unroll
    for (unsigned i = 0; i < COUNT; ++i) values[i] = across(values[i]);
    __syncthreads();  // the scratch may still be read
    if (lane == 0)
#pragma unroll
      for (unsigned i = 0; i < COUNT; ++i) scratch[i * WARP + warp] = values[i];
    __syncthreads();
#pragma unroll
    for (unsigned i = 0; i < COUNT; ++i) values[i] = across(lane < warps ? scratch[i * WARP + lane] : 0);
  }

  template <unsigned COUNT> __device__ __forceinline__ void sum(Mass (&values)[COUNT]) const {
    reduce(values, [](Mass a, Mass b) { return a + b; });
  }

  template <unsigned COUNT> __device__ __forceinline__ void highest(Mass (&values)[COUNT]) const {
    reduce(values, [](Mass a, Mass b) { return a > b ? a : b; });
  }

  // Calls `look` with each id, its logit and its key, by one thread each.
  template <class Look> __device__ __forceinline__ void each(Look look) const {
    walk(values, threadIdx.x, vocab, blockDim.x, [&](unsigned id, float given) {
      const float value = cleaned(given);
      look(id, value, key_of(value));
    });
  }

  // The first id with which the sum of `measure(id, its logit)` over all ids up to it exceeds `target(the whole sum)`, which
  // it must.
  //
  // The warps share out the row, and one of them has the answer; then they share out its part, until that is a warp's width.
  template <class Measure, class Target>
  __device__ __forceinline__ unsigned find_in_order(Measure measure, Target target) const {
    const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    const auto up_to_here = [&](Mass x) {
#pragma unroll
      for (unsigned delta = 1; delta < WARP; delta *= 2) {
        const Mass its = __shfl_up_sync(ALL_LANES, x, delta);
        if (lane >= delta) x += its;
      }
      return x;
    };
    unsigned first = 0, end = vocab, part;
    Mass before = 0, wanted = 0;
    do {
      part = ((end - first + warps - 1) / warps + WARP - 1) / WARP * WARP;
      const unsigned from = first + warp * part, to = min(from + part, end);
      Mass mine = 0;
      walk(values, from + lane, to, WARP, [&](unsigned id, float given) { mine += measure(id, cleaned(given)); });
#pragma unroll
      for (unsigned bits = WARP / 2; bits > 0; bits /= 2) mine += __shfl_xor_sync(ALL_LANES, mine, bits);
      __syncthreads();
      if (lane == 0) scratch[warp] = mine;
      __syncthreads();
      const Mass its = lane < warps ? scratch[lane] : 0, sum = up_to_here(its);
      if (end - first == vocab) wanted = target(__shfl_sync(ALL_LANES, sum, WARP - 1));
      const unsigned owner = __ffs(int(__ballot_sync(ALL_LANES, before + sum > wanted))) - 1;
      before += __shfl_sync(ALL_LANES, sum - its, owner);
      first += owner * part;
      end = min(first + part, end);
    } while (part > WARP);
    const Mass sum = before + up_to_here(first + lane < end ? measure(first + lane, at(first + lane)) : 0);
    return first + __ffs(int(__ballot_sync(ALL_LANES, sum > wanted))) - 1;
  }

  // The fewest likeliest of the `kept` tokens of `cut` that are `wanted` many, or whose weights reach `wanted`: at least one,
  // and no more than there are. All of them have keys in `lowest ..= highest`. `scale` is for weights.
  //
  // A search for the highest key with which the tokens from it on suffice, by three pivots at a time. They are apart by value
  // at first, since that is how logits lie, then by key, which ends 16 turns later at the latest. Most searches end earlier:
  // where one token is left between the bounds.
  //
  //   | enough: low | pivots ... | too few: high | above: counted, weighed |
  template <bool BY_MASS>
  __device__ __forceinline__ Cut narrow(Cut cut, Mass wanted, Scale scale, unsigned kept, unsigned lowest,
                                        unsigned highest) const {
    constexpr unsigned PIVOTS = 3, COUNT_BITS = 21, TURNS_BY_VALUE = 6;
    unsigned low = max(cut.key, lowest), high = highest + 1, count_low = kept, count_high = 0;
    Mass mass_high = 0;
    for (unsigned turn = 0; high - low > 1 && count_low - count_high > 1 && (BY_MASS || count_low > wanted); ++turn) {
      unsigned pivots[PIVOTS];
#pragma unroll
      for (unsigned j = 0; j < PIVOTS; ++j) {
        const float part = (j + 1) * 0.25f;
        const unsigned by_value = key_of(value_of(low) * (1 - part) + value_of(high - 1) * part + 0.0f);
        const unsigned by_key = low + unsigned(Mass(high - low) * (j + 1) / 4);
        pivots[j] = min(max(turn < TURNS_BY_VALUE ? by_value : by_key, j > 0 ? pivots[j - 1] : low + 1), high - 1);
      }
      // Sums of weights, and the counts in one word: they are below 2^21.
      Mass sums[BY_MASS ? PIVOTS + 1 : 1] = {};
      each([&](unsigned id, float value, unsigned key) {
        if (key < pivots[0] || !cut.keeps(key, id)) return;
        const Mass weight = BY_MASS ? scale.weight(value) : 0;
#pragma unroll
        for (unsigned j = 0; j < PIVOTS; ++j) {
          if (key < pivots[j]) continue;
          sums[0] += Mass(1) << j * COUNT_BITS;
          if (BY_MASS) sums[BY_MASS ? j + 1 : 0] += weight;
        }
      });
      sum(sums);
#pragma unroll
      for (unsigned j = 0; j < PIVOTS; ++j) {
        const unsigned count = unsigned(sums[0] >> j * COUNT_BITS) & ((1u << COUNT_BITS) - 1);
        const bool enough = (BY_MASS ? sums[BY_MASS ? j + 1 : 0] : count) >= wanted;
        if (enough && pivots[j] > low) {
          low = pivots[j];
          count_low = count;
        }
        if (!enough && pivots[j] < high) {
          high = pivots[j];
          count_high = count;
          mass_high = sums[BY_MASS ? j + 1 : 0];
        }
      }
    }
    const Cut from_low = {low, low == cut.key ? cut.last : NO_TOKEN};
    const unsigned equals = count_low - count_high;
    if (equals <= 1 || high - low > 1) return from_low;
    // Equals, of which the lowest ids suffice.
    const Mass each_has = BY_MASS ? scale.weight(value_of(low)) : 1, missing = wanted - (BY_MASS ? mass_high : count_high);
    const Mass needed = (missing + each_has - 1) / each_has;
    if (needed >= equals) return from_low;
    const auto equal = [&](unsigned id, float value) { return Mass(key_of(value) == low && id <= from_low.last); };
    const unsigned last = find_in_order(equal, [&](Mass) { return needed - 1; });
    return {low, last};
  }
};

// Ten rounds of Philox on four words: the first two of them, the second above the first (Salmon, Moraes, Dror, Shaw, "Parallel
// random numbers: as easy as 1, 2, 3", SC 2011).
__device__ __forceinline__ Mass philox(const unsigned (&counter)[4], unsigned key_low, unsigned key_high) {
  unsigned a = counter[0], b = counter[1], c = counter[2], d = counter[3];
#pragma unroll
  for (unsigned round = 0; round < 10; ++round) {
    const Mass left = Mass(0xd2511f53u) * a, right = Mass(0xcd9e8d57u) * c;
    a = unsigned(right >> 32) ^ b ^ key_low;
    b = unsigned(right);
    c = unsigned(left >> 32) ^ d ^ key_high;
    d = unsigned(left);
    key_low += 0x9e3779b9u;
    key_high += 0xbb67ae85u;
  }
  return Mass(b) << 32 | a;
}
