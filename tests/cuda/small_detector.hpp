// A detector as small as it can be with every part at work.
#pragma once

#include "models/detector.hpp"

// Sampling, suppression that drops, several classes.
inline shrike::models::DetectorConfig small_detector(const std::string& backbone) {
  shrike::models::DetectorConfig config;
  config.backbone = backbone;
  config.width = 4;
  config.head_width = 16;
  config.roi_size = 3;
  config.anchor_sizes = {16, 32};
  config.anchor_ratios = {0.5f, 1, 2};
  config.classes = {"dark", "bright"};
  config.rpn_batch = 24;
  config.roi_batch = 12;
  config.train_pre_nms = 40;
  config.train_post_nms = 16;
  config.test_pre_nms = 40;
  config.test_post_nms = 12;
  config.score_threshold = 0.02;
  return config;
}
