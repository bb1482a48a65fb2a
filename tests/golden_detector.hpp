// What tests of whole detectors against torchvision's share.
#pragma once

#include "catch.hpp"
#include "golden.hpp"
#include "models/detector.hpp"
#include "shrike/io/safetensors.hpp"
#include "shrike/ops/layout.hpp"

namespace golden {

using namespace shrike;
using namespace shrike::models;

inline DetectorConfig golden_config(const std::string& backbone = "vgg11") {
  DetectorConfig config;
  config.backbone = backbone;
  config.batch_norm = backbone != "vgg11";  // frozen
  config.grid = "torchvision";
  config.width = backbone == "resnet50" ? 1 : 2;
  config.roi_size = 3;
  config.head_width = 12;
  config.anchor_sizes = {16, 32, 64};
  config.classes = {"a", "b", "c"};
  config.rpn_batch = 4000;  // every anchor and proposal is sampled
  config.roi_batch = 64;
  config.roi_positive_fraction = 1;
  config.train_pre_nms = 60;
  config.train_post_nms = 20;
  config.test_pre_nms = 50;
  config.test_post_nms = 15;
  return config;
}

// The tensors whose names begin with `prefix`, without it.
inline TensorFile part(const TensorFile& file, const std::string& prefix) {
  TensorFile result;
  result.name = file.name;
  for (const auto& [name, tensor] : file.tensors) {
    if (name.starts_with(prefix)) result.tensors[name.substr(prefix.size())] = tensor;
  }
  return result;
}

inline Tensor nhwc(const Tensor& nchw) { return permute(nchw, {0, 2, 3, 1}); }

// |got - expected| / |expected| of a gradient in torchvision's layout.
inline double relative_difference(const Tensor& got, Tensor expected, const std::string& name, const DetectorConfig& config) {
  const std::int64_t side = config.roi_size;
  if (expected.rank() == 4) expected = nhwc(expected);
  if (name.ends_with("fc6.weight")) {  // over [C, H, W] there, [H, W, C] here
    const std::int64_t units = expected.size(0), channels = expected.size(1) / (side * side);
    expected =
        reshape(permute(reshape(expected, {units, channels, side, side}), {0, 2, 3, 1}), {units, channels * side * side});
  }
  REQUIRE(got.shape() == expected.shape());
  double difference = 0, size = 0;
  for (std::int64_t i = 0; i < got.numel(); ++i) {
    const double a = got.data<float>()[i], b = expected.data<float>()[i];
    difference += (a - b) * (a - b);
    size += b * b;
  }
  return difference == 0 ? 0 : std::sqrt(difference / size);
}

// Losses, the gradient of every parameter and, afterwards, detections of a model in training against what torchvision makes of
// the same image [1, H, W, 3] with the same weights: "output.*" and "grad.*" of `theirs`.
inline void check_like_torchvision(FasterRcnn& model, const DetectorConfig& config, const Tensor& image, const Target& target,
                                   const TensorFile& theirs) {
  const std::vector<ImageSize> sizes = {{static_cast<int>(image.size(1)), static_cast<int>(image.size(2))}};
  const auto expected = [&](const std::string& name) { return theirs.tensors.at("output." + name).data<float>(); };
  const Losses losses = model.losses(image, sizes, {target}, 1, 0);
  CHECK(losses.rpn_cls.item() == Approx(*expected("loss_objectness")).epsilon(1e-5));
  CHECK(losses.rpn_box.item() == Approx(*expected("loss_rpn_box_reg")).epsilon(1e-5));
  CHECK(losses.cls.item() == Approx(*expected("loss_classifier")).epsilon(1e-5));
  CHECK(losses.box.item() == Approx(*expected("loss_box_reg")).epsilon(1e-5));

  backward(losses.total);
  std::size_t compared = 0;
  for (const auto& [name, tensor] : nn::named_parameters(model)) {
    if (!tensor.requires_grad()) continue;
    ++compared;
    INFO(name);
    REQUIRE(tensor.grad().defined());
    CHECK(relative_difference(tensor.grad(), theirs.tensors.at("grad." + name), name, config) < 1e-3);
  }
  CHECK(compared == part(theirs, "grad.").tensors.size());

  nn::train(model, false);
  const auto detections = model.detect(image, sizes)[0];
  const auto count = theirs.tensors.at("output.scores").numel();
  REQUIRE(static_cast<std::int64_t>(detections.size()) == count);
  for (std::size_t i = 0; i < detections.size(); ++i) {
    INFO("detection " << i);
    CHECK(detections[i].score == Approx(expected("scores")[i]).epsilon(1e-4));
    CHECK(detections[i].label == theirs.tensors.at("output.labels").data<std::int32_t>()[i]);
    const float* box = expected("boxes") + 4 * i;
    CHECK(detections[i].box.x1 == Approx(box[0]).margin(1e-2));
    CHECK(detections[i].box.y1 == Approx(box[1]).margin(1e-2));
    CHECK(detections[i].box.x2 == Approx(box[2]).margin(1e-2));
    CHECK(detections[i].box.y2 == Approx(box[3]).margin(1e-2));
  }
}

}  // namespace golden
