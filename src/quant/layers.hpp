// What prepare() and to_dynamic() ask of a float graph. Both find the same layers.
#pragma once

#include "shrike/quant/prepare.hpp"

namespace shrike::quant {

using Makers = std::map<Graph::Value, std::size_t>;  // Graph::makers()

// Whether it is a conv2d or linear.
bool is_layer(const Graph::Node& node);

// The value whose codes `value` shares: up through the operations that pass them.
Graph::Value origin(const Graph& graph, const Makers& makers, Graph::Value value);

// By the operation that makes it.
bool cannot_be_negative(const Graph& graph, const Makers& makers, Graph::Value value);

// Why a layer, whose name in `options` is `name`, stays in float; empty when it does not.
std::string why_float(const Graph& graph, const Makers& makers, const Graph::Node& node, const std::string& name,
                      const PrepareOptions& options, const std::map<Graph::Value, Dtype>& code_inputs);

}  // namespace shrike::quant
