#include "shrike/graph/graph.hpp"

namespace shrike {
namespace {

std::string code_text(const Code& code) { return message(name(code.dtype), '*', code.scale); }

}  // namespace

std::string Graph::value_name(Value value) const {
  if (value == none) return "-";
  const auto found = names.find(value);
  return found != names.end() ? found->second : "%" + std::to_string(value);
}

std::string Graph::node_name(const Node& node) const {
  constexpr std::string_view suffix = ".weight";
  for (const Value value : node.inputs) {
    const std::string name = value_name(value);
    if (name == "weight") return node.op->name();
    if (name.ends_with(suffix)) return name.substr(0, name.size() - suffix.size());
  }
  return message(node.op->name(), ' ', node.outputs.empty() ? "-" : value_name(node.outputs[0]));
}

std::string Graph::to_string() const {
  std::ostringstream out;
  const auto list = [&](const std::vector<Value>& values) {
    for (std::size_t i = 0; i < values.size(); ++i) out << (i ? ", " : "") << value_name(values[i]);
  };
  const auto define = [&](const std::vector<Value>& values) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      out << (i ? ", " : "") << value_name(values[i]);
      if (const auto code = codes.find(values[i]); code != codes.end()) out << ':' << code_text(code->second);
    }
  };
  for (const Value value : inputs) {
    if (!codes.contains(value)) continue;
    define({value});
    out << " = input\n";
  }
  for (const Node& node : nodes) {
    define(node.outputs);
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
  const auto edge = [&](Value value, const std::string& to) {
    const auto from = maker.find(value);
    if (from == maker.end()) return;
    out << "  " << from->second << " -> " << to;
    if (const auto code = codes.find(value); code != codes.end()) out << " [label=\"" << code_text(code->second) << "\"]";
    out << ";\n";
  };
  for (const Value value : inputs) {
    maker[value] = "input" + std::to_string(value);
    out << "  " << maker[value] << " [shape=ellipse, label=\"input\"];\n";
  }
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    const std::string id = "node" + std::to_string(i);
    out << "  " << id << " [label=\"" << nodes[i].op->name() << "\"];\n";
    for (const Value value : nodes[i].inputs) edge(value, id);
    for (const Value value : nodes[i].outputs) maker[value] = id;
  }
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    out << "  output" << i << " [shape=ellipse, label=\"output\"];\n";
    edge(outputs[i], "output" + std::to_string(i));
  }
  out << "}\n";
  return out.str();
}

}  // namespace shrike
