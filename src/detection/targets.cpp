#include "shrike/detection/targets.hpp"

#include <algorithm>

#include "shrike/core/autograd.hpp"
#include "shrike/ops/layout.hpp"
#include "shrike/ops/loss.hpp"

namespace shrike {
namespace {

std::uint64_t counter_high(RandomStream stream, std::uint64_t index) {
  return (std::uint64_t{static_cast<std::uint32_t>(stream)} << 48) ^ index;
}

struct Sample {
  Tensor selected, counts;
};

Sample sample(const Tensor& labels, int batch, float positive_fraction, RandomStream stream, std::uint64_t seed,
              std::uint64_t index) {
  const Device device = labels.device();
  const Sample result{Tensor({batch}, Dtype::s32, device), Tensor({2}, Dtype::s32, device)};
  const auto max_positive = static_cast<std::int64_t>(static_cast<double>(batch) * positive_fraction);
  const kernels::SampleSizes sizes{labels.numel(), batch, max_positive, seed, counter_high(stream, index)};
  dispatch(device, [&](auto d) {
    kernels::sample_balanced(d, sizes, labels.data<std::int32_t>(), result.selected.data<std::int32_t>(),
                             result.counts.data<std::int32_t>());
  });
  return result;
}

void check_sampling(const char* what, int batch, float positive_fraction) {
  SHRIKE_CHECK(batch > 0, what, ": batch ", batch, ", expected a positive number");
  SHRIKE_CHECK(positive_fraction >= 0 && positive_fraction <= 1, what, ": positive_fraction ", positive_fraction,
               ", expected one in [0, 1]");
}

// The images' weights times their shares of what was sampled.
void share(const Tensors& counts, std::int64_t least, const std::vector<std::vector<Tensor*>>& weights) {
  if (counts.empty()) return;
  const NoGrad no_grad;
  const Device device = counts[0].device();
  const Tensor shares({static_cast<std::int64_t>(counts.size())}, Dtype::f32, device);
  const Tensor all = concat(counts, 0);
  dispatch(device, [&](auto d) {
    kernels::sample_shares(d, shares.numel(), least, all.data<std::int32_t>(), shares.data<float>());
    for (std::size_t i = 0; i < weights.size(); ++i) {
      for (Tensor* const weight : weights[i]) {
        if (weight->numel() == 0) continue;
        const Tensor scaled(weight->shape(), Dtype::f32, device);
        kernels::scale_by(d, weight->numel(), shares.data<float>() + i, weight->data<float>(), scaled.data<float>());
        *weight = scaled;
      }
    }
  });
}

// a and then b, both [*, 4].
Tensor joined(const Tensor& a, const Tensor& b) {
  const Tensor both({a.size(0) + b.size(0), 4}, Dtype::f32, a.device());
  dispatch(a.device(), [&](auto d) {
    float* to = both.data<float>();
    if (a.numel() > 0) kernels::copy_bytes(d, to, a.device(), a.data<float>(), a.device(), a.bytes());
    if (b.numel() > 0) kernels::copy_bytes(d, to + a.numel(), a.device(), b.data<float>(), b.device(), b.bytes());
  });
  return both;
}

}  // namespace

RpnTargets rpn_targets(const Tensor& anchors, const Tensor& boxes, std::int64_t image_height, std::int64_t image_width,
                       const RpnTargetOptions& options, std::uint64_t seed, std::uint64_t index) {
  const Device device = anchors.device();
  check_boxes("rpn_targets: anchors", anchors, device);
  check_boxes("rpn_targets: boxes", boxes, device);
  check_sampling("rpn_targets", options.batch, options.positive_fraction);
  SHRIKE_CHECK(options.negative_iou <= options.positive_iou && options.positive_iou > 0, "rpn_targets: negative_iou ",
               options.negative_iou, " and positive_iou ", options.positive_iou,
               ", expected negative <= positive, positive > 0");
  const std::int64_t n = anchors.size(0);
  const Tensor match({n}, Dtype::s32, device);
  const Tensor labels({n}, Dtype::s32, device);
  const Tensor best({boxes.size(0)}, Dtype::f32, device);
  const kernels::RpnMatchSizes match_sizes{n,
                                           boxes.size(0),
                                           static_cast<float>(image_height),
                                           static_cast<float>(image_width),
                                           options.straddle,
                                           options.positive_iou,
                                           options.negative_iou,
                                           options.best_iou,
                                           options.best_is_positive};
  dispatch(device, [&](auto d) {
    kernels::rpn_match(d, match_sizes, anchors.data<float>(), boxes.data<float>(), match.data<std::int32_t>(),
                       labels.data<std::int32_t>(), best.data<float>());
  });
  const Sample sampled = sample(labels, options.batch, options.positive_fraction, RandomStream::rpn_sample, seed, index);
  const RpnTargets targets{Tensor({n}, Dtype::f32, device), Tensor({n}, Dtype::f32, device), Tensor({n, 4}, Dtype::f32, device),
                           Tensor({n, 4}, Dtype::f32, device), sampled.counts};
  dispatch(device, [&](auto d) {
    kernels::rpn_encode(d, {n, options.batch}, anchors.data<float>(), boxes.data<float>(), match.data<std::int32_t>(),
                        labels.data<std::int32_t>(), sampled.selected.data<std::int32_t>(), sampled.counts.data<std::int32_t>(),
                        targets.cls_target.data<float>(), targets.cls_weight.data<float>(), targets.box_target.data<float>(),
                        targets.box_weight.data<float>());
  });
  return targets;
}

void share_weights(const std::vector<RpnTargets*>& images, std::int64_t least) {
  Tensors counts;
  std::vector<std::vector<Tensor*>> weights;
  for (RpnTargets* const image : images) {
    counts.push_back(image->counts);
    weights.push_back({&image->cls_weight, &image->box_weight});
  }
  share(counts, least, weights);
}

void share_weights(const std::vector<RoiTargets*>& images) {
  Tensors counts;
  std::vector<std::vector<Tensor*>> weights;
  for (RoiTargets* const image : images) {
    counts.push_back(image->counts);
    weights.push_back({&image->box_weight});
  }
  share(counts, 1, weights);
}

RoiTargets roi_targets(const Tensor& proposals, const Tensor& boxes, const Tensor& labels, int num_classes,
                       const RoiTargetOptions& options, std::uint64_t seed, std::uint64_t index, int image_index) {
  const Device device = proposals.device();
  check_boxes("roi_targets: proposals", proposals, device);
  check_boxes("roi_targets: boxes", boxes, device);
  check_sampling("roi_targets", options.batch, options.positive_fraction);
  SHRIKE_CHECK(labels.shape() == Shape{boxes.size(0)} && labels.dtype() == Dtype::s32 && labels.device() == device,
               "roi_targets: labels ", name(labels.dtype()), " ", labels.shape(), " on ", name(labels.device()), " for ",
               boxes.size(0), " boxes, expected as many s32 on ", name(device));
  SHRIKE_CHECK(num_classes > 1, "roi_targets: num_classes ", num_classes, ", expected the background and at least one more");
  SHRIKE_CHECK(
      options.negative_low <= options.negative_iou && options.negative_iou <= options.positive_iou && options.positive_iou > 0,
      "roi_targets: negative_low ", options.negative_low, ", negative_iou ", options.negative_iou, ", positive_iou ",
      options.positive_iou, ", expected ascending ones and the last positive");
  const Tensor candidates = joined(proposals, boxes);
  const std::int64_t n = candidates.size(0);
  const Tensor match({n}, Dtype::s32, device);
  const Tensor candidate_labels({n}, Dtype::s32, device);
  const kernels::RoiMatchSizes match_sizes{n, boxes.size(0), options.positive_iou, options.negative_iou, options.negative_low};
  dispatch(device, [&](auto d) {
    kernels::roi_match(d, match_sizes, candidates.data<float>(), boxes.data<float>(), labels.data<std::int32_t>(),
                       match.data<std::int32_t>(), candidate_labels.data<std::int32_t>());
  });
  const Sample sampled =
      sample(candidate_labels, options.batch, options.positive_fraction, RandomStream::roi_sample, seed, index);
  const std::int64_t batch = options.batch;
  const RoiTargets targets{Tensor({batch, 5}, Dtype::f32, device), Tensor({batch}, Dtype::s32, device),
                           Tensor({batch, 4 * num_classes}, Dtype::f32, device),
                           Tensor({batch, 4 * num_classes}, Dtype::f32, device), sampled.counts};
  const kernels::RoiEncodeSizes sizes{batch, num_classes, options.weights, static_cast<float>(image_index)};
  dispatch(device, [&](auto d) {
    kernels::roi_encode(d, sizes, candidates.data<float>(), boxes.data<float>(), match.data<std::int32_t>(),
                        candidate_labels.data<std::int32_t>(), sampled.selected.data<std::int32_t>(),
                        sampled.counts.data<std::int32_t>(), targets.rois.data<float>(), targets.labels.data<std::int32_t>(),
                        targets.box_target.data<float>(), targets.box_weight.data<float>());
  });
  return targets;
}

}  // namespace shrike
