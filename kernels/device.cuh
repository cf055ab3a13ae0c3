// What all kernels share: types, conversions, and the loads and copies that they are built on. Compiles with nvcc, and as
// C++ for the emulation (kernels/emulate), where each of these is played by its documented meaning.
#pragma once

#ifdef MIXGATE_EMULATED
#include "emulate.h"
#else
#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define EMULATED(kernel)
#define DYNAMIC_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]
#endif

#define KERNEL extern "C" __global__ void

using bf16 = __nv_bfloat16;

constexpr unsigned WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;
// Stands for no slot of the cache: a token that is there to fill a captured batch size.
constexpr unsigned NO_SLOT = 0xffffffffu;
// Stands for no expert: where such a token's pairs go.
constexpr unsigned NO_EXPERT = WARP;

__device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }
__device__ __forceinline__ bf16 to_bf16(float x) { return __float2bfloat16(x); }

// Eight bf16 as one 16-byte access. The address must be a multiple of 16.
struct __align__(16) Bf16x8 {
  uint4 bits;
};

// The two bf16 of a 32-bit word, the lower address first.
__device__ __forceinline__ float low_half(unsigned word) { return __uint_as_float(word << 16); }
__device__ __forceinline__ float high_half(unsigned word) { return __uint_as_float(word & 0xffff0000u); }

__device__ __forceinline__ void unpack(const Bf16x8 &packed, float (&values)[8]) {
  const unsigned words[4] = {packed.bits.x, packed.bits.y, packed.bits.z, packed.bits.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    values[2 * i] = low_half(words[i]);
    values[2 * i + 1] = high_half(words[i]);
  }
}

__device__ __forceinline__ unsigned pack_two(float low, float high) {
#ifdef MIXGATE_EMULATED
  return unsigned(to_bf16(low).bits) | unsigned(to_bf16(high).bits) << 16;
#else
  const __nv_bfloat162 two = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const unsigned *>(&two);
#endif
}

// The two f16 of a 32-bit word as f32, the lower address first.
__device__ __forceinline__ void unpack_f16x2(unsigned word, float (&values)[2]) {
#ifdef MIXGATE_EMULATED
  values[0] = emulated_half_to_float(std::uint16_t(word));
  values[1] = emulated_half_to_float(std::uint16_t(word >> 16));
#else
  values[0] = __half2float(__ushort_as_half(static_cast<unsigned short>(word)));
  values[1] = __half2float(__ushort_as_half(static_cast<unsigned short>(word >> 16)));
#endif
}

// (word & mask) | bits in one instruction: with two constants, nvcc makes two of it.
__device__ __forceinline__ unsigned and_or(unsigned word, unsigned mask, unsigned bits) {
#ifdef MIXGATE_EMULATED
  return (word & mask) | bits;
#else
  unsigned d;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(d) : "r"(word), "r"(mask), "r"(bits));
  return d;
#endif
}

// a * b + c on pairs of bf16, rounded once; subnormal numbers count. (The emulation rounds twice: for exact results alone.)
__device__ __forceinline__ unsigned fma_bf16x2(unsigned a, unsigned b, unsigned c) {
#ifdef MIXGATE_EMULATED
  return pack_two(fmaf(low_half(a), low_half(b), low_half(c)), fmaf(high_half(a), high_half(b), high_half(c)));
#else
  unsigned d;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
#endif
}

__device__ __forceinline__ Bf16x8 pack(const float (&values)[8]) {
  return {{pack_two(values[0], values[1]), pack_two(values[2], values[3]), pack_two(values[4], values[5]),
           pack_two(values[6], values[7])}};
}

// 16 bytes in one access: the address must be a multiple of 16.
__device__ __forceinline__ uint4 load16(const void *at) {
#ifdef MIXGATE_EMULATED
  return emulated::load16(at);
#else
  return *static_cast<const uint4 *>(at);
#endif
}
__device__ __forceinline__ void store16(void *at, const uint4 &value) {
#ifdef MIXGATE_EMULATED
  emulated::store16(at, value);
#else
  *static_cast<uint4 *>(at) = value;
#endif
}
// Four f32 at a multiple of 16 bytes, four bf16 at a multiple of 8.
__device__ __forceinline__ float4 load_floats(const float *at) {
  const uint4 bits = load16(at);
  return {__uint_as_float(bits.x), __uint_as_float(bits.y), __uint_as_float(bits.z), __uint_as_float(bits.w)};
}
__device__ __forceinline__ void store_floats(float *at, const float4 &x) {
  store16(at, {__float_as_uint(x.x), __float_as_uint(x.y), __float_as_uint(x.z), __float_as_uint(x.w)});
}
__device__ __forceinline__ void store_bf16x4(bf16 *at, float a, float b, float c, float d) {
#ifdef MIXGATE_EMULATED
  emulated::store8(at, {pack_two(a, b), pack_two(c, d)});
#else
  *reinterpret_cast<uint2 *>(at) = {pack_two(a, b), pack_two(c, d)};
#endif
}
// Four bytes at a multiple of 4, eight at a multiple of 8.
__device__ __forceinline__ unsigned load_word(const void *at) {
#ifdef MIXGATE_EMULATED
  return emulated::load4(at);
#else
  return *static_cast<const unsigned *>(at);
#endif
}
__device__ __forceinline__ uint2 load_two_words(const void *at) {
#ifdef MIXGATE_EMULATED
  return emulated::load8(at);
#else
  return *static_cast<const uint2 *>(at);
#endif
}
__device__ __forceinline__ void store_two_words(void *at, const uint2 &words) {
#ifdef MIXGATE_EMULATED
  emulated::store8(at, words);
#else
  *static_cast<uint2 *>(at) = words;
#endif
}
__device__ __forceinline__ void store_word(void *at, unsigned word) {
#ifdef MIXGATE_EMULATED
  emulated::store4(at, word);
#else
  *static_cast<unsigned *>(at) = word;
#endif
}
__device__ __forceinline__ void store_two(float *at, float a, float b) {
#ifdef MIXGATE_EMULATED
  emulated::store8(at, {__float_as_uint(a), __float_as_uint(b)});
#else
  *reinterpret_cast<float2 *>(at) = {a, b};
#endif
}
__device__ __forceinline__ Bf16x8 load8(const bf16 *at) { return {load16(at)}; }
__device__ __forceinline__ void store8(bf16 *at, const Bf16x8 &packed) { store16(at, packed.bits); }

// The sum over all lanes, the same bits in each: a butterfly adds in the same order everywhere.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int bits = WARP / 2; bits > 0; bits /= 2) x += __shfl_xor_sync(ALL_LANES, x, bits);
  return x;
}

// 2 to the power of x, to some 2^-22 of it. Where the result would be denormal it is zero, which costs no extra instructions.
__device__ __forceinline__ float power_of_two(float x) {
#ifdef MIXGATE_EMULATED
  return x < -126.0f ? 0.0f : exp2f(x);
#else
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}

// The sum over all threads of a block of `blockDim.x` = a multiple of 32, at most 1024. `scratch`: 32 floats of shared
// memory, free for others only after the next barrier.
__device__ __forceinline__ float block_sum(float x, float *scratch) {
  const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
  x = warp_sum(x);
  if (lane == 0) scratch[warp] = x;
  __syncthreads();
  return warp_sum(lane < warps ? scratch[lane] : 0.0f);
}

// 16 bytes from global to shared memory, asynchronously; zeroes if `valid` is false. Both addresses are multiples of 16.
__device__ __forceinline__ void copy_async16(void *shared, const void *global, bool valid) {
#ifdef MIXGATE_EMULATED
  emulated::copy_async(shared, global, 16, valid ? 16 : 0);
#else
  const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(valid ? 16 : 0) : "memory");
#endif
}

__device__ __forceinline__ void commit_async() {
#ifdef MIXGATE_EMULATED
  emulated::commit_async();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits for all but the last `pending` groups of this thread's copies. Others see them after the next barrier.
template <int pending> __device__ __forceinline__ void wait_async() {
#ifdef MIXGATE_EMULATED
  emulated::wait_async(pending);
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
#endif
}

// Waits at a named barrier (1 to 15) for `threads` threads, a multiple of 32.
__device__ __forceinline__ void named_barrier(unsigned id, unsigned threads) {
#ifdef MIXGATE_EMULATED
  emulated::barrier(id, threads);
#else
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
#endif
}

// Asks for the 128 bytes around an address, so that they are in L2 when they are loaded.
__device__ __forceinline__ void prefetch(const void *at) {
#ifdef MIXGATE_EMULATED
  emulated::touch(at, 1, false, false);
#else
  asm volatile("prefetch.global.L2 [%0];" ::"l"(at));
#endif
}

// Programmatic dependent launch, from sm_90 on: the blocks of a kernel may come up while the kernel before it on the stream
// still runs. (On sm_80 both of these are nothing, and kernels run one after the other.)
//
// Until it calls wait_for_previous(), a thread works out addresses, writes shared memory, and reads what no kernel writes:
// weights, and what was uploaded. Each thread calls it, on every path: before it reads what a kernel has written, before it
// writes any global memory, and before it ends. Then the kernel before has ended and what it wrote is there; and since that
// one has waited likewise, so has every kernel before it. The emulation holds kernels to this.
__device__ __forceinline__ void wait_for_previous() {
#ifdef MIXGATE_EMULATED
  emulated::wait_for_previous();
#elif __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Lets the next kernel's blocks come up, once all blocks of this one have called it or have ended. Of memory it says nothing.
// It comes first in every kernel: blocks that have not come up themselves lose no room to those that follow.
__device__ __forceinline__ void let_next_begin() {
#if !defined(MIXGATE_EMULATED) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// Four 8x8 matrices of 16-bit elements from shared memory into mma fragments (PTX ISA, ldmatrix). Lane i names row i % 8
// of matrix i / 8: 16 bytes at a multiple of 16.
__device__ __forceinline__ void load_matrix_x4(unsigned (&fragment)[4], const void *row) {
#ifdef MIXGATE_EMULATED
  emulated::load_matrix(fragment, 4, false, row);
#else
  const unsigned from = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
               : "r"(from)
               : "memory");
#endif
}

// The same, each matrix transposed.
__device__ __forceinline__ void load_matrix_x4_transposed(unsigned (&fragment)[4], const void *row) {
#ifdef MIXGATE_EMULATED
  emulated::load_matrix(fragment, 4, true, row);
#else
  const unsigned from = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
               : "r"(from)
               : "memory");
#endif
}

// d += a * b on tensor cores: a is 16x16, b 16x8, both bf16; d is 16x8 in f32 (PTX ISA, mma.m16n8k16).
__device__ __forceinline__ void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#ifdef MIXGATE_EMULATED
  emulated::mma_m16n8k16(d, a, b, emulated::BF16);
#else
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// d = a * b: the same, from zero.
__device__ __forceinline__ void mma_bf16_from_zero(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#ifdef MIXGATE_EMULATED
  for (float &element : d) element = 0.0f;
  emulated::mma_m16n8k16(d, a, b, emulated::BF16);
#else
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %10, %10, %10};"
               : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(0.0f));
#endif
}

// mma_bf16 on f16.
__device__ __forceinline__ void mma_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#ifdef MIXGATE_EMULATED
  emulated::mma_m16n8k16(d, a, b, emulated::F16);
#else
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// d += a * b: a is 16x32, b 32x8, both signed bytes; d is 16x8 in 32-bit integers (PTX ISA, mma.m16n8k32).
__device__ __forceinline__ void mma_s8(int (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#ifdef MIXGATE_EMULATED
  emulated::mma_m16n8k32_s8(d, a, b);
#else
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// d += a * b: a is 16x32, b 32x8, both E4M3; d is 16x8 in f32 (PTX ISA, mma.m16n8k32). Hardware has it from sm_89 on.
#if defined(MIXGATE_EMULATED) || __CUDA_ARCH__ >= 890
__device__ __forceinline__ void mma_e4m3(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#ifdef MIXGATE_EMULATED
  emulated::mma_m16n8k32_e4m3(d, a, b);
#else
  asm volatile("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}
#endif
