// AVX2. vpmaddubsw saturates sums of two u8 * s8 products in 16 bits, so bytes are widened to 16 bits once, when they are
// packed, and vpmaddwd does the products: exact whatever the codes.
#if defined(__x86_64__)
#include <immintrin.h>

#include "int8_tiles.hpp"

namespace shrike::int8 {
namespace {

struct Words {
  using Vector = __m256i;
  static constexpr bool pairs = true;
  static constexpr int width = 8, vectors = 2, rows = 4, kept_rows = 4;  // 8 of 16 registers hold sums, 8 the operands
  static Vector load(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
  static void store(void* to, Vector value) { _mm256_storeu_si256(static_cast<__m256i*>(to), value); }
  static Vector broadcast(const char* from) {
    int32_t pair;
    __builtin_memcpy(&pair, from, sizeof(pair));
    return _mm256_set1_epi32(pair);
  }
  static void keep(Vector& value) { asm volatile("" : "+x"(value)); }
  static Vector add(Vector a, Vector b) { return _mm256_add_epi16(a, b); }
  static Vector dot(Vector sum, Vector a, Vector b) { return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)); }
};

}  // namespace

const Kernels& avx2_kernels() {
  static constexpr Kernels table{"avx2",     Words::width * Words::vectors, nullptr, multiply<Words>, Words::rows, finish,
                                 spin<Words>};
  return table;
}

}  // namespace shrike::int8
#endif
