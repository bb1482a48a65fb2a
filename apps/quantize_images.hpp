// The images that scales are found with, and detectors measured with.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "apps/datasets.hpp"
#include "apps/evaluate.hpp"
#include "apps/progress.hpp"
#include "apps/signals.hpp"
#include "models/quantized.hpp"

namespace shrike::apps {

// A signal asked the program to stop: nothing is written any more.
struct Stopped {};

inline void go_on() {
  if (stop_signal != 0) throw Stopped();
}

// Images first .. first + count - 1 of the training set, or as many as there are, in an order of its own.
inline Dataset some_images(const Dataset& data, const TrainConfig& config, std::int64_t first, std::int64_t count) {
  Dataset some = data;
  Random random(config.seed, RandomStream::shuffle, ~std::uint64_t{0});
  random.shuffle(some.samples);
  const auto all = static_cast<std::int64_t>(some.samples.size());
  const auto begin = some.samples.begin() + std::clamp<std::int64_t>(first, 0, all);
  const auto end = some.samples.begin() + std::clamp<std::int64_t>(first + std::max<std::int64_t>(count, 0), first, all);
  some.samples = begin < end ? std::vector<Sample>(begin, end) : std::vector<Sample>();
  return some;
}

// Each image once, through the pipeline of inference. Throws Stopped.
inline models::NextImages images_of(const Dataset& data, const TrainConfig& config, Device device) {
  if (data.samples.empty()) return [] { return std::nullopt; };
  LoaderOptions options = loader_options(config, false);
  options.device = device;
  const auto loader = std::make_shared<Loader>(data, options);
  loader->start(0, 0);
  return [loader]() -> std::optional<std::pair<Tensor, std::vector<ImageSize>>> {
    go_on();
    const auto batch = loader->next();
    if (!batch) return std::nullopt;
    std::vector<ImageSize> sizes;
    for (const auto& item : batch->items) sizes.push_back({item.height, item.width, item.scale_x});
    return std::pair{batch->images, sizes};
  };
}

// Throws Stopped.
inline Evaluation measure(models::FasterRcnn& model, const Dataset& data, const TrainConfig& config, Device device,
                          const std::string& title) {
  ProgressLine line(100);
  Evaluation result = evaluate_detector(model, data, config, device, [&](std::int64_t done, std::int64_t all) {
    line.show(message(title, ": image ", done, " of ", all));
  });
  line.clear();
  go_on();
  return result;
}

}  // namespace shrike::apps
