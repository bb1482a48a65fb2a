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
// m = momentum * m + grad_scale * g + weight_decay * w;  w -= lr * m;  for every slice.
SHRIKE_KERNEL(sgd_step, const SgdSlice* slices, std::size_t count, float momentum, float grad_scale);
// The sum of the squares of all gradients, added up in a fixed order.
SHRIKE_KERNEL(sum_of_squares, const SgdSlice* slices, std::size_t count, double* sum);
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

  // Updates every parameter that has a gradient and clears it. Returns the gradients' norm before clipping. A norm that is not
  // finite throws Error and leaves the parameters as they were.
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
