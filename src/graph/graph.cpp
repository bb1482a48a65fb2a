#include "shrike/graph/graph.hpp"

#include <unordered_map>

namespace shrike {
namespace {

struct GraphTracer : Tracer {
  Graph& graph;
  std::unordered_map<const void*, Graph::Value> values;
  std::unordered_map<const void*, std::string> names;
  Tensors alive;  // keeps identities unique while tracing

  explicit GraphTracer(Graph& traced) : graph(traced) {}

  Graph::Value define(const Tensor& tensor) {
    alive.push_back(tensor);
    return values[tensor.id()] = graph.next_value++;
  }

  Graph::Value find(const Tensor& tensor) {
    if (!tensor.defined()) return Graph::none;
    if (const auto found = values.find(tensor.id()); found != values.end()) return found->second;
    const Graph::Value value = define(tensor);
    graph.constants[value] = tensor;
    if (const auto name = names.find(tensor.id()); name != names.end()) graph.names[value] = name->second;
    return value;
  }

  void record(const OpPtr& op, const Tensors& inputs, const Tensors& outputs) override {
    Graph::Node node;
    node.op = op;
    for (const Tensor& input : inputs) node.inputs.push_back(find(input));
    for (const Tensor& output : outputs) node.outputs.push_back(define(output));
    graph.nodes.push_back(std::move(node));
  }
};

std::string value_name(const Graph& graph, Graph::Value value) {
  if (value == Graph::none) return "-";
  const auto found = graph.names.find(value);
  return found != graph.names.end() ? found->second : "%" + std::to_string(value);
}

}  // namespace

Tensors Graph::forward(const Tensors& in) {
  SHRIKE_CHECK(in.size() == inputs.size(), "a graph of ", inputs.size(), " inputs was given ", in.size());
  std::map<Value, int> left = uses();
  std::map<Value, Tensor> values;
  for (std::size_t i = 0; i < in.size(); ++i) values[inputs[i]] = in[i];
  const auto take = [&](Value value) {
    if (value == none) return Tensor();
    if (const auto found = constants.find(value); found != constants.end()) return found->second;
    Tensor tensor = values.at(value);
    if (--left[value] == 0) values.erase(value);
    return tensor;
  };
  for (const Node& node : nodes) {
    Tensors operands;
    for (const Value value : node.inputs) operands.push_back(take(value));
    const Tensors results = call(node.op, operands);
    for (std::size_t i = 0; i < results.size(); ++i) {
      if (left.contains(node.outputs[i])) values[node.outputs[i]] = results[i];
    }
  }
  Tensors out;
  for (const Value value : outputs) out.push_back(take(value));
  return out;
}

void Graph::visit(nn::Members& members) {
  for (auto& [value, tensor] : constants) {
    if (tensor.dtype() == Dtype::f32) members.parameter(value_name(*this, value), tensor);
  }
}

std::map<Graph::Value, int> Graph::uses() const {
  std::map<Value, int> count;
  for (const Node& node : nodes) {
    for (const Value value : node.inputs) ++count[value];
  }
  for (const Value value : outputs) ++count[value];
  return count;
}

std::string Graph::to_string() const {
  std::ostringstream out;
  const auto list = [&](const std::vector<Value>& values) {
    for (std::size_t i = 0; i < values.size(); ++i) out << (i ? ", " : "") << value_name(*this, values[i]);
  };
  for (const Node& node : nodes) {
    list(node.outputs);
    out << " = " << shrike::to_string(*node.op) << " (";
    list(node.inputs);
    out << ")\n";
  }
  out << "return ";
  list(outputs);
  out << '\n';
  return out.str();
}

std::string Graph::to_dot() const {
  std::ostringstream out;
  out << "digraph {\n  node [shape=box, fontname=\"sans-serif\"];\n";
  std::map<Value, std::string> maker;
  for (const Value value : inputs) {
    maker[value] = "input" + std::to_string(value);
    out << "  " << maker[value] << " [shape=ellipse, label=\"input\"];\n";
  }
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    const std::string id = "node" + std::to_string(i);
    out << "  " << id << " [label=\"" << nodes[i].op->name() << "\"];\n";
    for (const Value value : nodes[i].inputs) {
      if (maker.contains(value)) out << "  " << maker[value] << " -> " << id << ";\n";
    }
    for (const Value value : nodes[i].outputs) maker[value] = id;
  }
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    out << "  output" << i << " [shape=ellipse, label=\"output\"];\n";
    if (maker.contains(outputs[i])) out << "  " << maker[outputs[i]] << " -> output" << i << ";\n";
  }
  out << "}\n";
  return out.str();
}

std::shared_ptr<Graph> trace(nn::Module& module, const Tensors& example) {
  auto graph = std::make_shared<Graph>();
  GraphTracer tracer(*graph);
  for (const auto& [name, tensor] : nn::named_state(module)) tracer.names[tensor.id()] = name;
  for (const Tensor& input : example) graph->inputs.push_back(tracer.define(input));
  std::vector<std::pair<nn::Module*, bool>> modes;
  nn::for_each_module(module, [&](const std::string&, nn::Module& part) { modes.emplace_back(&part, part.training()); });
  nn::train(module, false);
  {
    const NoGrad no_grad;
    const TraceScope scope(tracer);
    for (const Tensor& output : module.forward(example)) graph->outputs.push_back(tracer.find(output));
  }
  for (const auto& [part, on] : modes) nn::train(*part, on);
  return graph;
}

}  // namespace shrike
