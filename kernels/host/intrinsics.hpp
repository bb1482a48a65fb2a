// CUDA's device functions: barriers, warp operations, atomics, bits and arithmetic.
#pragma once

#include <math.h>

#include <bit>
#include <climits>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/host/runtime.hpp"

#define SHRIKE_SITE const ::shrike::cuda::host::Site& at = ::shrike::cuda::host::Site::current()

// ---- barriers
inline void __syncthreads(SHRIKE_SITE) { shrike::cuda::host::block_barrier(false, at); }
inline int __syncthreads_count(int p, SHRIKE_SITE) { return shrike::cuda::host::block_barrier(p != 0, at); }
inline int __syncthreads_or(int p, SHRIKE_SITE) { return shrike::cuda::host::block_barrier(p != 0, at) != 0; }
inline int __syncthreads_and(int p, SHRIKE_SITE) { return shrike::cuda::host::block_barrier(p == 0, at) == 0; }
inline void __syncwarp(unsigned mask = 0xffffffffu, SHRIKE_SITE) { shrike::cuda::host::warp_barrier(mask, at); }
inline void __threadfence() { shrike::cuda::host::fence(); }
inline void __threadfence_block() { shrike::cuda::host::fence(); }
[[noreturn]] inline void __trap(SHRIKE_SITE) { shrike::cuda::host::stop("__trap()", at); }

// ---- shuffles and votes
template <class V> V __shfl_sync(unsigned mask, V value, int source, int width = 32, SHRIKE_SITE) {
  const int first = static_cast<int>(shrike::cuda::host::lane()) & ~(width - 1);
  shrike::cuda::host::warp_shuffle(mask, &value, sizeof(V), first | (source & (width - 1)), at);
  return value;
}
template <class V> V __shfl_up_sync(unsigned mask, V value, unsigned delta, int width = 32, SHRIKE_SITE) {
  const int lane = static_cast<int>(shrike::cuda::host::lane()), source = lane - static_cast<int>(delta);
  shrike::cuda::host::warp_shuffle(mask, &value, sizeof(V), source < (lane & ~(width - 1)) ? -1 : source, at);
  return value;
}
template <class V> V __shfl_down_sync(unsigned mask, V value, unsigned delta, int width = 32, SHRIKE_SITE) {
  const int lane = static_cast<int>(shrike::cuda::host::lane()), source = lane + static_cast<int>(delta);
  shrike::cuda::host::warp_shuffle(mask, &value, sizeof(V), source > (lane | (width - 1)) ? -1 : source, at);
  return value;
}
template <class V> V __shfl_xor_sync(unsigned mask, V value, int bits, int width = 32, SHRIKE_SITE) {
  const int lane = static_cast<int>(shrike::cuda::host::lane()), source = lane ^ bits;
  shrike::cuda::host::warp_shuffle(mask, &value, sizeof(V), source > (lane | (width - 1)) ? -1 : source, at);
  return value;
}
inline unsigned __ballot_sync(unsigned mask, int p, SHRIKE_SITE) { return shrike::cuda::host::warp_ballot(mask, p != 0, at); }
inline int __any_sync(unsigned mask, int p, SHRIKE_SITE) { return shrike::cuda::host::warp_ballot(mask, p != 0, at) != 0; }
inline int __all_sync(unsigned mask, int p, SHRIKE_SITE) { return shrike::cuda::host::warp_ballot(mask, p == 0, at) == 0; }

// ---- atomics: relaxed, as in CUDA; each returns the old value
namespace shrike::cuda::host {
template <class V, class F> V atomic_update(V* address, F f) {
  using Bits = std::conditional_t<sizeof(V) == 4, std::uint32_t, std::uint64_t>;
  static_assert(sizeof(V) == sizeof(Bits));
  auto* word = reinterpret_cast<Bits*>(address);
  Bits old = __atomic_load_n(word, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(word, &old, std::bit_cast<Bits>(static_cast<V>(f(std::bit_cast<V>(old)))), false,
                                      __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return std::bit_cast<V>(old);
}
}  // namespace shrike::cuda::host

#define SHRIKE_ATOMIC(name, expression)                                                                   \
  template <class V> V name(V* address, std::type_identity_t<V> value) {                                  \
    return shrike::cuda::host::atomic_update(address, [=](V old) { return static_cast<V>(expression); }); \
  }
SHRIKE_ATOMIC(atomicAdd, old + value)
SHRIKE_ATOMIC(atomicSub, old - value)
SHRIKE_ATOMIC(atomicMin, value < old ? value : old)
SHRIKE_ATOMIC(atomicMax, old < value ? value : old)
SHRIKE_ATOMIC(atomicAnd, old& value)
SHRIKE_ATOMIC(atomicOr, old | value)
SHRIKE_ATOMIC(atomicXor, old ^ value)
SHRIKE_ATOMIC(atomicExch, (static_cast<void>(old), value))
#undef SHRIKE_ATOMIC
template <class V> V atomicCAS(V* address, std::type_identity_t<V> expected, std::type_identity_t<V> value) {
  return shrike::cuda::host::atomic_update(address, [=](V old) { return old == expected ? value : old; });
}

// ---- loads and stores with cache hints
template <class V> V __ldg(const V* address) { return *address; }
template <class V> V __ldcg(const V* address) { return *address; }
template <class V> V __ldcs(const V* address) { return *address; }
template <class V> void __stcg(V* address, std::type_identity_t<V> value) { *address = value; }
template <class V> void __stcs(V* address, std::type_identity_t<V> value) { *address = value; }

// ---- bits
inline int __popc(unsigned v) { return std::popcount(v); }
inline int __popcll(unsigned long long v) { return std::popcount(v); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __ffsll(long long v) { return __builtin_ffsll(v); }
inline int __clz(int v) { return std::countl_zero(static_cast<unsigned>(v)); }
inline int __clzll(long long v) { return std::countl_zero(static_cast<unsigned long long>(v)); }
inline unsigned __brev(unsigned v) {
  unsigned result = 0;
  for (int i = 0; i < 32; ++i) result |= (v >> i & 1u) << (31 - i);
  return result;
}
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const unsigned long long bytes = static_cast<unsigned long long>(y) << 32 | x;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) result |= static_cast<unsigned>(bytes >> (8 * (selector >> (4 * i) & 7)) & 255) << (8 * i);
  return result;
}
inline int __mulhi(int a, int b) { return static_cast<int>(static_cast<long long>(a) * b >> 32); }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(static_cast<unsigned long long>(a) * b >> 32); }
inline int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 32; i += 8) c += static_cast<std::int8_t>(a >> i & 255) * static_cast<std::int8_t>(b >> i & 255);
  return c;
}
inline unsigned __dp4a(unsigned a, unsigned b, unsigned c) {
  for (int i = 0; i < 32; i += 8) c += (a >> i & 255) * (b >> i & 255);
  return c;
}
inline int __float_as_int(float v) { return std::bit_cast<int>(v); }
inline unsigned __float_as_uint(float v) { return std::bit_cast<unsigned>(v); }
inline float __int_as_float(int v) { return std::bit_cast<float>(v); }
inline float __uint_as_float(unsigned v) { return std::bit_cast<float>(v); }

// ---- conversions saturate, and NaN becomes 0
namespace shrike::cuda::host {
inline int saturate(double rounded) {
  if (rounded != rounded) return 0;
  return rounded >= 2147483647.0 ? INT_MAX : rounded <= -2147483648.0 ? INT_MIN : static_cast<int>(rounded);
}
// Keeps the compiler from contracting this result into a fused multiply-add.
inline float rounded(float v) {
#if defined(__x86_64__)
  asm("" : "+x"(v));
  return v;
#else
  volatile float result = v;
  return result;
#endif
}
}  // namespace shrike::cuda::host
inline int __float2int_rn(float v) { return shrike::cuda::host::saturate(std::nearbyint(static_cast<double>(v))); }
inline int __float2int_rz(float v) { return shrike::cuda::host::saturate(std::trunc(static_cast<double>(v))); }
inline int __float2int_rd(float v) { return shrike::cuda::host::saturate(std::floor(static_cast<double>(v))); }
inline int __float2int_ru(float v) { return shrike::cuda::host::saturate(std::ceil(static_cast<double>(v))); }
inline float __int2float_rn(int v) { return static_cast<float>(v); }
inline float __uint2float_rn(unsigned v) { return static_cast<float>(v); }

// ---- floats, each operation rounded by itself
inline float __fadd_rn(float a, float b) { return shrike::cuda::host::rounded(a + b); }
inline float __fsub_rn(float a, float b) { return shrike::cuda::host::rounded(a - b); }
inline float __fmul_rn(float a, float b) { return shrike::cuda::host::rounded(a * b); }
inline float __fdiv_rn(float a, float b) { return shrike::cuda::host::rounded(a / b); }
inline float __fsqrt_rn(float a) { return shrike::cuda::host::rounded(std::sqrt(a)); }
inline float __frcp_rn(float a) { return shrike::cuda::host::rounded(1.0f / a); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __saturatef(float v) { return v > 0.0f ? (v < 1.0f ? v : 1.0f) : 0.0f; }
inline float rsqrtf(float v) { return 1.0f / std::sqrt(v); }
// glibc declares these names itself, hence macros.
#define __expf(x) expf(x)
#define __exp2f(x) exp2f(x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __powf(x, y) powf(x, y)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)

template <class A, class B>
requires std::is_arithmetic_v<A> && std::is_arithmetic_v<B>
constexpr std::common_type_t<A, B> min(A a, B b) {
  using C = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<C>) return std::fmin(static_cast<C>(a), static_cast<C>(b));
  return static_cast<C>(b) < static_cast<C>(a) ? static_cast<C>(b) : static_cast<C>(a);
}
template <class A, class B>
requires std::is_arithmetic_v<A> && std::is_arithmetic_v<B>
constexpr std::common_type_t<A, B> max(A a, B b) {
  using C = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<C>) return std::fmax(static_cast<C>(a), static_cast<C>(b));
  return static_cast<C>(a) < static_cast<C>(b) ? static_cast<C>(b) : static_cast<C>(a);
}

#undef SHRIKE_SITE
