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

double Sgd::step(float lr) {
  std::vector<SgdSlice> slices;
  Tensors grads;  // held until the update is done
  for (const SgdParameter& parameter : parameters_) {
    const Tensor grad = parameter.tensor.grad();
    if (!grad.defined()) continue;
    slices.push_back({parameter.tensor.data<float>(), grad.data<float>(), parameter.momentum.data<float>(),
                      parameter.tensor.numel(), lr * parameter.lr_scale, parameter.weight_decay});
    grads.push_back(grad);
  }
  clear_grads();
  if (slices.empty()) return 0;
  const Device device = grads[0].device();
  double sum = 0;
  dispatch(device, [&](auto d) { kernels::sum_of_squares(d, slices.data(), slices.size(), &sum); });
  const double norm = std::sqrt(sum);
  SHRIKE_CHECK(std::isfinite(norm), "the gradients are not finite: their norm is ", norm);
  const bool clipped = options_.clip_norm > 0 && norm > options_.clip_norm;
  const float scale = clipped ? static_cast<float>(options_.clip_norm / norm) : 1.0f;
  dispatch(device, [&](auto d) { kernels::sgd_step(d, slices.data(), slices.size(), options_.momentum, scale); });
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
