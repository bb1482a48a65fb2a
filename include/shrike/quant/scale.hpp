// From a range of values to a scale: the one place where this is decided, for training, calibration and conversion alike.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>

#include "shrike/core/dtype.hpp"

namespace shrike {

// Codes of a quantized type. The zero point is always 0, and s8 leaves -128 out so that it is symmetric.
struct CodeRange {
  int low, high;
};

inline CodeRange code_range(Dtype dtype) {
  if (dtype == Dtype::u8) return {0, 255};
  SHRIKE_CHECK(dtype == Dtype::s8, "codes of dtype ", name(dtype), ": expected u8 or s8");
  return {-127, 127};
}

// "u8" or "s8".
inline Dtype parse_code(const std::string& text) {
  SHRIKE_CHECK(text == "u8" || text == "s8", "codes of dtype '", text, "': expected u8 or s8");
  return text == "u8" ? Dtype::u8 : Dtype::s8;
}

// The scale at which [low, high] just fits the codes. A range of nothing but 0 gets that of +-2^-24, so that scales are always
// greater than 0. u8 takes no notice of `low`. Throws Error when the range is not finite.
inline float scale_from_range(float low, float high, Dtype dtype) {
  SHRIKE_CHECK(std::isfinite(low) && std::isfinite(high) && low <= high, "the range ", low, " to ", high, " has no scale");
  const float reach = dtype == Dtype::u8 ? high : std::max(-low, high);
  return std::max(reach, 0x1p-24f) / static_cast<float>(code_range(dtype).high);
}

}  // namespace shrike
