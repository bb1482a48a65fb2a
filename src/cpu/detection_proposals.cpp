#include <algorithm>
#include <atomic>
#include <limits>

#include "shrike/core/threads.hpp"
#include "shrike/detection/proposals.hpp"

namespace shrike::kernels {
namespace {

constexpr float dropped = -std::numeric_limits<float>::infinity();

BoxDelta load_delta(const float* p) { return {p[0], p[1], p[2], p[3]}; }

// A box without area is too small for any min_size.
bool large_enough(const Box& box, float min_size) {
  return box.width() > 0 && box.height() > 0 && box.width() >= min_size && box.height() >= min_size;
}

}  // namespace

void proposal_candidates(Cpu, ProposalSizes sizes, const float* objectness, const float* deltas, const float* anchors,
                         float* boxes, float* scores) {
  parallel_for(sizes.anchors, 1 << 11, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const Box decoded = decode_box(load_delta(deltas + 4 * i), load_box(anchors + 4 * i), anchor_weights);
      const Box box = clip_box(decoded, sizes.image_height, sizes.image_width);
      store_box(box, boxes + 4 * i);
      scores[i] = std::isnan(objectness[i]) ? dropped : objectness[i];
    }
  });
}

void proposal_drop(Cpu, std::int64_t n, float min_size, const float* boxes, const float* scores, std::int32_t* order) {
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t from = order[i];
    if (scores[from] == dropped || !large_enough(load_box(boxes + 4 * from), min_size)) order[i] = -1;
  }
}

void proposal_gather(Cpu, ProposalGatherSizes sizes, const std::int32_t* index, const float* boxes, const float* scores,
                     float* out_boxes, float* out_scores, std::int32_t* count) {
  std::int64_t row = 0;
  for (; row < std::min(sizes.rows, sizes.indices) && index[row] >= 0; ++row) {
    store_box(load_box(boxes + 4 * index[row]), out_boxes + 4 * row);
    out_scores[row] = scores[index[row]];
  }
  std::fill(out_boxes + 4 * row, out_boxes + 4 * sizes.rows, 0.0f);
  std::fill(out_scores + row, out_scores + sizes.rows, dropped);
  *count = static_cast<std::int32_t>(row);
}

void detection_candidates(Cpu, DetectionSizes sizes, const float* class_logits, const float* deltas, const float* proposals,
                          float* boxes, float* scores, std::int32_t* labels, std::int32_t* count) {
  const std::int64_t classes = sizes.classes;
  std::atomic<std::int32_t> total = 0;
  parallel_for(sizes.proposals, 512 / std::max<std::int64_t>(classes, 1), [&](std::int64_t begin, std::int64_t end) {
    std::int32_t stayed = 0;
    for (std::int64_t p = begin; p < end; ++p) {
      const float* logits = class_logits + p * classes;
      const float greatest = *std::max_element(logits, logits + classes);
      float sum = 0;
      for (std::int64_t c = 0; c < classes; ++c) sum += std::exp(logits[c] - greatest);
      for (std::int64_t c = 1; c < classes; ++c) {
        const std::int64_t i = p * (classes - 1) + c - 1;
        const float score = std::exp(logits[c] - greatest) / sum;
        const Box decoded = decode_box(load_delta(deltas + 4 * (p * classes + c)), load_box(proposals + 4 * p), sizes.weights);
        const Box box = clip_box(decoded, sizes.image_height, sizes.image_width);
        const bool stays = score > sizes.score_threshold && large_enough(box, sizes.min_size);
        store_box(box, boxes + 4 * i);
        scores[i] = stays ? score : dropped;
        labels[i] = static_cast<std::int32_t>(c);
        stayed += stays;
      }
    }
    total += stayed;
  });
  *count = total;
}

}  // namespace shrike::kernels
