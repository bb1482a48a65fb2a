// Weights from elsewhere into a detector.
#pragma once

#include <algorithm>
#include <cstdio>

#include "apps/checkpoint.hpp"
#include "models/detector.hpp"
#include "shrike/io/weights.hpp"

namespace shrike::apps {

// The name in a detector of a tensor of torchvision's: of a whole detector, of a classifier (VGG's features and fc6, fc7), or
// of a backbone alone. Empty for what a detector has no use for (the classifier's last layer, ResNet's layer4).
inline std::string detector_name(const std::string& name, const models::DetectorConfig& config) {
  if (name.starts_with("backbone.") || name.starts_with("rpn.") || name.starts_with("roi_heads.")) {
    return name.starts_with("backbone.body.") ? "backbone." + name.substr(14) : name;
  }
  if (name.ends_with("num_batches_tracked") || name.starts_with("fc.") || name.starts_with("layer4.") ||
      name.starts_with("classifier.6.")) {
    return "";
  }
  if (name.starts_with("features.")) return "backbone." + name.substr(9);
  if (name.starts_with("classifier.0.")) return config.is_vgg() ? "roi_heads.box_head.fc6." + name.substr(13) : "";
  if (name.starts_with("classifier.3.")) return config.is_vgg() ? "roi_heads.box_head.fc7." + name.substr(13) : "";
  return "backbone." + name;
}

// Copies weights of torchvision's names and layout (OIHW; fc6 after a flatten of C, H, W) into the model. A file without the
// heads leaves them as they are. The result says what was loaded, in one line. Throws Error when a backbone tensor is missing,
// or any tensor has another shape, is not finite, or belongs nowhere.
inline std::string import_weights(const TensorFile& file, const models::DetectorConfig& config, nn::Module& model) {
  TensorFile renamed;
  renamed.name = file.name;
  for (const auto& [name, tensor] : file.tensors) {
    const std::string target = detector_name(name, config);
    if (!target.empty()) renamed.tensors[target] = tensor;
  }
  const bool whole = std::any_of(renamed.tensors.begin(), renamed.tensors.end(),
                                 [](const auto& entry) { return entry.first.starts_with("rpn."); });
  NamedTensors targets;
  for (auto& [name, tensor] : nn::named_state(model)) {
    if (whole || name.starts_with("backbone.") || renamed.tensors.contains(name)) targets.emplace_back(name, tensor);
  }
  const std::int64_t channels = (config.is_vgg() ? 8 : 4) * std::int64_t{config.width};
  WeightOptions options;
  options.layout = WeightLayout::torchvision;
  if (whole || renamed.tensors.contains("roi_heads.box_head.fc6.weight")) {
    options.flatten["roi_heads.box_head.fc6.weight"] = {channels, config.roi_size, config.roi_size};
  }
  load_named(renamed, targets, options);
  return message(file.name, ": ", targets.size(), " of ", nn::named_state(model).size(), " tensors of the detector loaded");
}

// Starts a model from a file: a checkpoint of ours, or weights of torchvision's. The result says what was loaded, in one line.
inline std::string load_weights(const std::string& path, const models::DetectorConfig& config, nn::Module& model) {
  const TensorFile file = load_safetensors(path);
  if (file.metadata.contains("format")) {
    checkpoint_config(file);  // refuses what is not a checkpoint of a detector
    load_checkpoint(file, model, nullptr);
    return message(path, ": all tensors of the checkpoint loaded");
  }
  return import_weights(file, config, model);
}

}  // namespace shrike::apps
