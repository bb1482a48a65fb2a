// Softmax over the last dimension.
#pragma once

#include "shrike/core/autograd.hpp"

namespace shrike {

namespace kernels {
// y = exp(x - max) / sum, for each of `rows` rows of `columns`.
SHRIKE_KERNEL(softmax_forward, std::int64_t rows, std::int64_t columns, const float* x, float* y);
// dx = y (dy - sum of y dy).
SHRIKE_KERNEL(softmax_backward, std::int64_t rows, std::int64_t columns, const float* y, const float* dy, float* dx);
}  // namespace kernels

struct Softmax : Op {
  const char* name() const override { return "softmax"; }
  inline Tensors forward(const Tensors& in) const override;
  inline Tensors backward(const BackwardContext& context) const override;
  bool saves_input(std::size_t) const override { return false; }
  bool saves_output(std::size_t) const override { return true; }
};

inline Tensors Softmax::forward(const Tensors& in) const {
  const Tensor& x = in[0];
  SHRIKE_CHECK(x.rank() >= 1, "softmax: a scalar has no last dimension");
  const Tensor y(x.shape(), Dtype::f32, x.device());
  if (x.numel() == 0) return {y};
  dispatch(x.device(),
           [&](auto d) { kernels::softmax_forward(d, x.numel() / x.size(-1), x.size(-1), x.data<float>(), y.data<float>()); });
  return {y};
}

inline Tensors Softmax::backward(const BackwardContext& context) const {
  const Tensor& y = context.outputs[0];
  const Tensor dx(y.shape(), Dtype::f32, y.device());
  if (y.numel() == 0) return {dx};
  dispatch(y.device(), [&](auto d) {
    kernels::softmax_backward(d, y.numel() / y.size(-1), y.size(-1), y.data<float>(), context.grads[0].data<float>(),
                              dx.data<float>());
  });
  return {dx};
}

// x [..., C] to probabilities of the same shape.
inline Tensor softmax(const Tensor& x) { return call<Softmax>({}, {x})[0]; }

}  // namespace shrike
