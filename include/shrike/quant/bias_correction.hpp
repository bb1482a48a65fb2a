// Bias correction: what rounding adds to a layer's output on average is taken from its bias again (Nagel, van Baalen,
// Blankevoort and Welling, "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019; measured here,
// not derived).
#pragma once

#include <functional>

#include "shrike/quant/prepare.hpp"

namespace shrike::quant {

// A graph that sums, by channel and over all its runs, the outputs that its conv2d and linear layers have before their own
// ReLU.
class LayerSums : public Graph {
 public:
  struct Sum {
    std::string name;  // of the layer
    std::vector<double> channels;
    std::int64_t rows = 0;  // summed for each channel

    double mean(std::size_t channel) const { return channels[channel] / static_cast<double>(rows); }
  };

  // Of `graph`, float or prepared, with its constants. With `layer`, the output of one, it computes nothing but that.
  explicit LayerSums(const Graph& graph, Value layer = none);

  std::map<Value, Sum> sums;  // by the value that the layer makes in `graph`

  bool replayable() const override { return false; }  // a replay would not be summed

 protected:
  void computed(Value value, const Tensor& tensor) override;

 private:
  std::map<Value, Value> watched_;  // the output before the ReLU -> the layer's in `graph`
};

struct BiasReport {
  struct Line {
    std::string name;
    double greatest = 0, mean = 0;  // of the channels' |float - quantized|, before the correction
    std::string why;                // not empty: there was nothing to correct it by
  };
  std::vector<Line> lines;

  std::string to_string() const;  // one line each
};

// Corrects the layers in the order they run, each on what those before it make after their correction: the mean of the float
// output minus that of the quantized one is added to the bias, for each channel. Layers in float are corrected too, where they
// read what was rounded. Biases become tensors of the prepared graph's own. `floats` has run the float graph that was prepared;
// `run` runs the graph that it is given on the same inputs, and is called once for each layer. Throws Error when either has not
// seen anything, or naming a layer whose means are not finite.
BiasReport correct_biases(Prepared& prepared, const LayerSums& floats, const std::function<void(Graph&)>& run);

}  // namespace shrike::quant
