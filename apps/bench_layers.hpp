// The layers of one detector, timed one by one, and the kernels that they took.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "benchmarks/support/timing.hpp"
#include "shrike/core/last_kernel.hpp"
#include "shrike/graph/graph.hpp"

namespace shrike::apps {

// Times of one thing, in ms.
struct Times {
  std::vector<double> ms;

  double median() const { return timing::median(ms); }
  double p99() const { return timing::quantile(ms, 0.99); }
};

struct LayerTime {
  std::string name, op, kernel;
  double operations = 0;  // of the plain algorithm, two to a multiplication; 0 unless it is a convolution or a linear layer
  Times times;

  // Operations a second.
  double rate() const { return times.ms.empty() ? 0 : operations / (1e-3 * times.median()); }
};

// On a device, the result's first element is waited for.
inline void wait(const Tensors& out) {
  if (!out.empty() && out[0].device() != Device::cpu) out[0].to(Device::cpu);
}

inline double operations_of(const std::string& op, const Tensors& operands, const Tensors& results) {
  if (!op.ends_with("conv2d") && !op.ends_with("linear")) return 0;
  const Tensor& weight = operands[1];
  return 2.0 * static_cast<double>(results[0].numel()) * static_cast<double>(weight.numel() / weight.size(0));
}

// Runs a graph node by node. `layers`, empty at first, gets one entry for each node, and its time if it counts.
inline Tensors run_layers(const Graph& graph, const std::string& part, const Tensors& in, bool count, bool cpu_time,
                          std::vector<LayerTime>& layers) {
  const NoGrad no_grad;
  std::map<Graph::Value, Tensor> values;
  std::map<Graph::Value, int> left = graph.uses();
  for (std::size_t i = 0; i < in.size(); ++i) values[graph.inputs[i]] = in[i];
  const auto take = [&](Graph::Value value) {
    if (value == Graph::none) return Tensor();
    const auto constant = graph.constants.find(value);
    if (constant != graph.constants.end()) return constant->second;
    Tensor tensor = values.at(value);
    if (--left[value] == 0) values.erase(value);
    return tensor;
  };
  layers.resize(graph.nodes.size());
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    const Graph::Node& node = graph.nodes[i];
    Tensors operands;
    for (const Graph::Value value : node.inputs) operands.push_back(take(value));
    last_kernel().clear();
    const double start = timing::seconds(cpu_time);
    const Tensors results = call(node.op, operands);
    wait(results);
    const double spent = 1e3 * (timing::seconds(cpu_time) - start);
    LayerTime& layer = layers[i];
    if (count) layer.times.ms.push_back(spent);
    layer.name = part + "." + graph.node_name(node);
    layer.op = node.op->name();
    layer.kernel = last_kernel();
    layer.operations = operations_of(layer.op, operands, results);
    for (std::size_t k = 0; k < results.size() && k < node.outputs.size(); ++k) values[node.outputs[k]] = results[k];
  }
  Tensors out;
  for (const Graph::Value value : graph.outputs) out.push_back(take(value));
  return out;
}

}  // namespace shrike::apps
