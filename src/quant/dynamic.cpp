#include "shrike/quant/dynamic.hpp"

#include <algorithm>

#include "layers.hpp"
#include "shrike/ops/dynamic.hpp"

namespace shrike::quant {
namespace {

using Value = Graph::Value;

// A quantized tensor: its codes, and their scales.
struct Quantized {
  Value codes, scale;
};

class DynamicConverter {
 public:
  DynamicConverter(const Graph& from, const DynamicOptions& options) : from_(from), options_(options) {
    rules_.keep_float = options.keep_float;
    rules_.first_layer_float = options.first_layer_float;
    rules_.predictors_float = options.predictors_float;
    to_->share(from);
    to_->nodes.clear();
  }

  Converted run() {
    for (const Graph::Node& node : from_.nodes) {
      const std::string name = label(from_.node_name(node));
      const std::string why = is_layer(node) ? why_float(from_, makers_, node, name, rules_, {}) : "";
      if (!why.empty()) report_.lines.push_back({name, "float: " + why});
      if (is_layer(node) && why.empty()) {
        layer(node, name);
      } else {
        to_->nodes.push_back(node);
      }
    }
    to_->remove_dead();
    return {to_, std::move(report_)};
  }

 private:
  std::string label(const std::string& name) const { return options_.prefix.empty() ? name : options_.prefix + "." + name; }

  Dtype code_of(Value value) const {
    const Value from = origin(from_, makers_, value);
    const bool is_input = std::find(from_.inputs.begin(), from_.inputs.end(), from) != from_.inputs.end();
    const bool nonnegative = is_input ? options_.nonnegative_inputs : cannot_be_negative(from_, makers_, from);
    return nonnegative ? Dtype::u8 : Dtype::s8;
  }

  Quantized activation(Value value) {
    if (const auto found = activations_.find(value); found != activations_.end()) return found->second;
    DynamicQuantize op;
    op.dtype = name(code_of(value));
    const Quantized made{to_->next_value++, to_->next_value++};
    to_->nodes.push_back({std::make_shared<const DynamicQuantize>(op), {value}, {made.codes, made.scale}});
    return activations_[value] = made;
  }

  Quantized weight(Value value) {
    if (const auto found = weights_.find(value); found != weights_.end()) return found->second;
    const Tensor floats = from_.constants.at(value).detach();
    const std::string weight_name = from_.value_name(value);
    const Tensor scales = weight_scales(floats, label(weight_name), options_.weights);
    Quantize op;
    op.per_channel = true;
    const Value codes = to_->add_constant(op.forward({floats, scales})[0], weight_name);
    return weights_[value] = {codes, to_->add_constant(scales, weight_name + "_scale", true)};
  }

  void layer(const Graph::Node& node, const std::string& layer_name) {
    const Quantized x = activation(node.inputs[0]), w = weight(node.inputs[1]);
    Graph::Node made = node;
    made.inputs = {x.codes, w.codes, node.inputs.size() > 2 ? node.inputs[2] : Graph::none, w.scale, x.scale};
    const bool added = node.inputs.size() > 3 && node.inputs[3] != Graph::none;
    if (added) made.inputs.push_back(node.inputs[3]);
    if (const auto* conv = dynamic_cast<const Conv2d*>(node.op.get())) {
      DynamicConv2d op;
      op.set(*conv);
      made.op = std::make_shared<const DynamicConv2d>(op);
    } else {
      DynamicLinear op;
      op.relu = dynamic_cast<const Linear&>(*node.op).relu;
      made.op = std::make_shared<const DynamicLinear>(op);
    }
    report_.lines.push_back({layer_name, message("dynamic ", name(code_of(node.inputs[0])), added ? " + f32" : "", " -> f32")});
    to_->nodes.push_back(std::move(made));
  }

  const Graph& from_;
  const DynamicOptions& options_;
  const Makers makers_ = from_.makers();
  PrepareOptions rules_;
  std::shared_ptr<Graph> to_ = std::make_shared<Graph>();
  std::map<Value, Quantized> activations_, weights_;
  ConvertReport report_;
};

}  // namespace

Converted to_dynamic(const Graph& graph, const DynamicOptions& options) { return DynamicConverter(graph, options).run(); }

bool outputs_nonnegative(const Graph& graph) {
  const Makers makers = graph.makers();
  return std::all_of(graph.outputs.begin(), graph.outputs.end(),
                     [&](Value value) { return cannot_be_negative(graph, makers, origin(graph, makers, value)); });
}

}  // namespace shrike::quant
