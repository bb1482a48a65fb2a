// Which layer suffers from int8: graphs in float but for one layer, and the noise that it makes.
#pragma once

#include <cmath>
#include <functional>

#include "shrike/quant/prepare.hpp"

namespace shrike::quant {

struct QuantizedLayer {
  Graph::Value output = Graph::none;
  std::string name;  // with the graph's prefix
};

// The layers of a prepared graph whose weights are rounded, in order.
std::vector<QuantizedLayer> quantized_layers(const Prepared& prepared);

// The float graph with fake-quantize at the weights of the layer that makes `layer`, and at what it reads, at the scales of the
// prepared one, whose constants it shares. Throws Error when there is no such layer.
std::shared_ptr<Graph> quantize_only(const Prepared& prepared, Graph::Value layer);

// Signal-to-quantization-noise ratio: 10 log10 of the sum of x^2 over that of (x - y)^2, in decibels.
class Sqnr {
 public:
  // x f32 as it should be and y as it is, of one shape; their squares count `weight` times.
  void add(const Tensor& x, const Tensor& y, double weight = 1);
  // Infinite without noise.
  double decibels() const { return noise_ > 0 ? 10 * std::log10(signal_ / noise_) : HUGE_VAL; }
  // The noise's share of the signal; 0 without noise.
  double noise_share() const { return noise_ > 0 ? noise_ / signal_ : 0; }

 private:
  double signal_ = 0, noise_ = 0;
};

// What is known of a layer that may stay in float.
struct Candidate {
  double macs = 0;         // multiply-adds that are float then
  double loss = NAN;       // of the measure, with this layer alone in int8; NaN where that is not known
  double loss_error = 0;   // how much of the loss may be chance
  double noise_share = 0;  // see Sqnr; of one signal for all layers
};

struct FloatChoice {
  std::vector<std::size_t> kept;  // in float, in the order they were chosen
  double score = 0;               // of the measure, with these
  bool met = false;               // it is at least the goal
};

// Which layers to keep in float so that score(those) reaches the goal, and few multiply-adds are float. They are added one by
// one, those first whose loss by themselves is more than its error, by what they lose for their multiply-adds, then the others,
// by their noise for theirs. Once it is enough each is tried in int8 again, the one with most multiply-adds first. When
// it never is enough, `kept` is the best set there was. score() is called at most twice for each layer and once more.
FloatChoice choose_float(const std::vector<Candidate>& layers, double goal,
                         const std::function<double(const std::vector<std::size_t>&)>& score);

}  // namespace shrike::quant
