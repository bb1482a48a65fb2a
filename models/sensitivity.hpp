// What each layer of a detector loses in int8.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>

#include "models/quantized.hpp"
#include "shrike/ops/nms.hpp"
#include "shrike/quant/bias_correction.hpp"
#include "shrike/quant/sensitivity.hpp"

namespace shrike::models {

struct LayerSensitivity {
  std::size_t part = 0;
  quant::QuantizedLayer layer;
  double sqnr = 0;         // decibels: of what the whole detector answers, with this layer alone in int8
  double noise_share = 0;  // the same as a ratio of noise to signal
  double macs = 0;         // multiply-adds of an image, on average
};

namespace detail {

// What a detector answers in one image at fixed places, so that two can be compared: objectness [K, 1] and offsets [K, 4] at
// the anchors that the float detector holds to be objects most, class logits [P, C] and offsets [P, 4 C] in the regions that it
// proposes. On the host; offsets in parts of a box's side.
struct Answers {
  Tensor objectness, anchor_offsets, class_logits, region_offsets;
};

inline void answer_rpn(Answers& answers, const Tensors& rpn, std::int64_t image, const Tensor& anchors) {
  const auto at_anchors = [&](const Tensor& map, std::int64_t columns) {
    const Tensor of_image = slice(map, 0, image, image + 1);
    return index_rows(reshape(of_image, {of_image.numel() / columns, columns}), anchors).to(Device::cpu);
  };
  answers.objectness = at_anchors(rpn[0], 1);
  answers.anchor_offsets = at_anchors(rpn[1], 4);
}

inline void answer_head(Answers& answers, const Tensors& head, const BoxWeights& weights) {
  answers.class_logits = head[0].to(Device::cpu);
  answers.region_offsets = head[1].to(Device::cpu).clone();
  const std::array<float, 4> factors = {weights.x, weights.y, weights.w, weights.h};
  float* offsets = answers.region_offsets.data<float>();
  for (std::int64_t i = 0; i < answers.region_offsets.numel(); ++i) offsets[i] /= factors[static_cast<std::size_t>(i % 4)];
}

// The noise in answers, alike for layers of every part: the share of noise in the log-odds, of objectness and classes, and that
// in the offsets, of anchors and regions, are averaged. In each, mean squares of the two are added.
struct AnswerNoise {
  quant::Sqnr scores, offsets;

  void add(const Answers& expected, const Answers& got) {
    const auto compare = [](quant::Sqnr& ratio, const Tensor& x, const Tensor& y) {
      if (x.numel() > 0) ratio.add(x, y, 1.0 / static_cast<double>(x.numel()));
    };
    compare(scores, expected.objectness, got.objectness);
    compare(scores, expected.class_logits, got.class_logits);
    compare(offsets, expected.anchor_offsets, got.anchor_offsets);
    compare(offsets, expected.region_offsets, got.region_offsets);
  }
  double share() const { return (scores.noise_share() + offsets.noise_share()) / 2; }
};

// The layers of a calibrated detector and what is measured of them.
struct LayerNoises {
  const FusedDetector& fused;
  std::vector<LayerSensitivity> layers;
  std::vector<std::shared_ptr<Graph>> graphs;  // of the layer's part, with it alone in fake-quantize
  std::vector<AnswerNoise> noises;

  LayerNoises(const FusedDetector& detector, const PreparedDetector& prepared) : fused(detector) {
    for (std::size_t part = 0; part < 3; ++part) {
      prepared.parts[part]->update_weight_scales();
      for (const auto& layer : quant::quantized_layers(*prepared.parts[part])) {
        layers.push_back({part, layer, 0, 0, 0});
        graphs.push_back(quant::quantize_only(*prepared.parts[part], layer.output));
      }
    }
    noises.resize(layers.size());
  }

  // Compares on one batch. `detector` is the float one of parts that count; it runs once.
  void add(FasterRcnn& detector, const Tensor& images, const std::vector<ImageSize>& sizes) {
    const Tensor in = detector.padded(images);
    const Tensors maps = detector.backbone()->forward({in}), rpn = fused.parts[1]->forward(maps);
    const std::vector<Tensor> boxes = detector.regions(maps, images, sizes);
    std::vector<Tensors> all_maps(layers.size(), maps), all_rpn(layers.size(), rpn);
    for (std::size_t k = 0; k < layers.size(); ++k) {
      if (layers[k].part == 0) all_maps[k] = graphs[k]->forward({in}), all_rpn[k] = fused.parts[1]->forward(all_maps[k]);
      if (layers[k].part == 1) all_rpn[k] = graphs[k]->forward(maps);
    }
    const BoxWeights& weights = fused.options.detections.weights;
    for (std::size_t i = 0; i < boxes.size(); ++i) {
      const auto image = static_cast<std::int64_t>(i);
      const Tensor objectness = slice(rpn[0], 0, image, image + 1);
      const Tensor anchors = top_k(reshape(objectness, {objectness.numel()}), fused.options.test_proposals.post_nms);
      const Tensor rois = boxes_to_rois(boxes[i], static_cast<int>(i));
      const Tensor pooled = detector.pool(maps, images.size(1), rois);
      Answers expected;
      answer_rpn(expected, rpn, image, anchors);
      answer_head(expected, detector.box_head()->forward({pooled}), weights);
      for (std::size_t k = 0; k < layers.size(); ++k) {
        Answers got = expected;
        const std::size_t part = layers[k].part;
        if (part < 2) answer_rpn(got, all_rpn[k], image, anchors);
        if (part == 0) {
          answer_head(got, fused.parts[2]->forward({detector.pool(all_maps[k], images.size(1), rois)}), weights);
        } else if (part == 2) {
          answer_head(got, graphs[k]->forward({pooled}), weights);
        }
        noises[k].add(expected, got);
      }
    }
  }
};

}  // namespace detail

// Every quantized layer of a calibrated detector, noisiest first: each is rounded alone, in fake-quantize, and what the whole
// detector then answers is compared with the float one (detail::Answers, detail::AnswerNoise), so that layers of all parts are
// measured by the same. Throws Error when there are no images.
inline std::vector<LayerSensitivity> layer_sensitivities(const FusedDetector& fused, const PreparedDetector& prepared,
                                                         const NextImages& next) {
  const NoGrad no_grad;
  detail::LayerNoises noises(fused, prepared);
  Parts<quant::LayerSums> floats;  // which count rows
  for (std::size_t part = 0; part < 3; ++part) floats[part] = std::make_shared<quant::LayerSums>(*fused.parts[part]);
  const auto detector = join(floats, fused.options);
  std::int64_t images = 0;
  while (const auto batch = next()) {
    noises.add(*detector, batch->first, batch->second);
    images += batch->first.size(0);
  }
  SHRIKE_CHECK(images > 0, "no images to measure the sensitivity of layers with");
  std::vector<LayerSensitivity> layers = std::move(noises.layers);
  for (std::size_t i = 0; i < layers.size(); ++i) {
    LayerSensitivity& layer = layers[i];
    layer.noise_share = noises.noises[i].share();
    layer.sqnr = layer.noise_share > 0 ? -10 * std::log10(layer.noise_share) : HUGE_VAL;
    const auto& sum = floats[layer.part]->sums.at(layer.layer.output);
    for (const Graph::Node& node : fused.parts[layer.part]->nodes) {
      if (node.outputs[0] != layer.layer.output) continue;
      const auto weights = static_cast<double>(fused.parts[layer.part]->constants.at(node.inputs[1]).numel());
      layer.macs = static_cast<double>(sum.rows) * weights / static_cast<double>(images);
    }
  }
  std::stable_sort(layers.begin(), layers.end(), [](const auto& a, const auto& b) { return a.noise_share > b.noise_share; });
  return layers;
}

// The detector in float but for this layer, in fake-quantize.
inline std::shared_ptr<FasterRcnn> quantize_only(const FusedDetector& fused, const PreparedDetector& prepared,
                                                 const LayerSensitivity& layer) {
  Parts<Graph> parts = fused.parts;
  parts[layer.part] = quant::quantize_only(*prepared.parts[layer.part], layer.layer.output);
  return join(parts, fused.options);
}

// The same detector prepared with more layers in float, at the scales that `prepared` has.
inline PreparedDetector keep_more_float(const FusedDetector& fused, const PreparedDetector& prepared,
                                        quant::PrepareOptions options, const std::vector<std::string>& layers) {
  options.keep_float.insert(options.keep_float.end(), layers.begin(), layers.end());
  PreparedDetector result = prepare_detector(fused, options);
  take_calibration(calibration_file(prepared), result);
  nn::train(*result.model, false);
  return result;
}

}  // namespace shrike::models
