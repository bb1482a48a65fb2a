// From a fused float graph to one whose layers are dynamically quantized: int8 products, ranges of activations found at run
// time.
#pragma once

#include "shrike/quant/convert.hpp"

namespace shrike::quant {

struct DynamicOptions {
  std::string prefix;                   // before the names of this graph's layers: "backbone"
  std::vector<std::string> keep_float;  // layers, by globs on their names (* and ?)
  bool first_layer_float = false;
  bool predictors_float = true;     // layers that make a graph's output
  bool nonnegative_inputs = false;  // graph inputs cannot be negative, so that their codes are u8
  ObserverOptions weights;          // how the range of each output channel is chosen
};

// Every convolution and linear layer with constant weights, unless it stays in float, gets weights s8 with a scale for each
// output channel and reads codes that a DynamicQuantize before it makes (ops/dynamic.hpp): u8 where the tensor cannot be
// negative, else s8. Layers that read one tensor share its codes. Outputs, biases, residuals and everything else are float.
// There is nothing to calibrate. A scale is that of the whole tensor, so that in a batch, images share it.
Converted to_dynamic(const Graph& graph, const DynamicOptions& options = {});

// Whether no output of a float graph can be negative, as after a ReLU.
bool outputs_nonnegative(const Graph& graph);

}  // namespace shrike::quant
