// Tensor cores, ldmatrix, cp.async and dp4a: PTX on a GPU, plain code on the host.
//
// Who holds what of D += A B, by the PTX manual's fragments, with g = lane / 4 and t = lane % 4:
//   D, 16 x 8   d[0], d[1] = D[g][2t, 2t + 1]   d[2], d[3] = D[g + 8][2t, 2t + 1]          (8 x 8: the first two)
//   m16n8k8     a[r] = A[g + 8 (r % 2)][t + 4 (r / 2)]               b[r] = B[t + 4 r][g]                         one TF32 each
//   m16n8k8     a[r] = A[g + 8 r][2t + 0, 1]                         b = B[2t + 0, 1][g]                          two f16 each
//   m16n8k16    a[r] = A[g + 8 (r % 2)][2t + 8 (r / 2) + 0, 1]       b[r] = B[2t + 8 r + 0, 1][g]                 two bf16 or
//   f16 m16n8k32    a[r] = A[g + 8 (r % 2)][4t + 16 (r / 2) + 0 .. 3]    b[r] = B[4t + 16 r + 0 .. 3][g]              four
//   bytes each m8n8k16     a = A[g][4t + 0 .. 3]                                b = B[4t + 0 .. 3][g] four bytes each
// The lower k is in the lower bits. ldmatrix: lane l of matrix m receives the 16-bit elements 2t, 2t + 1 of row g, whose
// address lane 8 m + g gave; transposed, the elements g of rows 2t and 2t + 1.
#pragma once

#include "kernels/cuda.hpp"

#if SHRIKE_CUDA_HOST
#include "kernels/host/mma.hpp"
#else

namespace shrike::cuda {

// What an older architecture lacks traps there; launchers choose by properties().compute_capability.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define SHRIKE_SM80(...) __trap()
#else
#define SHRIKE_SM80(...) asm volatile(__VA_ARGS__)
#endif

#define SHRIKE_MMA_K32(name, a_type)                                                               \
  __device__ __forceinline__ void name(int(&d)[4], const unsigned(&a)[4], const unsigned(&b)[2]) { \
    SHRIKE_SM80("mma.sync.aligned.m16n8k32.row.col.s32." a_type                                    \
                ".s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"          \
                : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])                                   \
                : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));               \
  }
SHRIKE_MMA_K32(mma_m16n8k32_s8s8, "s8")
SHRIKE_MMA_K32(mma_m16n8k32_u8s8, "u8")
#undef SHRIKE_MMA_K32

#define SHRIKE_MMA_K16(name, a_type)                                                                      \
  __device__ __forceinline__ void name(int(&d)[2], unsigned a, unsigned b) {                              \
    asm volatile("mma.sync.aligned.m8n8k16.row.col.s32." a_type ".s8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};" \
                 : "+r"(d[0]), "+r"(d[1])                                                                 \
                 : "r"(a), "r"(b));                                                                       \
  }
SHRIKE_MMA_K16(mma_m8n8k16_s8s8, "s8")
SHRIKE_MMA_K16(mma_m8n8k16_u8s8, "u8")
#undef SHRIKE_MMA_K16

// Operands rounded by to_tf32; what lies below TF32's 10 bits of mantissa is ignored.
__device__ __forceinline__ void mma_m16n8k8_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  SHRIKE_SM80(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ void mma_m16n8k16_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  SHRIKE_SM80(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Products of f16 are exact in the float32 that they are added up in.
__device__ __forceinline__ void mma_m16n8k16_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  SHRIKE_SM80(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ void mma_m16n8k8_f16(float (&d)[4], const unsigned (&a)[2], unsigned b) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(b));
}

// The bits of an f16 and its value; the other way it is rounded to the nearest, ties to even, and saturates at +-65504 like
// saturated_half() of core/dtype.hpp.
__device__ __forceinline__ float half_value(std::uint16_t bits) {
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(bits));
  return result;
}
__device__ __forceinline__ std::uint16_t half_bits(float v) {
  std::uint16_t result;
  const float clamped = v > 65504.0f ? 65504.0f : v < -65504.0f ? -65504.0f : v;  // NaN stays
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result) : "f"(clamped));
  return result;
}

// To the nearest TF32, ties away from zero.
__device__ __forceinline__ unsigned to_tf32(float v) {
  unsigned result = 0;
  SHRIKE_SM80("cvt.rna.tf32.f32 %0, %1;" : "=r"(result) : "f"(v));
  return result;
}

__device__ __forceinline__ unsigned shared_address(const void* shared) {
  return static_cast<unsigned>(__cvta_generic_to_shared(shared));
}

// Every row is 16 bytes of shared memory, aligned to 16; lanes whose row is not used must give a valid address all the same.
__device__ __forceinline__ void ldmatrix_x1(unsigned (&d)[1], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(d[0]) : "r"(shared_address(row)) : "memory");
}
__device__ __forceinline__ void ldmatrix_x2(unsigned (&d)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(d[0]), "=r"(d[1])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x4(unsigned (&d)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_trans(unsigned (&d)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
               : "r"(shared_address(row))
               : "memory");
}

// Copies 16 or 4 bytes, aligned to as many, or fills zeros and reads nothing where not valid. They are there after the wait for
// their group, in this thread; after a barrier too, in others.
__device__ __forceinline__ void cp_async_16(void* shared, const void* global, bool valid = true) {
  SHRIKE_SM80("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(valid ? 16 : 0)
              : "memory");
}
__device__ __forceinline__ void cp_async_4(void* shared, const void* global, bool valid = true) {
  SHRIKE_SM80("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(valid ? 4 : 0)
              : "memory");
}
__device__ __forceinline__ void cp_async_commit() { SHRIKE_SM80("cp.async.commit_group;" ::: "memory"); }
// Until at most N groups, the latest, are under way.
template <int N> __device__ __forceinline__ void cp_async_wait() { SHRIKE_SM80("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

// c plus four products of bytes; exact, for the sum wraps like any int.
__device__ __forceinline__ int dp4a_s8s8(int a, int b, int c) { return __dp4a(a, b, c); }
__device__ __forceinline__ int dp4a_u8s8(unsigned a, int b, int c) {
  int result;
  asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(c));
  return result;
}

#undef SHRIKE_SM80

}  // namespace shrike::cuda
#endif
