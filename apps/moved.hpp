// How far training has moved each part of a detector from where it began: a part that learns nothing is seen.
#pragma once

#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "apps/weights.hpp"

namespace shrike::apps {

// The part of the detector that a parameter belongs to, as a reader would name it: "layer2", "conv 17", "rpn conv", "fc6",
// "cls_score".
inline std::string part_of(const std::string& name) {
  const auto after = [&](const std::string& prefix) {
    const std::string rest = name.substr(prefix.size());
    return rest.substr(0, rest.find('.'));
  };
  if (name.starts_with("rpn.head.conv")) return "rpn conv";
  if (name.starts_with("rpn.head.")) return "rpn " + after("rpn.head.");
  if (name.starts_with("roi_heads.box_head.")) return after("roi_heads.box_head.");
  if (name.starts_with("roi_heads.box_predictor.")) return after("roi_heads.box_predictor.");
  const std::string first = after("backbone.");
  return first.find_first_not_of("0123456789") == std::string::npos ? "layer " + first : first;
}

// |w - w0| / |w0| over the trained weights (no biases, no norms) of each part, in the network's order.
inline std::vector<std::pair<std::string, double>> distances(nn::Module& start, nn::Module& now) {
  std::vector<std::string> parts;
  std::map<std::string, std::pair<double, double>> squares;
  const auto before = nn::named_parameters(start), after = nn::named_parameters(now);
  SHRIKE_CHECK(before.size() == after.size(), "models of ", before.size(), " and ", after.size(), " parameters");
  for (std::size_t i = 0; i < after.size(); ++i) {
    const auto& [name, tensor] = after[i];
    if (!tensor.requires_grad() || tensor.rank() < 2) continue;
    const std::string part = part_of(name);
    if (!squares.contains(part)) parts.push_back(part);
    auto& [moved, size] = squares[part];
    const auto a = before[i].second.to_vector<float>(), b = tensor.to_vector<float>();
    for (std::size_t k = 0; k < a.size(); ++k) {
      const double difference = static_cast<double>(b[k]) - static_cast<double>(a[k]);
      moved += difference * difference;
      size += static_cast<double>(a[k]) * static_cast<double>(a[k]);
    }
  }
  std::vector<std::pair<std::string, double>> result;
  for (const std::string& part : parts) result.emplace_back(part, std::sqrt(squares[part].first / squares[part].second));
  return result;
}

// The model that a run of these settings begins with, on the host. weights: the file that they name, or null without one;
// `loaded` gets what there is to say about it.
inline std::shared_ptr<models::FasterRcnn> start_of(const TrainConfig& config, const TensorFile* weights, std::string& loaded) {
  const auto model = models::make_detector(config.model, models::head_init(config.init));
  nn::initialize(*model, config.seed);
  if (weights != nullptr) loaded = load_weights(*weights, config.model, *model);
  return model;
}

}  // namespace shrike::apps
