// Comparisons of tensors on any device, to the bit.
#pragma once

#include <cstring>

#include "shrike/core/tensor.hpp"

// Whether shapes and bytes are the same.
inline bool same_bits(const shrike::Tensor& a, const shrike::Tensor& b) {
  const shrike::Tensor x = a.to(shrike::Device::cpu), y = b.to(shrike::Device::cpu);
  return x.shape() == y.shape() && x.dtype() == y.dtype() && (x.bytes() == 0 || std::memcmp(x.raw(), y.raw(), x.bytes()) == 0);
}
