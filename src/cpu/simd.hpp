// Vectors as wide as this machine's, and matrix products whose sums stay in registers. GCC's vector types, intrinsics only
// where they say more.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__FMA__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace shrike::simd {

#if defined(__AVX512F__)
constexpr int lanes = 16;
constexpr int max_rows = 14;  // of a product's tile in registers: 28 of 32 hold sums
#else
#if defined(__AVX__)
constexpr int lanes = 8;
#else
constexpr int lanes = 4;
#endif
constexpr int max_rows = 6;  // 12 of 16
#endif
constexpr int panel = 2 * lanes;  // columns of a product's tile

typedef float Vector __attribute__((vector_size(lanes * sizeof(float))));

inline Vector load(const float* from) {
  Vector result;
  std::memcpy(&result, from, sizeof(result));
  return result;
}
inline void store(float* to, const Vector& value) { std::memcpy(to, &value, sizeof(value)); }

// a * b + c, rounded once even where the compiler may not contract a multiplication and an addition.
inline Vector fma(const Vector& a, const Vector& b, const Vector& c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#else
  Vector result;
  for (int i = 0; i < lanes; ++i) result[i] = std::fmaf(a[i], b[i], c[i]);
  return result;
#endif
}

// m [R, N vectors] = v [R, depth] u [depth, N vectors], the rows of v and m at their strides.
template <int R, int N> inline void multiply_tile(std::int64_t depth, const float* __restrict v, std::int64_t v_stride,
                                                  const float* __restrict u, float* __restrict m, std::int64_t m_stride) {
  Vector sums[R][N] = {};
  for (std::int64_t i = 0; i < depth; ++i) {
    Vector row[N];
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) row[n] = load(u + (i * N + n) * lanes);
#pragma GCC unroll 14
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) sums[r][n] += v[r * v_stride + i] * row[n];
    }
  }
#pragma GCC unroll 14
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) store(m + r * m_stride + n * lanes, sums[r][n]);
  }
}

// The same for any number of rows: as many full tiles as there are, and one for the rest.
template <int N, int R = max_rows> inline void multiply_rest(std::int64_t rows, std::int64_t depth, const float* v,
                                                             std::int64_t v_stride, const float* u, float* m,
                                                             std::int64_t m_stride) {
  if constexpr (R > 0) {
    if (rows == R) {
      multiply_tile<R, N>(depth, v, v_stride, u, m, m_stride);
    } else {
      multiply_rest<N, R - 1>(rows, depth, v, v_stride, u, m, m_stride);
    }
  }
}

// Rows are spread evenly over the tiles: 15 are 8 and 7 rather than 14 and 1.
template <int N> inline void multiply_rows(std::int64_t rows, std::int64_t depth, const float* v, std::int64_t v_stride,
                                           const float* u, float* m, std::int64_t m_stride) {
  const std::int64_t tiles = (rows + max_rows - 1) / max_rows;
  for (std::int64_t tile = 0; tile < tiles; ++tile) {
    const std::int64_t begin = rows * tile / tiles, end = rows * (tile + 1) / tiles;
    multiply_rest<N>(end - begin, depth, v + begin * v_stride, v_stride, u, m + begin * m_stride, m_stride);
  }
}

// w [R, N vectors] (+)= left [depth, R]^T right [depth, N vectors], the rows of left, right and w at their strides. w is
// fetched while the products are summed.
template <int R, int N> inline void accumulate_tile(std::int64_t depth, const float* __restrict left, std::int64_t left_stride,
                                                    const float* __restrict right, std::int64_t right_stride, bool add,
                                                    float* __restrict w, std::int64_t w_stride) {
  Vector sums[R][N] = {};
#pragma GCC unroll 14
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) __builtin_prefetch(w + r * w_stride + n * lanes, 1);
  }
  for (std::int64_t i = 0; i < depth; ++i) {
    Vector column[N];
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) column[n] = load(right + i * right_stride + n * lanes);
#pragma GCC unroll 14
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) sums[r][n] += left[i * left_stride + r] * column[n];
    }
  }
#pragma GCC unroll 14
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) {
      float* to = w + r * w_stride + n * lanes;
      store(to, add ? load(to) + sums[r][n] : sums[r][n]);
    }
  }
}

}  // namespace shrike::simd
