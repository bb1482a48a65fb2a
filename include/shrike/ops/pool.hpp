// Max and average pooling.
#pragma once

#include "shrike/core/autograd.hpp"

namespace shrike {

namespace kernels {

// Sizes of pooling x [n, h, w, c] to y [n, p, q, c] with square windows.
struct PoolSizes {
  std::int64_t n, h, w, c;
  std::int64_t p, q;
  std::int64_t kernel, stride, padding;
};

// argmax: the position of the greatest element in its window, dy * kernel + dx; the first of equals, the last NaN if there is
// one.
SHRIKE_KERNEL(max_pool2d_forward, const PoolSizes& sizes, const float* x, float* y, std::uint8_t* argmax);
// The greatest codes or halves, of u8, s8 or f16 as `dtype` says; NaN is greatest.
SHRIKE_KERNEL(quantized_max_pool2d_forward, const PoolSizes& sizes, Dtype dtype, const void* x, void* y);
SHRIKE_KERNEL(max_pool2d_backward, const PoolSizes& sizes, const std::uint8_t* argmax, const float* dy, float* dx);
SHRIKE_KERNEL(avg_pool2d_forward, const PoolSizes& sizes, const float* x, float* y);
SHRIKE_KERNEL(avg_pool2d_backward, const PoolSizes& sizes, const float* dy, float* dx);

}  // namespace kernels

struct PoolOptions {
  std::int64_t kernel = 2;
  std::int64_t stride = 2;
  std::int64_t padding = 0;  // at most half of kernel
  bool ceil_mode = false;    // a last window that begins inside, but reaches past the end, counts
};

// What max and average pooling share: fields and sizes, by PyTorch's definitions.
struct Pool2d : Op {
  std::int64_t kernel = 2;
  std::int64_t stride = 2;
  std::int64_t padding = 0;
  bool ceil_mode = false;

  void visit(Fields& fields) override {
    fields("kernel", kernel);
    fields("stride", stride);
    fields("padding", padding);
    fields("ceil_mode", ceil_mode);
  }

  // Throws Error when x [N, H, W, C] does not fit the options.
  kernels::PoolSizes sizes(const Shape& x) const;
};

// Input x [N, H, W, C]; outputs y [N, P, Q, C] and, for backward, the argmax [N, P, Q, C] in u8. Padding never wins. Codes (u8
// or s8) give codes of the same scale, f16 gives f16, and neither an argmax.
struct MaxPool2d : Pool2d {
  const char* name() const override { return "max_pool2d"; }
  inline Tensors forward(const Tensors& in) const override;
  inline Tensors backward(const BackwardContext& context) const override;
  bool saves_output(std::size_t i) const override { return i == 1; }
};

// Input x [N, H, W, C]; output y [N, P, Q, C]. Padding counts as zeros in the mean, what ceil_mode adds beyond it does not.
struct AvgPool2d : Pool2d {
  const char* name() const override { return "avg_pool2d"; }
  inline Tensors forward(const Tensors& in) const override;
  inline Tensors backward(const BackwardContext& context) const override;
};

inline kernels::PoolSizes Pool2d::sizes(const Shape& x) const {
  SHRIKE_CHECK(x.rank() == 4, name(), ": x has shape ", x, ": expected [N, H, W, C]");
  SHRIKE_CHECK(kernel >= 1 && kernel <= 16, name(), ": kernel is ", kernel, ": expected 1 to 16");
  SHRIKE_CHECK(stride >= 1 && stride <= 1 << 20, name(), ": stride is ", stride, ": expected at least 1");
  SHRIKE_CHECK(padding >= 0 && padding <= kernel / 2, name(), ": padding is ", padding, ": expected 0 to ", kernel / 2,
               ", half of the kernel");
  const auto extent = [&](std::int64_t size) {
    const std::int64_t room = size + 2 * padding - kernel;
    SHRIKE_CHECK(size > 0 && (room >= 0 || (ceil_mode && room > -stride)), name(), ": x of shape ", x, " with padding ",
                 padding, " is smaller than the kernel ", kernel);
    std::int64_t count = (room + (ceil_mode ? stride - 1 : 0)) / stride + 1;
    if (ceil_mode && (count - 1) * stride >= size + padding) --count;  // the last window would see nothing but padding
    SHRIKE_CHECK(count > 0, name(), ": x of shape ", x, " gives no output");
    return count;
  };
  return {x[0], x[1], x[2], x[3], extent(x[1]), extent(x[2]), kernel, stride, padding};
}

inline Tensors MaxPool2d::forward(const Tensors& in) const {
  const Tensor& x = in[0];
  const auto sizes = this->sizes(x.shape());
  if (x.dtype() == Dtype::u8 || x.dtype() == Dtype::s8 || x.dtype() == Dtype::f16) {
    const Tensor y({sizes.n, sizes.p, sizes.q, sizes.c}, x.dtype(), x.device());
    if (y.numel() == 0) return {y};
    dispatch(x.device(), [&](auto d) { kernels::quantized_max_pool2d_forward(d, sizes, x.dtype(), x.raw(), y.raw()); });
    return {y};
  }
  const Tensor y({sizes.n, sizes.p, sizes.q, sizes.c}, Dtype::f32, x.device());
  const Tensor argmax(y.shape(), Dtype::u8, x.device());
  dispatch(x.device(), [&](auto d) {
    kernels::max_pool2d_forward(d, sizes, x.data<float>(), y.data<float>(), argmax.data<std::uint8_t>());
  });
  return {y, argmax};
}

inline Tensors MaxPool2d::backward(const BackwardContext& context) const {
  const Shape& shape = context.inputs[0].shape();
  const Tensor& dy = context.grads[0];
  const Tensor dx(shape, Dtype::f32, dy.device());
  dispatch(dy.device(), [&](auto d) {
    kernels::max_pool2d_backward(d, sizes(shape), context.outputs[1].data<std::uint8_t>(), dy.data<float>(), dx.data<float>());
  });
  return {dx};
}

inline Tensors AvgPool2d::forward(const Tensors& in) const {
  const Tensor& x = in[0];
  const auto sizes = this->sizes(x.shape());
  const Tensor y({sizes.n, sizes.p, sizes.q, sizes.c}, Dtype::f32, x.device());
  dispatch(x.device(), [&](auto d) { kernels::avg_pool2d_forward(d, sizes, x.data<float>(), y.data<float>()); });
  return {y};
}

inline Tensors AvgPool2d::backward(const BackwardContext& context) const {
  const Shape& shape = context.inputs[0].shape();
  const Tensor& dy = context.grads[0];
  const Tensor dx(shape, Dtype::f32, dy.device());
  dispatch(dy.device(), [&](auto d) { kernels::avg_pool2d_backward(d, sizes(shape), dy.data<float>(), dx.data<float>()); });
  return {dx};
}

template <std::derived_from<Pool2d> O> O with_options(const PoolOptions& options) {
  O op;
  op.kernel = options.kernel;
  op.stride = options.stride;
  op.padding = options.padding;
  op.ceil_mode = options.ceil_mode;
  return op;
}

// x [N, H, W, C] f32, f16, u8 or s8 -> [N, P, Q, C], P = (H + 2 padding - kernel) / stride + 1, rounded down, or up with
// ceil_mode.
inline Tensor max_pool2d(const Tensor& x, const PoolOptions& options = {}) {
  return call(with_options<MaxPool2d>(options), {x})[0];
}

inline Tensor avg_pool2d(const Tensor& x, const PoolOptions& options = {}) {
  return call(with_options<AvgPool2d>(options), {x})[0];
}

}  // namespace shrike
