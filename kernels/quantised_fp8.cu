// Products with fp8 weights by single warps: what quantised_gemm.cuh does with the codes of quantised_fp8.cuh.
#include "quantised_fp8.cuh"

#include "quantised_gemm.cuh"

QUANTISED_KERNELS(fp8, Fp8)
EMULATED(experts_in_fp8_m16n32)
EMULATED(experts_out_fp8_m16n32)
EMULATED(experts_in_fp8_m16)
EMULATED(experts_out_fp8_m16)
EMULATED(experts_in_fp8_m64)
EMULATED(experts_out_fp8_m64)
EMULATED(experts_in_fp8_m128)
EMULATED(experts_out_fp8_m128)
