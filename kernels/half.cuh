// C = A B of halves with float32 sums, by tiles (kernels/tiles.cuh). Operations: 2 m n k.
#pragma once

#include "kernels/half.hpp"
#include "kernels/tiles.cuh"

namespace shrike::kernels::half {

// y for one sum, in float.
__device__ __forceinline__ float finish(const Product& p, float sum, std::int64_t row, int column) {
  float y = sum;
  if (p.bias != nullptr) y += p.bias[column];
  if (p.residual != nullptr) y += cuda::half_value(p.residual[row * p.filters + column]);
  return p.relu && y < 0.0f ? 0.0f : y;  // NaN stays
}

__device__ __forceinline__ std::uint16_t to_element(const Product&, float y) { return cuda::half_bits(y); }

}  // namespace shrike::kernels::half
