#include "shrike/nn/optim.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace shrike::nn {

Sgd::Sgd(std::vector<SgdParameter> parameters, const SgdOptions& options)
    : parameters_(std::move(parameters)), options_(options) {
  for (SgdParameter& parameter : parameters_) {
    parameter.momentum = zeros(parameter.tensor.shape(), Dtype::f32, parameter.tensor.device());
  }
}

Tensor Sgd::update(float lr, const Tensor& loss) {
  SHRIKE_CHECK(!loss.defined() || loss.numel() == 1, "sgd: a loss of shape ", loss.shape(), ": expected one element");
  std::vector<SgdSlice> slices;
  Tensors grads;  // held until the update is under way
  for (const SgdParameter& parameter : parameters_) {
    const Tensor grad = parameter.tensor.grad();
    if (!grad.defined()) continue;
    slices.push_back({parameter.tensor.data<float>(), grad.data<float>(), parameter.momentum.data<float>(),
                      parameter.tensor.numel(), lr * parameter.lr_scale, parameter.weight_decay});
    grads.push_back(grad);
  }
  clear_grads();
  const Tensor norm({1}, Dtype::f32, parameters_.empty() ? Device::cpu : parameters_[0].tensor.device());
  dispatch(norm.device(), [&](auto d) {
    kernels::gradient_norm(d, slices.data(), slices.size(), loss.defined() ? loss.data<float>() : nullptr, norm.data<float>());
    kernels::sgd_step(d, slices.data(), slices.size(), options_.momentum, options_.clip_norm, norm.data<float>());
  });
  return norm;
}

void Sgd::check_norm(double norm) { SHRIKE_CHECK(std::isfinite(norm), "the gradients are not finite: their norm is ", norm); }

double Sgd::step(float lr) {
  const double norm = update(lr).item();
  check_norm(norm);
  return norm;
}

void Sgd::clear_grads() {
  for (const SgdParameter& parameter : parameters_) parameter.tensor.clear_grad();
}

NamedTensors Sgd::state() const {
  NamedTensors result;
  for (const SgdParameter& parameter : parameters_) result.emplace_back(parameter.name, parameter.momentum);
  return result;
}

float Schedule::at(std::int64_t step) const {
  double rate = lr;
  if (kind == Kind::step) {
    for (const std::int64_t milestone : milestones) rate *= step >= milestone ? gamma : 1.0f;
  } else if (kind == Kind::cosine) {
    const double done =
        std::clamp(static_cast<double>(step) / static_cast<double>(std::max<std::int64_t>(total_steps, 1)), 0.0, 1.0);
    rate *= 0.5 * (1 + std::cos(std::numbers::pi * done));
  }
  if (step < warmup_steps) {
    const double done = static_cast<double>(step) / static_cast<double>(warmup_steps);
    rate *= warmup_factor + (1 - warmup_factor) * done;
  }
  return static_cast<float>(rate);
}

}  // namespace shrike::nn
