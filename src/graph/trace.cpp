#include <unordered_map>

#include "shrike/graph/graph.hpp"
#include "shrike/ops/layout.hpp"

namespace shrike {
namespace {

struct GraphTracer : Tracer {
  Graph& graph;
  std::unordered_map<const void*, Graph::Value> values;
  std::unordered_map<const void*, std::string> names;
  std::set<const void*> buffers;
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
    if (buffers.contains(tensor.id())) graph.buffers.insert(value);
    return value;
  }

  void record(const OpPtr& op, const Tensors& inputs, const Tensors& outputs) override {
    Graph::Node node;
    node.op = for_any_batch(op, inputs);
    for (const Tensor& input : inputs) node.inputs.push_back(find(input));
    for (const Tensor& output : outputs) node.outputs.push_back(define(output));
    graph.nodes.push_back(std::move(node));
  }

  // A reshape that keeps its input's first size would fix the batch, or the number of regions: -1 there keeps whatever comes.
  static OpPtr for_any_batch(const OpPtr& op, const Tensors& inputs) {
    const auto* reshape = dynamic_cast<const Reshape*>(op.get());
    if (reshape == nullptr || reshape->shape.empty() || inputs[0].rank() == 0) return op;
    const Shape& from = inputs[0].shape();
    std::int64_t rest = 1;
    for (std::size_t i = 1; i < reshape->shape.size(); ++i) rest *= reshape->shape[i];
    const bool keeps = reshape->shape[0] == from[0] && rest > 0 && rest == detail::product(from, 1, from.rank());
    if (!keeps) return op;
    Reshape general = *reshape;
    general.shape[0] = -1;
    return std::make_shared<const Reshape>(std::move(general));
  }
};

}  // namespace

std::shared_ptr<Graph> trace(nn::Module& module, const Tensors& example) {
  auto graph = std::make_shared<Graph>();
  GraphTracer tracer(*graph);
  for (const auto& [name, tensor] : nn::named_state(module)) tracer.names[tensor.id()] = name;
  for (const auto& [name, tensor] : nn::named_buffers(module)) tracer.buffers.insert(tensor.id());
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
