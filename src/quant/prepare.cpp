#include "shrike/quant/prepare.hpp"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "layers.hpp"
#include "shrike/ops/batch_norm.hpp"
#include "shrike/ops/conv.hpp"
#include "shrike/ops/linear.hpp"
#include "shrike/ops/quantize.hpp"

namespace shrike::quant {

using Value = Graph::Value;

bool is_layer(const Graph::Node& node) {
  const std::string op = node.op->name();
  return op == "conv2d" || op == "linear";
}

Value origin(const Graph& graph, const Makers& makers, Value value) {
  for (;;) {
    const auto maker = makers.find(value);
    if (maker == makers.end()) return value;
    const Graph::Node& node = graph.nodes[maker->second];
    if (!passes_codes(node.op->name()) || node.outputs[0] != value) return value;
    value = node.inputs[0];
  }
}

bool cannot_be_negative(const Graph& graph, const Makers& makers, Value value) {
  const auto maker = makers.find(value);
  if (maker == makers.end()) return false;
  const Op* op = graph.nodes[maker->second].op.get();
  if (const auto* conv = dynamic_cast<const Conv2d*>(op)) return conv->relu;
  if (const auto* linear = dynamic_cast<const Linear*>(op)) return linear->relu;
  if (const auto* sum = dynamic_cast<const Add*>(op)) return sum->relu;
  if (const auto* norm = dynamic_cast<const BatchNorm*>(op)) return norm->relu;
  return dynamic_cast<const Relu*>(op) != nullptr || std::string(op->name()) == "softmax";
}

std::string why_float(const Graph& graph, const Makers& makers, const Graph::Node& node, const std::string& name,
                      const PrepareOptions& options, const std::map<Value, Dtype>& code_inputs) {
  for (const std::string& pattern : options.keep_float) {
    if (fits_glob(pattern, name)) return "keep_float " + pattern;
  }
  for (std::size_t i = 1; i < std::min<std::size_t>(node.inputs.size(), 3); ++i) {
    if (node.inputs[i] != Graph::none && !graph.constants.contains(node.inputs[i])) return "its weights are computed";
  }
  const Value x = origin(graph, makers, node.inputs[0]);
  if (graph.constants.contains(x)) return "its input is constant";
  if (node.inputs.size() > 3 && graph.constants.contains(origin(graph, makers, node.inputs[3]))) {
    return "its residual is constant";
  }
  const bool first = std::find(graph.inputs.begin(), graph.inputs.end(), x) != graph.inputs.end();
  if (options.first_layer_float && first && !code_inputs.contains(x)) return "first layer";
  const bool last = std::find(graph.outputs.begin(), graph.outputs.end(), node.outputs[0]) != graph.outputs.end();
  if (options.predictors_float && last && !options.quantize_outputs) return "predictor";
  return {};
}

namespace {

// The node goes to place `at`.
Value insert(Graph& graph, std::size_t at, const FakeQuantize& op, Value x, Value scale) {
  const Value y = graph.next_value++;
  graph.nodes.insert(graph.nodes.begin() + static_cast<std::ptrdiff_t>(at),
                     Graph::Node{std::make_shared<const FakeQuantize>(op), {x, scale}, {y}});
  return y;
}

}  // namespace

bool passes_codes(const std::string& op) {
  static const std::set<std::string> names = {"max_pool2d", "roi_pool", "roi_align", "reshape", "flatten", "permute"};
  return names.contains(op);
}

bool fits_glob(const std::string& pattern, const std::string& text) {
  std::size_t p = 0, t = 0, star = std::string::npos, back = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      back = t;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
      ++p, ++t;
    } else if (star != std::string::npos) {
      p = star + 1;
      t = ++back;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

std::shared_ptr<Prepared> prepare(const Graph& graph, const PrepareOptions& options) {
  auto result = std::make_shared<Prepared>();
  Prepared& p = *result;
  p.share(graph);
  p.quantize_outputs = options.quantize_outputs;
  p.prefix = options.prefix.empty() ? "" : options.prefix + ".";
  p.freeze_after_ = options.freeze_after;
  p.weight_ranges_ = options.weights;
  SHRIKE_CHECK(options.inputs.size() <= p.inputs.size(), options.inputs.size(), " quantized inputs for a graph of ",
               p.inputs.size());
  for (std::size_t i = 0; i < options.inputs.size(); ++i) {
    code_range(options.inputs[i].dtype);
    SHRIKE_CHECK(options.inputs[i].scale.shape() == Shape{1}, "the scale of input ", i, " has shape ",
                 options.inputs[i].scale.shape(), ": expected [1]");
    p.code_inputs[p.inputs[i]] = options.inputs[i].dtype;
  }

  // Which layers, and so which tensors, become codes.
  const Makers makers = p.makers();
  std::vector<std::size_t> layers;
  std::vector<Value> origins;  // in order
  const auto want = [&](Value value) {
    const Value from = origin(p, makers, value);
    if (std::find(origins.begin(), origins.end(), from) == origins.end()) origins.push_back(from);
  };
  for (std::size_t i = 0; i < p.nodes.size(); ++i) {
    const Graph::Node& node = p.nodes[i];
    const std::string name = p.prefix + p.node_name(node);
    if (!is_layer(node)) {
      if (!passes_codes(node.op->name())) p.float_layers.emplace_back(name, message(node.op->name(), " has no int8 form"));
      continue;
    }
    const std::string why = why_float(p, makers, node, name, options, p.code_inputs);
    if (!why.empty()) {
      p.float_layers.emplace_back(name, why);
      continue;
    }
    layers.push_back(i);
    want(node.inputs[0]);
    if (node.inputs.size() > 3 && node.inputs[3] != Graph::none) want(node.inputs[3]);
  }
  if (options.quantize_outputs) {
    for (const Value value : p.outputs) want(value);
  }
  for (const auto& [value, dtype] : p.code_inputs) want(value);

  // Weights, from the last layer back so that indices stay.
  for (auto i = layers.rbegin(); i != layers.rend(); ++i) {
    const Value weight = p.nodes[*i].inputs[1];
    const std::string name = p.prefix + p.value_name(weight);
    const Tensor& w = p.constants.at(weight);
    const Tensor start = zeros({w.size(0)}, Dtype::f32, w.device());
    start.set_requires_grad(options.learned);
    const Value scale = p.add_constant(start, p.value_name(weight) + "_scale", !options.learned);
    FakeQuantize op;
    op.per_channel = true;
    op.learned = options.learned;
    const Value rounded = insert(p, *i, op, weight, scale);
    p.nodes[*i + 1].inputs[1] = rounded;
    p.weights.insert(p.weights.begin(), {weight, scale, name});
  }

  for (const Value value : origins) {
    const Makers now = p.makers();
    const auto maker = now.find(value);
    const bool is_input = maker == now.end();
    // As `graph` names it, so that the name does not depend on which layers are quantized.
    const std::string made_by = is_input ? "" : graph.node_name(graph.nodes[makers.at(value)]);
    const std::string name = p.prefix + (is_input ? "input" : made_by);
    const std::string short_name = is_input ? p.value_name(value) : made_by;
    FakeQuantize op;
    Value scale = Graph::none;
    if (const auto port = p.code_inputs.find(value); port != p.code_inputs.end()) {
      const auto index = static_cast<std::size_t>(std::find(p.inputs.begin(), p.inputs.end(), value) - p.inputs.begin());
      op.dtype = shrike::name(port->second);
      scale = p.add_constant(options.inputs[index].scale, "input" + std::to_string(index) + "_scale", true);
    } else {
      const Dtype dtype = cannot_be_negative(p, now, value) ? Dtype::u8 : Dtype::s8;
      op.dtype = shrike::name(dtype);
      op.learned = options.learned;
      const Device device = p.constants.empty() ? Device::cpu : p.constants.begin()->second.device();
      const Tensor start = zeros({1}, Dtype::f32, device);
      start.set_requires_grad(options.learned);
      scale = p.add_constant(start, short_name + (is_input ? "_scale" : ".output_scale"), !options.learned);
      p.activations.push_back({value, scale, dtype, Observer(name, dtype, options.observer)});
      if (is_input && options.input_reach > 0) {
        p.activations.back().known = true;
        const Tensor& to = p.constants.at(scale);
        to.copy_from(full({1}, scale_from_range(-options.input_reach, options.input_reach, dtype), to.device()));
      }
    }
    const std::size_t at = is_input ? 0 : maker->second + 1;
    const Value y = p.next_value;
    p.replace_uses(value, y);
    SHRIKE_CHECK(insert(p, at, op, value, scale) == y, "prepare: values are out of order");
  }
  return result;
}

Tensors Prepared::forward(const Tensors& in) {
  if (!calibrating_ && (training() || weights_moved_)) update_weight_scales();
  weights_moved_ = training();  // the optimiser follows: the next run in evaluation looks again
  Tensors out = Graph::forward(in);
  if (training()) ++steps_;
  return out;
}

Tensor Prepared::scales_of(const Weight& weight) const {
  const Tensor& own = constants.at(weight.scale);
  const Tensor ranges = weight_scales(constants.at(weight.weight), weight.name, weight_ranges_);
  if (!own.requires_grad()) return ranges;
  std::vector<float> scales = own.to_vector<float>();
  const std::vector<float> by_range = ranges.to_vector<float>();
  for (std::size_t k = 0; k < scales.size(); ++k) scales[k] = scales[k] != 0 ? std::abs(scales[k]) : by_range[k];
  return tensor(own.shape(), scales, own.device());
}

void Prepared::update_weight_scales() {
  SHRIKE_CHECK(!training() || weight_ranges_.choice < RangeChoice::percentile,
               "training with ranges of weights that histograms choose: expected all of the range");
  for (Weight& weight : weights) {
    const Tensor &values = constants.at(weight.weight), &scale = constants.at(weight.scale);
    if (scale.requires_grad()) {  // only its start is found here, unless a checkpoint had it
      if (std::exchange(weight.started, true)) continue;
      const std::vector<float> before = scale.to_vector<float>();
      const bool fresh = std::all_of(before.begin(), before.end(), [](float s) { return s == 0; });
      if (fresh) scale.copy_from(scales_of(weight));
      continue;
    }
    if (training() && values.device() != Device::cpu) {  // nothing is read back; what is not finite shows in the loss
      write_weight_scales(values, scale);
    } else {
      scale.copy_from(scales_of(weight));
    }
  }
}

void Prepared::computed(Value value, const Tensor& tensor) {
  const bool frozen = freeze_after_ >= 0 && steps_ >= freeze_after_;
  if (!calibrating_ && (!training() || frozen)) return;
  for (Activation& activation : activations) {
    if (activation.value != value) continue;
    if (activation.known) return;
    const Tensor& scale = constants.at(activation.scale);
    const bool learned = scale.requires_grad();
    if (!calibrating_ && learned) {
      if (!activation.started) activation.started = scale.item() != 0;
      if (activation.started) return;
    }
    if (!calibrating_ && !std::exchange(activation.asked, true) && activation.observer.seen() == 0) {
      const float before = scale.item();
      activation.given = before > 0 && activation.observer.wants_histogram();
      if (before > 0 && !activation.given) activation.observer.seed(before);
    }
    if (activation.given) return;
    activation.observer.update(tensor);
    if (!calibrating_ && activation.observer.seen() > 0) activation.observer.write_scale(scale);
    return;
  }
}

void Prepared::begin_calibration() {
  calibrating_ = true;
  for (Activation& activation : activations) {
    if (activation.known) continue;
    const Observer& old = activation.observer;
    activation.observer = Observer(old.name(), activation.dtype, old.options());
    activation.started = activation.asked = activation.given = false;
    constants.at(activation.scale).zero();
  }
  for (Weight& weight : weights) {
    constants.at(weight.scale).zero();
    weight.started = false;
  }
}

std::vector<std::string> Prepared::end_calibration() {
  SHRIKE_CHECK(calibrating_, "end_calibration() without begin_calibration()");
  std::vector<std::string> constant;
  for (const Activation& activation : activations) {
    if (activation.known) continue;
    const Tensor& scale = constants.at(activation.scale);
    scale.copy_from(full({1}, activation.observer.scale(), scale.device()));
    if (activation.observer.constant()) constant.push_back(activation.observer.name());
  }
  calibrating_ = false;
  update_weight_scales();
  return constant;
}

Port Prepared::output_port(std::size_t i) const {
  SHRIKE_CHECK(i < outputs.size(), "output ", i, " of a graph of ", outputs.size());
  const Makers made = makers();
  const Value from = origin(*this, made, outputs[i]);
  const auto maker = made.find(from);
  const auto* op = maker == made.end() ? nullptr : dynamic_cast<const FakeQuantize*>(nodes[maker->second].op.get());
  SHRIKE_CHECK(op != nullptr, "output ", i, " of the graph is not quantized");
  return {parse_code(op->dtype), constants.at(nodes[maker->second].inputs[1])};
}

}  // namespace shrike::quant
