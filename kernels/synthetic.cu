// synthetic_*: weights that are made up: each follows from its tensor's seed and its place there, as on a CPU.
//   to  written, 16 bytes at a time: [rows, columns] in bf16, or in a packed form (src/ops/quantised/packed.rs)
//   A layer's rows are those of up to three tensors, in turn (`turns` = 2) or one after the other; `second` and `third` say
//   where those begin. bound: f32, weights lie in -bound..bound. scales: of a packed form, two f16.
// Number i of a tensor is (bits / 2^23 - 1) * bound, of 24 bits of splitmix64 (Steele, Lea and Flood 2014) at i. A packed
// form has the code that is nearest to that, with the same scales for each block.
// Grid: in bf16 one block per row; packed, one per 128 columns (q4_k: 256) of 32 rows. Needs columns % 8 == 0 in bf16, else
// whole steps (the Rust caller checks).
// Twin: src/ops/synthetic.rs (exact).  Bound: memory, beside some 25 instructions for a weight (SASS); not measured yet.
#include "device.cuh"

namespace {

using Index = unsigned long long;

// Which tensors the rows of a layer are of.
struct Sources {
  unsigned turns, second, third;
  Index seeds[3];
};

// Where the weights of a row begin.
struct RowOf {
  Index seed, first;
};

__device__ __forceinline__ RowOf row_of(const Sources &from, unsigned row, unsigned columns) {
  if (from.turns == 2) return {row % 2 ? from.seeds[1] : from.seeds[0], Index(row / 2) * columns};
  if (row >= from.third) return {from.seeds[2], Index(row - from.third) * columns};
  if (row >= from.second) return {from.seeds[1], Index(row - from.second) * columns};
  return {from.seeds[0], Index(row) * columns};
}

// 24 random bits for a place.
__device__ __forceinline__ unsigned random_bits(Index seed, Index place) {
  Index z = seed + (place + 1) * 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return unsigned((z ^ (z >> 31)) >> 40);
}

// From -1 to 1: exact.
__device__ __forceinline__ float unit(unsigned bits) { return float(bits) * (1.0f / (1u << 23)) - 1.0f; }

// The sources that a kernel's arguments name.
__device__ __forceinline__ Sources sources(unsigned turns, unsigned second, unsigned third, unsigned low0, unsigned high0,
                                           unsigned low1, unsigned high1, unsigned low2, unsigned high2) {
  return {turns, second, third, {Index(high0) << 32 | low0, Index(high1) << 32 | low1, Index(high2) << 32 | low2}};
}

}  // namespace

KERNEL __launch_bounds__(256) synthetic_bf16(bf16 *to, unsigned columns, unsigned turns, unsigned second, unsigned third,
                                             unsigned low0, unsigned high0, unsigned low1, unsigned high1, unsigned low2,
                                             unsigned high2, float bound) {
  let_next_begin();
  wait_for_previous();
  const Sources from = sources(turns, second, third, low0, high0, low1, high1, low2, high2);
  const RowOf row = row_of(from, blockIdx.x, columns);
  bf16 *out = to + size_t(blockIdx.x) * columns;
  for (unsigned column = 8 * threadIdx.x; column < columns; column += 8 * blockDim.x) {
    float values[8];
#pragma unroll
    for (unsigned i = 0; i < 8; ++i) values[i] = unit(random_bits(row.seed, row.first + column + i)) * bound;
    store8(out + column, pack(values));
  }
}
EMULATED(synthetic_bf16)

namespace {

// The packed forms: of a step, 128 columns of 32 rows, HEAD bytes of scales stand before codes of BITS, of which RUN words of
// a lane are together.
struct W4a16 {
  static constexpr unsigned HEAD = 64, BITS = 4, RUN = 2;
  static __device__ __forceinline__ unsigned code(unsigned bits) { return min((bits + (1u << 19)) >> 20, 15u); }
};

struct Q8_0 {
  static constexpr unsigned HEAD = 256, BITS = 8, RUN = 2;
  // From -127 to 127, rounded half up.
  static __device__ __forceinline__ unsigned code(unsigned bits) {
    return unsigned((127 * (int(bits) - (1 << 23)) + (1 << 22)) >> 23) & 0xff;
  }
};

struct Fp8 {
  static constexpr unsigned HEAD = 64, BITS = 8, RUN = 4;
  // The nearest number of E4M3, ties to even (src/ops/quantised/fp8.rs, encode).
  static __device__ __forceinline__ unsigned code(unsigned bits) {
    const unsigned x = __float_as_uint(unit(bits) * 448.0f), magnitude = x & 0x7fffffff;
    const unsigned normal = ((magnitude + 0x7ffff + (magnitude >> 20 & 1)) >> 20) - ((127 - 7) << 3);
    // In steps of 2^-9: beside 2^23 an f32 has no room for less.
    const unsigned subnormal = __float_as_uint(__uint_as_float(magnitude) * 512.0f + 8388608.0f) & 0xff;
    return (x >> 24 & 0x80) | (magnitude >= (127u - 6) << 23 ? min(normal, 0x7eu) : subnormal);
  }
};

// Each half of its 256 columns has its scales and minima before its codes.
struct Q4K {
  static constexpr unsigned HEAD = 256, BITS = 4, RUN = 1;
  static __device__ __forceinline__ unsigned code(unsigned bits) { return (15 * bits + (1u << 23)) >> 24; }
};

// The row that the two bytes at `at` of 64 are for (packed.rs, scale_at).
__device__ __forceinline__ unsigned row_at(unsigned at) { return at / 16 * 2 + at % 16 / 4 * 8 + at % 4 / 2; }

// Twice `half`, for the rows of this word that there are.
__device__ __forceinline__ unsigned scale_word(unsigned half, unsigned at, unsigned rows) {
  const unsigned row = row_at(at % 64);
  return (row < rows ? half : 0) | (row + 1 < rows ? half << 16 : 0);
}

// The word at byte `at` of a step's codes (packed.rs, word_at). `first`: the strip's first row, `rows`: how many it has.
template <class Form>
__device__ __forceinline__ unsigned code_word(const Sources &from, unsigned at, unsigned first, unsigned rows, unsigned column,
                                              unsigned columns) {
  constexpr unsigned PER_WORD = 32 / Form::BITS, STEP = 128, RUNS = STEP / (4 * PER_WORD) / Form::RUN;
  const unsigned word = at / 4, lane = word / Form::RUN % WARP, run = word / Form::RUN / WARP % RUNS;
  const unsigned tile = word / Form::RUN / WARP / RUNS, row = 8 * tile + lane / 4;
  if (row >= rows) return 0;
  const RowOf its = row_of(from, first + row, columns);
  const unsigned index = run * Form::RUN + word % Form::RUN;
  const Index place = its.first + column + 4 * PER_WORD * index + 2 * (lane % 4);
  unsigned codes = 0;
  if constexpr (Form::BITS == 4) {
#pragma unroll
    for (unsigned eight = 0; eight < 4; ++eight) {
      codes |= Form::code(random_bits(its.seed, place + 8 * eight)) << (4 * eight);
      codes |= Form::code(random_bits(its.seed, place + 8 * eight + 1)) << (4 * eight + 16);
    }
  } else {
    codes = Form::code(random_bits(its.seed, place)) | Form::code(random_bits(its.seed, place + 8)) << 8 |
            Form::code(random_bits(its.seed, place + 1)) << 16 | Form::code(random_bits(its.seed, place + 9)) << 24;
  }
  return codes;
}

// Bytes of a step: what stands before codes, and 4096 of them.
template <class Form> constexpr unsigned STEP_BYTES = Form::HEAD + 4096 * Form::BITS / 8;
// Of 256 columns of a q4_k strip, `d` and `dmin`; then a scale and a minimum of 63 for each group of each row.
constexpr unsigned FACTORS = 2 * 64, LARGEST_PAIR = 63 | 63 << 8;

template <class Form>
__device__ __forceinline__ void fill(unsigned char *to, const Sources &from, unsigned rows, unsigned columns,
                                     unsigned scales) {
  constexpr bool HALVES = Form::HEAD == 256 && Form::BITS == 4;
  constexpr unsigned FRONT = HALVES ? FACTORS : 0, STEP = STEP_BYTES<Form>;
  constexpr unsigned COLUMNS = HALVES ? 256 : 128, BYTES = FRONT + COLUMNS / 128 * STEP;
  static_assert(BYTES % 16 == 0 && FRONT % 16 == 0 && Form::HEAD % 16 == 0, "sixteen bytes are of one kind");
  const unsigned units = columns / COLUMNS, first = blockIdx.x / units * 32, column = blockIdx.x % units * COLUMNS;
  const unsigned its_rows = min(rows - first, 32u);
  for (unsigned at = 16 * threadIdx.x; at < BYTES; at += 16 * blockDim.x) {
    unsigned words[4];
#pragma unroll
    for (unsigned i = 0; i < 4; ++i) {
      const unsigned byte = at + 4 * i;
      if (HALVES && byte < FACTORS) {
        words[i] = scale_word(byte < 64 ? scales & 0xffff : scales >> 16, byte, its_rows);
      } else {
        const unsigned in_step = (byte - FRONT) % STEP, half = (byte - FRONT) / STEP;
        if (in_step < Form::HEAD) {
          words[i] = scale_word(HALVES ? LARGEST_PAIR : scales & 0xffff, in_step, its_rows);
        } else {
          words[i] = code_word<Form>(from, in_step - Form::HEAD, first, its_rows, column + 128 * half, columns);
        }
      }
    }
    store16(to + size_t(blockIdx.x) * BYTES + at, {words[0], words[1], words[2], words[3]});
  }
}

}  // namespace

#define PACKED_FORM(name, Form)                                                                                              \
  KERNEL __launch_bounds__(128) name(unsigned char *to, unsigned rows, unsigned columns, unsigned turns, unsigned second,    \
                                     unsigned third, unsigned low0, unsigned high0, unsigned low1, unsigned high1,           \
                                     unsigned low2, unsigned high2, unsigned scales) {                                       \
    let_next_begin();                                                                                                        \
    wait_for_previous();                                                                                                     \
    fill<Form>(to, sources(turns, second, third, low0, high0, low1, high1, low2, high2), rows, columns, scales);             \
  }

PACKED_FORM(synthetic_w4a16, W4a16)
EMULATED(synthetic_w4a16)
PACKED_FORM(synthetic_q8_0, Q8_0)
EMULATED(synthetic_q8_0)
PACKED_FORM(synthetic_q4_k, Q4K)
EMULATED(synthetic_q4_k)
PACKED_FORM(synthetic_fp8, Fp8)
EMULATED(synthetic_fp8)
