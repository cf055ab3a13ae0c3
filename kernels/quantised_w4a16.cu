// Products with w4a16 weights by single warps: what quantised_gemm.cuh does with the codes of quantised_w4a16.cuh.
#include "quantised_w4a16.cuh"

#include "quantised_gemm.cuh"

QUANTISED_KERNELS(w4a16, W4a16)
EMULATED(experts_in_w4a16_m16n32)
EMULATED(experts_out_w4a16_m16n32)
EMULATED(experts_in_w4a16_m16)
EMULATED(experts_out_w4a16_m16)
EMULATED(experts_in_w4a16_m64)
EMULATED(experts_out_w4a16_m64)
EMULATED(experts_in_w4a16_m128)
EMULATED(experts_out_w4a16_m128)
