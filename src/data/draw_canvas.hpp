// What drawing shares. Not part of the library's interface.
#pragma once

#include <algorithm>
#include <cmath>

#include "shrike/data/draw.hpp"

namespace shrike {

// Covers `share` of a pixel with a colour.
inline void blend(std::uint8_t* rgb, Color color, float share) {
  const auto mix = [share](std::uint8_t below, std::uint8_t above) {
    return static_cast<std::uint8_t>(static_cast<float>(below) +
                                     (static_cast<float>(above) - static_cast<float>(below)) * share + 0.5f);
  };
  rgb[0] = mix(rgb[0], color.r);
  rgb[1] = mix(rgb[1], color.g);
  rgb[2] = mix(rgb[2], color.b);
}

// How much of a pixel lies within a shape whose edge is `distance` pixels from its centre, negative inside.
inline float coverage(float distance) { return std::clamp(0.5f - distance, 0.0f, 1.0f); }

}  // namespace shrike
