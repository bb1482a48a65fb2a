#include <algorithm>
#include <atomic>
#include <numeric>
#include <vector>

#include "shrike/core/threads.hpp"
#include "shrike/detection/targets.hpp"

namespace shrike::kernels {
namespace {

// Anchors whose IoUs with one box are computed at a time: enough to vectorise, few enough to stay in L1. This takes the place
// of the N x M matrix.
constexpr std::int64_t chunk = 256;

struct Overlap {
  float values[chunk];
};

void overlaps(std::int64_t n, const float* __restrict anchors, const Box box, float* __restrict values) {
  for (std::int64_t i = 0; i < n; ++i) values[i] = iou(load_box(anchors + 4 * i), box);
}

// Calls f(first, count) for each chunk of [0, n); the chunks do not depend on the number of threads.
template <class F> void for_chunks(std::int64_t n, const F& f) {
  parallel_for((n + chunk - 1) / chunk, 4, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t c = begin; c < end; ++c) f(c * chunk, std::min(chunk, n - c * chunk));
  });
}

// The greatest value is the same in whichever order threads come.
void raise_to(float& target, float value) {
  const std::atomic_ref<float> shared(target);
  float seen = shared.load(std::memory_order_relaxed);
  while (seen < value && !shared.compare_exchange_weak(seen, value, std::memory_order_relaxed)) {
  }
}

// For `count` anchors: the box of greatest IoU, the first of equals, and that IoU; 0 and 0 without boxes.
template <class F> void best_box(std::int64_t count, const float* anchors, std::int64_t boxes, const float* box_values,
                                 std::int32_t* match, float* best, const F& each_box) {
  std::fill(match, match + count, 0);
  std::fill(best, best + count, 0.0f);
  Overlap overlap;
  for (std::int64_t j = 0; j < boxes; ++j) {
    overlaps(count, anchors, load_box(box_values + 4 * j), overlap.values);
    each_box(j, overlap);
    for (std::int64_t i = 0; i < count; ++i) {
      match[i] = overlap.values[i] > best[i] ? static_cast<std::int32_t>(j) : match[i];
      best[i] = std::max(best[i], overlap.values[i]);
    }
  }
}

}  // namespace

void rpn_match(Cpu, RpnMatchSizes sizes, const float* anchors, const float* boxes, std::int32_t* match, std::int32_t* labels,
               float* best) {
  const auto inside = [&](std::int64_t i) {
    const Box a = load_box(anchors + 4 * i);
    return a.x1 >= -sizes.straddle && a.y1 >= -sizes.straddle && a.x2 <= sizes.image_width + sizes.straddle &&
           a.y2 <= sizes.image_height + sizes.straddle;
  };
  std::fill(best, best + sizes.boxes, 0.0f);
  for_chunks(sizes.anchors, [&](std::int64_t first, std::int64_t count) {
    float anchor_best[chunk];
    best_box(count, anchors + 4 * first, sizes.boxes, boxes, match + first, anchor_best, [&](std::int64_t j, Overlap& overlap) {
      float greatest = 0;
      for (std::int64_t i = 0; i < count; ++i) {
        if (overlap.values[i] > greatest && inside(first + i)) greatest = overlap.values[i];
      }
      raise_to(best[j], greatest);
    });
    for (std::int64_t i = 0; i < count; ++i) {
      const bool positive = anchor_best[i] >= sizes.positive_iou;
      const bool negative = anchor_best[i] < sizes.negative_iou;
      labels[first + i] = !inside(first + i) ? -1 : positive ? 1 : negative ? 0 : -1;
    }
  });
  if (!sizes.best_is_positive) return;
  for_chunks(sizes.anchors, [&](std::int64_t first, std::int64_t count) {
    Overlap overlap;
    for (std::int64_t j = 0; j < sizes.boxes; ++j) {
      if (best[j] <= 0 || best[j] < sizes.best_iou) continue;
      overlaps(count, anchors + 4 * first, load_box(boxes + 4 * j), overlap.values);
      for (std::int64_t i = 0; i < count; ++i) {
        if (overlap.values[i] == best[j] && inside(first + i)) labels[first + i] = 1;
      }
    }
  });
}

void roi_match(Cpu, RoiMatchSizes sizes, const float* candidates, const float* boxes, const std::int32_t* box_labels,
               std::int32_t* match, std::int32_t* labels) {
  for_chunks(sizes.candidates, [&](std::int64_t first, std::int64_t count) {
    float best[chunk];
    best_box(count, candidates + 4 * first, sizes.boxes, boxes, match + first, best, [](std::int64_t, Overlap&) {});
    for (std::int64_t i = 0; i < count; ++i) {
      const Box box = load_box(candidates + 4 * (first + i));
      const bool area = box.width() > 0 && box.height() > 0;
      const bool negative = best[i] >= sizes.negative_low && best[i] < sizes.negative_iou;
      const std::int32_t label = best[i] >= sizes.positive_iou ? box_labels[match[first + i]] : negative ? 0 : -1;
      labels[first + i] = area ? label : -1;
    }
  });
}

void sample_balanced(Cpu, SampleSizes sizes, const std::int32_t* labels, std::int32_t* selected, std::int32_t* counts) {
  // (key, number) of each candidate: the number in the low half settles equal keys.
  std::vector<std::uint64_t> keys[2];
  for (std::int64_t i = 0; i < sizes.candidates; ++i) {
    if (labels[i] < 0) continue;
    const std::uint64_t key = philox(sizes.key, sizes.counter_high, static_cast<std::uint64_t>(i))[0];
    keys[labels[i] > 0 ? 0 : 1].push_back(key << 32 | static_cast<std::uint64_t>(i));
  }
  std::int64_t room = sizes.max_positive;
  std::int64_t total = 0;
  for (int kind = 0; kind < 2; ++kind) {
    const std::int64_t take = std::min(room, static_cast<std::int64_t>(keys[kind].size()));
    if (take < static_cast<std::int64_t>(keys[kind].size())) {
      std::nth_element(keys[kind].begin(), keys[kind].begin() + take, keys[kind].end());
    }
    for (std::int64_t i = 0; i < take; ++i) {
      selected[total++] = static_cast<std::int32_t>(keys[kind][static_cast<std::size_t>(i)] & 0xffffffffu);
    }
    counts[kind] = static_cast<std::int32_t>(take);
    room = sizes.batch - total;
  }
  std::sort(selected, selected + total);
  std::fill(selected + total, selected + sizes.batch, -1);
}

void sample_shares(Cpu, std::int64_t images, std::int64_t least, const std::int32_t* counts, float* shares) {
  const std::int64_t sampled = std::max(std::accumulate(counts, counts + 2 * images, std::int64_t{0}), least);
  for (std::int64_t i = 0; i < images; ++i) {
    shares[i] = static_cast<float>(counts[2 * i] + counts[2 * i + 1]) / static_cast<float>(sampled);
  }
}

void rpn_encode(Cpu, RpnEncodeSizes sizes, const float* anchors, const float* boxes, const std::int32_t* match,
                const std::int32_t* labels, const std::int32_t* selected, const std::int32_t* counts, float* cls_target,
                float* cls_weight, float* box_target, float* box_weight) {
  std::fill(cls_target, cls_target + sizes.anchors, 0.0f);
  std::fill(cls_weight, cls_weight + sizes.anchors, 0.0f);
  std::fill(box_target, box_target + 4 * sizes.anchors, 0.0f);
  std::fill(box_weight, box_weight + 4 * sizes.anchors, 0.0f);
  const float weight = 1.0f / static_cast<float>(std::max(counts[0] + counts[1], 1));
  for (std::int64_t row = 0; row < sizes.batch && selected[row] >= 0; ++row) {
    const std::int64_t i = selected[row];
    cls_weight[i] = weight;
    if (labels[i] == 0) continue;
    cls_target[i] = 1;
    const BoxDelta delta = encode_box(load_box(boxes + 4 * match[i]), load_box(anchors + 4 * i), anchor_weights);
    const float values[4] = {delta.x, delta.y, delta.w, delta.h};
    std::copy(values, values + 4, box_target + 4 * i);
    std::fill(box_weight + 4 * i, box_weight + 4 * i + 4, weight);
  }
}

void roi_encode(Cpu, RoiEncodeSizes sizes, const float* candidates, const float* boxes, const std::int32_t* match,
                const std::int32_t* candidate_labels, const std::int32_t* selected, const std::int32_t* counts, float* rois,
                std::int32_t* labels, float* box_target, float* box_weight) {
  const std::int64_t width = 4 * sizes.num_classes;
  std::fill(rois, rois + 5 * sizes.batch, 0.0f);
  std::fill(labels, labels + sizes.batch, -1);
  std::fill(box_target, box_target + sizes.batch * width, 0.0f);
  std::fill(box_weight, box_weight + sizes.batch * width, 0.0f);
  const float weight = 1.0f / static_cast<float>(std::max(counts[0] + counts[1], 1));
  for (std::int64_t row = 0; row < sizes.batch && selected[row] >= 0; ++row) {
    const std::int64_t i = selected[row];
    const Box roi = load_box(candidates + 4 * i);
    const float region[5] = {sizes.image_index, roi.x1, roi.y1, roi.x2, roi.y2};
    std::copy(region, region + 5, rois + 5 * row);
    labels[row] = candidate_labels[i];
    if (labels[row] <= 0 || labels[row] >= sizes.num_classes) continue;
    const BoxDelta delta = encode_box(load_box(boxes + 4 * match[i]), roi, sizes.weights);
    const float values[4] = {delta.x, delta.y, delta.w, delta.h};
    const std::int64_t place = row * width + 4 * labels[row];
    std::copy(values, values + 4, box_target + place);
    std::fill(box_weight + place, box_weight + place + 4, weight);
  }
}

}  // namespace shrike::kernels
