// From a fused float graph to one that computes in halves (f16).
#pragma once

#include "shrike/quant/convert.hpp"

namespace shrike::quant {

struct HalfOptions {
  std::string prefix;                   // before the names of this graph's layers: "backbone"
  std::vector<std::string> keep_float;  // layers, by globs on their names (* and ?)
  bool half_inputs = false;             // the first input is f16 already, made by another graph
  bool half_outputs = false;            // the outputs are f16, for another graph; else f32
};

// Every convolution and linear layer with constant weights becomes one of halves (ops/half.hpp), with its own bias and ReLU;
// pooling, RoI pooling and what only moves elements hand halves on. A layer whose output only floats are made of (a predictor)
// gives f32. Everything else stays in float, between a widen and a narrow. There is nothing to calibrate. In the result, halves
// are marked as codes of f16 at scale 1.
Converted to_half(const Graph& graph, const HalfOptions& options = {});

}  // namespace shrike::quant
