// Element types of tensors.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>

#include "shrike/core/check.hpp"

namespace shrike {

enum class Dtype : unsigned char { f32, f16, s8, u8, s32, s64 };

// IEEE 754 binary16: converted to float for arithmetic. Round to nearest, ties to even.
class Half {
 public:
  Half() = default;
  explicit Half(float value) : bits_(encode(value)) {}
  explicit operator float() const { return decode(bits_); }
  std::uint16_t bits() const { return bits_; }

 private:
  static std::uint16_t encode(float value) {
    const auto x = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t sign = (x >> 16) & 0x8000u;
    const std::uint32_t magnitude = x & 0x7fffffffu;
    if (magnitude >= 0x47800000u) {  // 65536 and above, infinity, NaN
      const bool nan = magnitude > 0x7f800000u;
      return static_cast<std::uint16_t>(sign | (nan ? 0x7e00u : 0x7c00u));
    }
    if (magnitude < 0x38800000u) {  // subnormal halves: let the float adder round at 2^-24
      const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
      return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3f000000u));
    }
    const std::uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
    return static_cast<std::uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
  }

  static float decode(std::uint16_t bits) {
    const std::uint32_t sign = (bits & 0x8000u) << 16;
    const std::uint32_t exponent = (bits >> 10) & 0x1fu;
    const std::uint32_t mantissa = bits & 0x3ffu;
    if (exponent == 0) {
      const float value = static_cast<float>(mantissa) * 0x1p-24f;
      return sign ? -value : value;
    }
    const std::uint32_t wide = exponent == 31 ? 255 : exponent + 112;
    return std::bit_cast<float>(sign | (wide << 23) | (mantissa << 13));
  }

  std::uint16_t bits_ = 0;
};

// What lies beyond +-65504 as the greatest half of its sign; NaN stays.
inline Half saturated_half(float value) { return Half(value > 65504.0f ? 65504.0f : value < -65504.0f ? -65504.0f : value); }

inline std::size_t size_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::f32:
    case Dtype::s32: return 4;
    case Dtype::f16: return 2;
    case Dtype::s8:
    case Dtype::u8: return 1;
    case Dtype::s64: return 8;
  }
  fail("dtype ", static_cast<int>(dtype), " is unknown");
}

inline const char* name(Dtype dtype) {
  switch (dtype) {
    case Dtype::f32: return "f32";
    case Dtype::f16: return "f16";
    case Dtype::s8: return "s8";
    case Dtype::u8: return "u8";
    case Dtype::s32: return "s32";
    case Dtype::s64: return "s64";
  }
  return "?";
}

// The Dtype of a C++ element type: dtype_of<float> is Dtype::f32.
template <class T> inline constexpr Dtype dtype_of = [] {
  static_assert(sizeof(T) == 0, "not an element type");
  return Dtype::f32;
}();
template <> inline constexpr Dtype dtype_of<float> = Dtype::f32;
template <> inline constexpr Dtype dtype_of<Half> = Dtype::f16;
template <> inline constexpr Dtype dtype_of<std::int8_t> = Dtype::s8;
template <> inline constexpr Dtype dtype_of<std::uint8_t> = Dtype::u8;
template <> inline constexpr Dtype dtype_of<std::int32_t> = Dtype::s32;
template <> inline constexpr Dtype dtype_of<std::int64_t> = Dtype::s64;

}  // namespace shrike
