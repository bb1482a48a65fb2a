// AVX-512 with VNNI: vpdpbusd adds four u8 * s8 products to an int32 without saturating, vpdpwssd two s16 * s16.
#if defined(__x86_64__)
#include <immintrin.h>

#include "int8_tiles.hpp"

namespace shrike::int8 {
namespace {

struct Zmm {
  using Vector = __m512i;
  static constexpr int width = 16, vectors = 4;
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
  static constexpr bool pairs = false;
  static constexpr int rows = 6;  // 24 of 32 registers hold sums
  static Vector dot(Vector sum, Vector a, Vector b) { return _mm512_dpbusd_epi32(sum, a, b); }
};
struct Words : Zmm {
  static constexpr bool pairs = true;
  static constexpr int rows = 5, kept_rows = 5;  // 20 of 32
  static Vector add(Vector a, Vector b) { return _mm512_add_epi16(a, b); }
  static Vector dot(Vector sum, Vector a, Vector b) { return _mm512_dpwssd_epi32(sum, a, b); }
};

}  // namespace

const Kernels& avx512_kernels() {
  static constexpr Kernels table{
      "avx512 vnni", Zmm::width * Zmm::vectors, multiply<Bytes>, multiply<Words>, Words::rows, finish, spin<Bytes>};
  return table;
}

}  // namespace shrike::int8
#endif
