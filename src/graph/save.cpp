#include "shrike/graph/save.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "shrike/io/json.hpp"
#include "shrike/quant/scale.hpp"

namespace shrike {
namespace {

using nlohmann::json;
using Value = Graph::Value;

struct FieldWriter : Fields {
  json fields = json::object();
  void operator()(const char* name, std::int64_t& value) override { fields[name] = value; }
  void operator()(const char* name, double& value) override { fields[name] = value; }
  void operator()(const char* name, bool& value) override { fields[name] = value; }
  void operator()(const char* name, std::string& value) override { fields[name] = value; }
  void operator()(const char* name, std::vector<std::int64_t>& value) override { fields[name] = value; }
};

// Every field of the operation must be there, of its type, and no other.
struct FieldReader : Fields {
  const json& fields;
  std::string where;
  std::size_t read = 0;

  FieldReader(const json& from, std::string place) : fields(from), where(std::move(place)) {}
  const json& take(const char* name, bool (json::*fits)() const) {
    const auto found = fields.find(name);
    SHRIKE_CHECK(found != fields.end(), where, " lacks the field ", name);
    SHRIKE_CHECK(((*found).*fits)(), where, ": the field ", name, " is ", found->dump(), ": of the wrong type");
    ++read;
    return *found;
  }
  void operator()(const char* name, std::int64_t& value) override {
    value = take(name, &json::is_number_integer).get<std::int64_t>();
  }
  void operator()(const char* name, double& value) override { value = take(name, &json::is_number).get<double>(); }
  void operator()(const char* name, bool& value) override { value = take(name, &json::is_boolean).get<bool>(); }
  void operator()(const char* name, std::string& value) override { value = take(name, &json::is_string).get<std::string>(); }
  void operator()(const char* name, std::vector<std::int64_t>& value) override {
    value.clear();
    for (const json& item : take(name, &json::is_array)) {
      SHRIKE_CHECK(item.is_number_integer(), where, ": the field ", name, " holds ", item.dump(), ": expected integers");
      value.push_back(item.get<std::int64_t>());
    }
  }
};

class Reader {
 public:
  Reader(const TensorFile& file, const std::string& part) : file_(file), where_(file.name + ": the graph " + part) {}

  std::shared_ptr<Graph> read(const std::string& text) {
    const json root = parse(text);
    const std::int64_t version = whole(member(root, "version"), "version");
    SHRIKE_CHECK(version >= 1 && version <= graph_version, where_, " is of version ", version, ": this build reads up to ",
                 graph_version);
    graph_->inputs = values(member(root, "inputs"));
    for (const Value value : graph_->inputs) define(value);
    for (const json& item : list(member(root, "constants"))) constant(item);
    for (const json& item : list(member(root, "nodes"))) node(item);
    for (const json& item : list(member(root, "codes"))) code(item);
    graph_->outputs = values(member(root, "outputs"));
    for (const Value value : graph_->outputs) SHRIKE_CHECK(known_.contains(value), where_, ": nothing makes output %", value);
    for (const Graph::Node& made : graph_->nodes) check_layer(made);
    return graph_;
  }

 private:
  json parse(const std::string& text) const {
    json root;
    try {
      root = json::parse(text, [&](int depth, json::parse_event_t, json&) {
        SHRIKE_CHECK(depth <= 8, where_, " is nested too deep");
        return true;
      });
    } catch (const json::exception& error) {
      fail(where_, " is not JSON: ", error.what());
    }
    return root;
  }
  const json& member(const json& object, const char* name) const {
    SHRIKE_CHECK(object.is_object() && object.contains(name), where_, " lacks ", name);
    return object[name];
  }
  const json& list(const json& item) const {
    SHRIKE_CHECK(item.is_array(), where_, ": ", item.dump().substr(0, 60), ": expected a list");
    return item;
  }
  std::int64_t whole(const json& item, const char* what) const {
    SHRIKE_CHECK(item.is_number_integer(), where_, ": ", what, " is ", item.dump().substr(0, 60), ": expected an integer");
    return item.get<std::int64_t>();
  }
  std::string word(const json& item, const char* what) const {
    SHRIKE_CHECK(item.is_string(), where_, ": ", what, " is ", item.dump().substr(0, 60), ": expected a text");
    return item.get<std::string>();
  }
  std::vector<Value> values(const json& items) const {
    std::vector<Value> result;
    for (const json& item : list(items)) {
      const Value value = whole(item, "a value");
      SHRIKE_CHECK(value >= Graph::none && value < (Value{1} << 40), where_, ": value ", value);
      result.push_back(value);
    }
    return result;
  }
  void define(Value value) {
    SHRIKE_CHECK(value >= 0 && known_.insert(value).second, where_, ": value %", value, " is made twice");
    graph_->next_value = std::max(graph_->next_value, value + 1);
  }

  void constant(const json& item) {
    const Value value = values(json::array({member(item, "value")}))[0];
    const std::string key = word(member(item, "tensor"), "a tensor's name");
    define(value);
    const auto tensor = file_.tensors.find(key);
    SHRIKE_CHECK(tensor != file_.tensors.end(), where_, " needs the tensor ", json_quote(key), ", which the file lacks");
    graph_->constants[value] = tensor->second;
    if (item.contains("name")) graph_->names[value] = word(item["name"], "a name");
    if (item.contains("buffer")) graph_->buffers.insert(value);
  }

  void node(const json& item) {
    const std::string name = word(member(item, "op"), "op");
    const auto op = make_op(name);
    SHRIKE_CHECK(op != nullptr, where_, " has the operation ", json_quote(name), ", which this build does not know");
    FieldReader fields(member(item, "fields"), where_ + ": " + name);
    op->visit(fields);
    SHRIKE_CHECK(fields.read == fields.fields.size(), where_, ": ", name, " has ", fields.fields.size(),
                 " fields: this build knows ", fields.read);
    Graph::Node made{op, values(member(item, "inputs")), values(member(item, "outputs"))};
    SHRIKE_CHECK(!made.outputs.empty() && !made.inputs.empty(), where_, ": ", name, " without inputs or outputs");
    for (const Value value : made.inputs) {
      SHRIKE_CHECK(value == Graph::none || known_.contains(value), where_, ": ", name, " reads %", value,
                   ", which nothing before it makes");
    }
    for (const Value value : made.outputs) define(value);
    graph_->nodes.push_back(std::move(made));
  }

  void code(const json& item) {
    const Value value = values(json::array({member(item, "value")}))[0];
    SHRIKE_CHECK(known_.contains(value), where_, ": a scale for %", value, ", which nothing makes");
    const json& scale = member(item, "scale");
    SHRIKE_CHECK(scale.is_number() && scale.get<float>() > 0 && std::isfinite(scale.get<float>()), where_, ": the scale of %",
                 value, " is ", scale.dump(), ": expected a positive number");
    const std::string dtype = word(member(item, "dtype"), "dtype");
    graph_->codes[value] = {dtype == "f16" ? Dtype::f16 : parse_code(dtype), scale.get<float>()};
  }

  const Tensor& operand(const Graph::Node& node, std::size_t i, Dtype dtype, const char* what) const {
    const std::string place = where_ + ": " + graph_->node_name(node);
    SHRIKE_CHECK(node.inputs.size() > i && graph_->constants.contains(node.inputs[i]), place, " lacks its ", what);
    const Tensor& tensor = graph_->constants.at(node.inputs[i]);
    SHRIKE_CHECK(tensor.dtype() == dtype, place, ": its ", what, " is ", name(tensor.dtype()), ": expected ", name(dtype));
    return tensor;
  }
  void check_positive(const Graph::Node& node, const Tensor& tensor, const char* what) const {
    for (const float v : tensor.to_vector<float>()) {
      SHRIKE_CHECK(v > 0 && std::isfinite(v), where_, ": ", graph_->node_name(node), ": its ", what, " holds ", v,
                   ": expected positive numbers");
    }
  }

  // A layer of dynamic quantization reads the codes and the scale of one dynamic_quantize.
  void check_dynamic(const Graph::Node& node, const std::string& op) const {
    const std::string place = where_ + ": " + graph_->node_name(node);
    if (op == "dynamic_quantize") {
      SHRIKE_CHECK(node.inputs.size() == 1 && node.outputs.size() == 2, place, " has ", node.inputs.size(), " inputs and ",
                   node.outputs.size(), " outputs: expected 1 and 2");
      FieldWriter fields;
      const_cast<Op&>(*node.op).visit(fields);  // only reads
      const std::string dtype = fields.fields["dtype"];
      SHRIKE_CHECK(dtype == "u8" || dtype == "s8", place, ": codes of dtype '", dtype, "': expected u8 or s8");
      return;
    }
    const std::size_t most = op == "dynamic_conv2d" ? 6 : 5;
    SHRIKE_CHECK(node.inputs.size() >= 5 && node.inputs.size() <= most, place, " has ", node.inputs.size(),
                 " inputs: expected 5 to ", most);
    const bool fits = std::any_of(graph_->nodes.begin(), graph_->nodes.end(), [&](const Graph::Node& maker) {
      return std::string(maker.op->name()) == "dynamic_quantize" && maker.outputs[0] == node.inputs[0] &&
             maker.outputs.back() == node.inputs[4];
    });
    SHRIKE_CHECK(fits, place, ": its input and the input's scale do not come from one dynamic_quantize");
    const Tensor& weight = operand(node, 1, Dtype::s8, "weight");
    SHRIKE_CHECK(weight.rank() == (op == "dynamic_conv2d" ? 4 : 2), place, ": its weight has shape ", weight.shape());
    for (const auto& [i, what] : {std::pair{2, "bias"}, std::pair{3, "scale"}}) {
      if (i == 2 && node.inputs[2] == Graph::none) continue;
      const Tensor& tensor = operand(node, static_cast<std::size_t>(i), Dtype::f32, what);
      SHRIKE_CHECK(tensor.shape() == Shape{weight.size(0)}, place, ": its ", what, " has shape ", tensor.shape(),
                   ": expected [", weight.size(0), "]");
    }
    check_positive(node, operand(node, 3, Dtype::f32, "scale"), "scale");
  }

  void check_layer(const Graph::Node& node) const {
    const std::string op = node.op->name();
    if (op == "quantize" || op == "dequantize") check_positive(node, operand(node, 1, Dtype::f32, "scale"), "scale");
    if (op == "fake_quantize") operand(node, 1, Dtype::f32, "scale");  // 0 before it is calibrated
    if (op.starts_with("dynamic_")) check_dynamic(node, op);
    if (op != "quantized_conv2d" && op != "quantized_linear") return;
    const std::string place = where_ + ": " + graph_->node_name(node);
    SHRIKE_CHECK(graph_->codes.contains(node.inputs[0]), place, ": its input has no scale");
    const Tensor& weight = operand(node, 1, Dtype::s8, "weight");
    SHRIKE_CHECK(weight.rank() == (op == "quantized_conv2d" ? 4 : 2), place, ": its weight has shape ", weight.shape());
    for (const auto& [i, dtype, what] : {std::tuple{2, Dtype::s32, "bias"}, std::tuple{3, Dtype::f32, "multiplier"}}) {
      const Tensor& tensor = operand(node, static_cast<std::size_t>(i), dtype, what);
      SHRIKE_CHECK(tensor.shape() == Shape{weight.size(0)}, place, ": its ", what, " has shape ", tensor.shape(),
                   ": expected [", weight.size(0), "]");
    }
    check_positive(node, operand(node, 3, Dtype::f32, "multiplier"), "multiplier");
    FieldWriter fields;
    const_cast<Op&>(*node.op).visit(fields);  // only reads
    SHRIKE_CHECK(fields.fields["output"] == "f32" || graph_->codes.contains(node.outputs[0]), place,
                 ": its output has no scale");
  }

  const TensorFile& file_;
  std::string where_;
  std::shared_ptr<Graph> graph_ = std::make_shared<Graph>();
  std::set<Value> known_;
};

}  // namespace

void write_graph(const Graph& graph, const std::string& part, TensorFile& file) {
  json root = {{"version", graph_version}, {"inputs", graph.inputs}, {"outputs", graph.outputs}};
  json& constants = root["constants"] = json::array();
  for (const auto& [value, tensor] : graph.constants) {
    std::string key = part + "." + graph.value_name(value);
    // Two layers may share a scale, and names may meet: the value's number keeps them apart.
    if (file.tensors.contains(key)) key += "@" + std::to_string(value);
    SHRIKE_CHECK(file.tensors.emplace(key, tensor).second, "the graph ", part, " has the tensor ", key, " twice");
    json item = {{"value", value}, {"tensor", key}};
    if (const auto name = graph.names.find(value); name != graph.names.end()) item["name"] = name->second;
    if (graph.buffers.contains(value)) item["buffer"] = true;
    constants.push_back(std::move(item));
  }
  json& codes = root["codes"] = json::array();
  for (const auto& [value, code] : graph.codes) {
    codes.push_back({{"value", value}, {"dtype", name(code.dtype)}, {"scale", code.scale}});
  }
  json& nodes = root["nodes"] = json::array();
  for (const Graph::Node& node : graph.nodes) {
    SHRIKE_CHECK(make_op(node.op->name()) != nullptr, "the graph ", part, " has the operation ", node.op->name(),
                 ", which files cannot hold");
    FieldWriter fields;
    const_cast<Op&>(*node.op).visit(fields);  // only reads
    nodes.push_back({{"op", node.op->name()}, {"fields", fields.fields}, {"inputs", node.inputs}, {"outputs", node.outputs}});
  }
  file.metadata["graph." + part] = root.dump();
}

std::shared_ptr<Graph> read_graph(const TensorFile& file, const std::string& part) {
  const auto text = file.metadata.find("graph." + part);
  SHRIKE_CHECK(text != file.metadata.end(), file.name, ": there is no graph ", json_quote(part), " in it");
  return Reader(file, part).read(text->second);
}

std::vector<std::string> graph_parts(const TensorFile& file) {
  std::vector<std::string> parts;
  for (const auto& [key, text] : file.metadata) {
    if (key.starts_with("graph.")) parts.push_back(key.substr(6));
  }
  return parts;
}

}  // namespace shrike
