#include "shrike/quant/convert.hpp"

#include <algorithm>
#include <cmath>
#include <iomanip>

#include "shrike/ops/quantize.hpp"
#include "shrike/ops/quantized_conv.hpp"
#include "shrike/ops/quantized_linear.hpp"

namespace shrike::quant {
namespace {

using Value = Graph::Value;

std::string code_name(const Graph& graph, Value value) {
  const auto code = graph.codes.find(value);
  return code == graph.codes.end() ? "f32" : name(code->second.dtype);
}

class Converter {
 public:
  explicit Converter(const Prepared& from) : from_(from), makers_(from.makers()) {
    to_.inputs = from.inputs;
    to_.next_value = from.next_value;
    to_.constants = from.constants;
    to_.names = from.names;
    to_.buffers = from.buffers;
    for (std::size_t i = 0; i < from.nodes.size(); ++i) {
      for (const Value value : from.nodes[i].inputs) readers_[value].push_back(i);
    }
  }

  Converted run() {
    for (const Graph::Node& node : from_.nodes) {
      if (const auto* fake = dynamic_cast<const FakeQuantize*>(node.op.get())) {
        if (!from_.constants.contains(node.inputs[0])) round(node, *fake);
      } else if (is_int8(node)) {
        layer(node);
      } else if (passes_codes(node.op->name()) && to_.codes.contains(now(node.inputs[0]))) {
        Graph::Node moved = node;
        for (Value& value : moved.inputs) value = now(value);
        to_.codes[node.outputs[0]] = to_.codes.at(moved.inputs[0]);
        note(node, "codes pass, " + code_name(to_, node.outputs[0]));
        to_.nodes.push_back(std::move(moved));
      } else {
        in_float(node);
      }
    }
    for (const Value value : from_.outputs) {
      const Value output = now(value);
      to_.outputs.push_back(from_.quantize_outputs ? output : as_float(output));
    }
    to_.remove_dead();
    auto graph = std::make_shared<Graph>();
    graph->nodes = std::move(to_.nodes);
    graph->inputs = std::move(to_.inputs);
    graph->outputs = std::move(to_.outputs);
    graph->constants = std::move(to_.constants);
    graph->names = std::move(to_.names);
    graph->buffers = std::move(to_.buffers);
    graph->codes = std::move(to_.codes);
    graph->next_value = to_.next_value;
    return {graph, std::move(report_)};
  }

 private:
  Value now(Value value) const {
    const auto found = alias_.find(value);
    return found == alias_.end() ? value : found->second;
  }

  void note(const Graph::Node& node, const std::string& what) { report_.lines.push_back({from_.prefix + label(node), what}); }

  std::string label(const Graph::Node& node) const {
    const Value weight = node.inputs.size() > 1 ? weight_of(node) : Graph::none;
    Graph::Node named = node;
    if (weight != Graph::none) named.inputs[1] = weight;
    return from_.node_name(named);
  }

  // What made a value of the prepared graph: the layer's name, or "input".
  std::string maker_name(Value value) const {
    for (auto maker = makers_.find(value); maker != makers_.end(); maker = makers_.find(value)) {
      const Graph::Node& node = from_.nodes[maker->second];
      if (std::string(node.op->name()) != "fake_quantize") return from_.prefix + label(node);
      value = node.inputs[0];
    }
    return from_.prefix + "input";
  }

  // The constant behind a layer's fake-quantized weight; none for other nodes.
  Value weight_of(const Graph::Node& node) const {
    const auto maker = makers_.find(node.inputs[1]);
    if (maker == makers_.end()) return Graph::none;
    const Graph::Node& rounder = from_.nodes[maker->second];
    const bool rounds = std::string(rounder.op->name()) == "fake_quantize" && from_.constants.contains(rounder.inputs[0]);
    return rounds ? rounder.inputs[0] : Graph::none;
  }

  bool is_int8(const Graph::Node& node) const {
    const std::string op = node.op->name();
    return (op == "conv2d" || op == "linear") && weight_of(node) != Graph::none && to_.codes.contains(now(node.inputs[0]));
  }

  Code code_of(const Graph::Node& fake) const {
    Code code;
    code.dtype = parse_code(dynamic_cast<const FakeQuantize&>(*fake.op).dtype);
    code.scale = std::abs(from_.constants.at(fake.inputs[1]).item());
    SHRIKE_CHECK(code.scale > 0 && std::isfinite(code.scale), from_.prefix, from_.value_name(fake.inputs[1]), " is ",
                 code.scale, ": expected a positive scale; calibrate or train before converting");
    return code;
  }

  // The only node that reads `value`, if it rounds.
  const Graph::Node* rounder_of(Value value) const {
    const auto found = readers_.find(value);
    if (found == readers_.end() || found->second.size() != 1) return nullptr;
    const Graph::Node& node = from_.nodes[found->second[0]];
    const bool is_output = std::find(from_.outputs.begin(), from_.outputs.end(), value) != from_.outputs.end();
    return !is_output && std::string(node.op->name()) == "fake_quantize" ? &node : nullptr;
  }

  Value scale_constant(float scale) {
    const Value value = to_.add_constant(full({1}, scale, device()), "", true);
    to_.names[value] = "scale_" + std::to_string(value);
    return value;
  }
  Device device() const { return from_.constants.empty() ? Device::cpu : from_.constants.begin()->second.device(); }

  Value append(OpPtr op, std::vector<Value> inputs) {
    const Value y = to_.next_value++;
    to_.nodes.push_back({std::move(op), std::move(inputs), {y}});
    return y;
  }

  Value as_float(Value value) {
    const auto code = to_.codes.find(value);
    if (code == to_.codes.end()) return value;
    if (const auto found = floats_.find(value); found != floats_.end()) return found->second;
    const Value y = append(std::make_shared<const Dequantize>(), {value, scale_constant(code->second.scale)});
    report_.lines.push_back({maker_name(value), message("reformat ", name(code->second.dtype), " -> f32")});
    return floats_[value] = y;
  }

  // A fake-quantize node of an activation.
  void round(const Graph::Node& node, const FakeQuantize& fake) {
    const Value x = now(node.inputs[0]);
    if (alias_.contains(node.outputs[0]) || to_.codes.contains(node.outputs[0])) return;  // its maker gives codes itself
    const Code code = code_of(node);
    if (from_.code_inputs.contains(node.inputs[0])) {
      alias_[node.outputs[0]] = x;
      to_.codes[x] = code;
      return;
    }
    Quantize op;
    op.dtype = fake.dtype;
    to_.nodes.push_back({std::make_shared<const Quantize>(op), {as_float(x), scale_constant(code.scale)}, node.outputs});
    to_.codes[node.outputs[0]] = code;
    report_.lines.push_back({maker_name(node.inputs[0]), message("reformat f32 -> ", fake.dtype)});
  }

  void in_float(const Graph::Node& node) {
    Graph::Node moved = node;
    for (Value& value : moved.inputs) value = value == Graph::none ? value : as_float(now(value));
    std::string why = message(node.op->name(), " has no int8 form");
    if (passes_codes(node.op->name())) why = "its input is float";
    for (const auto& [kept, reason] : from_.float_layers) {
      if (kept == from_.prefix + from_.node_name(node)) why = reason;
    }
    note(node, "float: " + why);
    to_.nodes.push_back(std::move(moved));
  }

  // Scales of the weight's channels, widened where the bias would leave no room in 32 bits.
  std::vector<float> channel_scales(const Graph::Node& node, float s_x, const std::vector<float>& bias) const {
    const Value weight = weight_of(node);
    const Tensor& w = from_.constants.at(weight);
    const auto found = std::find_if(from_.weights.begin(), from_.weights.end(),
                                    [&](const Prepared::Weight& of) { return of.weight == weight; });
    SHRIKE_CHECK(found != from_.weights.end(), from_.prefix, from_.value_name(weight), " was not prepared");
    std::vector<float> scales = from_.scales_of(*found).to_vector<float>();
    const std::int64_t depth = w.numel() / w.size(0);
    const double room = std::min<double>(0x1p30, 0x7fffffff - static_cast<double>(depth) * 255 * 128);
    SHRIKE_CHECK(room > 1, from_.prefix, from_.value_name(weight), ": sums of ", depth, " products can exceed 32 bits");
    for (std::size_t k = 0; k < scales.size(); ++k) {
      const double least = std::abs(static_cast<double>(bias[k])) / (static_cast<double>(s_x) * (room - 1));
      if (scales[k] < least) scales[k] = std::nextafter(static_cast<float>(least), HUGE_VALF);
    }
    return scales;
  }

  void layer(const Graph::Node& node) {
    const Value x = now(node.inputs[0]);
    const Code in = to_.codes.at(x);
    const Value weight = weight_of(node);
    const Tensor& w = from_.constants.at(weight);
    const bool biased = node.inputs.size() > 2 && node.inputs[2] != Graph::none;
    const auto bias = biased ? from_.constants.at(node.inputs[2]).to_vector<float>()
                             : std::vector<float>(static_cast<std::size_t>(w.size(0)));
    const std::vector<float> scales = channel_scales(node, in.scale, bias);
    const Graph::Node* rounder = rounder_of(node.outputs[0]);
    Code out{Dtype::f32, 1.0f};
    if (rounder != nullptr) out = code_of(*rounder);

    std::vector<std::int32_t> codes;
    std::vector<float> multipliers;
    for (std::size_t k = 0; k < scales.size(); ++k) {
      const double unit = static_cast<double>(in.scale) * scales[k];
      codes.push_back(static_cast<std::int32_t>(std::nearbyint(bias[k] / unit)));
      const float product = in.scale * scales[k];
      multipliers.push_back(rounder != nullptr ? product / out.scale : product);
    }
    const Tensor scale = tensor({w.size(0)}, scales, w.device());
    const std::string base = from_.value_name(weight);
    const std::string module = base.ends_with(".weight") ? base.substr(0, base.size() - 7) + "." : "";
    Quantize to_codes;
    to_codes.per_channel = true;
    Graph::Node made;
    made.inputs = {x, to_.add_constant(to_codes.forward({w.detach(), scale})[0], base),
                   to_.add_constant(tensor({w.size(0)}, codes, w.device()), module + "bias"),
                   to_.add_constant(tensor({w.size(0)}, multipliers, w.device()), module + "multiplier", true)};
    double residual_multiplier = 0;
    std::string added;
    if (node.inputs.size() > 3 && node.inputs[3] != Graph::none) {
      const Value residual = now(node.inputs[3]);
      SHRIKE_CHECK(to_.codes.contains(residual), label(node), ": its residual is not quantized");
      made.inputs.push_back(residual);
      residual_multiplier = to_.codes.at(residual).scale / out.scale;
      added = " + " + code_name(to_, residual);
    }
    if (const auto* conv = dynamic_cast<const Conv2d*>(node.op.get())) {
      QuantizedConv2d op;
      op.set(*conv);
      op.output = name(out.dtype);
      op.residual_multiplier = residual_multiplier;
      made.op = std::make_shared<const QuantizedConv2d>(op);
    } else {
      QuantizedLinear op;
      op.relu = dynamic_cast<const Linear&>(*node.op).relu;
      op.output = name(out.dtype);
      op.residual_multiplier = residual_multiplier;
      made.op = std::make_shared<const QuantizedLinear>(op);
    }
    made.outputs = rounder != nullptr ? rounder->outputs : node.outputs;
    if (rounder != nullptr) to_.codes[made.outputs[0]] = out;
    note(node, message("int8 ", name(in.dtype), added, " -> ", name(out.dtype)));
    to_.nodes.push_back(std::move(made));
  }

  const Prepared& from_;
  const std::map<Value, std::size_t> makers_;
  std::map<Value, std::vector<std::size_t>> readers_;
  Graph to_;
  std::map<Value, Value> alias_;   // of the prepared graph -> the same in the new one
  std::map<Value, Value> floats_;  // codes -> the float tensor made of them
  ConvertReport report_;
};

}  // namespace

std::string ConvertReport::to_string() const {
  std::size_t width = 0;
  for (const Line& line : lines) width = std::max(width, line.name.size());
  std::ostringstream out;
  for (const Line& line : lines) out << std::left << std::setw(static_cast<int>(width) + 2) << line.name << line.what << '\n';
  return out.str();
}

Converted convert(const Prepared& prepared) { return Converter(prepared).run(); }

std::vector<std::string> float_values(const Graph& graph, bool between) {
  // What a quantized layer follows: found from the back.
  std::set<Value> leads;
  for (auto node = graph.nodes.rbegin(); node != graph.nodes.rend(); ++node) {
    const std::string op = node->op->name();
    const bool layer = op.starts_with("quantized_") || op.starts_with("half_");
    const bool on_the_way = std::any_of(node->outputs.begin(), node->outputs.end(), [&](Value v) { return leads.contains(v); });
    if (layer || on_the_way) leads.insert(node->inputs.begin(), node->inputs.end());
  }
  std::vector<std::string> found;
  const auto look = [&](Value value, const std::string& maker) {
    if (!graph.codes.contains(value) && (!between || leads.contains(value))) found.push_back(maker);
  };
  for (const Value value : graph.inputs) look(value, "input");
  for (const Graph::Node& node : graph.nodes) look(node.outputs[0], graph.node_name(node));
  return found;
}

}  // namespace shrike::quant
