// A small quantized detector's settings as a file has them, and what it finds in random images.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "apps/train_config.hpp"
#include "quantized_detector.hpp"

namespace quantized {

inline shrike::apps::TrainConfig small(const std::string& backbone, const std::string& roi) {
  shrike::apps::TrainConfig config;
  config.model = small_detector(backbone);
  config.model.roi = roi;
  config.model.anchor_sizes = {16, 32};
  config.model.test_pre_nms = 60;
  config.model.test_post_nms = 20;
  return config;
}

// All that is found in three images.
inline std::vector<shrike::Detection> detect(shrike::models::FasterRcnn& model, std::uint64_t seed) {
  std::vector<shrike::Detection> all;
  const shrike::models::NextImages next = random_images(3, seed);
  while (const auto batch = next()) {
    const auto found = model.detect(batch->first, batch->second).at(0);
    all.insert(all.end(), found.begin(), found.end());
  }
  return all;
}

inline bool same(const std::vector<shrike::Detection>& a, const std::vector<shrike::Detection>& b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](const auto& x, const auto& y) {
           return x.box == y.box && x.label == y.label && x.score == y.score;
         });
}

}  // namespace quantized
