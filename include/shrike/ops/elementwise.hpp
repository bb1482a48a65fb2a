// Elementwise operations: relu, add, scale.
#pragma once

#include "shrike/core/autograd.hpp"

namespace shrike {

namespace kernels {
SHRIKE_KERNEL(relu_forward, std::int64_t n, const float* x, float* y);                     // y = max(x, 0)
SHRIKE_KERNEL(relu_backward, std::int64_t n, const float* y, const float* dy, float* dx);  // dx = y > 0 ? dy : 0
// y = a + b, or max(a + b, 0); y may be a or b.
SHRIKE_KERNEL(add_forward, std::int64_t n, const float* a, const float* b, bool relu, float* y);
SHRIKE_KERNEL(scale_forward, std::int64_t n, const float* x, float factor, float* y);  // y = factor * x
}  // namespace kernels

// y = max(x, 0). NaN stays NaN.
struct Relu : Op {
  const char* name() const override { return "relu"; }
  inline Tensors forward(const Tensors& in) const override;
  inline Tensors backward(const BackwardContext& context) const override;
  bool saves_input(std::size_t) const override { return false; }
  bool saves_output(std::size_t) const override { return true; }
};

// y = a + b, of equal shapes; with `relu`, y = max(a + b, 0).
struct Add : Op {
  bool relu = false;

  const char* name() const override { return "add"; }
  inline Tensors forward(const Tensors& in) const override;
  inline Tensors backward(const BackwardContext& context) const override;
  bool saves_input(std::size_t) const override { return false; }
  bool saves_output(std::size_t) const override { return relu; }
  void visit(Fields& fields) override { fields("relu", relu); }
};

// y = factor * x.
struct Scale : Op {
  double factor = 1;

  const char* name() const override { return "scale"; }
  Tensors forward(const Tensors& in) const override {
    const Tensor y(in[0].shape(), Dtype::f32, in[0].device());
    dispatch(y.device(), [&](auto d) {
      kernels::scale_forward(d, y.numel(), in[0].data<float>(), static_cast<float>(factor), y.data<float>());
    });
    return {y};
  }
  Tensors backward(const BackwardContext& context) const override { return forward({context.grads[0]}); }
  bool saves_input(std::size_t) const override { return false; }
  void visit(Fields& fields) override { fields("factor", factor); }
};

inline Tensors Relu::forward(const Tensors& in) const {
  const Tensor& x = in[0];
  const Tensor y(x.shape(), Dtype::f32, x.device());
  dispatch(x.device(), [&](auto d) { kernels::relu_forward(d, x.numel(), x.data<float>(), y.data<float>()); });
  return {y};
}

inline Tensors Relu::backward(const BackwardContext& context) const {
  const Tensor& y = context.outputs[0];
  const Tensor& dy = context.grads[0];
  const Tensor dx(y.shape(), Dtype::f32, y.device());
  dispatch(y.device(),
           [&](auto d) { kernels::relu_backward(d, y.numel(), y.data<float>(), dy.data<float>(), dx.data<float>()); });
  return {dx};
}

inline Tensors Add::forward(const Tensors& in) const {
  SHRIKE_CHECK(in[0].shape() == in[1].shape(), "add: shapes ", in[0].shape(), " and ", in[1].shape(), " differ");
  const Tensor y(in[0].shape(), Dtype::f32, in[0].device());
  dispatch(y.device(), [&](auto d) {
    kernels::add_forward(d, y.numel(), in[0].data<float>(), in[1].data<float>(), relu, y.data<float>());
  });
  return {y};
}

inline Tensors Add::backward(const BackwardContext& context) const {
  const Tensor dy = relu ? Relu{}.backward(context)[0] : context.grads[0];
  return {dy, dy};
}

inline Tensor relu(const Tensor& x) { return call<Relu>({}, {x})[0]; }

inline Tensor add(const Tensor& a, const Tensor& b, bool relu = false) {
  Add op;
  op.relu = relu;
  return call(std::move(op), {a, b})[0];
}

inline Tensor scale(const Tensor& x, double factor) {
  Scale op;
  op.factor = factor;
  return call(std::move(op), {x})[0];
}

}  // namespace shrike
