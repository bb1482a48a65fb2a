// Sorting by score and greedy non-maximum suppression. Sizes of results are fixed, with a count, so that nothing has to wait
// for the device; only nms() and batched_nms() bring the count to the host.
#pragma once

#include <cmath>
#include <limits>

#include "shrike/core/autograd.hpp"
#include "shrike/ops/layout.hpp"

namespace shrike {

namespace kernels {

// index [k] = the places of the k greatest of n scores, greatest first, ties by index; -0 and 0 are equal, NaN is least. k <=
// n.
SHRIKE_KERNEL(top_k_forward, std::int64_t n, std::int64_t k, const float* scores, std::int32_t* index);

struct NmsSizes {
  std::int64_t candidates;  // entries of order
  std::int64_t max_keep;    // entries of keep
  float threshold;
};
// Takes the candidates boxes[order[0]], boxes[order[1]], ... in turn, passing over entries below 0, and keeps each one whose
// IoU with no kept box of the same label is > threshold, until max_keep are kept. labels [boxes] may be null: all are the same.
// keep [max_keep] gets indices of boxes in that order, then -1; count [1] their number. IoU is computed in float as
// inter / (area_a + area_b - inter), each operation rounded by itself (no fused multiply-add), so that every device agrees; a
// comparison with NaN is false: a box with a NaN neither suppresses nor is suppressed.
SHRIKE_KERNEL(nms_forward, const NmsSizes& sizes, const float* boxes, const std::int32_t* order, const std::int32_t* labels,
              std::int32_t* keep, std::int32_t* count);

}  // namespace kernels

// Input: scores [N]. Output: s32 [min(k, N)].
struct TopK : Op {
  std::int64_t k = 0;

  const char* name() const override { return "top_k"; }
  inline Tensors forward(const Tensors& in) const override;
  bool saves_input(std::size_t) const override { return false; }
  void visit(Fields& fields) override { fields("k", k); }
};

// Inputs: boxes [N, 4], order s32 [M], labels s32 [N] or undefined. Outputs: keep s32 [max_keep] padded with -1, count s32 [1].
// max_keep -1 means M.
struct Nms : Op {
  double threshold = 0.5;
  std::int64_t max_keep = -1;

  const char* name() const override { return "nms"; }
  inline Tensors forward(const Tensors& in) const override;
  bool saves_input(std::size_t) const override { return false; }
  void visit(Fields& fields) override {
    fields("threshold", threshold);
    fields("max_keep", max_keep);
  }
};

inline Tensors TopK::forward(const Tensors& in) const {
  const Tensor& scores = in[0];
  SHRIKE_CHECK(scores.rank() == 1 && k >= 0, "top_k: the ", k, " greatest of scores of shape ", scores.shape(),
               ": expected [N]");
  SHRIKE_CHECK(scores.numel() < (std::int64_t{1} << 31), "top_k: ", scores.numel(), " scores");
  const Tensor index({std::min(k, scores.numel())}, Dtype::s32, scores.device());
  dispatch(scores.device(), [&](auto d) {
    kernels::top_k_forward(d, scores.numel(), index.numel(), scores.data<float>(), index.data<std::int32_t>());
  });
  return {index};
}

inline Tensors Nms::forward(const Tensors& in) const {
  const Tensor& boxes = in[0];
  const Tensor& order = in[1];
  const bool labelled = in.size() > 2 && in[2].defined();
  SHRIKE_CHECK(boxes.rank() == 2 && boxes.size(1) == 4 && order.rank() == 1, "nms: boxes of shape ", boxes.shape(),
               ", order of shape ", order.shape(), ": expected [N, 4] and [M]");
  SHRIKE_CHECK(!labelled || in[2].shape() == Shape{boxes.size(0)}, "nms: labels of shape ", in[2].shape(), " for ",
               boxes.size(0), " boxes");
  SHRIKE_CHECK(threshold >= 0.0, "nms: threshold ", threshold, " is negative");
  // A float is above the double threshold exactly if it is above the greatest float that is not.
  auto limit = static_cast<float>(threshold);
  if (static_cast<double>(limit) > threshold) limit = std::nextafter(limit, -std::numeric_limits<float>::infinity());
  const std::int64_t most = max_keep < 0 ? order.numel() : max_keep;
  const Tensor keep(Shape{most}, Dtype::s32, boxes.device());
  const Tensor count(Shape{1}, Dtype::s32, boxes.device());
  dispatch(boxes.device(), [&](auto d) {
    kernels::nms_forward(d, {order.numel(), most, limit}, boxes.data<float>(), order.data<std::int32_t>(),
                         labelled ? in[2].data<std::int32_t>() : nullptr, keep.data<std::int32_t>(),
                         count.data<std::int32_t>());
  });
  return {keep, count};
}

// The places of the min(k, N) greatest of scores f32 [N], s32, greatest first, ties by index, NaN last.
inline Tensor top_k(const Tensor& scores, std::int64_t k) {
  TopK op;
  op.k = k;
  return call(std::move(op), {scores})[0];
}

struct NmsResult {
  Tensor keep;   // s32 [max_keep]: indices of boxes in order, then -1
  Tensor count;  // s32 [1]
};

// Greedy suppression among boxes [N, 4] taken in the order given, s32 [M] (entries below 0 are passed over), within each label
// if labels s32 [N] are given, until max_keep are kept (-1: no limit). Nothing is read back to the host.
inline NmsResult nms_in_order(const Tensor& boxes, const Tensor& order, const Tensor& labels, double iou_threshold,
                              std::int64_t max_keep = -1) {
  Nms op;
  op.threshold = iou_threshold;
  op.max_keep = max_keep;
  const Tensors out = call(std::move(op), {boxes, order, labels});
  return {out[0], out[1]};
}

// As nms, within each label: boxes of different labels (s32 [N]) do not suppress each other.
inline Tensor batched_nms(const Tensor& boxes, const Tensor& scores, const Tensor& labels, double iou_threshold) {
  SHRIKE_CHECK(scores.rank() == 1 && boxes.rank() == 2 && scores.size(0) == boxes.size(0), "nms: scores of shape ",
               scores.shape(), " for boxes of shape ", boxes.shape());
  const NmsResult result = nms_in_order(boxes, top_k(scores, scores.numel()), labels, iou_threshold);
  return slice(result.keep, 0, 0, result.count.item<std::int32_t>());
}

// Indices s32 [<= N] of the boxes f32 [N, 4] that remain when, from the highest of scores f32 [N] down (ties by index, NaN
// last), each box removes those after it whose IoU with it is > iou_threshold.
inline Tensor nms(const Tensor& boxes, const Tensor& scores, double iou_threshold) {
  return batched_nms(boxes, scores, Tensor(), iou_threshold);
}

}  // namespace shrike
