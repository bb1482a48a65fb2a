// How a trained detector looks at images, where that differs from what it was trained with.
#pragma once

#include <cmath>
#include <string>

#include "apps/settings.hpp"
#include "models/detector.hpp"

namespace shrike::apps {

struct TestTime {
  int min_size = 0, max_size = 0;  // 0, negative and empty: as it was trained
  bool flip = false;
  std::string soft_nms;
  double soft_nms_sigma = -1;

  void add_options(CLI::App& app) {
    const char* group = "Test time";
    app.add_option("--min-size,--test-scale", min_size,
                   "images are resized until the shorter side has this many pixels; by default as in training")
        ->group(group)
        ->check(CLI::PositiveNumber);
    app.add_option("--max-size", max_size,
                   "... or the longer side this many; by default in the same ratio to the shorter one as in training")
        ->group(group)
        ->check(CLI::PositiveNumber);
    app.add_flag("--flip", flip,
                 "look at the mirror image too, and suppress what is found in both together: costs twice the time")
        ->group(group);
    app.add_option(
           "--soft-nms", soft_nms,
           "off, or linear or gaussian: boxes that overlap better ones lose score instead of dropping out (Bodla et al., "
           "2017), and those whose score falls below the threshold are dropped; by default as in training")
        ->group(group)
        ->check(CLI::IsMember({"off", "linear", "gaussian"}));
    app.add_option("--soft-nms-sigma", soft_nms_sigma, "gaussian: scores fall by exp(-IoU^2 / sigma); 0.5 by default")
        ->group(group)
        ->check(CLI::PositiveNumber);
  }

  // Puts what was given into the settings of a detector and into its options.
  void apply(models::DetectorConfig& config, models::FasterRcnnOptions& options) const {
    const double ratio = static_cast<double>(config.max_size) / config.min_size;
    if (min_size > 0) config.min_size = min_size;
    if (min_size > 0) config.max_size = static_cast<int>(std::lround(ratio * min_size));
    if (max_size > 0) config.max_size = max_size;
    SHRIKE_CHECK(config.max_size >= config.min_size, "--max-size ", config.max_size, " is less than --min-size ",
                 config.min_size, ": expected at least that");
    if (!soft_nms.empty()) config.soft_nms = soft_nms;
    if (soft_nms_sigma > 0) config.soft_nms_sigma = soft_nms_sigma;
    options.detections.soft_nms = parse_soft_nms(config.soft_nms);
    options.detections.soft_nms_sigma = config.soft_nms_sigma;
    options.test_flip = flip;
  }
};

}  // namespace shrike::apps
