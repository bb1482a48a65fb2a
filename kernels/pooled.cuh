// Elements that pooling hands on as they are: codes, and halves by their bits.
#pragma once

#include "kernels/mma.hpp"
#include "shrike/core/dtype.hpp"

namespace shrike::kernels {

struct HalfBits {
  std::uint16_t bits;
};

template <class T> __device__ __forceinline__ float value_of(T code) { return static_cast<float>(code); }
__device__ __forceinline__ float value_of(HalfBits half) { return cuda::half_value(half.bits); }

// The greatest so far: codes as int. `least` is no greater than any element.
template <class T> struct Greatest {
  using Type = int;
  __device__ __forceinline__ static Type least() { return -128; }
};
template <> struct Greatest<HalfBits> {
  using Type = HalfBits;
  __device__ __forceinline__ static Type least() { return {0xfc00}; }  // minus infinity
};

// Whether `v` is taken for the greatest instead of `best`: the first of equals stays, the last NaN is taken.
template <class T> __device__ __forceinline__ bool is_greater(T v, T best) { return v > best; }
__device__ __forceinline__ bool is_greater(HalfBits v, HalfBits best) {
  const float value = value_of(v);
  return value > value_of(best) || value != value;
}

// The nearest element, ties to even, within the type's range.
template <class T> __device__ __forceinline__ T nearest(float value) {
  if constexpr (std::is_same_v<T, HalfBits>) {
    return {cuda::half_bits(value)};
  } else {
    constexpr float lowest = std::is_signed_v<T> ? -128.0f : 0.0f, highest = std::is_signed_v<T> ? 127.0f : 255.0f;
    const float code = value < lowest ? lowest : value > highest ? highest : value;
    return static_cast<T>(static_cast<int>(rintf(code)));
  }
}

// Calls f with an element of the type that `dtype` says: u8, s8 or f16.
template <class F> void with_element(Dtype dtype, const F& f) {
  if (dtype == Dtype::u8) return f(std::uint8_t{});
  if (dtype == Dtype::s8) return f(std::int8_t{});
  f(HalfBits{});
}

}  // namespace shrike::kernels
