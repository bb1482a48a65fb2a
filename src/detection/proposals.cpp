#include "shrike/detection/proposals.hpp"

#include <algorithm>
#include <bit>

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

Tensor find_detections(const Tensor& class_logits, const Tensor& deltas, const Tensor& proposals, std::int64_t image_height,
                       std::int64_t image_width, const DetectionOptions& options) {
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
  const Tensor boxes({candidates, 4}, Dtype::f32, device);
  const Tensor scores({candidates}, Dtype::f32, device);
  const Tensor labels({candidates}, Dtype::s32, device);
  const Tensor count({1}, Dtype::s32, device);
  const kernels::DetectionSizes sizes{n,
                                      classes,
                                      static_cast<float>(image_height),
                                      static_cast<float>(image_width),
                                      options.score_threshold,
                                      options.min_size,
                                      options.weights};
  dispatch(device, [&](auto d) {
    kernels::detection_candidates(d, sizes, class_logits.data<float>(), deltas.data<float>(), proposals.data<float>(),
                                  boxes.data<float>(), scores.data<float>(), labels.data<std::int32_t>(),
                                  count.data<std::int32_t>());
  });
  // Most candidates drop out, and the host knows how many at no cost; a device passes over them rather than wait.
  const Tensor order =
      device == Device::cpu ? top_k(scores, count.item<std::int32_t>()) : best(boxes, scores, candidates, options.min_size);
  const std::int64_t most = std::min(order.numel(), options.max_detections);
  const NmsResult kept = nms_in_order(boxes, order, labels, options.nms_threshold, most);
  // Boxes, scores and indices one after the other, so that one copy brings them to the host.
  const Tensor found({6 * most}, Dtype::f32, device);
  float* const found_scores = found.data<float>() + 4 * most;
  float* const found_index = found_scores + most;  // the bits of s32
  dispatch(device, [&](auto d) {
    kernels::proposal_gather(d, {most, kept.keep.numel()}, kept.keep.data<std::int32_t>(), boxes.data<float>(),
                             scores.data<float>(), found.data<float>(), found_scores, count.data<std::int32_t>());
    if (most > 0) kernels::copy_bytes(d, found_index, device, kept.keep.raw(), device, kept.keep.bytes());
  });
  return found;
}

std::vector<Detection> read_detections(const Tensor& found, std::int64_t classes) {
  SHRIKE_CHECK(found.rank() == 1 && found.numel() % 6 == 0 && classes > 1, "read_detections: a tensor of shape ", found.shape(),
               " and ", classes, " classes: expected [6 K] and at least 2");
  const auto values = found.to_vector<float>();
  const std::size_t rows = values.size() / 6;
  std::vector<Detection> result;
  for (std::size_t i = 0; i < rows; ++i) {
    const auto index = std::bit_cast<std::int32_t>(values[5 * rows + i]);
    if (index < 0) break;
    const Box box{values[4 * i], values[4 * i + 1], values[4 * i + 2], values[4 * i + 3]};
    result.push_back({box, 1 + static_cast<std::int32_t>(index % (classes - 1)), values[4 * rows + i]});
  }
  return result;
}

std::vector<Detection> detections(const Tensor& class_logits, const Tensor& deltas, const Tensor& proposals,
                                  std::int64_t image_height, std::int64_t image_width, const DetectionOptions& options) {
  const Tensor found = find_detections(class_logits, deltas, proposals, image_height, image_width, options);
  return read_detections(found, class_logits.size(1));
}

}  // namespace shrike
