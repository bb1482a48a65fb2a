// Sums of weighted rows of channels, for the instruction set that this is compiled for: RoIAlign's bilinear samples.
#pragma once

#include "float_kernels.hpp"
#include "simd.hpp"

namespace shrike::cpu {
inline namespace SHRIKE_SIMD {

template <int rows>
inline void weighted_sum_of(int64_t n, const float* const* from, const float* weights, bool add, float* to) {
  using namespace simd;
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    Vector sum = add ? load(to + i) : Vector{};
#pragma GCC unroll 4
    for (int row = 0; row < rows; ++row) sum = multiply_add(splat(weights[row]), load(from[row] + i), sum);
    store(to + i, sum);
  }
  for (; i < n; ++i) {  // as a vector does
    alignas(64) float values[lanes] = {};
    values[0] = add ? to[i] : 0.0f;
    Vector sum = load(values);
    for (int row = 0; row < rows; ++row) sum = multiply_add(splat(weights[row]), splat(from[row][i]), sum);
    to[i] = sum[0];
  }
}

inline void weighted_sum(int64_t n, int rows, const float* const* from, const float* weights, bool add, float* to) {
  switch (rows) {
    case 4: return weighted_sum_of<4>(n, from, weights, add, to);
    case 3: return weighted_sum_of<3>(n, from, weights, add, to);
    case 2: return weighted_sum_of<2>(n, from, weights, add, to);
    default: return weighted_sum_of<1>(n, from, weights, add, to);
  }
}

}  // namespace SHRIKE_SIMD
}  // namespace shrike::cpu
