// What each layer of a detector loses in int8.
#pragma once

#include <algorithm>

#include "models/quantized.hpp"
#include "shrike/quant/bias_correction.hpp"
#include "shrike/quant/sensitivity.hpp"

namespace shrike::models {

struct LayerSensitivity {
  std::size_t part = 0;
  quant::QuantizedLayer layer;
  double sqnr = 0;         // decibels, of the noisiest output of the layer's part with this layer alone in int8
  double noise_share = 0;  // the same as a ratio of noise to signal
  double macs = 0;         // multiply-adds of an image, on average
};

// Every quantized layer of a calibrated detector, noisiest first. Each is rounded alone, in fake-quantize, and its part
// compared with the float one on the same inputs; the box head looks at the regions that the float detector proposes. Throws
// Error when there are no images.
inline std::vector<LayerSensitivity> layer_sensitivities(const FusedDetector& fused, const PreparedDetector& prepared,
                                                         const NextImages& next) {
  const NoGrad no_grad;
  std::vector<LayerSensitivity> layers;
  std::vector<std::shared_ptr<Graph>> graphs;
  std::vector<std::vector<quant::Sqnr>> noises;
  Parts<quant::LayerSums> floats;  // which count rows, too
  for (std::size_t part = 0; part < 3; ++part) {
    prepared.parts[part]->update_weight_scales();
    floats[part] = std::make_shared<quant::LayerSums>(*fused.parts[part]);
    for (const auto& layer : quant::quantized_layers(*prepared.parts[part])) {
      layers.push_back({part, layer, 0, 0, 0});
      graphs.push_back(quant::quantize_only(*prepared.parts[part], layer.output));
      noises.emplace_back(fused.parts[part]->outputs.size());
    }
  }
  const auto detector = join(floats, fused.options);
  std::int64_t images = 0;
  const auto compare = [&](std::size_t part, const Tensors& in, const Tensors& expected) {
    for (std::size_t i = 0; i < layers.size(); ++i) {
      if (layers[i].part != part) continue;
      const Tensors got = graphs[i]->forward(in);
      for (std::size_t k = 0; k < got.size(); ++k) noises[i][k].add(expected[k], got[k]);
    }
  };
  while (const auto batch = next()) {
    const Tensor image = detector->padded(batch->first);
    const Tensors maps = floats[0]->forward({image});
    compare(0, {image}, maps);
    compare(1, maps, fused.parts[1]->forward(maps));  // regions() runs the one that counts
    const std::vector<Tensor> boxes = detector->regions(maps, batch->first, batch->second);
    for (std::size_t i = 0; i < boxes.size(); ++i) {
      const Tensor pooled = detector->pool(maps, batch->first.size(1), boxes_to_rois(boxes[i], static_cast<int>(i)));
      compare(2, {pooled}, floats[2]->forward({pooled}));
    }
    images += batch->first.size(0);
  }
  SHRIKE_CHECK(images > 0, "no images to measure the sensitivity of layers with");
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const auto noisiest = std::max_element(noises[i].begin(), noises[i].end(), [](const quant::Sqnr& a, const quant::Sqnr& b) {
      return a.noise_share() < b.noise_share();
    });
    layers[i].sqnr = noisiest->decibels();
    layers[i].noise_share = noisiest->noise_share();
    const auto& sum = floats[layers[i].part]->sums.at(layers[i].layer.output);
    for (const Graph::Node& node : fused.parts[layers[i].part]->nodes) {
      if (node.outputs[0] != layers[i].layer.output) continue;
      const auto weights = static_cast<double>(fused.parts[layers[i].part]->constants.at(node.inputs[1]).numel());
      layers[i].macs = static_cast<double>(sum.rows) * weights / static_cast<double>(images);
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
