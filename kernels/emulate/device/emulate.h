// What a kernel sees instead of CUDA when it is compiled as C++: each CUDA thread is a fiber, and the compiler's
// instrumentation (-fsanitize=thread) shows the runtime every load and store.
//
// Only what the kernels use is here. Names and meaning are CUDA's (CUDA C++ Programming Guide, PTX ISA 8.x).
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

// Not inlined into its caller, which reads the arguments and is not judged.
#define __global__ __attribute__((noinline))
#define NOT_JUDGED __attribute__((no_sanitize("thread")))
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
// One block runs at a time, so shared memory is static; in a section of its own, so that the runtime knows it.
#define __shared__ static __attribute__((section("emulated_shared")))
#define DYNAMIC_SHARED(name) unsigned char *name = emulated::dynamic_shared()

struct alignas(4) uchar4 { unsigned char x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct dim3 { unsigned x = 1, y = 1, z = 1; };

namespace emulated {

dim3 thread_index();
dim3 block_index();
dim3 block_size();
dim3 grid_size();
unsigned char *dynamic_shared();

// Waits for `count` threads (0: all that live) at barrier `id`.
void barrier(unsigned id, unsigned count);
// Waits for all lanes of `mask`, each of which brings `bytes` of `mine`; then `all` is theirs, by lane, `stride` apart.
const unsigned char *meet(unsigned mask, unsigned kind, const void *mine, unsigned bytes);
constexpr unsigned stride = 32;

// Accesses that the compiler cannot instrument.
void touch(const void *at, unsigned bytes, bool write, bool atomic);
uint4 load16(const void *at);
uint2 load8(const void *at);
unsigned load4(const void *at);
void store16(void *at, const uint4 &value);
void store8(void *at, const uint2 &value);
void store4(void *at, unsigned value);
void copy_async(void *to, const void *from, unsigned bytes, unsigned valid);
void commit_async();
void wait_async(unsigned pending);
// Of this thread: the kernel before has ended.
void wait_for_previous();
unsigned lane();

// wgmma: where shared memory begins, an address in it is a number as descriptors want it.
unsigned shared_address(const void *at);
void fence_shared();
void warpgroup_fence();
void commit_products();
void wait_products(unsigned pending);
// Of d, `tiles` tiles of 8 columns. a from registers, or described if `a` is null. The rows of b's matrix are its columns, or k.
void warpgroup_product(float *d, unsigned tiles, const unsigned *a, std::uint64_t a_matrix, std::uint64_t b_matrix,
                       bool from_zero, bool by_rows_of_k);

enum Type { BF16, F16 };
// ldmatrix and mma.sync, by the fragment layouts that the PTX ISA documents.
void load_matrix(unsigned *fragment, unsigned count, bool transposed, const void *row);
void mma_m16n8k16(float *d, const unsigned *a, const unsigned *b, Type type);
void mma_m16n8k32_s8(int *d, const unsigned *a, const unsigned *b);
void mma_m16n8k32_e4m3(float *d, const unsigned *a, const unsigned *b);

enum Kind : unsigned { SHUFFLE = 1, VOTE, SYNC, MATRIX, MMA, WGMMA, MATCH, REDUCE };

template <class T> inline T from_lane(const unsigned char *all, unsigned lane) {
  T value;
  __builtin_memcpy(&value, all + lane * stride, sizeof(T));
  return value;
}

// A kernel in the table: how to call it with the array of argument addresses that cuLaunchKernel takes.
struct Entry {
  const char *name;
  void (*call)(void *const *arguments);
  unsigned count;
};

template <class... A, std::size_t... I>
NOT_JUDGED inline void unpack(void (*kernel)(A...), void *const *arguments, std::index_sequence<I...>) {
  kernel(*static_cast<std::remove_cv_t<A> *>(arguments[I])...);
}

template <auto kernel> struct Call;
template <class... A, void (*kernel)(A...)> struct Call<kernel> {
  NOT_JUDGED static void call(void *const *arguments) { unpack(kernel, arguments, std::index_sequence_for<A...>{}); }
  static constexpr unsigned count = sizeof...(A);
};

}  // namespace emulated

// After each kernel: puts it in the table. Means nothing to nvcc.
#define EMULATED(kernel) \
  extern "C" const emulated::Entry emulated_entry_##kernel; \
  const emulated::Entry emulated_entry_##kernel = {#kernel, &emulated::Call<&kernel>::call, emulated::Call<&kernel>::count};

#define threadIdx (emulated::thread_index())
#define blockIdx (emulated::block_index())
#define blockDim (emulated::block_size())
#define gridDim (emulated::grid_size())

inline void __syncthreads() { emulated::barrier(0, 0); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { emulated::meet(mask, emulated::SYNC, nullptr, 0); }

template <class T> inline T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
  static_assert(sizeof(T) <= emulated::stride, "a lane brings at most one register pair");
  const unsigned char *all = emulated::meet(mask, emulated::SHUFFLE, &value, sizeof(T));
  const unsigned lane = emulated::lane();
  return emulated::from_lane<T>(all, (lane & ~(width - 1)) | (from & (width - 1)));
}
template <class T> inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
  const unsigned char *all = emulated::meet(mask, emulated::SHUFFLE, &value, sizeof(T));
  const unsigned lane = emulated::lane(), from = lane ^ unsigned(bits);
  return (from & ~(width - 1)) == (lane & ~(width - 1)) ? emulated::from_lane<T>(all, from) : value;
}
template <class T> inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const unsigned char *all = emulated::meet(mask, emulated::SHUFFLE, &value, sizeof(T));
  const unsigned lane = emulated::lane();
  return (lane & (width - 1)) >= delta ? emulated::from_lane<T>(all, lane - delta) : value;
}
template <class T> inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const unsigned char *all = emulated::meet(mask, emulated::SHUFFLE, &value, sizeof(T));
  const unsigned lane = emulated::lane();
  return (lane & (width - 1)) + delta < unsigned(width) ? emulated::from_lane<T>(all, lane + delta) : value;
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const unsigned char one = predicate != 0;
  const unsigned char *all = emulated::meet(mask, emulated::VOTE, &one, 1);
  unsigned votes = 0;
  for (unsigned lane = 0; lane < 32; ++lane)
    if (mask >> lane & 1 && emulated::from_lane<unsigned char>(all, lane)) votes |= 1u << lane;
  return votes;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }

// Whose values are the caller's own, by lane. Bits of lanes that are not in the mask are zero.
template <class T> inline unsigned __match_any_sync(unsigned mask, T value) {
  static_assert(sizeof(T) <= emulated::stride, "a lane brings at most one register pair");
  const unsigned char *all = emulated::meet(mask, emulated::MATCH, &value, sizeof(T));
  unsigned equal = 0;
  for (unsigned lane = 0; lane < 32; ++lane)
    if (mask >> lane & 1 && emulated::from_lane<T>(all, lane) == value) equal |= 1u << lane;
  return equal;
}
template <class T> inline unsigned __match_all_sync(unsigned mask, T value, int *all) {
  *all = __match_any_sync(mask, value) == mask;
  return *all ? mask : 0;
}
// One value of all lanes in the mask, for whole numbers.
template <class T, class F> inline T emulated_reduced(unsigned mask, T value, F combine) {
  static_assert(sizeof(T) == 4 && std::is_integral_v<T>, "redux.sync is of 32-bit whole numbers");
  const unsigned char *all = emulated::meet(mask, emulated::REDUCE, &value, sizeof(T));
  bool any = false;
  T result{};
  for (unsigned lane = 0; lane < 32; ++lane) {
    if (!(mask >> lane & 1)) continue;
    const T its = emulated::from_lane<T>(all, lane);
    result = any ? combine(result, its) : its;
    any = true;
  }
  return result;
}
template <class T> inline T __reduce_add_sync(unsigned mask, T value) {
  return emulated_reduced(mask, value, [](T x, T y) { return T(unsigned(x) + unsigned(y)); });
}
template <class T> inline T __reduce_min_sync(unsigned mask, T value) {
  return emulated_reduced(mask, value, [](T x, T y) { return y < x ? y : x; });
}
template <class T> inline T __reduce_max_sync(unsigned mask, T value) {
  return emulated_reduced(mask, value, [](T x, T y) { return x < y ? y : x; });
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned value) {
  return emulated_reduced(mask, value, [](unsigned x, unsigned y) { return x & y; });
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value) {
  return emulated_reduced(mask, value, [](unsigned x, unsigned y) { return x | y; });
}
inline unsigned __reduce_xor_sync(unsigned mask, unsigned value) {
  return emulated_reduced(mask, value, [](unsigned x, unsigned y) { return x ^ y; });
}

// Each gives what was there before.
unsigned atomicAdd(unsigned *at, unsigned value);
int atomicAdd(int *at, int value);
float atomicAdd(float *at, float value);
unsigned long long atomicAdd(unsigned long long *at, unsigned long long value);
unsigned atomicSub(unsigned *at, unsigned value);
unsigned atomicExch(unsigned *at, unsigned value);
float atomicExch(float *at, float value);
unsigned atomicMin(unsigned *at, unsigned value);
int atomicMin(int *at, int value);
unsigned atomicMax(unsigned *at, unsigned value);
int atomicMax(int *at, int value);
unsigned atomicAnd(unsigned *at, unsigned value);
unsigned atomicOr(unsigned *at, unsigned value);
unsigned atomicXor(unsigned *at, unsigned value);
unsigned atomicCAS(unsigned *at, unsigned expected, unsigned value);
unsigned long long atomicCAS(unsigned long long *at, unsigned long long expected, unsigned long long value);

inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
// Four bytes of the eight of x (0 to 3) and y (4 to 7), named by the hexadecimal digits of `selector`, the lowest first.
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const std::uint64_t both = std::uint64_t(y) << 32 | x;
  unsigned result = 0;
  for (unsigned i = 0; i < 4; ++i) result |= unsigned(both >> (8 * (selector >> (4 * i) & 7)) & 0xff) << (8 * i);
  return result;
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
template <class T> inline T min(T a, T b) { return b < a ? b : a; }
template <class T> inline T max(T a, T b) { return a < b ? b : a; }
inline float __uint_as_float(unsigned x) { float y; __builtin_memcpy(&y, &x, 4); return y; }
inline unsigned __float_as_uint(float x) { unsigned y; __builtin_memcpy(&y, &x, 4); return y; }

// bfloat16 and half as their bits; conversions round to nearest even.
struct __nv_bfloat16 { std::uint16_t bits; };
struct __half { std::uint16_t bits; };
inline float __bfloat162float(__nv_bfloat16 x) { return __uint_as_float(unsigned(x.bits) << 16); }
inline __nv_bfloat16 __float2bfloat16(float x) {
  unsigned bits = __float_as_uint(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {0x7fff};  // CUDA's canonical NaN
  return {std::uint16_t((bits + 0x7fffu + (bits >> 16 & 1)) >> 16)};
}
float emulated_half_to_float(std::uint16_t bits);
std::uint16_t emulated_float_to_half(float x);
inline float __half2float(__half x) { return emulated_half_to_float(x.bits); }
inline __half __float2half(float x) { return {emulated_float_to_half(x)}; }

// 8-bit floating point as its bits (OCP E4M3: no infinities, one NaN of either sign). What is too large becomes the largest.
float emulated_e4m3_to_float(std::uint8_t bits);
std::uint8_t emulated_float_to_e4m3(float x);
struct __nv_fp8_e4m3 {
  std::uint8_t __x = 0;
  __nv_fp8_e4m3() = default;
  explicit __nv_fp8_e4m3(float x) : __x(emulated_float_to_e4m3(x)) {}
  explicit operator float() const { return emulated_e4m3_to_float(__x); }
};
