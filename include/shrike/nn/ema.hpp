// An exponential moving average of a model's weights over the steps of its training.
#pragma once

#include "shrike/nn/module.hpp"

namespace shrike::nn {

// The mean of what training passes through is better than where it happens to be while the learning rate is high (Polyak and
// Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992). Covers the trained parameters and all buffers.
class Ema {
 public:
  // Begins with the model's state as it is. Keeps references to its tensors, not to the model. Throws Error when `decay` is not
  // in [0, 1).
  Ema(Module& model, double decay);

  // average += (1 - d) * (weight - average) for every tensor, without waiting for the device; `step`, from 1, is the number of
  // updates of the weights. d is `decay`, and less in the first steps, (1 + step) / (10 + step), so that the random start
  // is forgotten.
  void update(std::int64_t step);

  // Exchanges the contents of the model's tensors and the averages.
  void swap();

  // The averages, named as the model names its tensors.
  const NamedTensors& averages() const { return averages_; }

 private:
  double decay_;
  Tensors tensors_;  // the model's
  NamedTensors averages_;
};

// The model has the averages while this lives. Does nothing for null.
class Averaged {
 public:
  explicit Averaged(Ema* ema) : ema_(ema) {
    if (ema_ != nullptr) ema_->swap();
  }
  ~Averaged() {
    if (ema_ != nullptr) ema_->swap();
  }
  Averaged(const Averaged&) = delete;
  Averaged& operator=(const Averaged&) = delete;

 private:
  Ema* ema_;
};

}  // namespace shrike::nn
