#include "shrike/detection/proposals.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

#include "shrike/ops/elementwise.hpp"
#include "shrike/ops/nms.hpp"

namespace shrike {
namespace {

Proposals gather(std::int64_t rows, const Tensor& index, const Tensor& boxes, const Tensor& scores) {
  const Device device = boxes.device();
  const Proposals result{Tensor({rows, 4}, Dtype::f32, device), Tensor({rows}, Dtype::f32, device),
                         Tensor({1}, Dtype::s32, device)};
  dispatch(device, [&](auto d) {
    kernels::proposal_gather(d, {rows, index.numel()}, index.data<std::int32_t>(), boxes.data<float>(), scores.data<float>(),
                             result.boxes.data<float>(), result.scores.data<float>(), result.count.data<std::int32_t>());
  });
  return result;
}

// The places of the k best, -1 for those that drop out.
Tensor best(const Tensor& boxes, const Tensor& scores, std::int64_t k, float min_size) {
  const Tensor order = top_k(scores, k);
  dispatch(scores.device(), [&](auto d) {
    kernels::proposal_drop(d, order.numel(), min_size, boxes.data<float>(), scores.data<float>(), order.data<std::int32_t>());
  });
  return order;
}

void check_f32(const char* what, const Tensor& tensor, const Shape& shape, Device device) {
  SHRIKE_CHECK(tensor.shape() == shape, what, ": shape ", tensor.shape(), ", expected ", shape);
  SHRIKE_CHECK(tensor.dtype() == Dtype::f32 && tensor.device() == device, what, ": ", name(tensor.dtype()), " on ",
               name(tensor.device()), ", expected f32 on ", name(device));
}

}  // namespace

Proposals proposals(const Tensor& objectness, const Tensor& deltas, const Tensor& anchors, std::int64_t image_height,
                    std::int64_t image_width, const ProposalOptions& options) {
  const Device device = anchors.device();
  check_boxes("proposals: anchors", anchors, device);
  check_f32("proposals: deltas", deltas, anchors.shape(), device);
  const std::int64_t n = anchors.size(0);
  check_f32("proposals: objectness", objectness, {n}, device);
  SHRIKE_CHECK(options.pre_nms > 0 && options.post_nms > 0, "proposals: pre_nms ", options.pre_nms, " and post_nms ",
               options.post_nms, ", expected positive numbers");
  const NoGrad no_grad;
  const Tensor boxes({n, 4}, Dtype::f32, device);
  const Tensor scores({n}, Dtype::f32, device);
  const kernels::ProposalSizes sizes{n, static_cast<float>(image_height), static_cast<float>(image_width)};
  dispatch(device, [&](auto d) {
    kernels::proposal_candidates(d, sizes, objectness.data<float>(), deltas.data<float>(), anchors.data<float>(),
                                 boxes.data<float>(), scores.data<float>());
  });
  const NmsResult kept =
      nms_in_order(boxes, best(boxes, scores, options.pre_nms, options.min_size), {}, options.nms_threshold, options.post_nms);
  return gather(options.post_nms, kept.keep, boxes, scores);
}

Proposals merge_proposals(const std::vector<Proposals>& levels, std::int64_t post_nms) {
  SHRIKE_CHECK(!levels.empty() && post_nms > 0, "merge_proposals: ", levels.size(), " levels, post_nms ", post_nms,
               ", expected positive numbers");
  Tensors boxes;
  Tensors scores;
  for (const Proposals& level : levels) {
    boxes.push_back(level.boxes);
    scores.push_back(level.scores);
  }
  const NoGrad no_grad;
  const Tensor all_boxes = concat(boxes, 0), all_scores = concat(scores, 0);
  return gather(post_nms, best(all_boxes, all_scores, post_nms, 0), all_boxes, all_scores);
}

DetectionCandidates detection_candidates(const Tensor& class_logits, const Tensor& deltas, const Tensor& proposals,
                                         std::int64_t image_height, std::int64_t image_width, const DetectionOptions& options) {
  const Device device = proposals.device();
  check_boxes("detections: proposals", proposals, device);
  const std::int64_t n = proposals.size(0);
  SHRIKE_CHECK(class_logits.rank() == 2 && class_logits.size(1) > 1, "detections: class logits of shape ", class_logits.shape(),
               ", expected [", n, ", C] with C > 1");
  const std::int64_t classes = class_logits.size(1);
  check_f32("detections: class logits", class_logits, {n, classes}, device);
  check_f32("detections: deltas", deltas, {n, 4 * classes}, device);
  const NoGrad no_grad;
  const std::int64_t candidates = n * (classes - 1);
  const DetectionCandidates result{Tensor({candidates, 4}, Dtype::f32, device), Tensor({candidates}, Dtype::f32, device),
                                   Tensor({candidates}, Dtype::s32, device), Tensor({1}, Dtype::s32, device)};
  const kernels::DetectionSizes sizes{n,
                                      classes,
                                      static_cast<float>(image_height),
                                      static_cast<float>(image_width),
                                      options.score_threshold,
                                      options.min_size,
                                      options.weights};
  dispatch(device, [&](auto d) {
    kernels::detection_candidates(d, sizes, class_logits.data<float>(), deltas.data<float>(), proposals.data<float>(),
                                  result.boxes.data<float>(), result.scores.data<float>(), result.labels.data<std::int32_t>(),
                                  result.count.data<std::int32_t>());
  });
  return result;
}

DetectionCandidates join_mirrored(const DetectionCandidates& image, const DetectionCandidates& mirror,
                                  std::int64_t image_width) {
  const NoGrad no_grad;
  const Device device = mirror.boxes.device();
  const Tensor width = full({mirror.boxes.size(0), 1}, static_cast<float>(image_width), device);
  const auto column = [&](int i) { return slice(mirror.boxes, 1, i, i + 1); };
  const auto across = [&](int i) { return add(width, scale(column(i), -1)); };
  const Tensor back = concat({across(2), column(1), across(0), column(3)}, 1);
  DetectionCandidates result{concat({image.boxes, back}, 0), concat({image.scores, mirror.scores}, 0),
                             concat({image.labels, mirror.labels}, 0), Tensor()};
  if (device == Device::cpu) {  // who counts on a device does not ask
    result.count = tensor<std::int32_t>({1}, {image.count.item<std::int32_t>() + mirror.count.item<std::int32_t>()});
  }
  return result;
}

Tensor select_detections(const DetectionCandidates& candidates, const DetectionOptions& options) {
  const NoGrad no_grad;
  const Tensor &boxes = candidates.boxes, &scores = candidates.scores;
  const Device device = boxes.device();
  const bool soft = options.soft_nms != SoftNms::off;
  // Most candidates drop out, and the host knows how many at no cost; a device passes over them rather than wait.
  const Tensor order = device == Device::cpu ? top_k(scores, candidates.count.item<std::int32_t>())
                       : soft                ? top_k(scores, scores.numel())
                                             : best(boxes, scores, scores.numel(), options.min_size);
  const std::int64_t most = soft ? order.numel() : std::min(order.numel(), options.max_detections);
  const Tensor keep = soft ? order : nms_in_order(boxes, order, candidates.labels, options.nms_threshold, most).keep;
  // Boxes, scores and indices one after the other, so that one copy brings them to the host.
  const Tensor found({6 * most}, Dtype::f32, device), rows({1}, Dtype::s32, device);
  float* const found_scores = found.data<float>() + 4 * most;
  float* const found_index = found_scores + most;  // the bits of s32
  dispatch(device, [&](auto d) {
    kernels::proposal_gather(d, {most, keep.numel()}, keep.data<std::int32_t>(), boxes.data<float>(), scores.data<float>(),
                             found.data<float>(), found_scores, rows.data<std::int32_t>());
    if (most > 0) kernels::copy_bytes(d, found_index, device, keep.raw(), device, keep.bytes());
  });
  return found;
}

std::vector<Detection> read_detections(const Tensor& found, std::int64_t classes, const DetectionOptions& options) {
  SHRIKE_CHECK(found.rank() == 1 && found.numel() % 6 == 0 && classes > 1, "read_detections: a tensor of shape ", found.shape(),
               " and ", classes, " classes: expected [6 K] and at least 2");
  const auto values = found.to_vector<float>();
  const std::size_t rows = values.size() / 6;
  std::vector<Detection> result;
  for (std::size_t i = 0; i < rows; ++i) {
    const auto index = std::bit_cast<std::int32_t>(values[5 * rows + i]);
    if (index < 0 || std::isinf(values[4 * rows + i])) break;
    const Box box{values[4 * i], values[4 * i + 1], values[4 * i + 2], values[4 * i + 3]};
    result.push_back({box, 1 + static_cast<std::int32_t>(index % (classes - 1)), values[4 * rows + i]});
  }
  if (options.soft_nms == SoftNms::off) return result;
  return soft_nms(result, {options.soft_nms, options.nms_threshold, options.soft_nms_sigma, options.score_threshold,
                           options.max_detections});
}

std::vector<Detection> detections(const Tensor& class_logits, const Tensor& deltas, const Tensor& proposals,
                                  std::int64_t image_height, std::int64_t image_width, const DetectionOptions& options) {
  const DetectionCandidates candidates =
      detection_candidates(class_logits, deltas, proposals, image_height, image_width, options);
  return read_detections(select_detections(candidates, options), class_logits.size(1), options);
}

}  // namespace shrike
