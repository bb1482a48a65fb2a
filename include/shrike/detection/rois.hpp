// Regions of interest: boxes with the number of their image in a batch.
#pragma once

#include "shrike/core/tensor.hpp"

namespace shrike {

namespace kernels {
// rois [n, 5] = (image, x1, y1, x2, y2) from boxes [n, 4].
SHRIKE_KERNEL(boxes_to_rois, std::int64_t n, const float* boxes, float image, float* rois);
}  // namespace kernels

// Boxes [n, 4] of one image of a batch as RoIs [n, 5], with the image's number in front.
inline Tensor boxes_to_rois(const Tensor& boxes, int image) {
  const Tensor rois({boxes.size(0), 5}, Dtype::f32, boxes.device());
  dispatch(rois.device(), [&](auto d) {
    kernels::boxes_to_rois(d, boxes.size(0), boxes.data<float>(), static_cast<float>(image), rois.data<float>());
  });
  return rois;
}

}  // namespace shrike
