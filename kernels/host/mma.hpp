// The wrappers of kernels/mma.hpp, in software.
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/host/runtime.hpp"
#include "shrike/core/dtype.hpp"

namespace shrike::cuda {

namespace host {
// The last lane to come computes for all; of all lanes of the warp.
void mma_k32(int (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], bool a_signed, const Site& at);
void mma_k16(int (&d)[2], unsigned a, unsigned b, bool a_signed, const Site& at);
void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], const Site& at);
void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], const Site& at);
void mma_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], const Site& at);

// Each lane reads its own elements, here in the kernel's code, so that the sanitizers see it. Like the GPU it asks for the
// address of every row, and checks it.
template <int N, bool Transposed> void ldmatrix(unsigned (&d)[N], const void* row, const Site& at) {
  check_aligned(row, 16, "ldmatrix", at);
  const void* const* const rows = warp_pointers(row, at);
  const unsigned g = lane() / 4, t = lane() % 4;
  for (int m = 0; m < N; ++m) {
    const auto* first = static_cast<const std::uint16_t*>(rows[8 * m + static_cast<int>(Transposed ? 2 * t : g)]);
    const auto* second = static_cast<const std::uint16_t*>(rows[8 * m + static_cast<int>(Transposed ? 2 * t + 1 : g)]);
    const unsigned low = first[Transposed ? g : 2 * t], high = second[Transposed ? g : 2 * t + 1];
    d[m] = low | high << 16;
  }
}
}  // namespace host

#define SHRIKE_SITE const host::Site& at = host::Site::current()

inline void mma_m16n8k32_s8s8(int (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], SHRIKE_SITE) {
  host::mma_k32(d, a, b, true, at);
}
inline void mma_m16n8k32_u8s8(int (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], SHRIKE_SITE) {
  host::mma_k32(d, a, b, false, at);
}
inline void mma_m8n8k16_s8s8(int (&d)[2], unsigned a, unsigned b, SHRIKE_SITE) { host::mma_k16(d, a, b, true, at); }
inline void mma_m8n8k16_u8s8(int (&d)[2], unsigned a, unsigned b, SHRIKE_SITE) { host::mma_k16(d, a, b, false, at); }
inline void mma_m16n8k8_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], SHRIKE_SITE) {
  host::mma_tf32(d, a, b, at);
}
inline void mma_m16n8k16_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], SHRIKE_SITE) {
  host::mma_bf16(d, a, b, at);
}

inline void mma_m16n8k16_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], SHRIKE_SITE) {
  host::mma_f16(d, a, b, at);
}
inline void mma_m16n8k8_f16(float (&d)[4], const unsigned (&a)[2], unsigned b, SHRIKE_SITE) {
  host::mma_f16(d, {a[0], a[1], 0, 0}, {b, 0}, at);
}

inline float half_value(std::uint16_t bits) { return static_cast<float>(std::bit_cast<Half>(bits)); }
inline std::uint16_t half_bits(float v) { return saturated_half(v).bits(); }

inline unsigned to_tf32(float v) {
  const auto bits = std::bit_cast<unsigned>(v);
  return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & 0xffffe000u;  // infinite and NaN as they are
}

inline void ldmatrix_x1(unsigned (&d)[1], const void* row, SHRIKE_SITE) { host::ldmatrix<1, false>(d, row, at); }
inline void ldmatrix_x2(unsigned (&d)[2], const void* row, SHRIKE_SITE) { host::ldmatrix<2, false>(d, row, at); }
inline void ldmatrix_x4(unsigned (&d)[4], const void* row, SHRIKE_SITE) { host::ldmatrix<4, false>(d, row, at); }
inline void ldmatrix_x4_trans(unsigned (&d)[4], const void* row, SHRIKE_SITE) { host::ldmatrix<4, true>(d, row, at); }

inline void cp_async_16(void* shared, const void* global, bool valid = true, SHRIKE_SITE) {
  host::async_copy(shared, global, 16, valid, at);
}
inline void cp_async_4(void* shared, const void* global, bool valid = true, SHRIKE_SITE) {
  host::async_copy(shared, global, 4, valid, at);
}
inline void cp_async_commit() { host::async_commit(); }
template <int N> void cp_async_wait() { host::async_wait(N); }

#undef SHRIKE_SITE

namespace host {
template <class A> int dp4a(unsigned a, unsigned b, int c) {
  auto sum = static_cast<unsigned>(c);
  for (int shift = 0; shift < 32; shift += 8) {
    sum += static_cast<unsigned>(static_cast<A>(a >> shift & 255) * static_cast<std::int8_t>(b >> shift & 255));
  }
  return static_cast<int>(sum);
}
}  // namespace host
inline int dp4a_s8s8(int a, int b, int c) {
  return host::dp4a<std::int8_t>(static_cast<unsigned>(a), static_cast<unsigned>(b), c);
}
inline int dp4a_u8s8(unsigned a, int b, int c) { return host::dp4a<std::uint8_t>(a, static_cast<unsigned>(b), c); }

}  // namespace shrike::cuda
