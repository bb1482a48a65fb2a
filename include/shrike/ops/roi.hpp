// Pooling of regions of interest: RoIPool (Girshick, "Fast R-CNN", ICCV 2015) and RoIAlign (He et al., "Mask R-CNN", ICCV
// 2017), both as torchvision defines them.
#pragma once

#include "shrike/core/autograd.hpp"

namespace shrike {

struct RoiOptions {
  std::int64_t height = 7, width = 7;  // of the output
  double spatial_scale = 1.0;          // feature map pixels per image pixel
  std::int64_t sampling_ratio = 2;     // roi_align: samples per bin and axis; 0 or less: one per feature map pixel
  bool aligned = false;                // roi_align: pixel centres are at half integers
};

namespace kernels {

struct RoiSizes {
  std::int64_t images, height, width, channels;  // of x, NHWC
  std::int64_t rois, out_height, out_width;
  float spatial_scale;
  std::int64_t sampling_ratio;
  bool aligned;
};

// A region is (image, x1, y1, x2, y2). One whose image is not in 0 .. images-1 reads as zeros and gets no gradient.

// y = the greatest x of each bin, argmax its row * width + column. An empty bin has y = 0 and argmax = -1; NaN is greatest.
SHRIKE_KERNEL(roi_pool_forward, const RoiSizes& sizes, const float* x, const float* rois, float* y, std::int32_t* argmax);
// The same of codes or halves, u8, s8 or f16 as `dtype` says; an empty bin is 0.
SHRIKE_KERNEL(quantized_roi_pool_forward, const RoiSizes& sizes, Dtype dtype, const void* x, const float* rois, void* y);
// dx = the sum of dy over the bins whose argmax it is, in their order.
SHRIKE_KERNEL(roi_pool_backward, const RoiSizes& sizes, const float* dy, const float* rois, const std::int32_t* argmax,
              float* dx);

// y = the mean of each bin's bilinear samples; a sample more than one pixel outside the map counts as 0.
SHRIKE_KERNEL(roi_align_forward, const RoiSizes& sizes, const float* x, const float* rois, float* y);
// The same of codes, rounded to codes of the same scale, or of halves, rounded to halves. So that devices agree to the bit,
// every step below is rounded to float once, in this order, fmaf being one step and min, max, floor and ceil exact. Along each
// axis, for a region's corners low and high, with o = 0.5 if aligned, else 0:
//   start = fmaf(low, spatial_scale, -o)      length = fmaf(high, spatial_scale, -o) - start, at least 1 unless aligned
//   size = length / bins                      samples = sampling_ratio, or if that is not positive, ceil(size) in [0, 2^30]
//   at = fmaf(bin + (i + 0.5) / samples, size, start)                             for sample i = 0 .. samples - 1 of a bin
// (the sum in the last line first). A sample with at < -1 or at > extent, or of a region whose start or length is not finite,
// counts as 0. Else at = max(at, 0); if int(at) >= extent - 1, both its pixels are extent - 1 and f = 0; else they are int(at)
// and int(at) + 1, and f = at - int(at). With a = 1 - f for the low pixel and b = f for the high one, rows first, columns
// second:
//   sum = fmaf(a_row * a_col, code(low, low), sum), then a_row * b_col, b_row * a_col, b_row * b_col likewise
// over the rows' samples and, within, the columns'; y = rint(sum / (float(row samples) * float(column samples))), ties to
// even, clamped to [0, 255] or [-128, 127], or the quotient as the nearest half, saturating; and 0 where there is no sample.
SHRIKE_KERNEL(quantized_roi_align_forward, const RoiSizes& sizes, Dtype dtype, const void* x, const float* rois, void* y);
// dx = the transpose applied to dy, summed in order of the regions.
SHRIKE_KERNEL(roi_align_backward, const RoiSizes& sizes, const float* dy, const float* rois, float* dx);

}  // namespace kernels

// Inputs: x [N, H, W, C], rois [K, 5]. Outputs: [K, height, width, C], and which pixels they came from, s32. Codes (u8 or s8)
// give codes of the same scale, f16 gives f16, and neither anything else.
struct RoiPool : Op {
  std::int64_t height = 7, width = 7;
  double spatial_scale = 1.0;

  const char* name() const override { return "roi_pool"; }
  inline Tensors forward(const Tensors& in) const override;
  inline Tensors backward(const BackwardContext& context) const override;
  bool saves_output(std::size_t i) const override { return i == 1; }
  void visit(Fields& fields) override {
    fields("height", height);
    fields("width", width);
    fields("spatial_scale", spatial_scale);
  }
};

// Inputs: x [N, H, W, C], rois [K, 5]. Output: [K, height, width, C]; of codes (u8 or s8), codes of the same scale, of f16,
// f16.
struct RoiAlign : Op {
  std::int64_t height = 7, width = 7;
  double spatial_scale = 1.0;
  std::int64_t sampling_ratio = 2;
  bool aligned = false;

  const char* name() const override { return "roi_align"; }
  inline Tensors forward(const Tensors& in) const override;
  inline Tensors backward(const BackwardContext& context) const override;
  void visit(Fields& fields) override {
    fields("height", height);
    fields("width", width);
    fields("spatial_scale", spatial_scale);
    fields("sampling_ratio", sampling_ratio);
    fields("aligned", aligned);
  }
};

namespace detail {

inline kernels::RoiSizes roi_sizes(const char* op, const Tensors& in, const RoiOptions& o) {
  const Tensor& x = in[0];
  const Tensor& rois = in[1];
  SHRIKE_CHECK(x.rank() == 4 && rois.rank() == 2 && rois.size(1) == 5, op, ": x of shape ", x.shape(), ", rois of shape ",
               rois.shape(), ": expected [N, H, W, C] and [K, 5]");
  SHRIKE_CHECK(o.height > 0 && o.width > 0, op, ": an output of ", o.height, " by ", o.width, " bins");
  SHRIKE_CHECK(x.size(1) * x.size(2) < (std::int64_t{1} << 31), op, ": a feature map of ", x.size(1), " by ", x.size(2));
  return {x.size(0),        x.size(1), x.size(2), x.size(3),
          rois.size(0),     o.height,  o.width,   static_cast<float>(o.spatial_scale),
          o.sampling_ratio, o.aligned};
}

}  // namespace detail

inline Tensors RoiPool::forward(const Tensors& in) const {
  const auto sizes = detail::roi_sizes("roi_pool", in, {height, width, spatial_scale, 0, false});
  const Tensor& x = in[0];
  const Shape shape{sizes.rois, height, width, sizes.channels};
  if (x.dtype() == Dtype::u8 || x.dtype() == Dtype::s8 || x.dtype() == Dtype::f16) {
    const Tensor y(shape, x.dtype(), x.device());
    if (y.numel() == 0) return {y};
    dispatch(x.device(),
             [&](auto d) { kernels::quantized_roi_pool_forward(d, sizes, x.dtype(), x.raw(), in[1].data<float>(), y.raw()); });
    return {y};
  }
  const Tensor y(shape, Dtype::f32, x.device());
  const Tensor argmax(shape, Dtype::s32, x.device());
  dispatch(x.device(), [&](auto d) {
    kernels::roi_pool_forward(d, sizes, x.data<float>(), in[1].data<float>(), y.data<float>(), argmax.data<std::int32_t>());
  });
  return {y, argmax};
}

inline Tensors RoiPool::backward(const BackwardContext& context) const {
  const auto sizes = detail::roi_sizes("roi_pool", context.inputs, {height, width, spatial_scale, 0, false});
  const Tensor dx(context.inputs[0].shape(), Dtype::f32, context.inputs[0].device());
  dispatch(dx.device(), [&](auto d) {
    kernels::roi_pool_backward(d, sizes, context.grads[0].data<float>(), context.inputs[1].data<float>(),
                               context.outputs[1].data<std::int32_t>(), dx.data<float>());
  });
  return {dx, Tensor()};
}

inline Tensors RoiAlign::forward(const Tensors& in) const {
  const auto sizes = detail::roi_sizes("roi_align", in, {height, width, spatial_scale, sampling_ratio, aligned});
  const Tensor& x = in[0];
  if (x.dtype() == Dtype::u8 || x.dtype() == Dtype::s8 || x.dtype() == Dtype::f16) {
    const Tensor y({sizes.rois, height, width, sizes.channels}, x.dtype(), x.device());
    if (y.numel() == 0) return {y};
    dispatch(x.device(),
             [&](auto d) { kernels::quantized_roi_align_forward(d, sizes, x.dtype(), x.raw(), in[1].data<float>(), y.raw()); });
    return {y};
  }
  const Tensor y({sizes.rois, height, width, sizes.channels}, Dtype::f32, x.device());
  dispatch(x.device(),
           [&](auto d) { kernels::roi_align_forward(d, sizes, x.data<float>(), in[1].data<float>(), y.data<float>()); });
  return {y};
}

inline Tensors RoiAlign::backward(const BackwardContext& context) const {
  const auto sizes = detail::roi_sizes("roi_align", context.inputs, {height, width, spatial_scale, sampling_ratio, aligned});
  const Tensor dx(context.inputs[0].shape(), Dtype::f32, context.inputs[0].device());
  dispatch(dx.device(), [&](auto d) {
    kernels::roi_align_backward(d, sizes, context.grads[0].data<float>(), context.inputs[1].data<float>(), dx.data<float>());
  });
  return {dx, Tensor()};
}

// The greatest value of each of height x width bins of each region: x [N, H, W, C], rois f32 [K, 5] of (image index, x1, y1,
// x2, y2) in image pixels -> [K, height, width, C]. Corners are scaled and rounded to whole pixels, both included. Rows of rois
// whose image index is out of range (-1 as padding) give zeros. No gradient flows to rois.
inline Tensor roi_pool(const Tensor& x, const Tensor& rois, const RoiOptions& options = {}) {
  RoiPool op;
  op.height = options.height;
  op.width = options.width;
  op.spatial_scale = options.spatial_scale;
  return call(std::move(op), {x, rois})[0];
}

// The mean of bilinear samples in each bin; shapes as in roi_pool.
inline Tensor roi_align(const Tensor& x, const Tensor& rois, const RoiOptions& options = {}) {
  RoiAlign op;
  op.height = options.height;
  op.width = options.width;
  op.spatial_scale = options.spatial_scale;
  op.sampling_ratio = options.sampling_ratio;
  op.aligned = options.aligned;
  return call(std::move(op), {x, rois})[0];
}

}  // namespace shrike
