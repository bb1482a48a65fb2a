#include "shrike/quant/half.hpp"

#include <algorithm>

#include "shrike/ops/half.hpp"

namespace shrike::quant {
namespace {

using Value = Graph::Value;

class HalfConverter {
 public:
  HalfConverter(const Graph& from, const HalfOptions& options) : from_(from), options_(options) {
    to_->share(from);
    to_->nodes.clear();
    for (std::size_t i = 0; i < from.nodes.size(); ++i) {
      for (const Value value : from.nodes[i].inputs) readers_[value].push_back(i);
    }
    if (options.half_inputs) mark(from.inputs.at(0));
  }

  Converted run() {
    for (const Graph::Node& node : from_.nodes) {
      const std::string why = why_float(node);
      if (!why.empty()) {
        in_float(node, why);
      } else if (passes_codes(node.op->name())) {
        mark(node.outputs[0]);
        note(node, "halves pass");
        to_->nodes.push_back(node);
      } else {
        layer(node);
      }
    }
    for (Value& value : to_->outputs) value = options_.half_outputs ? as_half(value) : as_float(value);
    to_->remove_dead();
    return {to_, std::move(report_)};
  }

 private:
  void mark(Value value) { to_->codes[value] = {Dtype::f16, 1.0f}; }
  bool is_half(Value value) const { return to_->codes.contains(value); }

  std::string label(const Graph::Node& node) const {
    return options_.prefix.empty() ? from_.node_name(node) : options_.prefix + "." + from_.node_name(node);
  }
  void note(const Graph::Node& node, const std::string& what) { report_.lines.push_back({label(node), what}); }

  // Why a node stays in float; empty where it does not.
  std::string why_float(const Graph::Node& node) const {
    const std::string op = node.op->name();
    if (passes_codes(op)) return is_half(node.inputs[0]) ? "" : "its input is float";
    if (op != "conv2d" && op != "linear") return op + " has no half form";
    for (const std::string& pattern : options_.keep_float) {
      if (fits_glob(pattern, label(node))) return "keep_float " + pattern;
    }
    for (std::size_t i = 1; i < std::min<std::size_t>(node.inputs.size(), 3); ++i) {
      if (node.inputs[i] != Graph::none && !from_.constants.contains(node.inputs[i])) return "its weights are computed";
    }
    return "";
  }

  // Whether somebody takes `value` as halves.
  bool wants_half(Value value) const {
    const bool is_output = std::find(from_.outputs.begin(), from_.outputs.end(), value) != from_.outputs.end();
    if (is_output && options_.half_outputs) return true;
    const auto readers = readers_.find(value);
    return readers != readers_.end() && std::any_of(readers->second.begin(), readers->second.end(), [&](std::size_t i) {
             const Graph::Node& node = from_.nodes[i];
             return passes_codes(node.op->name()) ? wants_half(node.outputs[0]) : why_float(node).empty();
           });
  }

  Value append(OpPtr op, Value x) {
    const Value y = to_->next_value++;
    to_->nodes.push_back({std::move(op), {x}, {y}});
    return y;
  }

  Value as_half(Value value) {
    if (value == Graph::none || is_half(value)) return value;
    if (const auto found = halves_.find(value); found != halves_.end()) return found->second;
    const Value y = halves_[value] = append(std::make_shared<const Narrow>(), value);
    mark(y);
    report_.lines.push_back({maker_name(value), "reformat f32 -> f16"});
    return y;
  }

  Value as_float(Value value) {
    if (value == Graph::none || !is_half(value)) return value;
    if (const auto found = floats_.find(value); found != floats_.end()) return found->second;
    report_.lines.push_back({maker_name(value), "reformat f16 -> f32"});
    return floats_[value] = append(std::make_shared<const Widen>(), value);
  }

  // What made a value: the layer's name, or "input".
  std::string maker_name(Value value) const {
    const auto maker = makers_.find(value);
    if (maker != makers_.end()) return label(from_.nodes[maker->second]);
    return options_.prefix.empty() ? "input" : options_.prefix + ".input";
  }

  void in_float(const Graph::Node& node, const std::string& why) {
    Graph::Node moved = node;
    for (Value& value : moved.inputs) value = as_float(value);
    note(node, "float: " + why);
    to_->nodes.push_back(std::move(moved));
  }

  // The weight as halves; the same constant for all layers that share it.
  Value half_weight(Value weight) {
    if (const auto found = weights_.find(weight); found != weights_.end()) return found->second;
    const Tensor halves = Narrow().forward({from_.constants.at(weight).detach()})[0];
    return weights_[weight] = to_->add_constant(halves, from_.value_name(weight));
  }

  void layer(const Graph::Node& node) {
    const Value y = node.outputs[0];
    const bool half = wants_half(y);
    Graph::Node made = node;
    made.inputs[0] = as_half(node.inputs[0]);
    made.inputs[1] = half_weight(node.inputs[1]);
    if (made.inputs.size() > 3) made.inputs[3] = as_half(node.inputs[3]);
    if (const auto* conv = dynamic_cast<const Conv2d*>(node.op.get())) {
      HalfConv2d op;
      op.set(*conv);
      op.output = half ? "f16" : "f32";
      made.op = std::make_shared<const HalfConv2d>(op);
    } else {
      HalfLinear op;
      op.relu = dynamic_cast<const Linear&>(*node.op).relu;
      op.output = half ? "f16" : "f32";
      made.op = std::make_shared<const HalfLinear>(op);
    }
    if (half) mark(y);
    const bool added = made.inputs.size() > 3 && made.inputs[3] != Graph::none;
    note(node, message("half f16", added ? " + f16" : "", " -> ", half ? "f16" : "f32"));
    to_->nodes.push_back(std::move(made));
  }

  const Graph& from_;
  const HalfOptions& options_;
  const std::map<Value, std::size_t> makers_ = from_.makers();
  std::map<Value, std::vector<std::size_t>> readers_;
  std::shared_ptr<Graph> to_ = std::make_shared<Graph>();
  std::map<Value, Value> halves_, floats_;  // of a value, the same in the other type
  std::map<Value, Value> weights_;          // of halves
  ConvertReport report_;
};

}  // namespace

Converted to_half(const Graph& graph, const HalfOptions& options) { return HalfConverter(graph, options).run(); }

}  // namespace shrike::quant
