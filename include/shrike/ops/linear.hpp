// Linear (fully connected) layers.
#pragma once

#include "shrike/core/autograd.hpp"

namespace shrike {

namespace kernels {

struct LinearSizes {
  std::int64_t rows, in, out;
  bool relu;
};

// y [rows, out] = x [rows, in] * weight [out, in]^T + bias [out] (may be null), clamped below at 0 with sizes.relu.
SHRIKE_KERNEL(linear_forward, const LinearSizes& sizes, const float* x, const float* weight, const float* bias, float* y);
// The gradients of x, weight and bias, each only if its pointer is not null; overwritten. With sizes.relu, dy counts only where
// y > 0; y is not read otherwise.
SHRIKE_KERNEL(linear_backward, const LinearSizes& sizes, const float* x, const float* weight, const float* y, const float* dy,
              float* dx, float* dweight, float* dbias);

}  // namespace kernels

// Inputs x [N, in], weight [out, in] and, if there are three, bias [out]; output [N, out].
struct Linear : Op {
  bool relu = false;

  const char* name() const override { return "linear"; }
  inline Tensors forward(const Tensors& in) const override;
  inline Tensors backward(const BackwardContext& context) const override;
  bool saves_input(std::size_t i) const override { return i < 2; }
  bool saves_output(std::size_t) const override { return relu; }
  void visit(Fields& fields) override { fields("relu", relu); }
};

inline Tensors Linear::forward(const Tensors& in) const {
  const Tensor& x = in[0];
  const Tensor& weight = in[1];
  SHRIKE_CHECK(x.rank() == 2, "linear: x has shape ", x.shape(), ": expected [N, in]");
  SHRIKE_CHECK(weight.rank() == 2 && weight.size(1) == x.size(1) && weight.numel() > 0, "linear: weight has shape ",
               weight.shape(), ": expected [out, ", x.size(1), "] for x of shape ", x.shape());
  const bool biased = in.size() > 2 && in[2].defined();
  SHRIKE_CHECK(!biased || in[2].shape() == Shape{weight.size(0)}, "linear: bias has shape ", in[2].shape(), ": expected [",
               weight.size(0), "]");
  const Tensor y({x.size(0), weight.size(0)}, Dtype::f32, x.device());
  dispatch(x.device(), [&](auto d) {
    kernels::linear_forward(d, {x.size(0), weight.size(1), weight.size(0), relu}, x.data<float>(), weight.data<float>(),
                            biased ? in[2].data<float>() : nullptr, y.data<float>());
  });
  return {y};
}

inline Tensors Linear::backward(const BackwardContext& context) const {
  const Tensor& x = context.inputs[0];
  const Tensor& weight = context.inputs[1];
  Tensors grads(context.needed.size());
  if (context.needed[0]) grads[0] = Tensor(x.shape(), Dtype::f32, x.device());
  if (context.needed[1]) grads[1] = Tensor(weight.shape(), Dtype::f32, x.device());
  if (grads.size() > 2 && context.needed[2]) grads[2] = Tensor({weight.size(0)}, Dtype::f32, x.device());
  const auto data = [](const Tensor& tensor) { return tensor.defined() ? tensor.data<float>() : nullptr; };
  dispatch(x.device(), [&](auto d) {
    kernels::linear_backward(d, {x.size(0), weight.size(1), weight.size(0), relu}, x.data<float>(), weight.data<float>(),
                             relu ? data(context.outputs[0]) : nullptr, context.grads[0].data<float>(), data(grads[0]),
                             data(grads[1]), grads.size() > 2 ? data(grads[2]) : nullptr);
  });
  return grads;
}

// x [N, in], weight [out, in], bias [out] or undefined -> x * weight^T + bias, [N, out]; all f32.
inline Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, bool relu = false) {
  Linear op;
  op.relu = relu;
  return call(std::move(op), bias.defined() ? Tensors{x, weight, bias} : Tensors{x, weight})[0];
}

}  // namespace shrike
