#include "shrike/nn/ema.hpp"

#include <algorithm>

#include "shrike/nn/optim.hpp"

namespace shrike::nn {

Ema::Ema(Module& model, double decay) : decay_(decay) {
  SHRIKE_CHECK(decay >= 0 && decay < 1, "a moving average of decay ", decay, ": expected 0 or more and less than 1");
  const auto add = [&](const std::string& name, const Tensor& tensor) {
    tensors_.push_back(tensor);
    averages_.emplace_back(name, tensor.detach().clone());
  };
  for (const auto& [name, tensor] : named_parameters(model)) {
    if (tensor.requires_grad()) add(name, tensor);
  }
  for (const auto& [name, tensor] : named_buffers(model)) {
    if (tensor.dtype() == Dtype::f32) add(name, tensor);
  }
}

void Ema::update(std::int64_t step) {
  if (tensors_.empty()) return;
  const double n = static_cast<double>(step);
  const auto rate = static_cast<float>(1 - std::min(decay_, (1 + n) / (10 + n)));
  std::vector<SgdSlice> slices;
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    slices.push_back({averages_[i].second.data<float>(), tensors_[i].data<float>(), nullptr, tensors_[i].numel(), rate, 0});
  }
  dispatch(tensors_[0].device(), [&](auto d) { kernels::moving_average_step(d, slices.data(), slices.size()); });
}

void Ema::swap() {
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    const Tensor weight = tensors_[i].detach(), average = averages_[i].second;
    const Tensor kept = weight.clone();
    weight.copy_from(average);
    average.copy_from(kept);
  }
}

}  // namespace shrike::nn
