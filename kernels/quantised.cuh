// What products with quantised weights share, whatever multiplies: the shape of what is copied to shared memory, and the
// copying. w, order, offsets: quantised_gemm.cuh.
#pragma once

#include "expert_rows.cuh"

// Of a step, a row of x takes X_BYTES, in CHUNKS of 16 bytes.
constexpr unsigned STEP = 128, STRIP = 32, X_BYTES = 2 * STEP, CHUNKS = X_BYTES / 16;

enum QuantisedRule { QUANTISED_IN, QUANTISED_OUT };

// So many words at a multiple of their bytes.
template <unsigned WORDS> __device__ __forceinline__ void load_words(const unsigned char *at, unsigned (&words)[WORDS]) {
  static_assert(WORDS == 1 || WORDS == 2 || WORDS == 4, "one access");
  if constexpr (WORDS == 4) {
    const uint4 four = load16(at);
    words[0] = four.x, words[1] = four.y, words[2] = four.z, words[3] = four.w;
  } else if constexpr (WORDS == 2) {
    const uint2 two = load_two_words(at);
    words[0] = two.x, words[1] = two.y;
  } else {
    words[0] = load_word(at);
  }
}

// Scales that are f16, one of each group and column.
template <unsigned TILES>
__device__ __forceinline__ void f16_scales(const unsigned char *strip, unsigned group, unsigned mine,
                                           float (&scales)[TILES][2]) {
  unsigned words[TILES];
  load_words(strip + group * 2 * STRIP + mine, words);
#pragma unroll
  for (unsigned j = 0; j < TILES; ++j) unpack_f16x2(words[j], scales[j]);
}

// Copies BM rows of x and BN columns of w to shared memory, a step of k at a time: a ring of STAGES, first all of x, then
// all of w. Layout says where a chunk of x lies in its stage: place(row, chunk) in bytes, and ROW_BYTES between rows that are a
// multiple of 8 apart. Rows of x that are not there are zeros from the beginning.
template <class Format, class Layout, unsigned BM, unsigned BN, unsigned THREADS, unsigned STAGES, QuantisedRule RULE>
struct Copies {
  static constexpr unsigned STRIPS = BN / STRIP, PIECES = Format::SHARED_BYTES / 16;
  // A thread copies one chunk of every X_ROWS-th row of x.
  static constexpr unsigned X_ROWS = THREADS / CHUNKS, X_TURNS = BM / X_ROWS;
  // And every PIECE_THREADS-th piece of one strip.
  static constexpr unsigned PIECE_THREADS = THREADS / STRIPS, PIECE_TURNS = (PIECES + PIECE_THREADS - 1) / PIECE_THREADS;
  static_assert(Format::CODES_AT + STRIP * STEP * Format::BITS / 8 == Format::SHARED_BYTES, "codes end a strip's step");
  static_assert(X_ROWS % 8 == 0 && BM % X_ROWS == 0, "a thread's chunks lie alike in their rows, swizzled too");

  const unsigned char *x, *w;
  unsigned char *x_slot, *w_slot;
  unsigned x_row, rows, w_piece;
  // Where its chunks begin, and its strip, in chunks of 16 bytes: 64 GiB are within reach.
  unsigned x_places[X_TURNS], w_place;

  // `order` is null if rows are in their own order. `column` is the block's first of `n`.
  __device__ __forceinline__ Copies(unsigned char *memory, const bf16 *x, const unsigned char *w, const unsigned *order,
                                    Rows its, unsigned column, unsigned n, unsigned k, unsigned top_k)
      : x(reinterpret_cast<const unsigned char *>(x)), w(w), x_row(threadIdx.x / CHUNKS), rows(its.count) {
    const unsigned x_chunk = threadIdx.x % CHUNKS;
    x_slot = memory + Layout::place(x_row, x_chunk);
#pragma unroll
    for (unsigned turn = 0; turn < X_TURNS; ++turn) {
      const unsigned row = x_row + turn * X_ROWS, at = its.first + row;
      if (row < rows) {
        x_places[turn] = (RULE == QUANTISED_IN ? order[at] / top_k : at) * (k / 8) + x_chunk;
      } else {
        // Stay zero, so that nothing stray is multiplied. Their sums are dropped.
        for (unsigned stage = 0; stage < STAGES; ++stage)
          store16(x_slot + stage * BM * X_BYTES + turn * X_ROWS * Layout::ROW_BYTES, uint4{0, 0, 0, 0});
      }
    }
    // Beyond the last strip is the last once more: its sums are dropped.
    const unsigned strips = (n + STRIP - 1) / STRIP, strip = threadIdx.x / PIECE_THREADS;
    static_assert(Format::STEP_BYTES % 16 == 0, "a strip is whole chunks");
    w_piece = threadIdx.x % PIECE_THREADS;
    w_slot = memory + STAGES * BM * X_BYTES + strip * Format::SHARED_BYTES + w_piece * 16;
    w_place = (its.expert * strips + min(column / STRIP + strip, strips - 1)) * (k / STEP * (Format::STEP_BYTES / 16));
  }

  __device__ __forceinline__ void ask_x(unsigned stage, unsigned step) const {
    const unsigned char *from = x + step * X_BYTES;
    unsigned char *to = x_slot + stage * BM * X_BYTES;
#pragma unroll
    for (unsigned turn = 0; turn < X_TURNS; ++turn)
      if (x_row + turn * X_ROWS < rows)
        copy_async16(to + turn * X_ROWS * Layout::ROW_BYTES, from + size_t(x_places[turn]) * 16, true);
  }

  __device__ __forceinline__ void ask_w(unsigned stage, unsigned step) const {
    const unsigned char *from = w + size_t(w_place) * 16;
    unsigned char *to = w_slot + stage * STRIPS * Format::SHARED_BYTES;
#pragma unroll
    for (unsigned turn = 0; turn < PIECE_TURNS; ++turn) {
      const unsigned piece = w_piece + turn * PIECE_THREADS;
      if (piece < PIECES) copy_async16(to + turn * PIECE_THREADS * 16, from + Format::piece_at(step, piece), true);
    }
  }
};
