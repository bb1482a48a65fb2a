// Box regression: boxes as offsets from reference boxes (Girshick et al., "Rich feature hierarchies", appendix C), and
// clipping.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "shrike/core/box.hpp"
#include "shrike/core/tensor.hpp"

namespace shrike {

// Factors of the offsets (dx, dy, dw, dh): 1 for anchors; 10, 10, 5, 5 for the box head, which is to say standard deviations
// of 0.1, 0.1, 0.2, 0.2.
struct BoxWeights {
  float x = 1, y = 1, w = 1, h = 1;
};
inline constexpr BoxWeights anchor_weights{1, 1, 1, 1};
inline constexpr BoxWeights roi_weights{10, 10, 5, 5};

// Offsets of one box from a reference box.
struct BoxDelta {
  float x = 0, y = 0, w = 0, h = 0;
};

// dx = wx (cx - rx) / rw, dy likewise, dw = ww log(w / rw), dh likewise; c is a centre, r the reference. Sides shorter than
// 1/1000 pixel count as that long, so that finite boxes have finite offsets.
SHRIKE_HOST_DEVICE inline BoxDelta encode_box(const Box& box, const Box& reference, const BoxWeights& weights) {
  constexpr float shortest = 1e-3f;
  const float rw = greater(reference.width(), shortest);
  const float rh = greater(reference.height(), shortest);
  const float w = greater(box.width(), shortest);
  const float h = greater(box.height(), shortest);
  const float shift_x = (box.x1 + 0.5f * w) - (reference.x1 + 0.5f * rw);
  const float shift_y = (box.y1 + 0.5f * h) - (reference.y1 + 0.5f * rh);
  return {weights.x * shift_x / rw, weights.y * shift_y / rh, weights.w * std::log(w / rw), weights.h * std::log(h / rh)};
}

// The inverse. dw and dh are first limited to log(1000 / 16) after division by their weights, as in torchvision. A box that
// does not come out finite becomes the box of zeros: it has no area, and proposals() and detections() leave it out.
SHRIKE_HOST_DEVICE inline Box decode_box(const BoxDelta& delta, const Box& reference, const BoxWeights& weights) {
  constexpr float limit = 4.135166556742356f;  // log(1000 / 16)
  const float rw = reference.width();
  const float rh = reference.height();
  const float cx = delta.x / weights.x * rw + (reference.x1 + 0.5f * rw);
  const float cy = delta.y / weights.y * rh + (reference.y1 + 0.5f * rh);
  const float half_w = 0.5f * (std::exp(lesser(limit, delta.w / weights.w)) * rw);
  const float half_h = 0.5f * (std::exp(lesser(limit, delta.h / weights.h)) * rh);
  const Box box{cx - half_w, cy - half_h, cx + half_w, cy + half_h};
  const bool finite = std::isfinite(delta.w) && std::isfinite(delta.h) && std::isfinite(box.x1) && std::isfinite(box.y1) &&
                      std::isfinite(box.x2) && std::isfinite(box.y2);
  return finite ? box : Box{};
}

// The part of a box within an image of height x width pixels.
SHRIKE_HOST_DEVICE inline Box clip_box(const Box& box, float height, float width) {
  return {lesser(greater(box.x1, 0.0f), width), lesser(greater(box.y1, 0.0f), height), lesser(greater(box.x2, 0.0f), width),
          lesser(greater(box.y2, 0.0f), height)};
}

// Offsets [N, 4] of boxes [N, 4] from references [N, 4], all f32. Throws Error when shapes, dtypes or devices disagree.
Tensor encode_boxes(const Tensor& boxes, const Tensor& references, const BoxWeights& weights = anchor_weights);

// Boxes [N, 4 C] of offsets [N, 4 C] from references [N, 4]: C boxes from each reference. No gradient is recorded: the
// detectors treat proposals as given.
Tensor decode_boxes(const Tensor& deltas, const Tensor& references, const BoxWeights& weights = anchor_weights);

// Boxes [..., 4] clipped to the image.
Tensor clip_boxes(const Tensor& boxes, std::int64_t image_height, std::int64_t image_width);

// The boxes f32 [M, 4] and labels s32 [M] of objects, on `device`; M may be 0.
Tensor box_tensor(const std::vector<Object>& objects, Device device = Device::cpu);
Tensor label_tensor(const std::vector<Object>& objects, Device device = Device::cpu);

// Throws Error unless `boxes` is f32 [N, 4] on `device`; `what` names it in the message.
void check_boxes(const char* what, const Tensor& boxes, Device device);

namespace kernels {

// A box in memory is its four corners.
SHRIKE_HOST_DEVICE inline Box load_box(const float* p) { return {p[0], p[1], p[2], p[3]}; }
SHRIKE_HOST_DEVICE inline void store_box(const Box& box, float* p) {
  p[0] = box.x1;
  p[1] = box.y1;
  p[2] = box.x2;
  p[3] = box.y2;
}

struct DecodeSizes {
  std::int64_t boxes;    // N
  std::int64_t classes;  // C
  BoxWeights weights;
};
SHRIKE_KERNEL(encode_boxes, std::int64_t n, BoxWeights weights, const float* boxes, const float* references, float* deltas);
SHRIKE_KERNEL(decode_boxes, DecodeSizes sizes, const float* deltas, const float* references, float* boxes);
SHRIKE_KERNEL(clip_boxes, std::int64_t n, float height, float width, const float* boxes, float* clipped);
}  // namespace kernels

}  // namespace shrike
