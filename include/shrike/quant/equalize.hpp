// Cross-layer equalisation (Nagel, van Baalen, Blankevoort and Welling, "Data-Free Quantization Through Weight Equalization and
// Bias Correction", ICCV 2019): channels between two layers are scaled down in the first and up again in the second, so that
// they have like ranges in both, and the function stays what it was.
#pragma once

#include "shrike/graph/graph.hpp"

namespace shrike::quant {

struct EqualizeReport {
  struct Line {
    std::string first, second;  // names of the layers; second is empty where the chain does not end at one
    std::string why;            // the pair was left alone; empty: it was equalised
    // Greatest range of a channel over the least (of those that are not 0): of the first layer's rows, before and after.
    double spread_before = 0, spread_after = 0;
    double least_scale = 1, greatest_scale = 1;
  };
  std::vector<Line> lines;
  int sweeps = 0;  // over all pairs, until no scale moved by more than 1e-4

  std::size_t equalized() const;
  // A table, one line each: features.0 -> features.3    equalised, scales 0.21 to 4.3, spread of ranges 310 to 12
  std::string to_string() const;
};

// Equalises each conv2d or linear layer with the one that reads it, where nothing else does and only ReLU, pooling, pooling
// of regions or flattening [N, H, W, C] is between. With r1 [C] the greatest magnitudes of the first layer's rows and r2 [C] of
// the second's columns of channel i, s_i = sqrt(r1_i r2_i) / r2_i: row i and bias i of the first are divided by s_i, column i
// of the second multiplied. Repeated over all pairs until the scales are 1. A channel without a range keeps its scale. `graph`
// is a fused one; its scaled weights and biases become tensors of its own. `prefix` goes before the names.
EqualizeReport equalize(Graph& graph, const std::string& prefix = "");

}  // namespace shrike::quant
