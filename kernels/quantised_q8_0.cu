// Products with q8_0 weights by single warps: what quantised_gemm.cuh does with the codes of quantised_q8_0.cuh.
#include "quantised_q8_0.cuh"

#include "quantised_gemm.cuh"

QUANTISED_KERNELS(q8_0, Q8_0)
EMULATED(experts_in_q8_0_m16n32)
EMULATED(experts_out_q8_0_m16n32)
EMULATED(experts_in_q8_0_m16)
EMULATED(experts_out_q8_0_m16)
EMULATED(experts_in_q8_0_m64)
EMULATED(experts_out_q8_0_m64)
EMULATED(experts_in_q8_0_m128)
EMULATED(experts_out_q8_0_m128)
