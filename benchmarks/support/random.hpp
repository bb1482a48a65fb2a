// Tensors of random values, made fast: benchmarks take gigabytes of them.
#pragma once

#include <algorithm>

#include "shrike/core/random.hpp"
#include "shrike/core/tensor.hpp"

namespace shrike::bench {

// Uniform in [-1, 1); a block of values of prime length, again and again.
inline Tensor random_tensor(const Shape& shape, std::uint64_t seed = 1) {
  constexpr std::int64_t block = 65521;
  Random random(seed, RandomStream::test);
  const Tensor result(shape);
  float* to = result.data<float>();
  const std::int64_t size = result.numel();
  for (std::int64_t i = 0; i < std::min(size, block); ++i) to[i] = random.uniform(-1.0f, 1.0f);
  for (std::int64_t at = block; at < size; at += block) std::copy_n(to, std::min(block, size - at), to + at);
  return result;
}

}  // namespace shrike::bench
