// After Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), with the points 0, +-1, +-2 and infinity,
// in integers modulo 2^32:
//   y = A^T [(G g G^T) * (B^T d B)] A      d: 6x6 input, g: 3x3 weights, y: 4x4 output, * by element
// B and A hold integers. The rows of G are (1, 0, 0), (1, 1, 1), (1, -1, 1), (1, 2, 4), (1, -2, 4) and (0, 0, 1), divided by 4,
// -6, -6, 24, 24 and 1. We leave the divisions out, so that transformed weights are whole and at most 49 * 128, and multiply
// what comes out by 24 / (4, -6, -6, 24, 24, 1) = (6, -4, -4, 1, 1, 24) along each axis: the result is 576 y. Transformed
// inputs are at most 100 * 255. Both fit in 16 bits. 576 is 64 * 9, and 9 has an inverse modulo 2^32: times that, 64 y is left,
// and a shift by 6 gives y, provided that -2^25 <= y < 2^25, which the weights decide. The sums of a transformed input and a
// transformed weight, at most 31772, fit in 16 bits too, so the products are made by pairs (int8_kernels.hpp): what the inputs'
// products among themselves add is a number for each point of a tile, goes through A^T . A like the rest, and is subtracted
// there.
//
// The transforms of a line, in vectors as wide as this machine's. Everything is local to the including file.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace shrike::int8::winograd {
namespace {

#if defined(__AVX512BW__)
constexpr int widest = 64;
#elif defined(__AVX2__)
constexpr int widest = 32;
#else
constexpr int widest = 16;
#endif

// Vectors of so many bytes.
template <int bytes> struct Vectors {
  static constexpr int chunk = bytes / 2, group = bytes / 4;  // words and sums of a vector
  typedef std::uint8_t Codes __attribute__((vector_size(chunk)));
  typedef std::int8_t SignedCodes __attribute__((vector_size(chunk)));
  typedef std::int16_t Words __attribute__((vector_size(bytes)));
  typedef std::uint32_t Sums __attribute__((vector_size(bytes)));
  typedef std::int32_t SignedSums __attribute__((vector_size(bytes)));
  typedef std::uint64_t Pairs __attribute__((vector_size(bytes)));

  static bool fit(std::int64_t channels, std::int64_t outputs) { return channels % chunk == 0 && outputs % group == 0; }
};
using Wide = Vectors<widest>;
using Narrow = Vectors<std::max(widest / 2, 16)>;  // for layers of few channels

constexpr std::uint32_t ninth = 954437177;  // 9 * ninth = 1 modulo 2^32
static_assert(9 * ninth == 1);

template <class V> V load_as(const void* from) {
  V value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

// Each transforms a line: in[i * S] to out[i * T].
template <int S, int T, class Words> void input_line(const Words* in, Words* out) {  // B^T
  const Words d1 = in[S], d2 = in[2 * S], d3 = in[3 * S], d4 = in[4 * S];
  const Words even_1 = d4 - 4 * d2, odd_1 = d3 - 4 * d1, even_2 = d4 - d2, odd_2 = 2 * (d3 - d1);
  out[0] = 4 * in[0] - 5 * d2 + d4;
  out[T] = even_1 + odd_1;
  out[2 * T] = even_1 - odd_1;
  out[3 * T] = even_2 + odd_2;
  out[4 * T] = even_2 - odd_2;
  out[5 * T] = 4 * d1 - 5 * d3 + in[5 * S];
}

template <int S, int T, class Words> void weight_line(const Words* in, Words* out) {  // G without its divisions
  const Words g0 = in[0], g1 = in[S], g2 = in[2 * S];
  const Words even_1 = g0 + g2, even_2 = g0 + 4 * g2;
  out[0] = g0;
  out[T] = even_1 + g1;
  out[2 * T] = even_1 - g1;
  out[3 * T] = even_2 + 2 * g1;
  out[4 * T] = even_2 - 2 * g1;
  out[5 * T] = g2;
}

// Dword i: (words 2i, 2i + 1) . (words 2j, 2j + 1), where j is i's neighbour; each product is there twice.
template <class V> typename V::Sums pair_products(const typename V::Words& v) {
  using Sums = typename V::Sums;
  using SignedSums = typename V::SignedSums;
  const auto pairs = reinterpret_cast<typename V::Pairs>(v);
  const auto own = reinterpret_cast<SignedSums>(v), other = reinterpret_cast<SignedSums>((pairs << 32) | (pairs >> 32));
#if defined(__AVX512BW__)
  if constexpr (sizeof(Sums) == 64) {
    return reinterpret_cast<Sums>(_mm512_madd_epi16(reinterpret_cast<__m512i>(own), reinterpret_cast<__m512i>(other)));
  }
#endif
#if defined(__AVX2__)
  if constexpr (sizeof(Sums) == 32) {
    return reinterpret_cast<Sums>(_mm256_madd_epi16(reinterpret_cast<__m256i>(own), reinterpret_cast<__m256i>(other)));
  }
#endif
  return reinterpret_cast<Sums>(((own << 16) >> 16) * ((other << 16) >> 16) + (own >> 16) * (other >> 16));
}

// The sum of what pair_products() and sums of it hold.
template <class Sums> std::uint32_t sum_of_pairs(const Sums& products) {
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < sizeof(Sums) / 4; i += 2) sum += products[i];
  return sum;
}

template <int S, int T, class Sums> void output_line(const Sums* in, Sums* out) {  // A^T times the scales
  const Sums even_1 = (in[S] + in[2 * S]) << 2, odd_1 = (in[S] - in[2 * S]) << 2;
  const Sums even_2 = in[3 * S] + in[4 * S], odd_2 = in[3 * S] - in[4 * S];
  out[0] = (in[0] << 2) + (in[0] << 1) - even_1 + even_2;
  out[T] = (odd_2 << 1) - odd_1;
  out[2 * T] = (even_2 << 2) - even_1;
  out[3 * T] = (odd_2 << 3) - odd_1 + (in[5 * S] << 4) + (in[5 * S] << 3);
}

}  // namespace
}  // namespace shrike::int8::winograd
