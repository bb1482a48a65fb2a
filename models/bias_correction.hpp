// Bias correction of a whole detector.
#pragma once

#include "models/quantized.hpp"
#include "shrike/ops/quantize.hpp"
#include "shrike/quant/bias_correction.hpp"

namespace shrike::models {

// Corrects the biases of a calibrated detector, layer by layer from the image on (quant/bias_correction.hpp), on the images of
// `images`, which is called anew for each layer of the backbone. Both heads see the quantized feature map; the box head looks
// at the regions that the float detector proposes, so that means are those of the same things. Kept are the regions and the
// maps, as codes. Throws Error when there are no images.
inline quant::BiasReport correct_biases(const FusedDetector& fused, const PreparedDetector& prepared,
                                        const std::function<NextImages()>& images) {
  const NoGrad no_grad;
  nn::train(*prepared.model, false);
  struct Batch {
    std::int64_t height;
    Tensor codes;  // the feature map
    Tensors rois;  // of each image
  };
  std::vector<Batch> batches;

  Parts<quant::LayerSums> floats;
  for (std::size_t i = 0; i < 3; ++i) floats[i] = std::make_shared<quant::LayerSums>(*fused.parts[i]);
  const auto reference = join(floats, fused.options);
  const auto run_box_head = [&](Graph& graph, const Tensors& maps, const Batch& batch) {
    for (const Tensor& rois : batch.rois) graph.forward({reference->pool(maps, batch.height, rois)});
  };
  for (NextImages next = images(); const auto batch = next();) {
    const Tensors maps = reference->forward({batch->first});
    const std::vector<Tensor> boxes = reference->regions(maps, batch->first, batch->second);
    batches.push_back({batch->first.size(1), {}, {}});
    for (std::size_t i = 0; i < boxes.size(); ++i) {
      batches.back().rois.push_back(boxes_to_rois(boxes[i], static_cast<int>(i)));
    }
    run_box_head(*floats[2], maps, batches.back());
  }

  quant::BiasReport report = quant::correct_biases(*prepared.parts[0], *floats[0], [&](Graph& graph) {
    for (NextImages next = images(); const auto batch = next();) graph.forward({reference->padded(batch->first)});
  });
  const quant::Port port = prepared.parts[0]->output_port(0);
  std::size_t seen = 0;
  for (NextImages next = images(); const auto batch = next(); ++seen) {
    batches.at(seen).codes = quantize(prepared.model->forward({batch->first})[0], port.scale, port.dtype);
  }
  for (std::size_t i = 1; i < 3; ++i) {
    const auto head = quant::correct_biases(*prepared.parts[i], *floats[i], [&](Graph& graph) {
      for (const Batch& batch : batches) {
        const Tensors maps = {dequantize(batch.codes, port.scale)};
        i == 1 ? void(graph.forward(maps)) : run_box_head(graph, maps, batch);
      }
    });
    report.lines.insert(report.lines.end(), head.lines.begin(), head.lines.end());
  }
  return report;
}

}  // namespace shrike::models
