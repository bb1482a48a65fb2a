// AVX2. vpmaddubsw saturates sums of two u8 * s8 products in 16 bits, so bytes are widened to 16 bits once, when they are
// packed, and vpmaddwd does the products: exact whatever the codes.
#if defined(__x86_64__)
#include <immintrin.h>

#include "int8_tiles.hpp"

namespace shrike::int8 {
namespace {

struct Words {
  using Vector = __m256i;
  static constexpr int width = 8, vectors = 2, rows = 4, together = 2, products = 4;
  struct Columns {
    Vector first[2], second[2];  // of two steps
  };
  static Vector load(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
  static void store(void* to, Vector value) { _mm256_storeu_si256(static_cast<__m256i*>(to), value); }
  static Vector broadcast(const char* from) {
    int32_t four;
    __builtin_memcpy(&four, from, sizeof(four));
    return _mm256_set1_epi32(four);
  }
  static void keep(Vector& value) { asm volatile("" : "+x"(value)); }
  static Columns columns(const char* b) { return {{load(b), load(b + 32)}, {load(b + 64), load(b + 96)}}; }
  static Vector spin(Vector sum, Vector a, Vector b) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_add_epi16(a, b), _mm256_add_epi16(b, a)));
  }

  // 8 registers hold sums, 4 the columns, 4 what is under way. A compiler keeps some of them in memory, so the instructions of
  // a row are written down.
  static void add(Vector* sums, const char* a, const Columns& of) {
    Vector left, right, x, y;
    asm("vpbroadcastd %[pair], %[left]\n\t"
        "vpbroadcastd %[next], %[right]\n\t"
        "vpaddw %[s0], %[left], %[x]\n\t"
        "vpaddw %[f0], %[right], %[y]\n\t"
        "vpaddw %[s1], %[left], %[left]\n\t"
        "vpaddw %[f1], %[right], %[right]\n\t"
        "vpmaddwd %[x], %[y], %[x]\n\t"
        "vpmaddwd %[left], %[right], %[left]\n\t"
        "vpaddd %[x], %[sum0], %[sum0]\n\t"
        "vpaddd %[left], %[sum1], %[sum1]"
        : [sum0] "+x"(sums[0]), [sum1] "+x"(sums[1]), [left] "=&x"(left), [right] "=&x"(right), [x] "=&x"(x), [y] "=&x"(y)
        : [pair] "m"(*reinterpret_cast<const int32_t(*)[1]>(a)), [next] "m"(*reinterpret_cast<const int32_t(*)[1]>(a + 4)),
          [f0] "x"(of.first[0]), [f1] "x"(of.first[1]), [s0] "x"(of.second[0]), [s1] "x"(of.second[1]));
  }
};

}  // namespace

const Kernels& avx2_kernels() {
  static constexpr Kernels table{"avx2",     Words::width * Words::vectors, nullptr, multiply<Words>, Words::rows, finish,
                                 spin<Words>};
  return table;
}

}  // namespace shrike::int8
#endif
