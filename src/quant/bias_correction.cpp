#include "shrike/quant/bias_correction.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "shrike/ops/conv.hpp"
#include "shrike/ops/elementwise.hpp"
#include "shrike/ops/linear.hpp"

namespace shrike::quant {
namespace {

using Value = Graph::Value;

// The same layer without its ReLU; null when it has none.
template <class Layer> OpPtr without_relu(const Op& op) {
  const auto* layer = dynamic_cast<const Layer*>(&op);
  if (layer == nullptr || !layer->relu) return nullptr;
  Layer plain = *layer;
  plain.relu = false;
  return std::make_shared<const Layer>(plain);
}

bool is_layer(const Graph::Node& node) {
  const std::string op = node.op->name();
  return op == "conv2d" || op == "linear";
}

// Adds `shift` to the bias of the node, which gets one if it has none.
void add_to_bias(Graph& graph, Graph::Node& node, const std::string& name, const std::vector<float>& shift) {
  const Value old = node.inputs.size() > 2 ? node.inputs[2] : Graph::none;
  std::vector<float> bias = shift;
  bool trained = false;
  if (old != Graph::none) {
    const auto before = graph.constants.at(old).to_vector<float>();
    for (std::size_t k = 0; k < bias.size(); ++k) bias[k] += before[k];
    trained = graph.constants.at(old).requires_grad();
  }
  const Device device = graph.constants.begin()->second.device();
  const Tensor corrected = tensor({static_cast<std::int64_t>(bias.size())}, bias, device);
  corrected.set_requires_grad(trained);
  if (old != Graph::none && graph.uses().at(old) == 1) {
    graph.constants.at(old) = corrected;
    return;
  }
  node.inputs.resize(std::max<std::size_t>(node.inputs.size(), 3), Graph::none);
  node.inputs[2] = graph.add_constant(corrected, name + ".bias");
}

}  // namespace

LayerSums::LayerSums(const Graph& graph, Value layer) {
  share(graph);
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    if (!is_layer(nodes[i])) continue;
    const std::string name = node_name(nodes[i]);
    const Value output = nodes[i].outputs[0];
    Value before = output;
    OpPtr plain = without_relu<Conv2d>(*nodes[i].op);
    if (plain == nullptr) plain = without_relu<Linear>(*nodes[i].op);
    if (plain != nullptr) {
      before = next_value++;
      nodes[i].op = plain;
      nodes[i].outputs[0] = before;
      nodes.insert(nodes.begin() + static_cast<std::ptrdiff_t>(++i), {std::make_shared<const Relu>(), {before}, {output}});
    }
    if (layer != none && output != layer) continue;
    watched_[before] = output;
    sums[output].name = name;
    if (layer != none) outputs = {before};
  }
  SHRIKE_CHECK(layer == none || watched_.size() == 1, "no conv2d or linear makes %", layer);
  remove_dead();
}

void LayerSums::computed(Value value, const Tensor& tensor) {
  const auto watched = watched_.find(value);
  if (watched == watched_.end()) return;
  Sum& sum = sums.at(watched->second);
  const Tensor host = tensor.detach().to(Device::cpu);
  const auto channels = static_cast<std::size_t>(host.size(host.rank() - 1));
  const std::int64_t rows = host.numel() / static_cast<std::int64_t>(channels);
  sum.channels.resize(channels);
  const float* x = host.data<float>();
  for (std::int64_t row = 0; row < rows; ++row, x += channels) {
    for (std::size_t k = 0; k < channels; ++k) sum.channels[k] += static_cast<double>(x[k]);
  }
  sum.rows += rows;
}

BiasReport correct_biases(Prepared& prepared, const LayerSums& floats, const std::function<void(Graph&)>& run) {
  prepared.update_weight_scales();
  BiasReport report;
  for (std::size_t i = 0; i < prepared.nodes.size(); ++i) {
    Graph::Node& node = prepared.nodes[i];
    if (!is_layer(node)) continue;
    const Value output = node.outputs[0];
    const auto expected = floats.sums.find(output);
    SHRIKE_CHECK(expected != floats.sums.end(), "bias correction: the float graph has no layer that makes %", output);
    BiasReport::Line line{prepared.prefix + expected->second.name, 0, 0, ""};
    if (node.inputs.size() > 2 && node.inputs[2] != Graph::none && !prepared.constants.contains(node.inputs[2])) {
      line.why = "its bias is computed";
      report.lines.push_back(line);
      continue;
    }
    LayerSums quantized(prepared, output);
    run(quantized);
    const LayerSums::Sum& got = quantized.sums.at(output);
    SHRIKE_CHECK(got.rows > 0 && expected->second.rows > 0, line.name, ": bias correction without images");
    std::vector<float> shift;
    for (std::size_t k = 0; k < got.channels.size(); ++k) {
      const double error = expected->second.mean(k) - got.mean(k);
      SHRIKE_CHECK(std::isfinite(error), line.name, ": the mean error of channel ", k, " is ", error);
      line.greatest = std::max(line.greatest, std::abs(error));
      line.mean += std::abs(error) / static_cast<double>(got.channels.size());
      shift.push_back(static_cast<float>(error));
    }
    add_to_bias(prepared, node, expected->second.name, shift);
    report.lines.push_back(line);
  }
  return report;
}

std::string BiasReport::to_string() const {
  std::size_t width = 0;
  for (const Line& line : lines) width = std::max(width, line.name.size());
  std::string text;
  for (const Line& line : lines) {
    char numbers[96];
    std::snprintf(numbers, sizeof numbers, "mean error of a channel %.3g, at most %.3g", line.mean, line.greatest);
    text +=
        line.name + std::string(width + 2 - line.name.size(), ' ') + (line.why.empty() ? numbers : "kept: " + line.why) + '\n';
  }
  return text;
}

}  // namespace shrike::quant
