// Kernels whose traffic can be counted by hand.
#include "device.cuh"

// Each lane below `lanes` copies `words` of 32 bits (1, 2 or 4), `stride` words from its neighbour's: from global to shared
// memory, from there to registers, and back to global memory. Lane 31 comes back to the same places once more.
KERNEL probe_traffic(const unsigned *in, unsigned *out, unsigned stride, unsigned words, unsigned lanes) {
  DYNAMIC_SHARED(memory);
  auto *cells = reinterpret_cast<unsigned *>(memory);
  const unsigned at = threadIdx.x * stride;
  if (threadIdx.x >= lanes) return;
  for (unsigned turn = 0; turn < (threadIdx.x == 31 ? 2 : 1); ++turn) {
    if (words == 1) {
      store_word(cells + at, load_word(in + at));
      store_word(out + at, load_word(cells + at));
    } else if (words == 2) {
      store_two(reinterpret_cast<float *>(cells + at), __uint_as_float(load_two_words(in + at).x), 0.0f);
      const uint2 two = load_two_words(cells + at);
      store_two(reinterpret_cast<float *>(out + at), __uint_as_float(two.x), __uint_as_float(two.y));
    } else {
      store16(cells + at, load16(in + at));
      store16(out + at, load16(cells + at));
    }
  }
}
EMULATED(probe_traffic)

// All lanes read one word of shared memory, and one of global memory.
KERNEL probe_one_for_all(const unsigned *in, unsigned *out) {
  __shared__ unsigned cell[1];
  if (threadIdx.x == 0) cell[0] = in[0];
  __syncthreads();
  out[threadIdx.x] = cell[0] + in[1];
}
EMULATED(probe_one_for_all)

// 32 rows of 128 bytes by cp.async, permuted by their number or not, then 16 bytes of each by ldmatrix, and a product.
KERNEL probe_tile_traffic(const bf16 *in, float *out, unsigned permuted) {
  DYNAMIC_SHARED(memory);
  const unsigned lane = threadIdx.x, other = permuted ? 7 : 0;
  for (unsigned item = lane; item < 32 * 8; item += WARP) {
    const unsigned row = item / 8, chunk = item % 8;
    copy_async16(memory + row * 128 + (chunk ^ (row & other)) * 16, in + item * 8, true);
  }
  commit_async();
  wait_async<0>();
  __syncthreads();
  unsigned a[4];
  load_matrix_x4(a, memory + lane * 128 + (3 ^ (lane & other)) * 16);
  float d[4] = {};
  const unsigned b[2] = {a[0], a[1]};
  mma_bf16(d, a, b);
  store_floats(out + lane * 4, {d[0], d[1], d[2], d[3]});
}
EMULATED(probe_tile_traffic)
