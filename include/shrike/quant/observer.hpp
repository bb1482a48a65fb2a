// Observers: they see a stream of tensors and say what range of values the codes should cover. Nothing of the tensors is kept.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "shrike/core/tensor.hpp"
#include "shrike/quant/scale.hpp"

namespace shrike::quant {

// How the range is chosen.
enum class RangeChoice {
  min_max,         // all that was seen
  moving_average,  // of the extremes of each tensor
  percentile,      // of the absolute values
  entropy,         // least Kullback-Leibler divergence (Migacz, "8-bit inference with TensorRT", GTC 2017)
  mse,             // least squared error
};

// "min_max", "moving_average", "percentile", "entropy" or "mse"; throws Error on anything else.
RangeChoice parse_range_choice(const std::string& text);

struct ObserverOptions {
  RangeChoice choice = RangeChoice::min_max;
  double percentile = 0.9999;
  double momentum = 0.01;  // moving_average: the share of the newest tensor
};

// Of one tensor, all of it together.
class Observer {
 public:
  static constexpr std::int64_t bins = 2048;

  // `name` is the tensor's, for messages.
  Observer(std::string name, Dtype dtype, const ObserverOptions& options = {});

  // Throws Error naming the tensor when x holds a NaN or infinity: on a device not before something is read, as nothing is
  // read back here unless the choice needs a histogram. Tensors without elements are passed over.
  void update(const Tensor& x);

  // As if one tensor had been seen whose range has this scale: where averages of ranges go on from. Not for the choices that
  // need a histogram.
  void seed(float scale);
  bool wants_histogram() const { return options_.choice >= RangeChoice::percentile; }

  // Throws Error when nothing was seen.
  float scale() const;
  // The same into a tensor [1]; from a device to the same device nothing is read back.
  void write_scale(const Tensor& scale) const;
  // Nothing but one value was seen, over and over.
  bool constant() const;
  std::int64_t seen() const { return seen_; }
  const std::string& name() const { return name_; }
  // Of the absolute values, from 0 in steps of width(): for the choices that need it, else empty.
  const std::vector<std::int64_t>& histogram() const { return counts_; }
  float width() const { return width_; }
  const ObserverOptions& options() const { return options_; }

  // All that it has seen, on the host, to go on from later: range f32 [5], counts s64 [3] and the histogram after these where
  // the choice needs one. set_state() throws Error naming the tensor when they are none of such an observer.
  struct State {
    Tensor range, counts;
  };
  State state() const;
  void set_state(const State& state);

 private:
  void add_to_histogram(const Tensor& x, float reach);
  float chosen_reach() const;
  std::vector<float> extremes() const;  // least, greatest, averaged low and high; throws Error if any value was not finite

  std::string name_;
  Dtype dtype_;
  ObserverOptions options_;
  std::int64_t seen_ = 0, values_ = 0;  // tensors, and their elements
  Tensor state_, odd_;                  // as kernels::track_range says, on the device of what was seen
  float width_ = 0;                     // of a bin; 0 until something other than 0 was seen
  std::vector<std::int64_t> counts_;
};

// The same for each index of dimension 0, such as a weight's output channels.
class ChannelObserver {
 public:
  ChannelObserver(const std::string& name, std::int64_t channels, Dtype dtype, const ObserverOptions& options = {});

  // x [channels, ...]. Throws Error as Observer::update() does, and when x is of another shape.
  void update(const Tensor& x);

  // [channels], on the host. Throws Error when nothing was seen.
  Tensor scales() const;
  const Observer& channel(std::int64_t k) const { return observers_.at(static_cast<std::size_t>(k)); }

 private:
  std::vector<Observer> observers_;
};

// The scales of a weight tensor's output channels (dimension 0), [K], on its device: s8, by the range that is chosen for each,
// all of it unless told otherwise. Throws Error naming the tensor when it holds a NaN or infinity.
Tensor weight_scales(const Tensor& weight, const std::string& name, const ObserverOptions& options = {});
// Those of all the range into `scales`, [K] on the weight's device, from which nothing is read back: what is not finite is
// passed over.
void write_weight_scales(const Tensor& weight, const Tensor& scales);

}  // namespace shrike::quant
