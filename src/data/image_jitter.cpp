// Colour changes. Each follows torchvision's definition on bytes, values truncated on the way back as there.
#include <algorithm>
#include <array>
#include <cmath>

#include "shrike/core/check.hpp"
#include "shrike/data/image.hpp"

namespace shrike {
namespace {

std::uint8_t to_byte(float value) { return static_cast<std::uint8_t>(std::clamp(value, 0.0f, 255.0f)); }

// ITU-R 601 luma, truncated to a byte's range.
int grey(const std::uint8_t* rgb) { return static_cast<int>(0.2989f * rgb[0] + 0.587f * rgb[1] + 0.114f * rgb[2]); }

void check_factor(float factor, const char* what) {
  SHRIKE_CHECK(std::isfinite(factor) && factor >= 0, what, " factor ", factor, ": expected 0 or more");
}

}  // namespace

void adjust_brightness(Image& image, float factor) {
  check_factor(factor, "brightness");
  std::array<std::uint8_t, 256> table{};
  for (int v = 0; v < 256; ++v) table[static_cast<std::size_t>(v)] = to_byte(static_cast<float>(v) * factor);
  for (std::uint8_t& value : image.rgb) value = table[value];
}

void adjust_contrast(Image& image, float factor) {
  check_factor(factor, "contrast");
  std::uint64_t total = 0;
  for (std::size_t i = 0; i + 2 < image.rgb.size(); i += 3) total += static_cast<std::uint64_t>(grey(&image.rgb[i]));
  const auto pixels = std::max<std::uint64_t>(image.rgb.size() / 3, 1);
  const auto mean = static_cast<float>(static_cast<double>(total) / static_cast<double>(pixels));
  std::array<std::uint8_t, 256> table{};
  for (int v = 0; v < 256; ++v) {
    table[static_cast<std::size_t>(v)] = to_byte(factor * static_cast<float>(v) + (1.0f - factor) * mean);
  }
  for (std::uint8_t& value : image.rgb) value = table[value];
}

void adjust_saturation(Image& image, float factor) {
  check_factor(factor, "saturation");
  for (std::size_t i = 0; i + 2 < image.rgb.size(); i += 3) {
    std::uint8_t* rgb = &image.rgb[i];
    const float base = (1.0f - factor) * static_cast<float>(grey(rgb));
    for (int c = 0; c < 3; ++c) rgb[c] = to_byte(factor * rgb[c] + base);
  }
}

// Through hue, saturation and value (Smith, "Color Gamut Transform Pairs", SIGGRAPH 1978).
void adjust_hue(Image& image, float shift) {
  SHRIKE_CHECK(shift >= -0.5f && shift <= 0.5f, "hue shift ", shift, ": expected -0.5 to 0.5");
  if (shift == 0) return;
  for (std::size_t i = 0; i + 2 < image.rgb.size(); i += 3) {
    std::uint8_t* rgb = &image.rgb[i];
    const float r = rgb[0], g = rgb[1], b = rgb[2];
    const float high = std::max({r, g, b}), low = std::min({r, g, b});
    const float range = high - low;
    if (range == 0) continue;
    // Hue in sixths of a turn from red.
    float hue = high == r ? (g - b) / range : high == g ? 2.0f + (b - r) / range : 4.0f + (r - g) / range;
    hue += 6.0f * shift;
    // A channel is at `high` for a third of the turn around its own hue, at `low` opposite, and ramps over a sixth between.
    const auto channel = [&](float own) {
      float distance = std::fabs(hue - own);
      if (distance > 6.0f) distance -= 6.0f;
      if (distance > 3.0f) distance = 6.0f - distance;
      return low + range * std::clamp(2.0f - distance, 0.0f, 1.0f);
    };
    rgb[0] = to_byte(channel(0.0f) + 0.5f);
    rgb[1] = to_byte(channel(2.0f) + 0.5f);
    rgb[2] = to_byte(channel(4.0f) + 0.5f);
  }
}

void jitter(Image& image, const Jitter& ranges, Random& random) {
  std::vector<int> order{0, 1, 2, 3};
  random.shuffle(order);
  const auto factor = [&](float range) { return random.uniform(std::max(0.0f, 1.0f - range), 1.0f + range); };
  const std::array<float, 4> amount{factor(ranges.brightness), factor(ranges.contrast), factor(ranges.saturation),
                                    random.uniform(-ranges.hue, ranges.hue)};
  for (const int change : order) {
    const bool chosen = random.uniform() < ranges.probability;
    const float value = amount[static_cast<std::size_t>(change)];
    if (!chosen || value == (change == 3 ? 0.0f : 1.0f)) continue;
    switch (change) {
      case 0: adjust_brightness(image, value); break;
      case 1: adjust_contrast(image, value); break;
      case 2: adjust_saturation(image, value); break;
      default: adjust_hue(image, value); break;
    }
  }
}

}  // namespace shrike
