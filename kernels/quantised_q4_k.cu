// Products with q4_k weights by single warps: what quantised_gemm.cuh does with the codes of quantised_q4_k.cuh.
#include "quantised_q4_k.cuh"

#include "quantised_gemm.cuh"

QUANTISED_KERNELS(q4_k, Q4K)
EMULATED(experts_in_q4_k_m16n32)
EMULATED(experts_out_q4_k_m16n32)
EMULATED(experts_in_q4_k_m16)
EMULATED(experts_out_q4_k_m16)
EMULATED(experts_in_q4_k_m64)
EMULATED(experts_out_q4_k_m64)
EMULATED(experts_in_q4_k_m128)
EMULATED(experts_out_q4_k_m128)
