// Opens the data that the settings name.
#pragma once

#include <cstdio>
#include <string>
#include <utility>

#include "apps/train_config.hpp"
#include "shrike/data/loader.hpp"
#include "shrike/data/shapes.hpp"
#include "shrike/data/split.hpp"
#include "shrike/data/voc.hpp"

namespace shrike::apps {

// Where the built-in data set is written, once.
inline const char* shapes_folder() { return "data/shapes"; }

// One image set in VOC format, or of the built-in shapes when `config.data` is empty. Fills in the class names if there are
// none.
inline Dataset open_split(TrainConfig& config, const std::string& splits, VocReport* report = nullptr) {
  std::string root = config.data;
  if (root.empty()) {
    root = shapes_folder();
    const ShapesOptions options;
    write_shapes(root, options);
    if (config.model.classes.empty()) config.model.classes = shape_classes();
  }
  VocOptions options;
  options.years = config.years;
  options.drop_bad_boxes = config.drop_bad_boxes;
  Dataset data = read_voc(root, splits, config.model.classes, options, report);
  config.model.classes = data.classes;
  return data;
}

// The images to train on and those to evaluate on.
inline std::pair<Dataset, Dataset> open_data(TrainConfig& config) {
  VocReport report;
  if (!config.split.empty()) {
    Dataset all = open_split(config, config.train_split + "+" + config.test_split, &report);
    std::printf("%s", to_string(report).c_str());
    const std::vector<int> ratio = parse_ratio(config.split);
    SHRIKE_CHECK(ratio.size() == 2, "split '", config.split, "': expected two numbers, for training and evaluation, as in 9:1");
    auto parts = split_dataset(all, ratio, config.split_seed);
    return {std::move(parts[0]), std::move(parts[1])};
  }
  Dataset train = open_split(config, config.train_split, &report);
  std::printf("training set\n%s", to_string(report).c_str());
  Dataset test = open_split(config, config.test_split, &report);
  std::printf("test set\n%s", to_string(report).c_str());
  return {std::move(train), std::move(test)};
}

// Those to evaluate on alone.
inline Dataset open_test_set(TrainConfig& config) {
  return config.split.empty() ? open_split(config, config.test_split) : open_data(config).second;
}

// How images are loaded for the network; `training` shuffles, flips and jitters.
inline LoaderOptions loader_options(const TrainConfig& config, bool training) {
  LoaderOptions options;
  options.min_size = config.model.min_size;
  options.max_size = config.model.max_size;
  options.normalization = models::normalization(config.model);
  options.threads = config.workers;
  options.seed = config.seed;
  options.batch_size = training ? config.batch : 1;
  options.shuffle = training;
  options.flip_probability = training ? config.flip : 0;
  options.keep_difficult = !training;
  if (training && config.jitter > 0) {
    const auto strength = static_cast<float>(config.jitter);
    options.jitter = {0.4f * strength, 0.4f * strength, 0.4f * strength, 0.1f * strength, 0.5f};
  }
  return options;
}

}  // namespace shrike::apps
