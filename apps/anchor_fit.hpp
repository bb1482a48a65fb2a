// How well anchors fit the boxes of a data set, before anything is trained.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "apps/settings.hpp"
#include "apps/train_config.hpp"
#include "shrike/data/dataset.hpp"
#include "shrike/data/image.hpp"

namespace shrike::apps {

// A box as the network sees it, and the image that it is in.
struct SeenBox {
  Box box;
  ImageSize image;
};

// At most `most` of the boxes that count, spread over the data set.
inline std::vector<SeenBox> seen_boxes(const Dataset& data, const models::DetectorConfig& config, std::size_t most = 5000) {
  std::vector<SeenBox> all;
  for (const Sample& sample : data.samples) {
    const ImageSize size = target_size(sample.height, sample.width, config.min_size, config.max_size);
    const float x = static_cast<float>(size.width) / static_cast<float>(sample.width);
    const float y = static_cast<float>(size.height) / static_cast<float>(sample.height);
    for (const Object& object : sample.objects) {
      const Box& box = object.box;
      if (!object.difficult) all.push_back({{box.x1 * x, box.y1 * y, box.x2 * x, box.y2 * y}, size});
    }
  }
  if (all.size() <= most) return all;
  std::vector<SeenBox> some;
  for (std::size_t i = 0; i < most; ++i) some.push_back(all[all.size() * i / most]);
  return some;
}

// The shares of boxes that reach IoU 0.5 and 0.7 with some anchor.
struct AnchorFit {
  double half = 0, seven = 0;
};

// Of all the anchors of one shape, the one whose centre is nearest overlaps a box most.
inline AnchorFit anchor_fit(const std::vector<SeenBox>& boxes, const models::FasterRcnnOptions& options) {
  const std::vector<Box> shapes = base_anchors(options.anchors);
  const auto stride = static_cast<float>(options.stride > 0 ? options.stride : 16);
  const float offset = options.anchors.offset * stride;
  const auto nearest = [&](float centre, int pixels) {
    const float last = std::ceil(static_cast<float>(pixels) / stride) - 1;
    return std::clamp(std::round((centre - offset) / stride), 0.0f, last) * stride + offset;
  };
  AnchorFit fit;
  for (const auto& [box, image] : boxes) {
    const float x = nearest((box.x1 + box.x2) / 2, image.width), y = nearest((box.y1 + box.y2) / 2, image.height);
    float best = 0;
    for (const Box& shape : shapes) best = std::max(best, iou(box, {shape.x1 + x, shape.y1 + y, shape.x2 + x, shape.y2 + y}));
    fit.half += best >= 0.5f;
    fit.seven += best >= 0.7f;
  }
  const double n = std::max<double>(1, static_cast<double>(boxes.size()));
  return {fit.half / n, fit.seven / n};
}

// As many sizes as there are, from a geometric series, that fit best.
inline std::vector<float> better_sizes(const std::vector<SeenBox>& boxes, models::FasterRcnnOptions options) {
  const std::size_t count = options.anchors.sizes.size();
  std::vector<float> best = options.anchors.sizes;
  double most = -1;
  for (float first = 8; first <= 256; first *= std::exp2(0.25f)) {
    for (const float ratio : {std::sqrt(2.0f), std::exp2(0.75f), 2.0f, std::exp2(1.25f)}) {
      std::vector<float> sizes;
      for (std::size_t i = 0; i < count; ++i) {
        sizes.push_back(std::max(4.0f, 4 * std::round(first * std::pow(ratio, static_cast<float>(i)) / 4)));
      }
      options.anchors.sizes = sizes;
      const AnchorFit fit = anchor_fit(boxes, options);
      const double worth = 5 * fit.half + fit.seven;  // a box that no anchor reaches is lost
      if (worth > most) most = worth, best = sizes;
    }
  }
  return best;
}

// Prints how well the anchors fit the training boxes and, where that is clearly better, which sizes would; with --anchors auto
// these are taken.
inline void fit_anchors(const Dataset& data, TrainConfig& config) {
  SHRIKE_CHECK(config.anchors == "given" || config.anchors == "auto", "anchors '", config.anchors, "': expected given or auto");
  const std::vector<SeenBox> boxes = seen_boxes(data, config.model);
  if (boxes.empty()) return;
  const auto text = [](const std::vector<float>& sizes, const AnchorFit& fit) {
    std::string list;
    for (const float size : sizes) list += (list.empty() ? "" : ", ") + TextWriter::print(size);
    char shares[96];
    std::snprintf(shares, sizeof shares, ": %.0f %% of the training boxes reach IoU 0.5 with one, %.0f %% IoU 0.7",
                  100 * fit.half, 100 * fit.seven);
    return list + shares;
  };
  models::FasterRcnnOptions options = models::detector_options(config.model);
  const AnchorFit given = anchor_fit(boxes, options);
  const std::vector<float> sizes = better_sizes(boxes, options);
  options.anchors.sizes = sizes;
  const AnchorFit better = anchor_fit(boxes, options);
  std::printf("anchors of %s\n", text(config.model.anchor_sizes, given).c_str());
  if (config.anchors == "auto") {
    config.model.anchor_sizes = sizes;
    std::printf("taken instead: %s\n", text(sizes, better).c_str());
  } else if (better.half > given.half + 0.03 || better.seven > given.seven + 0.05) {
    std::printf("of %s (--anchors auto takes them)\n", text(sizes, better).c_str());
  }
}

}  // namespace shrike::apps
