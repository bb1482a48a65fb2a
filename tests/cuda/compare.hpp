// Comparisons of tensors on any device, to the bit; whether a sanitizer watches.
#pragma once

#include <cstring>

#include "shrike/core/tensor.hpp"

// Whether a sanitizer watches this build, under which threads of the host's device cost ten times as much: what trains takes
// few steps then, and nothing that only repeats.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool sanitized = true;
#else
inline constexpr bool sanitized = false;
#endif

// Whether shapes and bytes are the same.
inline bool same_bits(const shrike::Tensor& a, const shrike::Tensor& b) {
  const shrike::Tensor x = a.to(shrike::Device::cpu), y = b.to(shrike::Device::cpu);
  return x.shape() == y.shape() && x.dtype() == y.dtype() && (x.bytes() == 0 || std::memcmp(x.raw(), y.raw(), x.bytes()) == 0);
}
