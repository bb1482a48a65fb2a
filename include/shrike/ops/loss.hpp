// Losses, each one scalar. Their forward kernels also write the gradient with respect to the first input, as a further output;
// backward only scales it. Sums are taken in double over fixed blocks: they do not depend on the number of threads.
#pragma once

#include "shrike/core/autograd.hpp"

namespace shrike {

namespace kernels {

struct CrossEntropySizes {
  std::int64_t rows, classes, ignore_index;
};
// loss [1]; gradient [rows, classes] = (softmax - onehot) / (rows not ignored), 0 in rows that are ignored. The CPU throws
// Error on a label outside 0 .. classes-1 that is not ignore_index; other devices give a loss of NaN.
SHRIKE_KERNEL(softmax_cross_entropy_forward, const CrossEntropySizes& sizes, const float* logits, const std::int32_t* labels,
              float* loss, float* gradient);

// loss [1] = sum of w (max(x, 0) - x t + log(1 + exp(-|x|))); gradient = w (sigmoid(x) - t). Without weights w = 1 / n.
// Elements of weight 0 are not looked at: not even a NaN there counts.
SHRIKE_KERNEL(bce_with_logits_forward, std::int64_t n, const float* logits, const float* target, const float* weight,
              float* loss, float* gradient);

// With d = x - t: loss [1] = sum of w (|d| < beta ? d^2 / (2 beta) : |d| - beta / 2). Weights as above.
SHRIKE_KERNEL(smooth_l1_forward, std::int64_t n, float beta, const float* prediction, const float* target, const float* weight,
              float* loss, float* gradient);

SHRIKE_KERNEL(sum_forward, std::int64_t n, const float* x, float* y);     // y [1]
SHRIKE_KERNEL(sum_backward, std::int64_t n, const float* dy, float* dx);  // dx = dy[0]

// y = x * scale[0], which stays on the device.
SHRIKE_KERNEL(scale_by, std::int64_t n, const float* scale, const float* x, float* y);

}  // namespace kernels

// Inputs: logits [N, C], labels s32 [N]. Outputs: loss [], its gradient [N, C].
struct SoftmaxCrossEntropy : Op {
  std::int64_t ignore_index = -1;

  const char* name() const override { return "softmax_cross_entropy"; }
  inline Tensors forward(const Tensors& in) const override;
  inline Tensors backward(const BackwardContext& context) const override;
  bool saves_input(std::size_t) const override { return false; }
  bool saves_output(std::size_t i) const override { return i == 1; }
  void visit(Fields& fields) override { fields("ignore_index", ignore_index); }
};

// Inputs: logits, target, weight or undefined, all of one shape. Outputs: loss [], its gradient.
struct BceWithLogits : Op {
  const char* name() const override { return "bce_with_logits"; }
  inline Tensors forward(const Tensors& in) const override;
  inline Tensors backward(const BackwardContext& context) const override;
  bool saves_input(std::size_t) const override { return false; }
  bool saves_output(std::size_t i) const override { return i == 1; }
};

// Inputs: prediction, target, weight or undefined, all of one shape. Outputs: loss [], its gradient.
struct SmoothL1 : Op {
  double beta = 1.0;

  const char* name() const override { return "smooth_l1"; }
  inline Tensors forward(const Tensors& in) const override;
  inline Tensors backward(const BackwardContext& context) const override;
  bool saves_input(std::size_t) const override { return false; }
  bool saves_output(std::size_t i) const override { return i == 1; }
  void visit(Fields& fields) override { fields("beta", beta); }
};

// The sum of all elements.
struct Sum : Op {
  const char* name() const override { return "sum"; }
  inline Tensors forward(const Tensors& in) const override;
  inline Tensors backward(const BackwardContext& context) const override;
};

namespace detail {

inline Tensors scale_loss_gradient(const BackwardContext& context) {
  const Tensor& gradient = context.outputs[1];
  const Tensor dx(gradient.shape(), Dtype::f32, gradient.device());
  dispatch(dx.device(), [&](auto d) {
    kernels::scale_by(d, dx.numel(), context.grads[0].data<float>(), gradient.data<float>(), dx.data<float>());
  });
  Tensors grads(context.inputs.size());
  grads[0] = dx;
  return grads;
}

// Checks the shapes of an elementwise loss's inputs and returns the pointer to its weights, or nullptr.
inline const float* loss_weight(const char* op, const Tensors& in) {
  const bool weighted = in.size() > 2 && in[2].defined();
  SHRIKE_CHECK(in[0].shape() == in[1].shape(), op, ": shapes ", in[0].shape(), " and ", in[1].shape(), " differ");
  SHRIKE_CHECK(!weighted || in[2].shape() == in[0].shape(), op, ": weights of shape ", in[2].shape(), " for shape ",
               in[0].shape());
  return weighted ? in[2].data<float>() : nullptr;
}

}  // namespace detail

inline Tensors SoftmaxCrossEntropy::forward(const Tensors& in) const {
  const Tensor& x = in[0];
  SHRIKE_CHECK(x.rank() == 2 && in[1].shape() == Shape{x.size(0)}, "softmax_cross_entropy: logits ", x.shape(), ", labels ",
               in[1].shape(), ": expected [N, C] and [N]");
  const Tensor loss(Shape{}, Dtype::f32, x.device());
  const Tensor gradient(x.shape(), Dtype::f32, x.device());
  dispatch(x.device(), [&](auto d) {
    kernels::softmax_cross_entropy_forward(d, {x.size(0), x.size(1), ignore_index}, x.data<float>(), in[1].data<std::int32_t>(),
                                           loss.data<float>(), gradient.data<float>());
  });
  return {loss, gradient};
}

inline Tensors SoftmaxCrossEntropy::backward(const BackwardContext& context) const {
  return detail::scale_loss_gradient(context);
}

inline Tensors BceWithLogits::forward(const Tensors& in) const {
  const Tensor& x = in[0];
  const float* weight = detail::loss_weight("bce_with_logits", in);
  const Tensor loss(Shape{}, Dtype::f32, x.device());
  const Tensor gradient(x.shape(), Dtype::f32, x.device());
  dispatch(x.device(), [&](auto d) {
    kernels::bce_with_logits_forward(d, x.numel(), x.data<float>(), in[1].data<float>(), weight, loss.data<float>(),
                                     gradient.data<float>());
  });
  return {loss, gradient};
}

inline Tensors BceWithLogits::backward(const BackwardContext& context) const { return detail::scale_loss_gradient(context); }

inline Tensors SmoothL1::forward(const Tensors& in) const {
  SHRIKE_CHECK(beta >= 0.0, "smooth_l1: beta ", beta, " is negative");
  const Tensor& x = in[0];
  const float* weight = detail::loss_weight("smooth_l1", in);
  const Tensor loss(Shape{}, Dtype::f32, x.device());
  const Tensor gradient(x.shape(), Dtype::f32, x.device());
  dispatch(x.device(), [&](auto d) {
    kernels::smooth_l1_forward(d, x.numel(), static_cast<float>(beta), x.data<float>(), in[1].data<float>(), weight,
                               loss.data<float>(), gradient.data<float>());
  });
  return {loss, gradient};
}

inline Tensors SmoothL1::backward(const BackwardContext& context) const { return detail::scale_loss_gradient(context); }

inline Tensors Sum::forward(const Tensors& in) const {
  const Tensor y(Shape{}, Dtype::f32, in[0].device());
  dispatch(y.device(), [&](auto d) { kernels::sum_forward(d, in[0].numel(), in[0].data<float>(), y.data<float>()); });
  return {y};
}

inline Tensors Sum::backward(const BackwardContext& context) const {
  const Tensor dx(context.inputs[0].shape(), Dtype::f32, context.inputs[0].device());
  dispatch(dx.device(),
           [&](auto d) { kernels::sum_backward(d, dx.numel(), context.grads[0].data<float>(), dx.data<float>()); });
  return {dx};
}

// The mean of -log softmax(logits)[label] over rows whose label is not ignore_index; 0 when there are none. logits [N, C],
// labels s32 [N]. Throws Error (on the CPU) on a label outside 0 .. C-1.
inline Tensor softmax_cross_entropy(const Tensor& logits, const Tensor& labels, std::int64_t ignore_index = -1) {
  SoftmaxCrossEntropy op;
  op.ignore_index = ignore_index;
  return call(std::move(op), {logits, labels})[0];
}

// Binary cross entropy of sigmoid(logits) against target in [0, 1]: the sum of weight * loss, or without weights the mean (0 of
// nothing). One shape for all. No gradient flows to target and weight.
inline Tensor bce_with_logits(const Tensor& logits, const Tensor& target, const Tensor& weight = {}) {
  return call<BceWithLogits>({}, {logits, target, weight})[0];
}

// Smooth L1 (Girshick, "Fast R-CNN", ICCV 2015): quadratic where |prediction - target| < beta, linear beyond; beta 0 is L1. Sum
// or mean, shapes and gradients as in bce_with_logits.
inline Tensor smooth_l1(const Tensor& prediction, const Tensor& target, const Tensor& weight = {}, double beta = 1.0) {
  SmoothL1 op;
  op.beta = beta;
  return call(std::move(op), {prediction, target, weight})[0];
}

// The sum of all elements of x, of any shape.
inline Tensor sum(const Tensor& x) { return call<Sum>({}, {x})[0]; }

}  // namespace shrike
