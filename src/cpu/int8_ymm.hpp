// Products in vectors of 256 bits, for the instruction set that the including file is compiled with: AVX2, AVX-VNNI, or the
// VNNI of AVX-512 VL, which computes the same.
#pragma once

#include <immintrin.h>

#include "int8_tiles.hpp"

// sum0 += x . y and sum1 += left . right, of words
#if defined(__AVXVNNI__)
#define SHRIKE_ADD_PRODUCTS                  \
  "%{vex%} vpdpwssd %[x], %[y], %[sum0]\n\t" \
  "%{vex%} vpdpwssd %[left], %[right], %[sum1]"
#elif defined(__AVX512VNNI__)
#define SHRIKE_ADD_PRODUCTS          \
  "vpdpwssd %[x], %[y], %[sum0]\n\t" \
  "vpdpwssd %[left], %[right], %[sum1]"
#else
#define SHRIKE_ADD_PRODUCTS                 \
  "vpmaddwd %[x], %[y], %[x]\n\t"           \
  "vpmaddwd %[left], %[right], %[left]\n\t" \
  "vpaddd %[x], %[sum0], %[sum0]\n\t"       \
  "vpaddd %[left], %[sum1], %[sum1]"
#endif

namespace shrike::int8 {
namespace {

struct Ymm {
  using Vector = __m256i;
  static constexpr int width = 8, vectors = 2;
  static constexpr bool ordered = false;
  static Vector load(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
  static void store(void* to, Vector value) { _mm256_storeu_si256(static_cast<__m256i*>(to), value); }
  static void keep(Vector& value) { asm volatile("" : "+x"(value)); }
  static Vector broadcast(const char* from) {
    int32_t four;
    __builtin_memcpy(&four, from, sizeof(four));
    return _mm256_set1_epi32(four);
  }
};

struct YmmWords : Ymm {
  static constexpr int rows = 4, together = 2;
  struct Columns {
    Vector first[2], second[2];  // of two steps
  };
  static Columns columns(const char* b) { return {{load(b), load(b + 32)}, {load(b + 64), load(b + 96)}}; }

  // 8 registers hold sums, 4 the columns, 4 what is under way. A compiler keeps some of them in memory, so the instructions of
  // a row are written down.
  static void add(Vector* sums, const char* a, const Columns& of) {
    Vector left, right, x, y;
    asm("vpbroadcastd %[pair], %[left]\n\t"
        "vpbroadcastd %[next], %[right]\n\t"
        "vpaddw %[s0], %[left], %[x]\n\t"
        "vpaddw %[f0], %[right], %[y]\n\t"
        "vpaddw %[s1], %[left], %[left]\n\t"
        "vpaddw %[f1], %[right], %[right]\n\t" SHRIKE_ADD_PRODUCTS
        : [sum0] "+x"(sums[0]), [sum1] "+x"(sums[1]), [left] "=&x"(left), [right] "=&x"(right), [x] "=&x"(x), [y] "=&x"(y)
        : [pair] "m"(*reinterpret_cast<const int32_t(*)[1]>(a)), [next] "m"(*reinterpret_cast<const int32_t(*)[1]>(a + 4)),
          [f0] "x"(of.first[0]), [f1] "x"(of.first[1]), [s0] "x"(of.second[0]), [s1] "x"(of.second[1]));
  }
};

#if defined(__AVXVNNI__) || defined(__AVX512VNNI__)
struct YmmBytes : Ymm {
  static constexpr int rows = 6, together = 1, products = 4;  // 12 of 16 registers hold sums
  struct Columns {
    Vector of[2];
  };
  static Columns columns(const char* b) { return {{load(b), load(b + 32)}}; }
  static Vector spin(Vector sum, Vector a, Vector b) {
#if defined(__AVXVNNI__)
    return _mm256_dpbusd_avx_epi32(sum, a, b);
#else
    return _mm256_dpbusd_epi32(sum, a, b);
#endif
  }
  static void add(Vector* sums, const char* a, const Columns& columns) {
    const Vector left = broadcast(a);
    for (int v = 0; v < vectors; ++v) sums[v] = spin(sums[v], left, columns.of[v]);
  }
};

constexpr Kernels ymm_kernels(const char* name) {
  return {
      name,  Ymm::width * Ymm::vectors, multiply<YmmBytes>, nullptr, multiply<YmmWords>, YmmWords::rows, finish, spin<YmmBytes>,
      encode};
}
#else
// vpmaddubsw saturates sums of two u8 * s8 products in 16 bits, which changes nothing where weights are safe.
struct YmmSafeBytes : YmmWords {
  static constexpr bool ordered = true;
  static constexpr int rows = 3, products = 8;
  static Vector dot(Vector sum, Vector a, Vector first, Vector b, Vector second) {
    const Vector halves = _mm256_add_epi16(_mm256_maddubs_epi16(a, first), _mm256_maddubs_epi16(b, second));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(halves, _mm256_set1_epi16(1)));
  }
  static Vector spin(Vector sum, Vector a, Vector b) { return dot(sum, a, b, b, a); }
  static void add(Vector* sums, const char* first, const char* second, const Columns& of) {
    const Vector left = broadcast(first), right = broadcast(second);
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) sums[v] = dot(sums[v], left, of.first[v], right, of.second[v]);
  }
};

constexpr Kernels ymm_kernels(const char* name) {
  return {name,   Ymm::width * Ymm::vectors, nullptr, multiply_ordered<YmmSafeBytes>, multiply<YmmWords>, YmmWords::rows,
          finish, spin<YmmSafeBytes>,        encode};
}
#endif

}  // namespace
}  // namespace shrike::int8
