// Halves (f16): to and from float, and layers of them.
//
// Layers multiply halves exactly and add up in float32, in an order that the kernel chooses; then
//   y = sum + bias + residual, or 0 where that is negative and relu
// in float32, and for f16 the nearest half, ties to even. What lies beyond +-65504 becomes the greatest half of its sign: one
// activation that is too large does not make everything behind it infinite. NaN stays NaN. No gradients: halves are for
// inference.
#pragma once

#include "shrike/ops/conv.hpp"
#include "shrike/ops/linear.hpp"

namespace shrike {

namespace kernels {

// y = x.
SHRIKE_KERNEL(widen_forward, std::int64_t n, const Half* x, float* y);
// y = the nearest half, saturating as above.
SHRIKE_KERNEL(narrow_forward, std::int64_t n, const float* x, Half* y);

// Where the operands are: bias [k] and residual, of y's shape, may be null; y is f16 or f32 as y_type says.
struct HalfOperands {
  const Half* x;
  const Half* weight;
  const float* bias;
  const Half* residual;
  Dtype y_type;
  void* y;
};

// y = conv(x, weight) + bias + residual, as above; overwritten. A linear layer is a convolution of images of one pixel.
SHRIKE_KERNEL(half_conv2d_forward, const Conv2dSizes& sizes, const HalfOperands& operands);

}  // namespace kernels

// Input x f16 [...] -> the same in f32.
struct Widen : Op {
  const char* name() const override { return "widen"; }
  Tensors forward(const Tensors& in) const override {
    const Tensor y(in[0].shape(), Dtype::f32, in[0].device());
    dispatch(y.device(), [&](auto d) { kernels::widen_forward(d, y.numel(), in[0].data<Half>(), y.data<float>()); });
    return {y};
  }
};

// Input x f32 [...] -> the same in f16.
struct Narrow : Op {
  const char* name() const override { return "narrow"; }
  Tensors forward(const Tensors& in) const override {
    const Tensor y(in[0].shape(), Dtype::f16, in[0].device());
    dispatch(y.device(), [&](auto d) { kernels::narrow_forward(d, y.numel(), in[0].data<float>(), y.data<Half>()); });
    return {y};
  }
  bool saves_input(std::size_t) const override { return false; }
};

// Inputs x f16 [N, H, W, C], weight f16 [K, R, S, C / groups], bias f32 [K] (may be undefined or missing) and, if there are
// four, a residual, f16 of the output's shape; output [N, P, Q, K] as in Conv2d, of dtype `output`: "f16" or "f32".
struct HalfConv2d : ConvolutionOp {
  std::string output = "f16";

  const char* name() const override { return "half_conv2d"; }
  inline Tensors forward(const Tensors& in) const override;
  bool saves_input(std::size_t) const override { return false; }
  void visit(Fields& fields) override {
    ConvolutionOp::visit(fields);
    fields("output", output);
  }
};

// Inputs x f16 [N, in], weight f16 [out, in], bias f32 [out] (may be undefined or missing) and, if there are four, a residual,
// f16 [N, out]; output [N, out] of dtype `output`: "f16" or "f32".
struct HalfLinear : Op {
  bool relu = false;
  std::string output = "f16";

  const char* name() const override { return "half_linear"; }
  inline Tensors forward(const Tensors& in) const override;
  bool saves_input(std::size_t) const override { return false; }
  void visit(Fields& fields) override {
    fields("relu", relu);
    fields("output", output);
  }
};

namespace detail {

// Runs a layer of halves with an output of shape y. Throws Error unless the operands' dtypes, shapes and devices fit.
inline Tensors half_layer(const char* op, const Tensors& in, const kernels::Conv2dSizes& sizes, const std::string& output,
                          const Shape& shape) {
  SHRIKE_CHECK(output == "f16" || output == "f32", op, ": output '", output, "': expected f16 or f32");
  const Tensor none, bias = in.size() > 2 ? in[2] : none, residual = in.size() > 3 ? in[3] : none;
  for (const Tensor& tensor : in) {
    SHRIKE_CHECK(!tensor.defined() || tensor.device() == in[0].device(), op, ": x is on ", name(in[0].device()),
                 ", another operand on ", name(tensor.device()));
  }
  SHRIKE_CHECK(in[0].dtype() == Dtype::f16 && in[1].dtype() == Dtype::f16, op, ": x is ", name(in[0].dtype()), ", weight ",
               name(in[1].dtype()), ": expected f16");
  SHRIKE_CHECK(!bias.defined() || (bias.dtype() == Dtype::f32 && bias.shape() == Shape{sizes.k}), op, ": bias is ",
               name(bias.dtype()), ' ', bias.shape(), ": expected f32 [", sizes.k, "]");
  SHRIKE_CHECK(!residual.defined() || (residual.dtype() == Dtype::f16 && residual.shape() == shape), op, ": residual is ",
               name(residual.dtype()), ' ', residual.shape(), ": expected f16 ", shape);
  const Tensor y(shape, output == "f16" ? Dtype::f16 : Dtype::f32, in[0].device());
  if (y.numel() == 0) return {y};
  const kernels::HalfOperands operands{in[0].data<Half>(),
                                       in[1].data<Half>(),
                                       bias.defined() ? bias.data<float>() : nullptr,
                                       residual.defined() ? residual.data<Half>() : nullptr,
                                       y.dtype(),
                                       y.raw()};
  dispatch(y.device(), [&](auto d) { kernels::half_conv2d_forward(d, sizes, operands); });
  return {y};
}

}  // namespace detail

inline Tensors HalfConv2d::forward(const Tensors& in) const {
  SHRIKE_CHECK(in.size() >= 2, name(), ": ", in.size(), " inputs: expected x and weight");
  const auto sizes = this->sizes(in[0].shape(), in[1].shape());
  return detail::half_layer(name(), in, sizes, output, {sizes.n, sizes.p, sizes.q, sizes.k});
}

inline Tensors HalfLinear::forward(const Tensors& in) const {
  SHRIKE_CHECK(in.size() >= 2, name(), ": ", in.size(), " inputs: expected x and weight");
  const Shape &x = in[0].shape(), &weight = in[1].shape();
  SHRIKE_CHECK(x.rank() == 2, name(), ": x has shape ", x, ": expected [N, in]");
  SHRIKE_CHECK(weight.rank() == 2 && weight[1] == x[1] && weight.numel() > 0, name(), ": weight has shape ", weight,
               ": expected [out, ", x[1], "] for x of shape ", x);
  const kernels::Conv2dSizes sizes{x[0], 1, 1, x[1], weight[0], 1, 1, 1, 1, 1, 0, 1, 1, relu};
  return detail::half_layer(name(), in, sizes, output, {x[0], weight[0]});
}

// x [...] f32 -> f16.
inline Tensor narrow(const Tensor& x) { return call(Narrow{}, {x})[0]; }
// x [...] f16 -> f32.
inline Tensor widen(const Tensor& x) { return call(Widen{}, {x})[0]; }

}  // namespace shrike
