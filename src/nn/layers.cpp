#include "shrike/nn/layers.hpp"

#include <algorithm>
#include <cmath>

namespace shrike::nn {

void Init::fill(const Tensor& weight, const Tensor& bias, std::int64_t fan_in, Random& random) const {
  const auto fill_with = [](const Tensor& to, const auto& draw) {
    const Tensor host(to.shape());
    std::generate_n(host.data<float>(), host.numel(), draw);
    to.copy_from(host);
  };
  const float bound = 1.0f / std::sqrt(static_cast<float>(fan_in));
  const float deviation = kind == Kind::he ? gain * std::sqrt(2.0f / static_cast<float>(fan_in)) : std;
  const auto uniform = [&] { return random.uniform(-bound, bound); };
  const auto normal = [&] { return deviation * random.normal(); };
  kind == Kind::uniform ? fill_with(weight, uniform) : fill_with(weight, normal);
  if (!bias.defined()) return;
  biases ? fill_with(bias, uniform) : bias.zero();
}

Conv2d::Conv2d(std::int64_t in, std::int64_t out, int kernel, const Conv2dOptions& conv_options, bool with_bias, Init init)
    : options(conv_options), weight(zeros({out, kernel, kernel, in / conv_options.groups})), init_(init) {
  weight.set_requires_grad(true);
  if (with_bias) bias = zeros({out}).set_requires_grad(true);
}

void Conv2d::visit(Members& members) {
  members.parameter("weight", weight);
  members.parameter("bias", bias);
}

void Conv2d::reset(Random& random) { init_.fill(weight, bias, weight.numel() / weight.size(0), random); }

Linear::Linear(std::int64_t in, std::int64_t out, bool with_relu, Init init)
    : relu(with_relu), weight(zeros({out, in})), bias(zeros({out})), init_(init) {
  weight.set_requires_grad(true);
  bias.set_requires_grad(true);
}

void Linear::visit(Members& members) {
  members.parameter("weight", weight);
  members.parameter("bias", bias);
}

void Linear::reset(Random& random) { init_.fill(weight, bias, weight.size(1), random); }

BatchNorm::BatchNorm(std::int64_t channels, bool with_relu, bool is_frozen)
    : relu(with_relu),
      frozen(is_frozen),
      weight(full({channels}, 1.0f)),
      bias(zeros({channels})),
      running_mean(zeros({channels})),
      running_var(full({channels}, 1.0f)) {
  weight.set_requires_grad(!frozen);
  bias.set_requires_grad(!frozen);
}

Tensors BatchNorm::forward(const Tensors& in) {
  BatchNormOptions options;
  options.training = training() && !frozen;
  options.momentum = momentum;
  options.eps = eps;
  options.relu = relu;
  return {batch_norm(in[0], weight, bias, running_mean, running_var, options)};
}

void BatchNorm::visit(Members& members) {
  members.parameter("weight", weight);
  members.parameter("bias", bias);
  members.buffer("running_mean", running_mean);
  members.buffer("running_var", running_var);
}

void BatchNorm::reset(Random&) {
  weight.copy_from(full(weight.shape(), 1.0f));
  bias.zero();
  running_mean.zero();
  running_var.copy_from(full(running_var.shape(), 1.0f));
}

}  // namespace shrike::nn
