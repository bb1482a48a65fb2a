#include "shrike/graph/fuse.hpp"

#include <cmath>

#include "shrike/ops/batch_norm.hpp"
#include "shrike/ops/conv.hpp"
#include "shrike/ops/elementwise.hpp"
#include "shrike/ops/linear.hpp"

namespace shrike {
namespace {

template <class O> const O& as(const Graph::Node& node) { return dynamic_cast<const O&>(*node.op); }

bool has_input(const Graph::Node& node, std::size_t i) { return node.inputs.size() > i && node.inputs[i] != Graph::none; }

std::string has_relu(const char* op) { return message(op, " has a ReLU of its own"); }

// `Before` followed by relu: the same operation with its own ReLU on.
template <class Before> Rule take_relu(const char* op) {
  Rule rule;
  rule.name = message(op, "+relu");
  rule.chain = {op, "relu"};
  rule.refuse = [](const Graph&, const Match&) { return std::string(); };
  rule.replace = [](Graph& graph, const Match& match) {
    Graph::Node node = match.first(graph);
    Before before = as<Before>(node);
    before.relu = true;
    node.op = std::make_shared<const Before>(before);
    return node;
  };
  return rule;
}

// weight and bias of conv followed by (y - mean) / sqrt(var + eps) * gain + shift.
void fold(const Tensor& weight, const Tensor& bias, const Tensors& norm, double eps, const Tensor& new_weight,
          const Tensor& new_bias) {
  const auto w = weight.to_vector<float>();
  const auto b = bias.defined() ? bias.to_vector<float>() : std::vector<float>(norm[0].to_vector<float>().size(), 0.0f);
  const auto gain = norm[0].to_vector<float>(), shift = norm[1].to_vector<float>();
  const auto mean = norm[2].to_vector<float>(), var = norm[3].to_vector<float>();
  std::vector<float> folded(w.size()), folded_bias(b.size());
  const std::size_t inner = w.size() / b.size();
  for (std::size_t k = 0; k < b.size(); ++k) {
    const double factor = gain[k] / std::sqrt(static_cast<double>(var[k]) + eps);
    for (std::size_t i = k * inner; i < (k + 1) * inner; ++i) folded[i] = static_cast<float>(w[i] * factor);
    folded_bias[k] = static_cast<float>((static_cast<double>(b[k]) - mean[k]) * factor + shift[k]);
  }
  new_weight.copy_from(tensor(weight.shape(), folded));
  new_bias.copy_from(tensor(new_bias.shape(), folded_bias));
}

Rule fold_batch_norm() {
  Rule rule;
  rule.name = "conv2d+batch_norm";
  rule.chain = {"conv2d", "batch_norm"};
  rule.refuse = [](const Graph& graph, const Match& match) -> std::string {
    const Graph::Node& conv = match.first(graph);
    const Graph::Node& norm = match.last(graph);
    if (as<Conv2d>(conv).relu) return has_relu("conv2d");
    if (has_input(conv, 3)) return "conv2d adds a residual before batch_norm";
    if (as<BatchNorm>(norm).training) return "batch_norm uses the batch's statistics";
    if (match.operand != 0) return "batch_norm takes its parameters from conv2d";
    for (const Graph::Node* node : {&conv, &norm}) {
      for (std::size_t i = 1; i < node->inputs.size(); ++i) {
        if (has_input(*node, i) && !graph.constants.contains(node->inputs[i])) return "its parameters are computed";
      }
    }
    return {};
  };
  rule.replace = [](Graph& graph, const Match& match) {
    Graph::Node node = match.first(graph);
    const Graph::Node& norm = match.last(graph);
    const Graph::Value old_bias = has_input(node, 2) ? node.inputs[2] : Graph::none;
    const Tensor weight = graph.constants.at(node.inputs[1]);
    const Tensor bias = old_bias == Graph::none ? Tensor() : graph.constants.at(old_bias);
    Tensors parameters;
    for (std::size_t i = 1; i < 5; ++i) parameters.push_back(graph.constants.at(norm.inputs[i]));
    const Tensor new_weight(weight.shape(), Dtype::f32, weight.device());
    const Tensor new_bias({weight.size(0)}, Dtype::f32, weight.device());
    fold(weight, bias, parameters, as<BatchNorm>(norm).eps, new_weight, new_bias);
    new_weight.set_requires_grad(weight.requires_grad());
    new_bias.set_requires_grad(weight.requires_grad());
    const std::string module = graph.node_name(node);
    const std::string weight_name = graph.value_name(node.inputs[1]);
    node.inputs = {node.inputs[0], graph.add_constant(new_weight, weight_name),
                   graph.add_constant(new_bias, weight_name == "weight" ? "bias" : module + ".bias")};
    Conv2d conv = as<Conv2d>(node);
    conv.relu = as<BatchNorm>(norm).relu;
    node.op = std::make_shared<const Conv2d>(conv);
    return node;
  };
  return rule;
}

Rule take_residual() {
  Rule rule;
  rule.name = "conv2d+add";
  rule.chain = {"conv2d", "add"};
  rule.refuse = [](const Graph& graph, const Match& match) -> std::string {
    const Graph::Node& conv = match.first(graph);
    if (as<Conv2d>(conv).relu) return has_relu("conv2d");
    if (has_input(conv, 3)) return "conv2d adds a residual already";
    return {};
  };
  rule.replace = [](Graph& graph, const Match& match) {
    Graph::Node node = match.first(graph);
    const Graph::Node& sum = match.last(graph);
    node.inputs.resize(4, Graph::none);
    node.inputs[3] = sum.inputs[1 - match.operand];
    Conv2d conv = as<Conv2d>(node);
    conv.relu = as<Add>(sum).relu;
    node.op = std::make_shared<const Conv2d>(conv);
    return node;
  };
  return rule;
}

}  // namespace

std::vector<Rule> fusion_rules() {
  return {fold_batch_norm(),           take_relu<Conv2d>("conv2d"), take_relu<BatchNorm>("batch_norm"),
          take_relu<Linear>("linear"), take_relu<Add>("add"),       take_residual()};
}

RewriteReport fuse(Graph& graph) { return rewrite(graph, fusion_rules()); }

}  // namespace shrike
