// Batch normalization (Ioffe and Szegedy, 2015), over all but the last dimension.
#pragma once

#include "shrike/core/autograd.hpp"

namespace shrike {

namespace kernels {

struct BatchNormSizes {
  std::int64_t rows, c;
  double eps;
  bool relu;
};

// mean and inv_std = 1 / sqrt(biased variance + eps) of the rows of x [rows, c], each [c]; the running ones, if not null, move
// towards the mean and the unbiased variance by `momentum`. No rows: mean 0, inv_std of variance 0, running ones unchanged.
SHRIKE_KERNEL(batch_norm_statistics, const BatchNormSizes& sizes, double momentum, const float* x, float* mean, float* inv_std,
              float* running_mean, float* running_var);
// inv_std = 1 / sqrt(var + eps)
SHRIKE_KERNEL(batch_norm_inv_std, const BatchNormSizes& sizes, const float* var, float* inv_std);
// y = (x - mean) * inv_std * weight + bias, clamped below at 0 with sizes.relu.
SHRIKE_KERNEL(batch_norm_forward, const BatchNormSizes& sizes, const float* x, const float* weight, const float* bias,
              const float* mean, const float* inv_std, float* y);
// The gradients of x, weight and bias, each only if its pointer is not null. `training`: mean and inv_std depend on x. With
// sizes.relu, dy counts only where y > 0; y is not read otherwise.
SHRIKE_KERNEL(batch_norm_backward, const BatchNormSizes& sizes, bool training, const float* x, const float* weight,
              const float* mean, const float* inv_std, const float* y, const float* dy, float* dx, float* dweight,
              float* dbias);

}  // namespace kernels

struct BatchNormOptions {
  bool training = false;
  double momentum = 0.1;
  double eps = 1e-5;
  bool relu = false;
};

// Inputs x [..., C] and weight, bias, running_mean, running_var [C]; outputs y like x and, for backward, the mean and 1 /
// sqrt(var + eps) used. In training the batch's own statistics normalise, and the running ones are updated in place. PyTorch's
// definitions.
struct BatchNorm : Op {
  bool training = false;
  double momentum = 0.1;
  double eps = 1e-5;
  bool relu = false;

  const char* name() const override { return "batch_norm"; }
  inline Tensors forward(const Tensors& in) const override;
  inline Tensors backward(const BackwardContext& context) const override;
  bool saves_input(std::size_t i) const override { return i < 2; }
  bool saves_output(std::size_t i) const override { return i > 0 || relu; }
  void visit(Fields& fields) override {
    fields("training", training);
    fields("momentum", momentum);
    fields("eps", eps);
    fields("relu", relu);
  }

  kernels::BatchNormSizes sizes(const Shape& x) const {
    const std::int64_t c = x[-1];
    return {c > 0 ? x.numel() / c : 0, c, eps, relu};
  }
};

inline Tensors BatchNorm::forward(const Tensors& in) const {
  const Tensor& x = in[0];
  SHRIKE_CHECK(x.rank() >= 1, "batch_norm: x has shape ", x.shape(), ": expected [..., C]");
  SHRIKE_CHECK(eps > 0, "batch_norm: eps is ", eps, ": expected more than 0");
  constexpr const char* names[] = {"x", "weight", "bias", "running_mean", "running_var"};
  for (std::size_t i = 1; i < 5; ++i) {
    SHRIKE_CHECK(in[i].shape() == Shape{x.size(-1)}, "batch_norm: ", names[i], " has shape ", in[i].shape(), ": expected [",
                 x.size(-1), "] for x of shape ", x.shape());
  }
  const Tensor y(x.shape(), Dtype::f32, x.device());
  const Tensor mean = training ? Tensor(in[3].shape(), Dtype::f32, x.device()) : in[3].clone();
  const Tensor inv_std(in[3].shape(), Dtype::f32, x.device());
  const auto sizes = this->sizes(x.shape());
  dispatch(x.device(), [&](auto d) {
    if (training) {
      kernels::batch_norm_statistics(d, sizes, momentum, x.data<float>(), mean.data<float>(), inv_std.data<float>(),
                                     in[3].data<float>(), in[4].data<float>());
    } else {
      kernels::batch_norm_inv_std(d, sizes, in[4].data<float>(), inv_std.data<float>());
    }
    kernels::batch_norm_forward(d, sizes, x.data<float>(), in[1].data<float>(), in[2].data<float>(), mean.data<float>(),
                                inv_std.data<float>(), y.data<float>());
  });
  return {y, mean, inv_std};
}

inline Tensors BatchNorm::backward(const BackwardContext& context) const {
  const Tensor& x = context.inputs[0];
  const Tensor& weight = context.inputs[1];
  SHRIKE_CHECK(!context.needed[3] && !context.needed[4], "batch_norm: the running statistics have no gradient");
  Tensors grads(context.needed.size());
  if (context.needed[0]) grads[0] = Tensor(x.shape(), Dtype::f32, x.device());
  for (std::size_t i = 1; i < 3; ++i) {
    if (context.needed[i]) grads[i] = Tensor(weight.shape(), Dtype::f32, x.device());
  }
  const auto data = [](const Tensor& tensor) { return tensor.defined() ? tensor.data<float>() : nullptr; };
  dispatch(x.device(), [&](auto d) {
    kernels::batch_norm_backward(d, sizes(x.shape()), training, x.data<float>(), weight.data<float>(), data(context.outputs[1]),
                                 data(context.outputs[2]), relu ? data(context.outputs[0]) : nullptr,
                                 context.grads[0].data<float>(), data(grads[0]), data(grads[1]), data(grads[2]));
  });
  return grads;
}

// x [..., C], the others [C], all f32 -> like x.
inline Tensor batch_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& running_mean,
                         const Tensor& running_var, const BatchNormOptions& options = {}) {
  BatchNorm op;
  op.training = options.training;
  op.momentum = options.momentum;
  op.eps = options.eps;
  op.relu = options.relu;
  return call(std::move(op), {x, weight, bias, running_mean, running_var})[0];
}

}  // namespace shrike
