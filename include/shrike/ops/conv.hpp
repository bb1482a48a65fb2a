// Two-dimensional convolution.
#pragma once

#include "shrike/core/autograd.hpp"
#include "shrike/ops/elementwise.hpp"

namespace shrike {

namespace kernels {

// Sizes of a convolution of x [n, h, w, c] by weights [k, r, s, c / groups] to y [n, p, q, k].
struct Conv2dSizes {
  std::int64_t n, h, w, c;
  std::int64_t k, r, s;
  std::int64_t p, q;
  std::int64_t stride, padding, dilation, groups;
  bool relu;
};

// y = conv(x, weight) + bias + residual, clamped below at 0 with sizes.relu. bias [k] and residual, shaped like y, may be null;
// so may beside_weight, where the backend can keep packed weights from call to call.
SHRIKE_KERNEL(conv2d_forward, const Conv2dSizes& sizes, const float* x, const float* weight, const float* bias,
              const float* residual, Companion* beside_weight, float* y);
// The gradients of x, weight and bias, each only if its pointer is not null; overwritten, not added to. With sizes.relu, dy
// counts only where y > 0; y is not read otherwise, nor x without dweight, nor weight without dx.
SHRIKE_KERNEL(conv2d_backward, const Conv2dSizes& sizes, const float* x, const float* weight, const float* y, const float* dy,
              float* dx, float* dweight, float* dbias);

}  // namespace kernels

// The same for height and width; padding is on all four sides, with zeros.
struct Conv2dOptions {
  std::int64_t stride = 1;
  std::int64_t padding = 0;
  std::int64_t dilation = 1;
  std::int64_t groups = 1;
  bool relu = false;
};

// What convolutions of every element type share.
struct ConvolutionOp : Op, Conv2dOptions {
  void visit(Fields& fields) override {
    fields("stride", stride);
    fields("padding", padding);
    fields("dilation", dilation);
    fields("groups", groups);
    fields("relu", relu);
  }

  void set(const Conv2dOptions& options) { static_cast<Conv2dOptions&>(*this) = options; }

  // Throws Error when x [N, H, W, C] and weight [K, R, S, C / groups] do not fit each other and the options.
  kernels::Conv2dSizes sizes(const Shape& x, const Shape& weight) const;
};

// Inputs x [N, H, W, C], weight [K, R, S, C / groups] and, if there are three, bias [K] (may be undefined); output [N, P, Q, K]
// with P = (H + 2 padding - dilation (R - 1) - 1) / stride + 1, rounded down. A fourth input is a residual of the output's
// shape, added before the ReLU.
struct Conv2d : ConvolutionOp {
  const char* name() const override { return "conv2d"; }
  inline Tensors forward(const Tensors& in) const override;
  inline Tensors backward(const BackwardContext& context) const override;
  bool saves_input(std::size_t i) const override { return i < 2; }
  bool saves_output(std::size_t) const override { return relu; }
};

inline kernels::Conv2dSizes ConvolutionOp::sizes(const Shape& x, const Shape& weight) const {
  SHRIKE_CHECK(x.rank() == 4, name(), ": x has shape ", x, ": expected [N, H, W, C]");
  SHRIKE_CHECK(weight.rank() == 4, name(), ": weight has shape ", weight, ": expected [K, R, S, C / groups]");
  constexpr std::int64_t limit = 1 << 20;
  SHRIKE_CHECK(stride >= 1 && stride <= limit, name(), ": stride is ", stride, ": expected at least 1");
  SHRIKE_CHECK(padding >= 0 && padding <= limit, name(), ": padding is ", padding, ": expected at least 0");
  SHRIKE_CHECK(dilation >= 1 && dilation <= limit, name(), ": dilation is ", dilation, ": expected at least 1");
  SHRIKE_CHECK(weight[0] > 0 && weight[1] > 0 && weight[2] > 0 && weight[3] > 0, name(), ": weight of shape ", weight,
               " is empty");
  SHRIKE_CHECK(groups >= 1 && weight[0] % groups == 0, name(), ": ", weight[0], " output channels in ", groups, " groups");
  SHRIKE_CHECK(x[3] == weight[3] * groups, name(), ": x of shape ", x, " has ", x[3], " channels: weight of shape ", weight,
               " with ", groups, " groups expects ", weight[3] * groups);
  const auto extent = [&](std::int64_t size, std::int64_t kernel) {
    const std::int64_t room = size + 2 * padding - dilation * (kernel - 1) - 1;
    SHRIKE_CHECK(size > 0 && room >= 0, name(), ": x of shape ", x, " with padding ", padding,
                 " is smaller than the kernel of shape ", weight, " with dilation ", dilation);
    return room / stride + 1;
  };
  return {x[0],   x[1],    x[2],     x[3],   weight[0], weight[1], weight[2], extent(x[1], weight[1]), extent(x[2], weight[2]),
          stride, padding, dilation, groups, relu};
}

inline Tensors Conv2d::forward(const Tensors& in) const {
  const auto sizes = this->sizes(in[0].shape(), in[1].shape());
  const bool biased = in.size() > 2 && in[2].defined();
  const Tensor residual = in.size() > 3 ? in[3] : Tensor();
  SHRIKE_CHECK(!biased || in[2].shape() == Shape{sizes.k}, "conv2d: bias has shape ", in[2].shape(), ": expected [", sizes.k,
               "]");
  const Tensor y({sizes.n, sizes.p, sizes.q, sizes.k}, Dtype::f32, in[0].device());
  SHRIKE_CHECK(!residual.defined() || residual.shape() == y.shape(), "conv2d: the residual has shape ", residual.shape(),
               ": expected the output's, ", y.shape());
  dispatch(y.device(), [&](auto d) {
    kernels::conv2d_forward(d, sizes, in[0].data<const float>(), in[1].data<const float>(),
                            biased ? in[2].data<const float>() : nullptr,
                            residual.defined() ? residual.data<const float>() : nullptr,
                            grad_enabled() ? nullptr : &in[1].companion(), y.data<float>());
  });
  return {y};
}

inline Tensors Conv2d::backward(const BackwardContext& context) const {
  const Tensor& x = context.inputs[0];
  const Tensor& weight = context.inputs[1];
  Tensor dy = context.grads[0];
  auto sizes = this->sizes(x.shape(), weight.shape());
  Tensors grads(context.needed.size());
  if (grads.size() > 3 && relu) {  // the ReLU's gradient is the residual's too
    dy = Relu{}.backward(context)[0];
    sizes.relu = false;
  }
  if (grads.size() > 3 && context.needed[3]) grads[3] = dy;
  if (context.needed[0]) grads[0] = Tensor(x.shape(), Dtype::f32, x.device());
  if (context.needed[1]) grads[1] = Tensor(weight.shape(), Dtype::f32, x.device());
  if (grads.size() > 2 && context.needed[2]) grads[2] = Tensor({sizes.k}, Dtype::f32, x.device());
  const auto data = [](const Tensor& tensor) { return tensor.defined() ? tensor.data<float>() : nullptr; };
  dispatch(x.device(), [&](auto d) {
    kernels::conv2d_backward(d, sizes, x.data<float>(), weight.data<float>(), sizes.relu ? data(context.outputs[0]) : nullptr,
                             dy.data<float>(), data(grads[0]), data(grads[1]), grads.size() > 2 ? data(grads[2]) : nullptr);
  });
  return grads;
}

// x [N, H, W, C], weight [K, R, S, C / groups], bias [K] or undefined -> [N, P, Q, K]; all f32.
inline Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias, const Conv2dOptions& options = {}) {
  Conv2d op;
  op.set(options);
  return call(std::move(op), bias.defined() ? Tensors{x, weight, bias} : Tensors{x, weight})[0];
}

}  // namespace shrike
