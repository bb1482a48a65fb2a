// AVX-512 with VNNI: vpdpbusd adds four u8 * s8 products to an int32 without saturating, vpdpwssd two s16 * s16.
#if defined(__x86_64__)
#include "int8_ymm.hpp"

namespace shrike::int8 {
namespace {

struct Zmm {
  using Vector = __m512i;
  static constexpr int width = 16, vectors = 4;
  static constexpr bool ordered = false;
  static Vector load(const void* from) { return _mm512_loadu_si512(from); }
  static void store(void* to, Vector value) { _mm512_storeu_si512(to, value); }
  static void keep(Vector& value) { asm volatile("" : "+v"(value)); }  // in a register, not read from memory again
  static Vector broadcast(const char* from) {
    int32_t four;
    __builtin_memcpy(&four, from, sizeof(four));
    return _mm512_set1_epi32(four);
  }
};
struct Bytes : Zmm {
  static constexpr int rows = 6, together = 1, products = 4;  // 24 of 32 registers hold sums
  struct Columns {
    Vector of[4];
  };
  static Columns columns(const char* b) { return {{load(b), load(b + 64), load(b + 128), load(b + 192)}}; }
  static Vector spin(Vector sum, Vector a, Vector b) { return _mm512_dpbusd_epi32(sum, a, b); }
  static void add(Vector* sums, const char* a, const Columns& columns) {
    const Vector left = broadcast(a);
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) sums[v] = _mm512_dpbusd_epi32(sums[v], left, columns.of[v]);
  }
};
struct Words : Zmm {
  static constexpr int rows = 5, together = 2;  // 20 of 32
  struct Columns {
    Vector first[4], second[4];  // of two steps
  };
  static Columns columns(const char* b) {
    Columns result;
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      result.first[v] = load(b + 64 * v), result.second[v] = load(b + 256 + 64 * v);
      keep(result.first[v]), keep(result.second[v]);
    }
    return result;
  }
  static void add(Vector* sums, const char* a, const Columns& columns) {
    const Vector left = broadcast(a), right = broadcast(a + 4);
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      sums[v] =
          _mm512_dpwssd_epi32(sums[v], _mm512_add_epi16(left, columns.second[v]), _mm512_add_epi16(right, columns.first[v]));
    }
  }
};

}  // namespace

const Kernels& avx512_kernels() {
  static constexpr Kernels table{
      "avx512 vnni", Zmm::width * Zmm::vectors, multiply<Bytes>, nullptr, multiply<Words>, Words::rows, finish, spin<Bytes>,
      encode};
  return table;
}

const Kernels& avx512_short_kernels() {
  static constexpr Kernels table = ymm_kernels("avx512 vnni, 256 bits");
  return table;
}

}  // namespace shrike::int8
#endif
