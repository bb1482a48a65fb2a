// Opens the data that the settings name.
#pragma once

#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "apps/train_config.hpp"
#include "shrike/data/loader.hpp"
#include "shrike/data/shapes.hpp"
#include "shrike/data/split.hpp"
#include "shrike/data/voc.hpp"

namespace shrike::apps {

// Where the built-in data set is written, once.
inline const char* shapes_folder() { return "data/shapes"; }

// One image set of these years in VOC format, or of the built-in shapes when `config.data` is empty. Fills in the class names
// if there are none.
inline Dataset open_split(TrainConfig& config, const std::string& years, const std::string& splits,
                          VocReport* report = nullptr) {
  std::string root = config.data;
  if (root.empty()) {
    root = shapes_folder();
    const ShapesOptions options;
    write_shapes(root, options);
    if (config.model.classes.empty()) config.model.classes = shape_classes();
  }
  VocOptions options;
  options.years = years;
  options.drop_bad_boxes = config.drop_bad_boxes;
  Dataset data = read_voc(root, splits, config.model.classes, options, report);
  config.model.classes = data.classes;
  return data;
}

// The image set `name` to test on, of --test-years, or of --years without. Throws Error that says so where one of several years
// has no such list.
inline Dataset open_test_split(TrainConfig& config, const std::string& name, VocReport* report = nullptr) {
  if (!config.test_years.empty()) return open_split(config, config.test_years, name, report);
  try {
    return open_split(config, config.years, name, report);
  } catch (const Error& error) {
    if (config.years.find('+') == std::string::npos) throw;
    fail(error.what(), "; --test-years names the years of the test set, where they are others than --years ", config.years);
  }
}

// The images to train on, those that choose the best checkpoint (none: the test images do) and those to test on.
struct DataSets {
  Dataset train, val, test;
};

namespace detail {

// Whether images besides the test set choose the best checkpoint.
inline bool has_val(const TrainConfig& config) { return !config.val_split.empty() || config.val_fraction != 0; }

// The training images, and those that --resplit holds out of them, if it is given.
inline std::pair<Dataset, Dataset> open_train(TrainConfig& config, VocReport& report) {
  if (config.resplit.empty()) return {open_split(config, config.years, config.train_split, &report), {}};
  SHRIKE_CHECK(config.test_years.empty(), "--resplit ", config.resplit, " with --test-years ", config.test_years,
               ": one division of all images has no other years to test on; leave one of them out");
  const std::vector<int> ratio = parse_ratio(config.resplit);
  SHRIKE_CHECK(ratio.size() == 2, "resplit '", config.resplit,
               "': expected two numbers, for training and evaluation, as in 9:1");
  const Dataset all = open_split(config, config.years, config.train_split + "+" + config.test_split, &report);
  auto parts = split_dataset(all, ratio, config.split_seed);
  return {std::move(parts[0]), std::move(parts[1])};
}

// Takes the validation images out of the training images, or opens them. Throws Error when some of them are trained on.
inline Dataset open_val(TrainConfig& config, Dataset& train, VocReport& report) {
  SHRIKE_CHECK(config.val_split.empty() || config.val_fraction == 0, "val-split ", config.val_split, " and val-fraction ",
               config.val_fraction, ": expected one of them");
  if (config.val_split.empty()) {
    SHRIKE_CHECK(config.val_fraction > 0 && config.val_fraction < 1, "val-fraction ", config.val_fraction,
                 ": expected a number between 0 and 1, the part of the training images that chooses the best checkpoint");
    auto [rest, val] = hold_out(train, config.val_fraction, config.split_seed);
    train = std::move(rest);
    return val;
  }
  Dataset val = open_split(config, config.years, config.val_split, &report);
  const std::int64_t shared = count_shared(val, train);
  SHRIKE_CHECK(shared == 0, "val-split ", config.val_split, ": ", shared, " of its ", val.samples.size(),
               " images are training images too: expected others, as with --train-split train --val-split val, or "
               "--val-fraction in its place");
  return val;
}

}  // namespace detail

// One line when some of the images were trained on.
inline void note_trained_on(const Dataset& images, const Dataset& train, const std::string& name) {
  const std::int64_t shared = count_shared(images, train);
  if (shared == 0) return;
  std::printf("warning: %lld of the %zu images of %s were trained on: what is measured there is not what others would give\n",
              static_cast<long long>(shared), images.samples.size(), name.c_str());
}

// All that the settings name, each with a table of what it holds; `test_split`: this image set to test on instead, with the
// training images as they were.
inline DataSets open_data(TrainConfig& config, const std::string& test_split = "") {
  VocReport report;
  auto [train, held_out] = detail::open_train(config, report);
  const bool resplit = !config.resplit.empty();
  std::printf("%s\n%s", resplit ? "all images" : "training set", to_string(report).c_str());
  if (resplit) {
    std::printf("%zu of them to train on, %zu to test on (--resplit %s, --split-seed %llu)\n", train.samples.size(),
                held_out.samples.size(), config.resplit.c_str(), static_cast<unsigned long long>(config.split_seed));
  }
  DataSets sets{std::move(train), {}, std::move(held_out)};
  if (detail::has_val(config)) {
    sets.val = detail::open_val(config, sets.train, report);
    if (!config.val_split.empty()) std::printf("validation set\n%s", to_string(report).c_str());
    std::printf("%zu images are trained on, %zu%s choose the best checkpoint\n", sets.train.samples.size(),
                sets.val.samples.size(), config.val_split.empty() ? " held out of the training set" : "");
  }
  if (!resplit || !test_split.empty()) {
    const std::string name = test_split.empty() ? config.test_split : test_split;
    sets.test = open_test_split(config, name, &report);
    std::printf("test set\n%s", to_string(report).c_str());
    note_trained_on(sets.test, sets.train, name);
  }
  return sets;
}

// The images to test a trained detector on: the image set of that name, else those that its settings name or held out, with one
// line when it was trained on some. `trained` is what it was trained with; in `config` folder, years and bad boxes may differ.
inline Dataset open_test_set(TrainConfig& config, TrainConfig trained, const std::string& test_split = "") {
  VocReport report;
  if (test_split.empty() && !config.resplit.empty()) {
    Dataset held_out = detail::open_train(config, report).second;
    std::printf("testing on the %zu images that --resplit %s held out\n", held_out.samples.size(), config.resplit.c_str());
    return held_out;
  }
  const std::string name = test_split.empty() ? config.test_split : test_split;
  Dataset test = open_test_split(config, name);
  try {
    Dataset train = detail::open_train(trained, report).first;
    if (detail::has_val(trained)) detail::open_val(trained, train, report);
    note_trained_on(test, train, name);
  } catch (const Error& error) {
    std::printf("whether some of these images were trained on is not known: %s\n", error.what());
  }
  return test;
}

// How images are loaded for the network; `training` shuffles, flips and jitters.
inline LoaderOptions loader_options(const TrainConfig& config, bool training) {
  LoaderOptions options;
  options.min_size = config.model.min_size;
  options.max_size = config.model.max_size;
  if (training) options.min_sizes = config.train_sizes;
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
