// Products by warpgroups: wgmma, which four warps issue together, which reads shared memory by itself, and which goes on while
// they do something else. Hopper's alone (sm_90a); its sums have the bits of mma.sync's (kernels/emulate/runtime/arithmetic.h).
//
// The order of things (PTX ISA, "Asynchronous Warpgroup Level Matrix Instructions"):
//
//   1. what a thread has copied or written to shared memory, it fences (fence_shared), then all pass a barrier
//   2. warpgroup_fence, then any number of products, then commit_products
//   3. wait_for_products; until then nobody touches the sums, nor what is being read
//
// Matrices in shared memory are rows of 64 bf16, 128 bytes, beside each other, from a multiple of 1,024 bytes on; the chunks of
// 16 bytes of each row are permuted by the row's number: chunk c of row r lies at c ^ (r % 8).
//
// A right matrix may lie there either way. Its rows may be its columns, with 16 elements of k beside each other (K-major), or
// k, with its columns beside each other (MN-major): then a row of 128 bytes holds 64 columns of one k, eight rows are eight of
// k, and the next 64 columns are another such matrix. What the descriptor's two distances mean (PTX ISA, "Strides"; the
// canonical layouts in CUTLASS's mma_traits_sm90_gmma.hpp say the same): the stride is from eight rows to the next eight,
// either way; the leading one from 64 columns to the next 64, and nothing if k lies beside each other.
#pragma once

#include "device.cuh"

constexpr unsigned WARPGROUP = 4 * WARP, SHARED_ROW_BYTES = 128;

// Where 16 bytes of a row lie in such a matrix.
__device__ __forceinline__ unsigned shared_place(unsigned row, unsigned chunk) {
  return row * SHARED_ROW_BYTES + (chunk ^ (row % 8)) * 16;
}

// How an instruction is told of such a matrix: bits 0 to 13 its address, 32 to 45 the distance of groups of eight rows, both by
// 16, and the way of permuting, 128 bytes, at 62. 32 bytes further on are the next 16 elements of each row.
__device__ __forceinline__ std::uint64_t shared_matrix(const void *at) {
#ifdef MIXGATE_EMULATED
  const unsigned address = emulated::shared_address(at);
#else
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(at));
#endif
  return std::uint64_t((address & 0x3ffff) >> 4) | std::uint64_t(1) << 16 | std::uint64_t(8 * SHARED_ROW_BYTES >> 4) << 32 |
         std::uint64_t(1) << 62;
}
__device__ __forceinline__ std::uint64_t next_16(std::uint64_t matrix) { return matrix + (32 >> 4); }

// The same of a right matrix whose rows are k: bits 16 to 29 are the distance of 64 columns, by 16. 16 rows further on, that is
// 16 * SHARED_ROW_BYTES, are the next 16 of k.
__device__ __forceinline__ std::uint64_t shared_matrix_by_rows_of_k(const void *at, unsigned bytes_of_64_columns) {
  return (shared_matrix(at) & ~(std::uint64_t(0x3fff) << 16)) | std::uint64_t(bytes_of_64_columns >> 4) << 16;
}
__device__ __forceinline__ std::uint64_t next_16_rows(std::uint64_t matrix) { return matrix + (16 * SHARED_ROW_BYTES >> 4); }

// What this thread has written to shared memory is seen by the instructions that read it by themselves.
__device__ __forceinline__ void fence_shared() {
#ifdef MIXGATE_EMULATED
  emulated::fence_shared();
#else
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

// What this thread has written to registers, sums and a, is there for the products that follow.
__device__ __forceinline__ void warpgroup_fence() {
#ifdef MIXGATE_EMULATED
  emulated::warpgroup_fence();
#else
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}

// Ends a group of products.
__device__ __forceinline__ void commit_products() {
#ifdef MIXGATE_EMULATED
  emulated::commit_products();
#else
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}

// Waits for all but the last group of products. Sums are not there yet: each product of a later group adds to them.
__device__ __forceinline__ void wait_for_all_but_last() {
#ifdef MIXGATE_EMULATED
  emulated::wait_products(1);
#else
  asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
#endif
}

// The same; the sums of those that have been waited for are named, so that the compiler reads none of them earlier.
template <unsigned N> __device__ __forceinline__ void wait_for_all_but_last(float (&sums)[N][4]) {
  wait_for_all_but_last();
#ifndef MIXGATE_EMULATED
#pragma unroll
  for (unsigned j = 0; j < N; ++j)
#pragma unroll
    for (unsigned i = 0; i < 4; ++i) asm volatile("" : "+f"(sums[j][i])::"memory");
#else
  (void)sums;
#endif
}

// Keeps the work that comes to `result`, which is never negative, before the wait that follows it. ptxas moves a wait ahead of
// all that does not need its sums; it does not move it past an instruction that may sleep, which this would if it ever ran.
__device__ __forceinline__ void finish_before_waiting(float result) {
#ifdef MIXGATE_EMULATED
  (void)result;
#else
  asm volatile(
      "{\n"
      ".reg .pred never;\n"
      "setp.lt.f32 never, %0, 0f00000000;\n"
      "@never nanosleep.u32 0;\n"
      "}\n" ::"f"(result)
      : "memory");
#endif
}

// Waits for all products. Their sums are named, so that the compiler reads none of them earlier.
template <unsigned N> __device__ __forceinline__ void wait_for_products(float (&sums)[N][4]) {
#ifdef MIXGATE_EMULATED
  (void)sums;
  emulated::wait_products(0);
#else
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#pragma unroll
  for (unsigned j = 0; j < N; ++j)
#pragma unroll
    for (unsigned i = 0; i < 4; ++i) asm volatile("" : "+f"(sums[j][i])::"memory");
#endif
}

#define SUMS(j) "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])

// d = a * b, or d += a * b: a is 64x16 in registers, warp w has rows 16 w to 16 w + 15 as mma_bf16 wants them; b is 16 elements
// of k of 128 columns of a shared matrix, whose rows are the columns, or k; d is 64x128 in f32, a warp's rows, tiles of 8
// columns as in mma_bf16.
template <bool FROM_ZERO, bool BY_ROWS_OF_K = false>
__device__ __forceinline__ void warpgroup_product_128(float (&d)[16][4], const unsigned (&a)[4], std::uint64_t b) {
#ifdef MIXGATE_EMULATED
  emulated::warpgroup_product(&d[0][0], 16, a, 0, b, FROM_ZERO, BY_ROWS_OF_K);
#else
  asm volatile(
      "{\n"
      ".reg .pred adds;\n"
      "setp.ne.b32 adds, %69, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, "
      "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, "
      "%42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, "
      "%62, %63"
      "}, {%64, %65, %66, %67}, %68, adds, 1, 1, %70;\n"
      "}\n"
      : SUMS(0), SUMS(1), SUMS(2), SUMS(3), SUMS(4), SUMS(5), SUMS(6), SUMS(7), SUMS(8), SUMS(9), SUMS(10),
        SUMS(11), SUMS(12), SUMS(13), SUMS(14), SUMS(15)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(FROM_ZERO ? 0 : 1), "n"(BY_ROWS_OF_K ? 1 : 0)
      : "memory");
#endif
}

// The same with 64 columns.
template <bool FROM_ZERO, bool BY_ROWS_OF_K = false>
__device__ __forceinline__ void warpgroup_product_64(float (&d)[8][4], const unsigned (&a)[4], std::uint64_t b) {
#ifdef MIXGATE_EMULATED
  emulated::warpgroup_product(&d[0][0], 8, a, 0, b, FROM_ZERO, BY_ROWS_OF_K);
#else
  asm volatile(
      "{\n"
      ".reg .pred adds;\n"
      "setp.ne.b32 adds, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, "
      "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
      "}, {%32, %33, %34, %35}, %36, adds, 1, 1, %38;\n"
      "}\n"
      : SUMS(0), SUMS(1), SUMS(2), SUMS(3), SUMS(4), SUMS(5), SUMS(6), SUMS(7)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(FROM_ZERO ? 0 : 1), "n"(BY_ROWS_OF_K ? 1 : 0)
      : "memory");
#endif
}

// The same with 64 rows of a shared matrix for a, and 256 columns.
template <bool FROM_ZERO>
__device__ __forceinline__ void warpgroup_product_256(float (&d)[32][4], std::uint64_t a, std::uint64_t b) {
#ifdef MIXGATE_EMULATED
  emulated::warpgroup_product(&d[0][0], 32, nullptr, a, b, FROM_ZERO, false);
#else
  asm volatile(
      "{\n"
      ".reg .pred adds;\n"
      "setp.ne.b32 adds, %130, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, "
      "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, "
      "%42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, "
      "%62, %63, %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, "
      "%82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, "
      "%102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118, "
      "%119, %120, %121, %122, %123, %124, %125, %126, %127"
      "}, %128, %129, adds, 1, 1, 0, 0;\n"
      "}\n"
      : SUMS(0), SUMS(1), SUMS(2), SUMS(3), SUMS(4), SUMS(5), SUMS(6), SUMS(7), SUMS(8), SUMS(9), SUMS(10),
        SUMS(11), SUMS(12), SUMS(13), SUMS(14), SUMS(15), SUMS(16), SUMS(17), SUMS(18), SUMS(19), SUMS(20),
        SUMS(21), SUMS(22), SUMS(23), SUMS(24), SUMS(25), SUMS(26), SUMS(27), SUMS(28), SUMS(29), SUMS(30),
        SUMS(31)
      : "l"(a), "l"(b), "n"(FROM_ZERO ? 0 : 1)
      : "memory");
#endif
}

#undef SUMS
