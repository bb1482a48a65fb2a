#include <algorithm>

#include "shrike/ops/half.hpp"
#include "shrike/ops/quantize.hpp"
#include "shrike/quant/convert.hpp"

namespace shrike::quant {
namespace {

using Value = Graph::Value;

Tensor halves(const Tensor& weight) {
  const auto values = weight.to_vector<float>();
  std::vector<Half> result;
  for (const float v : values) result.emplace_back(v);
  return tensor(weight.shape(), result, weight.device());
}

}  // namespace

Converted quantize_weights(const Graph& graph, WeightType type, const std::vector<std::string>& keep_float,
                           const std::string& prefix) {
  Converted result{std::make_shared<Graph>(), {}};
  Graph& to = *result.graph;
  to.share(graph);
  to.nodes.clear();
  for (Graph::Node node : graph.nodes) {
    const std::string op = node.op->name();
    const std::string name = prefix.empty() ? graph.node_name(node) : prefix + "." + graph.node_name(node);
    const bool layer = (op == "conv2d" || op == "linear") && graph.constants.contains(node.inputs[1]);
    const auto kept =
        std::find_if(keep_float.begin(), keep_float.end(), [&](const auto& glob) { return fits_glob(glob, name); });
    if (!layer || kept != keep_float.end()) {
      if (layer) result.report.lines.push_back({name, "float: keep_float " + *kept});
      to.nodes.push_back(std::move(node));
      continue;
    }
    const Tensor weight = graph.constants.at(node.inputs[1]).detach();
    const std::string weight_name = graph.value_name(node.inputs[1]);
    const Value widened = to.next_value++;
    if (type == WeightType::f16) {
      to.nodes.push_back({std::make_shared<const Widen>(), {to.add_constant(halves(weight), weight_name)}, {widened}});
      result.report.lines.push_back({name, "weights f16, computed in float"});
    } else {
      const Tensor scales = weight_scales(weight, weight_name);
      Quantize codes;
      codes.per_channel = true;
      Dequantize back;
      back.per_channel = true;
      const Value q = to.add_constant(codes.forward({weight, scales})[0], weight_name);
      to.nodes.push_back(
          {std::make_shared<const Dequantize>(back), {q, to.add_constant(scales, weight_name + "_scale", true)}, {widened}});
      result.report.lines.push_back({name, "weights s8, computed in float"});
    }
    node.inputs[1] = widened;
    to.nodes.push_back(std::move(node));
  }
  to.remove_dead();
  return result;
}

void expand_constants(Graph& graph) {
  const NoGrad no_grad;
  std::vector<Graph::Node> kept;
  for (Graph::Node& node : graph.nodes) {
    const bool constant = !node.inputs.empty() && std::all_of(node.inputs.begin(), node.inputs.end(), [&](Value v) {
      return v == Graph::none || graph.constants.contains(v);
    });
    if (!constant) {
      kept.push_back(std::move(node));
      continue;
    }
    Tensors operands;
    for (const Value v : node.inputs) operands.push_back(v == Graph::none ? Tensor() : graph.constants.at(v));
    const Tensors results = node.op->forward(operands);
    for (std::size_t i = 0; i < node.outputs.size(); ++i) graph.constants[node.outputs[i]] = results[i];
    if (const auto name = graph.names.find(node.inputs[0]); name != graph.names.end()) {
      graph.names[node.outputs[0]] = name->second;
    }
  }
  graph.nodes = std::move(kept);
  graph.remove_dead();
}

}  // namespace shrike::quant
