// C = A B of int8 codes with exact int32 sums, by tiles (kernels/tiles.cuh), whatever multiplies them. Operations: 2 m n k.
#pragma once

#include "kernels/int8.hpp"
#include "kernels/tiles.cuh"

namespace shrike::kernels::int8 {

using tiles::depth, tiles::pitch;

// The same where the scale of x is found on the way.
__device__ __forceinline__ float finish_dynamic(const Product& p, int sum, std::int64_t row, int column) {
  float t = __fmul_rn(static_cast<float>(sum), __fmul_rn(p.multiplier[column], *p.x_scale));
  if (p.addend != nullptr) t += p.addend[column];
  if (p.residual != nullptr) t += static_cast<const float*>(p.residual)[row * p.filters + column];
  return p.to.relu && t < 0.0f ? 0.0f : t;  // NaN stays
}

// y for one sum: ops/requantize.hpp, step by step.
__device__ __forceinline__ float finish(const Product& p, int sum, std::int64_t row, int column) {
  if (p.x_scale != nullptr) return finish_dynamic(p, sum, row, column);
  float t = __fmul_rn(static_cast<float>(sum + p.bias[column]), p.multiplier[column]);
  if (p.residual != nullptr) {
    const std::int64_t at = row * p.filters + column;
    const float r = p.to.residual == Dtype::u8 ? static_cast<float>(static_cast<const std::uint8_t*>(p.residual)[at])
                                               : static_cast<float>(static_cast<const std::int8_t*>(p.residual)[at]);
    t = fmaf(r, p.to.residual_multiplier, t);
  }
  if (p.to.y == Dtype::f32) return p.to.relu && !(t > 0.0f) ? 0.0f : t;
  return fminf(fmaxf(rintf(t), p.low), p.high);
}

// A code as a byte: negative ones in two's complement.
__device__ __forceinline__ std::uint8_t to_element(const Product&, float y) {
  return static_cast<std::uint8_t>(static_cast<int>(y));
}

template <class Multiply, int Stages, bool Wide, bool Async>
__global__ void __launch_bounds__(Multiply::threads, Multiply::blocks) int8_kernel(Product p, int tiles_n) {
  tiles::multiply_tile<Multiply, Stages, Wide, Async>(p, tiles_n);
}

template <class Multiply, int Stages, bool Async> void launch_tiles(const Product& p) {
  tiles::launch<Multiply, Stages>(int8_kernel<Multiply, Stages, true, Async>, int8_kernel<Multiply, Stages, false, Async>, p);
}

}  // namespace shrike::kernels::int8
