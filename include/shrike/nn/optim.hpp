// Stochastic gradient descent with momentum, and learning-rate schedules.
#pragma once

#include <string>
#include <vector>

#include "shrike/nn/module.hpp"

namespace shrike {

// One parameter's share of an update: n elements and its own factors.
struct SgdSlice {
  float* weight;
  const float* grad;
  float* momentum;
  std::int64_t n;
  float lr;
  float weight_decay;
};

namespace kernels {
// norm [1] = the L2 norm of all gradients together, their squares added up in double and in a fixed order; NaN where `loss`
// [1], unless it is null, is not finite.
SHRIKE_KERNEL(gradient_norm, const SgdSlice* slices, std::size_t count, const float* loss, float* norm);
// With s = clip_norm / norm[0] where clip_norm > 0 and norm[0] > clip_norm, else 1: m = momentum * m + s * g + weight_decay *
// w; w -= lr * m;  for every slice. Does nothing where norm[0] is not finite. `slices` is in host memory, what it points to and
// norm [1] are in the device's.
SHRIKE_KERNEL(sgd_step, const SgdSlice* slices, std::size_t count, float momentum, float clip_norm, const float* norm);
// weight += lr * (grad - weight) for every slice: a moving average of the values that `grad` points to. `slices` is in host
// memory; `momentum` is not used.
SHRIKE_KERNEL(moving_average_step, const SgdSlice* slices, std::size_t count);
}  // namespace kernels

namespace nn {

struct SgdParameter {
  std::string name;
  Tensor tensor;
  float lr_scale = 1;      // times the step's learning rate
  float weight_decay = 0;  // L2, added to the gradient
  Tensor momentum;         // made by the optimiser, zero at first
};

struct SgdOptions {
  float momentum = 0.9f;
  float clip_norm = 0;  // gradients are scaled down when their joint L2 norm is greater; 0 means never
};

// PyTorch's definition of SGD (momentum without dampening; the first step's momentum is the gradient).
class Sgd {
 public:
  Sgd(std::vector<SgdParameter> parameters, const SgdOptions& options);

  // Updates every parameter that has a gradient and clears it, without waiting for the device. Returns the gradients' norm
  // before clipping, f32 [1] on the parameters' device. Where it, or `loss` [1] if given, is not finite, it is not finite and
  // nothing is updated: whoever reads the norm calls check_norm.
  Tensor update(float lr, const Tensor& loss = {});

  // Throws Error when `norm` is not finite.
  static void check_norm(double norm);

  // update, and then its norm read and checked: where it is not finite, throws Error with the parameters as they were.
  double step(float lr);

  void clear_grads();

  // The state that a checkpoint must hold, named like the parameters.
  NamedTensors state() const;
  const std::vector<SgdParameter>& parameters() const { return parameters_; }

 private:
  std::vector<SgdParameter> parameters_;
  SgdOptions options_;
};

// The learning rate of each step: linear warm-up from warmup_factor * lr over the first steps, then the schedule.
struct Schedule {
  enum class Kind { constant, step, cosine } kind = Kind::step;
  float lr = 0.001f;
  std::int64_t warmup_steps = 0;
  float warmup_factor = 0.001f;
  std::vector<std::int64_t> milestones;  // kind step: lr is multiplied by gamma at each
  float gamma = 0.1f;
  std::int64_t total_steps = 1;  // kind cosine: falls to 0 there

  float at(std::int64_t step) const;
};

}  // namespace nn
}  // namespace shrike
