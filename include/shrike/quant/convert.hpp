// From a prepared graph to one that computes in int8, and weights alone in fewer bits.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "shrike/quant/prepare.hpp"

namespace shrike::quant {

// What became of each node.
struct ConvertReport {
  struct Line {
    std::string name;
    std::string what;  // "int8 u8 -> u8", "float: predictor", "reformat f32 -> s8"
  };
  std::vector<Line> lines;

  std::string to_string() const;  // one line each
};

struct Converted {
  std::shared_ptr<Graph> graph;
  ConvertReport report;
};

// The int8 graph of a calibrated or trained one: codes flow between the layers, floats only where a layer stays in float.
// Weights are s8, biases s32 at scale s_x * s_w. A channel whose bias would not fit gets a coarser s_w: it is one whose weights
// hardly count. Codes enter and leave by the ports that the graph was prepared with. Throws Error naming an activation without
// a scale.
Converted convert(const Prepared& prepared);

// The values of a converted graph that are float tensors, and by what they are made: "input", or the node's name. With
// `between`, only those that a layer of codes or of halves follows somewhere: what an int8 network must not have behind its
// first quantize, nor one of halves behind its first narrow.
std::vector<std::string> float_values(const Graph& graph, bool between = false);

enum class WeightType { f16, s8 };

// Weight-only quantization: the weights of conv2d and linear layers in f16, or in s8 by output channel, each followed by the
// node that makes it float; everything is computed in float. Layers that fit a glob of `keep_float` stay.
Converted quantize_weights(const Graph& graph, WeightType type, const std::vector<std::string>& keep_float = {},
                           const std::string& prefix = "");

// Replaces the nodes that only read constants by their results: weight-only ones are made float once, when loaded.
void expand_constants(Graph& graph);

}  // namespace shrike::quant
