// Fusing layers: batch norm folded into convolutions, ReLU and residual additions taken in by them.
#pragma once

#include "shrike/graph/rewrite.hpp"

namespace shrike {

// The rules of fuse(), in order.
std::vector<Rule> fusion_rules();

// Folds batch norm in inference into the convolution before it (with new weights, on the graph alone: the module that was
// traced keeps its own), and takes ReLU and additions into the operations before them: conv2d+relu, conv2d+add (a residual,
// the convolution's fourth input), linear+relu, add+relu, batch_norm+relu.
RewriteReport fuse(Graph& graph);

}  // namespace shrike
