// Weights from elsewhere into a detector.
#pragma once

#include <algorithm>
#include <cstdio>
#include <set>

#include "apps/checkpoint.hpp"
#include "models/detector.hpp"
#include "shrike/io/weights.hpp"

namespace shrike::apps {

// Where a ResNet's layer4 is in a detector with head res5.
inline constexpr const char* layer4_prefix = "roi_heads.box_head.layer4.";

// The name in a detector of a tensor of torchvision's: of a whole detector, of a classifier (VGG's features and fc6, fc7), or
// of a backbone alone. Empty for what a detector has no use for (the classifier's last layer; ResNet's layer4 with head fc).
inline std::string detector_name(const std::string& name, const models::DetectorConfig& config) {
  if (name.starts_with("backbone.") || name.starts_with("rpn.") || name.starts_with("roi_heads.")) {
    return name.starts_with("backbone.body.") ? "backbone." + name.substr(14) : name;
  }
  if (name.ends_with("num_batches_tracked") || name.starts_with("fc.") || name.starts_with("classifier.6.")) return "";
  if (name.starts_with("layer4.")) return config.head == "res5" ? layer4_prefix + name.substr(7) : "";
  if (name.starts_with("features.")) return "backbone." + name.substr(9);
  if (name.starts_with("classifier.0.")) return config.is_vgg() ? "roi_heads.box_head.fc6." + name.substr(13) : "";
  if (name.starts_with("classifier.3.")) return config.is_vgg() ? "roi_heads.box_head.fc7." + name.substr(13) : "";
  return "backbone." + name;
}

// torchvision's VGG has convolution biases beside batch norm, ours has none: they are folded into the running means.
inline void fold_biases(TensorFile& file) {
  const std::string prefix = "backbone.";
  std::vector<std::string> folded;
  for (const auto& [name, tensor] : file.tensors) {
    const std::string number =
        name.starts_with(prefix) ? name.substr(prefix.size(), name.find('.', prefix.size()) - prefix.size()) : "";
    if (name != prefix + number + ".bias" || number.find_first_not_of("0123456789") != std::string::npos) continue;
    const auto mean = file.tensors.find(prefix + std::to_string(std::stoi(number) + 1) + ".running_mean");
    if (mean == file.tensors.end() || mean->second.shape() != tensor.shape()) continue;
    auto values = mean->second.to_vector<float>();
    const auto biases = tensor.to_vector<float>();
    for (std::size_t i = 0; i < values.size(); ++i) values[i] -= biases[i];
    mean->second = shrike::tensor(tensor.shape(), values);
    folded.push_back(name);
  }
  for (const std::string& name : folded) file.tensors.erase(name);
}

// Batch norm as a file of torchvision's weights has it. Says so where it was set otherwise.
inline void follow_weights(const TensorFile& file, models::DetectorConfig& config) {
  if (file.metadata.contains("format")) return;  // a checkpoint of ours
  const bool norm = std::any_of(file.tensors.begin(), file.tensors.end(),
                                [](const auto& entry) { return entry.first.ends_with(".running_mean"); });
  if (norm == config.batch_norm) return;
  config.batch_norm = norm;
  std::printf("%s: %s batch norm, so has the detector\n", file.name.c_str(), norm ? "has" : "has no");
}

// Decides what norm auto means: batch norm is frozen in a ResNet that starts from weights, whose statistics it has, and live
// otherwise.
inline void settle_norm(bool from_weights, models::DetectorConfig& config) {
  if (config.norm == "auto" && config.batch_norm) config.norm = from_weights && !config.is_vgg() ? "frozen" : "live";
}

// Copies weights of torchvision's names and layout (OIHW; fc6 after a flatten of C, H, W) into the model. A file without the
// heads leaves them as they are. The result says what was loaded, in one line. Throws Error when a backbone tensor is missing,
// or any tensor has another shape, is not finite, or belongs nowhere.
inline std::string import_weights(const TensorFile& file, const models::DetectorConfig& config, nn::Module& model) {
  TensorFile renamed;
  renamed.name = file.name;
  std::set<std::string> unused;
  for (const auto& [name, tensor] : file.tensors) {
    const std::string target = detector_name(name, config);
    if (!target.empty()) {
      renamed.tensors[target] = tensor;
    } else if (!name.ends_with("num_batches_tracked")) {
      unused.insert(name.substr(0, name.find('.', name.starts_with("classifier.") ? 11 : 0)));
    }
  }
  if (config.batch_norm && config.is_vgg()) fold_biases(renamed);
  const auto has = [&](const char* prefix) {
    return std::any_of(renamed.tensors.begin(), renamed.tensors.end(),
                       [&](const auto& entry) { return entry.first.starts_with(prefix); });
  };
  const bool whole = has("rpn."), layer4 = has(layer4_prefix);
  NamedTensors targets;
  for (auto& [name, tensor] : nn::named_state(model)) {
    const bool needed = whole || name.starts_with("backbone.") || (layer4 && name.starts_with(layer4_prefix));
    if (needed || renamed.tensors.contains(name)) targets.emplace_back(name, tensor);
  }
  WeightOptions options;
  options.layout = WeightLayout::torchvision;
  if (config.head == "fc" && (whole || renamed.tensors.contains("roi_heads.box_head.fc6.weight"))) {
    options.flatten["roi_heads.box_head.fc6.weight"] = {config.channels(), config.pooled_size(), config.pooled_size()};
  }
  load_named(renamed, targets, options);
  std::string text =
      message(file.name, ": ", targets.size(), " of ", nn::named_state(model).size(), " tensors of the detector loaded");
  for (const std::string& name : unused) text += (name == *unused.begin() ? "; without use here: " : ", ") + name;
  return text;
}

// Starts a model from a file: a checkpoint of ours, or weights of torchvision's. The result says what was loaded, in one line.
inline std::string load_weights(const TensorFile& file, const models::DetectorConfig& config, nn::Module& model) {
  if (file.metadata.contains("format")) {
    checkpoint_config(file);  // refuses what is not a checkpoint of a detector
    load_checkpoint(file, model);
    return message(file.name, ": all tensors of the checkpoint loaded");
  }
  return import_weights(file, config, model);
}

}  // namespace shrike::apps
