// Regions of interest: boxes of several images in one tensor, and rows of tensors that need no gradient.
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

// Rows [begin, begin + count) of x, copied, without history; all rows are x itself without history.
inline Tensor rows(const Tensor& x, std::int64_t begin, std::int64_t count) {
  SHRIKE_CHECK(begin >= 0 && count >= 0 && begin + count <= x.size(0), "rows ", begin, " to ", begin + count,
               " of a tensor of shape ", x.shape());
  if (count == x.size(0)) return x.detach();
  auto sizes = x.shape().to_vector();
  sizes[0] = count;
  const Tensor y(Shape(sizes), x.dtype(), x.device());
  if (y.bytes() == 0) return y;
  const std::size_t row = x.bytes() / static_cast<std::size_t>(x.size(0));
  const char* from = static_cast<const char*>(x.raw()) + static_cast<std::size_t>(begin) * row;
  dispatch(x.device(), [&](auto d) { kernels::copy_bytes(d, y.raw(), y.device(), from, x.device(), y.bytes()); });
  return y;
}

// Tensors without history one below the other; all but the first size are equal. At least one tensor.
inline Tensor stack_rows(const Tensors& parts) {
  if (parts.size() == 1) return parts[0].detach();
  auto sizes = parts.at(0).shape().to_vector();
  sizes[0] = 0;
  for (const Tensor& part : parts) sizes[0] += part.size(0);
  const Tensor y(Shape(sizes), parts[0].dtype(), parts[0].device());
  char* to = static_cast<char*>(y.raw());
  for (const Tensor& part : parts) {
    if (part.bytes() == 0) continue;
    dispatch(y.device(), [&](auto d) { kernels::copy_bytes(d, to, y.device(), part.raw(), part.device(), part.bytes()); });
    to += part.bytes();
  }
  return y;
}

}  // namespace shrike
