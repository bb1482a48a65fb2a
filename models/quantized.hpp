// The quantized twin of a detector: its three static parts traced, fused, prepared, calibrated or trained, and converted. What
// joins them stays models/faster_rcnn.hpp.
#pragma once

#include <array>
#include <cmath>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "models/faster_rcnn.hpp"
#include "shrike/graph/fuse.hpp"
#include "shrike/graph/save.hpp"
#include "shrike/ops/half.hpp"
#include "shrike/quant/convert.hpp"
#include "shrike/quant/dynamic.hpp"
#include "shrike/quant/equalize.hpp"
#include "shrike/quant/half.hpp"

namespace shrike::models {

// The static parts, named as FasterRcnn names them: the backbone first, then the heads that read its feature map.
inline constexpr std::array<const char*, 3> part_names = {"backbone", "rpn.head", "roi_heads"};

template <class G> using Parts = std::array<std::shared_ptr<G>, 3>;

// A detector of these parts.
template <class G> std::shared_ptr<FasterRcnn> join(const Parts<G>& parts, const FasterRcnnOptions& options) {
  return std::make_shared<FasterRcnn>(parts[0], parts[1], parts[2], options);
}

// 16 hex digits that depend on every name, shape and bit of the module's parameters and buffers: whose calibration is whose.
inline std::string weights_hash(nn::Module& module) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  const auto mix = [&](std::uint64_t word) { hash = ((hash ^ word) * 0x100000001b3u) ^ (hash >> 29); };
  for (const auto& [name, tensor] : nn::named_state(module)) {
    mix(nn::hash_name(name));
    for (const std::int64_t size : tensor.shape()) mix(static_cast<std::uint64_t>(size));
    const Tensor host = tensor.to(Device::cpu);
    const auto* bytes = static_cast<const unsigned char*>(host.raw());
    for (std::size_t i = 0; i < host.bytes(); i += 8) {
      std::uint64_t word = 0;
      std::memcpy(&word, bytes + i, std::min<std::size_t>(8, host.bytes() - i));
      mix(word);
    }
  }
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
  return text;
}

struct FusedDetector {
  Parts<Graph> parts;
  std::array<RewriteReport, 3> reports;
  FasterRcnnOptions options;
  std::string weights;  // weights_hash() of the detector, and "-equalized" when they are not just its own
};

// The graphs share the detector's tensors, except for convolutions that took a batch norm in.
inline FusedDetector fuse_detector(FasterRcnn& detector) {
  FusedDetector result;
  result.options = detector.options();
  result.weights = weights_hash(detector);
  const NoGrad no_grad;
  const Device device = nn::named_parameters(*detector.backbone()).at(0).second.device();
  const Tensor image = zeros({1, 64, 64, 3}, Dtype::f32, device);
  result.parts[0] = trace(*detector.backbone(), {image});
  const Tensors maps = result.parts[0]->forward({image});
  SHRIKE_CHECK(maps.size() == 1, "a backbone of ", maps.size(), " feature maps: expected one");
  const RoiOptions& roi = detector.options().roi;
  result.parts[1] = trace(*detector.rpn_head(), {maps[0]});
  result.parts[2] =
      trace(*detector.box_head(), {zeros({1, roi.height, roi.width, maps[0].size(3)}, Dtype::f32, maps[0].device())});
  for (std::size_t i = 0; i < 3; ++i) result.reports[i] = fuse(*result.parts[i]);
  return result;
}

// Equalises pairs of layers within each part (quant/equalize.hpp); what the parts compute stays the same.
inline quant::EqualizeReport equalize_detector(FusedDetector& fused) {
  quant::EqualizeReport report;
  for (std::size_t i = 0; i < 3; ++i) {
    const auto part = quant::equalize(*fused.parts[i], part_names[i]);
    report.lines.insert(report.lines.end(), part.lines.begin(), part.lines.end());
    report.sweeps = std::max(report.sweeps, part.sweeps);
  }
  fused.weights += "-equalized";
  return report;
}

struct PreparedDetector {
  Parts<quant::Prepared> parts;
  std::shared_ptr<FasterRcnn> model;  // of these parts: to calibrate, train and evaluate
  std::string weights;
};

// The feature map becomes codes, whose scale both heads share; predictors stay in float. Of `options` prefix, inputs and
// quantize_outputs are chosen here. Names of layers, for keep_float: "backbone.0", "rpn.head.conv.0.0",
// "roi_heads.box_head.fc6".
inline PreparedDetector prepare_detector(const FusedDetector& fused, quant::PrepareOptions options) {
  PreparedDetector result;
  result.weights = fused.weights;
  for (std::size_t i = 0; i < 3; ++i) {
    options.prefix = part_names[i];
    options.quantize_outputs = i == 0;
    if (i > 0) options.input_reach = 0;  // the image's alone
    options.inputs.clear();
    if (i > 0) options.inputs.push_back(result.parts[0]->output_port(0));
    result.parts[i] = quant::prepare(*fused.parts[i], options);
  }
  result.model = join(result.parts, fused.options);
  return result;
}

// A batch as detect() takes it; nothing when there are no more.
using NextImages = std::function<std::optional<std::pair<Tensor, std::vector<ImageSize>>>()>;

// Finds every scale by running the images through detect(). Returns the names of activations that were constant. Throws Error
// when there are no images, or naming an activation that was never seen or not finite.
inline std::vector<std::string> calibrate(const PreparedDetector& detector, const NextImages& next) {
  nn::train(*detector.model, false);
  for (const auto& part : detector.parts) part->begin_calibration();
  std::int64_t images = 0;
  while (const auto batch = next()) {
    detector.model->detect(batch->first, batch->second);
    images += batch->first.size(0);
  }
  SHRIKE_CHECK(images > 0, "no calibration images: scales of activations cannot be found");
  std::vector<std::string> constant;
  for (const auto& part : detector.parts) {
    for (std::string& name : part->end_calibration()) constant.push_back(std::move(name));
  }
  return constant;
}

inline constexpr const char* calibration_format = "shrike-calibration-1";

// The scales of activations as a file, with the hash of the weights that they belong to.
inline TensorFile calibration_file(const PreparedDetector& detector) {
  TensorFile file;
  file.metadata["format"] = calibration_format;
  file.metadata["weights"] = detector.weights;
  for (const auto& part : detector.parts) {
    for (const auto& activation : part->activations) {
      const Tensor scale = part->constants.at(activation.scale).detach().to(Device::cpu).clone();
      SHRIKE_CHECK(scale.item() != 0, activation.observer.name(), " has no scale to write: calibrate first");
      SHRIKE_CHECK(file.tensors.emplace(activation.observer.name(), scale).second, "two activations are named ",
                   activation.observer.name());
    }
  }
  return file;
}

// Takes the scales from such a file. Throws Error when it is not one, was made with other weights, or lacks a scale or has one
// that is not positive; nothing is changed then.
inline void take_calibration(const TensorFile& file, const PreparedDetector& detector) {
  const auto text = [&](const std::string& key) {
    const auto found = file.metadata.find(key);
    return found == file.metadata.end() ? std::string() : found->second;
  };
  SHRIKE_CHECK(text("format") == calibration_format, file.name, ": format '", text("format"), "': expected '",
               calibration_format, "'");
  SHRIKE_CHECK(text("weights") == detector.weights, file.name, ": a calibration of other weights: theirs have the hash ",
               text("weights"), ", these ", detector.weights);
  std::vector<std::pair<Tensor, float>> scales;
  for (const auto& part : detector.parts) {
    for (const auto& activation : part->activations) {
      const std::string& name = activation.observer.name();
      const auto found = file.tensors.find(name);
      SHRIKE_CHECK(found != file.tensors.end(), file.name, ": the scale of ", name, " is missing");
      SHRIKE_CHECK(found->second.dtype() == Dtype::f32 && found->second.shape() == Shape{1}, file.name, ": the scale of ", name,
                   " is ", shrike::name(found->second.dtype()), " of shape ", found->second.shape(), ": expected f32 [1]");
      const float scale = found->second.item();
      SHRIKE_CHECK(scale > 0 && std::isfinite(scale), file.name, ": the scale of ", name, " is ", scale,
                   ": expected a positive number");
      scales.emplace_back(part->constants.at(activation.scale), scale);
    }
  }
  for (const auto& [tensor, scale] : scales) tensor.copy_from(full({1}, scale));
}

struct ConvertedDetector {
  Parts<Graph> parts;
  quant::ConvertReport report;  // of all three

  void add(std::size_t i, quant::Converted part) {
    parts[i] = std::move(part.graph);
    report.lines.insert(report.lines.end(), part.report.lines.begin(), part.report.lines.end());
  }
};

// To int8, from a calibrated or trained detector.
inline ConvertedDetector convert_detector(const PreparedDetector& detector) {
  ConvertedDetector result;
  for (std::size_t i = 0; i < 3; ++i) result.add(i, quant::convert(*detector.parts[i]));
  return result;
}

// To int8 with the ranges of activations found when it runs (quant/dynamic.hpp). Of `options` prefix, predictors_float and
// nonnegative_inputs are chosen here; the first layer is the image's. The feature map stays float, each head makes codes of it.
inline ConvertedDetector dynamic_detector(const FusedDetector& fused, quant::DynamicOptions options = {}) {
  ConvertedDetector result;
  for (std::size_t i = 0; i < 3; ++i) {
    options.prefix = part_names[i];
    options.predictors_float = i > 0;
    if (i > 0) options.first_layer_float = false;
    options.nonnegative_inputs = i > 0 && quant::outputs_nonnegative(*fused.parts[0]);
    result.add(i, quant::to_dynamic(*fused.parts[i], options));
  }
  return result;
}

// Weights alone, in f16 or s8.
inline ConvertedDetector quantize_weights(const FusedDetector& fused, quant::WeightType type,
                                          const std::vector<std::string>& keep_float) {
  ConvertedDetector result;
  for (std::size_t i = 0; i < 3; ++i) {
    result.add(i, quant::quantize_weights(*fused.parts[i], type, keep_float, part_names[i]));
  }
  return result;
}

// To f16: the image is narrowed, the feature map is of halves, and the predictors give floats.
inline ConvertedDetector half_detector(const FusedDetector& fused, const std::vector<std::string>& keep_float = {}) {
  ConvertedDetector result;
  for (std::size_t i = 0; i < 3; ++i) {
    result.add(i, quant::to_half(*fused.parts[i], {part_names[i], keep_float, i > 0, i == 0}));
  }
  return result;
}

inline void write_parts(const Parts<Graph>& parts, TensorFile& file) {
  for (std::size_t i = 0; i < 3; ++i) write_graph(*parts[i], part_names[i], file);
}

// The parts that write_parts() added, ready to run: weights in fewer bits that are computed with in float are made float here.
// Throws Error as read_graph() does, and when the parts do not fit each other, have a number that is not finite, or the file
// has tensors besides theirs.
inline Parts<Graph> read_parts(const TensorFile& file) {
  Parts<Graph> parts;
  std::size_t tensors = 0;
  for (std::size_t i = 0; i < 3; ++i) {
    parts[i] = read_graph(file, part_names[i]);
    tensors += parts[i]->constants.size();
    const std::string where = file.name + ": the graph " + part_names[i];
    const std::size_t outputs = i == 0 ? 1 : 2;
    SHRIKE_CHECK(parts[i]->inputs.size() == 1 && parts[i]->outputs.size() == outputs, where, " has ", parts[i]->inputs.size(),
                 " inputs and ", parts[i]->outputs.size(), " outputs: expected 1 and ", outputs);
    for (const auto& [value, tensor] : parts[i]->constants) {
      if (tensor.dtype() != Dtype::f32 && tensor.dtype() != Dtype::f16) continue;
      const Tensor floats = tensor.dtype() == Dtype::f16 ? widen(tensor) : tensor;
      const float* data = floats.data<float>();
      for (std::int64_t k = 0; k < tensor.numel(); ++k) {
        SHRIKE_CHECK(std::isfinite(data[k]), where, ": ", parts[i]->value_name(value), " holds ", data[k], " at ", k);
      }
    }
    const auto code = [&](const Graph& graph, Graph::Value value) {
      const auto found = graph.codes.find(value);
      return found == graph.codes.end() ? Code{Dtype::f32, 1} : found->second;
    };
    if (i == 0) continue;
    const Code made = code(*parts[0], parts[0]->outputs[0]), read = code(*parts[i], parts[i]->inputs[0]);
    SHRIKE_CHECK(made.dtype == read.dtype && made.scale == read.scale, where, " reads ", name(read.dtype), " at scale ",
                 read.scale, ", the backbone makes ", name(made.dtype), " at scale ", made.scale);
  }
  SHRIKE_CHECK(tensors == file.tensors.size(), file.name, ": ", file.tensors.size(), " tensors, of which its graphs read ",
               tensors);
  for (const auto& part : parts) quant::expand_constants(*part);
  return parts;
}

}  // namespace shrike::models
