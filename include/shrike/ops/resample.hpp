// Resampling of feature maps.
#pragma once

#include "shrike/core/autograd.hpp"

namespace shrike {

namespace kernels {

struct ResampleSizes {
  std::int64_t images, height, width, channels;  // of x
  std::int64_t out_height, out_width;
};
// y[n, i, j] = x[n, nearest(i), nearest(j)], see nearest_source.
SHRIKE_KERNEL(upsample_nearest_forward, const ResampleSizes& sizes, const float* x, float* y);
// dx = the sum of dy, row by row, over the places that read each pixel.
SHRIKE_KERNEL(upsample_nearest_backward, const ResampleSizes& sizes, const float* dy, float* dx);

}  // namespace kernels

// The place in [0, size) that place `i` of [0, out_size) reads: PyTorch's mode "nearest", to its float rounding.
inline std::int64_t nearest_source(std::int64_t i, std::int64_t size, std::int64_t out_size) {
  if (size == out_size) return i;
  if (2 * size == out_size) return i / 2;
  const float scale = static_cast<float>(size) / static_cast<float>(out_size);
  return std::min(static_cast<std::int64_t>(static_cast<float>(i) * scale), size - 1);
}

// x [N, H, W, C] to [N, height, width, C].
struct UpsampleNearest : Op {
  std::int64_t height = 0, width = 0;

  const char* name() const override { return "upsample_nearest"; }
  inline Tensors forward(const Tensors& in) const override;
  inline Tensors backward(const BackwardContext& context) const override;
  void visit(Fields& fields) override {
    fields("height", height);
    fields("width", width);
  }
};

inline Tensors UpsampleNearest::forward(const Tensors& in) const {
  const Tensor& x = in[0];
  SHRIKE_CHECK(x.rank() == 4 && height > 0 && width > 0 && (x.numel() > 0 || x.size(0) * x.size(3) == 0),
               "upsample_nearest: x of shape ", x.shape(), " to ", height, " by ", width, ": expected [N, H, W, C]");
  const Tensor y({x.size(0), height, width, x.size(3)}, Dtype::f32, x.device());
  dispatch(x.device(), [&](auto d) {
    kernels::upsample_nearest_forward(d, {x.size(0), x.size(1), x.size(2), x.size(3), height, width}, x.data<float>(),
                                      y.data<float>());
  });
  return {y};
}

inline Tensors UpsampleNearest::backward(const BackwardContext& context) const {
  const Tensor& x = context.inputs[0];
  const Tensor dx(x.shape(), Dtype::f32, x.device());
  dispatch(x.device(), [&](auto d) {
    kernels::upsample_nearest_backward(d, {x.size(0), x.size(1), x.size(2), x.size(3), height, width},
                                       context.grads[0].data<float>(), dx.data<float>());
  });
  return {dx};
}

// x [N, H, W, C] to [N, height, width, C], each place reading its nearest pixel (PyTorch's interpolate, mode "nearest").
inline Tensor upsample_nearest(const Tensor& x, std::int64_t height, std::int64_t width) {
  UpsampleNearest op;
  op.height = height;
  op.width = width;
  return call(std::move(op), {x})[0];
}

}  // namespace shrike
