#include "shrike/graph/graph.hpp"

#include <algorithm>

namespace shrike {

Tensors Graph::forward(const Tensors& in) {
  SHRIKE_CHECK(in.size() == inputs.size(), "a graph of ", inputs.size(), " inputs was given ", in.size());
  std::map<Value, int> left = uses();
  std::map<Value, Tensor> values;
  for (std::size_t i = 0; i < in.size(); ++i) {
    if (const auto code = codes.find(inputs[i]); code != codes.end()) {
      SHRIKE_CHECK(in[i].dtype() == code->second.dtype, "input ", i, " of a graph has dtype ", shrike::name(in[i].dtype()),
                   ": expected ", shrike::name(code->second.dtype), " at scale ", code->second.scale);
    }
    values[inputs[i]] = in[i];
    computed(inputs[i], in[i]);
  }
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
    for (std::size_t i = 0; i < results.size() && i < node.outputs.size(); ++i) {
      if (!left.contains(node.outputs[i])) continue;
      values[node.outputs[i]] = results[i];
      computed(node.outputs[i], results[i]);
    }
  }
  Tensors out;
  for (const Value value : outputs) out.push_back(take(value));
  return out;
}

void Graph::visit(nn::Members& members) {
  for (auto& [value, tensor] : constants) {
    if (tensor.dtype() == Dtype::f32 && !buffers.contains(value)) {
      members.parameter(value_name(value), tensor);
    } else {
      members.buffer(value_name(value), tensor);
    }
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

std::map<Graph::Value, std::size_t> Graph::makers() const {
  std::map<Value, std::size_t> found;
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    for (const Value value : nodes[i].outputs) found[value] = i;
  }
  return found;
}

void Graph::share(const Graph& other) {
  nodes = other.nodes;
  inputs = other.inputs;
  outputs = other.outputs;
  constants = other.constants;
  names = other.names;
  buffers = other.buffers;
  codes = other.codes;
  next_value = other.next_value;
}

Graph::Value Graph::add_constant(const Tensor& tensor, const std::string& name, bool buffer) {
  const Value value = next_value++;
  constants[value] = tensor;
  names[value] = name;
  if (buffer) buffers.insert(value);
  return value;
}

void Graph::replace_uses(Value from, Value to) {
  for (Node& node : nodes) std::replace(node.inputs.begin(), node.inputs.end(), from, to);
  std::replace(outputs.begin(), outputs.end(), from, to);
}

std::size_t Graph::remove_dead() {
  std::set<Value> read(outputs.begin(), outputs.end());
  std::vector<Node> kept;
  for (auto node = nodes.rbegin(); node != nodes.rend(); ++node) {
    const bool used = std::any_of(node->outputs.begin(), node->outputs.end(), [&](Value v) { return read.contains(v); });
    if (!used) continue;
    read.insert(node->inputs.begin(), node->inputs.end());
    kept.push_back(std::move(*node));
  }
  const std::size_t removed = nodes.size() - kept.size();
  nodes.assign(std::make_move_iterator(kept.rbegin()), std::make_move_iterator(kept.rend()));
  const auto unread = [&](const auto& entry) { return !read.contains(entry.first); };
  std::erase_if(constants, unread);
  std::erase_if(names, unread);
  std::erase_if(buffers, [&](Value v) { return !read.contains(v); });
  return removed;
}

}  // namespace shrike
