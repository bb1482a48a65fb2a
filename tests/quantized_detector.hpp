// What tests of quantized detectors share.
#pragma once

#include <memory>
#include <optional>

#include "models/detector.hpp"
#include "models/quantized.hpp"
#include "reference.hpp"

namespace quantized {

// Small, with batch norm to fold and both heads.
inline shrike::models::DetectorConfig small_detector(const std::string& backbone) {
  shrike::models::DetectorConfig config;
  config.backbone = backbone;
  config.width = 8;
  config.batch_norm = true;
  config.head_width = 24;
  config.roi_size = 3;
  config.classes = {"a", "b"};
  return config;
}

// Random images of odd sizes.
inline shrike::models::NextImages random_images(int count, std::uint64_t seed) {
  auto random = std::make_shared<shrike::Random>(seed, shrike::RandomStream::test);
  auto left = std::make_shared<int>(count);
  return [=]() -> std::optional<std::pair<shrike::Tensor, std::vector<shrike::ImageSize>>> {
    if ((*left)-- == 0) return std::nullopt;
    const int height = 65 + 7 * *left, width = 80 - 3 * *left;
    return std::pair{reference::random_tensor({1, height, width, 3}, *random), std::vector<shrike::ImageSize>{{height, width}}};
  };
}

}  // namespace quantized
