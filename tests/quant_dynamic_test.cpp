// Graphs and detectors of dynamic layers: what becomes of each node, how near to float they are, and their files.
#include "shrike/quant/dynamic.hpp"

#include <cmath>

#include "apps/quantized.hpp"
#include "error_of.hpp"
#include "quantized_run.hpp"
#include "shrike/graph/fuse.hpp"
#include "shrike/ops/dynamic.hpp"
#include "temporary_folder.hpp"

using namespace shrike;
using quantized::detect, quantized::same, quantized::small;
using namespace shrike::quant;
using Catch::Matchers::Contains;
using reference::random_tensor;

namespace {

std::size_t count(const Graph& graph, const std::string& op) {
  return static_cast<std::size_t>(
      std::count_if(graph.nodes.begin(), graph.nodes.end(), [&](const Graph::Node& node) { return op == node.op->name(); }));
}

std::shared_ptr<Graph> fused_backbone(const std::string& name, std::uint64_t seed) {
  const auto model = models::make_detector(quantized::small_detector(name));
  nn::initialize(*model, seed);
  const auto graph = trace(*model->backbone(), {zeros({1, 48, 48, 3})});
  fuse(*graph);
  return graph;
}

// Of the difference, over the signal.
double noise(const Tensor& got, const Tensor& expected) {
  const auto a = reference::doubles(got), b = reference::doubles(expected);
  REQUIRE(a.size() == b.size());
  double difference = 0, signal = 0;
  for (std::size_t i = 0; i < a.size(); ++i) difference += (a[i] - b[i]) * (a[i] - b[i]), signal += b[i] * b[i];
  return std::sqrt(difference / signal);
}

}  // namespace

TEST_CASE("every layer but those kept in float reads codes that are made at run time, shared where it reads the same") {
  Random random(1, RandomStream::test);
  for (const std::string name : {"vgg11", "resnet18"}) {
    const auto graph = fused_backbone(name, 1);
    const std::size_t layers = count(*graph, "conv2d");
    DynamicOptions options;
    options.prefix = "backbone";
    options.predictors_float = false;
    const Converted converted = to_dynamic(*graph, options);
    INFO(converted.report.to_string() << converted.graph->to_string());
    CHECK(count(*converted.graph, "dynamic_conv2d") == layers);
    CHECK(count(*converted.graph, "conv2d") == 0);
    // A residual block's first layer and its shortcut read the same tensor.
    std::set<Graph::Value> read;
    for (const Graph::Node& node : graph->nodes) {
      if (std::string(node.op->name()) == "conv2d") read.insert(node.inputs[0]);
    }
    CHECK(count(*converted.graph, "dynamic_quantize") == read.size());
    CHECK((read.size() < layers) == (name == "resnet18"));
    // The image alone can be negative.
    std::size_t with_sign = 0;
    for (const Graph::Node& node : converted.graph->nodes) {
      if (const auto* op = dynamic_cast<const DynamicQuantize*>(node.op.get())) with_sign += op->dtype == "s8";
    }
    CHECK(with_sign == 1);
    CHECK(outputs_nonnegative(*graph));
    for (const Shape& shape : {Shape{1, 48, 64, 3}, Shape{2, 33, 51, 3}}) {
      const Tensor x = random_tensor(shape, random);
      const Tensor y = converted.graph->forward({x})[0];
      CHECK(y.dtype() == Dtype::f32);
      const double error = noise(y, graph->forward({x})[0]);
      CHECK(error > 1e-4);
      CHECK(error < 0.05);
    }
  }
}

TEST_CASE("scales follow the input, whatever its size, and zeros give the output of zeros") {
  Random random(2, RandomStream::test);
  const auto graph = fused_backbone("vgg11", 2);
  for (auto& [value, tensor] : graph->constants) {
    if (tensor.rank() == 1) tensor.zero();  // without biases the network is homogeneous
  }
  DynamicOptions options;
  options.predictors_float = false;
  const auto dynamic = to_dynamic(*graph, options).graph;
  const Tensor x = random_tensor({1, 48, 40, 3}, random);
  const auto expected = reference::doubles(dynamic->forward({x})[0]);
  for (const double factor : {1024.0, 1.0 / 1024}) {
    auto got = reference::doubles(dynamic->forward({scale(x, factor)})[0]);
    for (double& v : got) v /= factor;
    CHECK(reference::difference(got, expected) < 1e-6);  // a power of two changes no code
  }
  for (const float v : dynamic->forward({zeros({1, 33, 32, 3})})[0].to_vector<float>()) REQUIRE(v == 0);
}

TEST_CASE("layers by name, the first layer and predictors stay in float as in a prepared graph, and are listed") {
  const auto graph = fused_backbone("vgg11", 3);
  DynamicOptions options;
  options.keep_float = {"11"};
  options.first_layer_float = true;
  const Converted dynamic = to_dynamic(*graph, options);
  PrepareOptions rules;
  rules.keep_float = options.keep_float;
  rules.first_layer_float = true;
  std::vector<std::string> kept;
  for (const auto& line : dynamic.report.lines) {
    if (line.what.starts_with("float: ")) kept.push_back(line.name + line.what.substr(7));
  }
  std::vector<std::string> expected;
  const auto prepared = prepare(*graph, rules);
  for (const auto& [name, why] : prepared->float_layers) {
    if (why.find("has no int8 form") == std::string::npos) expected.push_back(name + why);
  }
  CHECK(kept == expected);
  CHECK(kept.size() == 3);
  CHECK(count(*dynamic.graph, "conv2d") == 3);
  Random random(3, RandomStream::test);
  const Tensor x = random_tensor({1, 48, 48, 3}, random);
  CHECK(noise(dynamic.graph->forward({x})[0], graph->forward({x})[0]) < 0.05);
}

TEST_CASE("a dynamic detector finds what the float one does, and the same after it was a file") {
  const std::string backbone = GENERATE("vgg11", "resnet18");
  const std::string roi = GENERATE("align", "pool");
  INFO(backbone << ", roi " << roi);
  const auto config = small(backbone, roi);
  const auto model = models::make_detector(config.model);
  nn::initialize(*model, 1);
  nn::train(*model, false);
  const models::FusedDetector fused = models::fuse_detector(*model);
  const models::ConvertedDetector dynamic = models::dynamic_detector(fused);
  const std::string report = dynamic.report.to_string();
  INFO(report);
  CHECK_THAT(report, Contains("float: predictor") && Contains("dynamic u8 -> f32") && Contains("dynamic s8 -> f32"));
  for (std::size_t i = 1; i < 3; ++i) {  // the feature map, and what is pooled from it, cannot be negative
    const auto& first = dynamic_cast<const DynamicQuantize&>(
        *std::find_if(dynamic.parts[i]->nodes.begin(), dynamic.parts[i]->nodes.end(), [](const Graph::Node& node) {
           return dynamic_cast<const DynamicQuantize*>(node.op.get()) != nullptr;
         })->op);
    CHECK(first.dtype == "u8");
    CHECK(dynamic.parts[i]->outputs.size() == 2);
  }
  const auto before = detect(*models::join(dynamic.parts, fused.options), 3);
  const TemporaryFolder folder;
  const std::string path = folder / "dynamic.safetensors";
  save_safetensors(path, apps::quantized_file(dynamic.parts, config, "dynamic", fused.weights));
  const apps::LoadedDetector loaded = apps::load_detector(load_safetensors(path));
  CHECK(same(detect(*loaded.model, 3), before));

  const auto expected = detect(*model, 3);
  REQUIRE(expected.size() > 3);
  std::size_t agreeing = 0;
  for (const Detection& one : expected) {
    agreeing += std::any_of(before.begin(), before.end(), [&](const Detection& other) {
      return one.label == other.label && iou(one.box, other.box) > 0.7f && std::abs(one.score - other.score) < 0.05f;
    });
  }
  CHECK(static_cast<double>(agreeing) > 0.6 * static_cast<double>(expected.size()));
  const std::int64_t channels = dynamic.parts[0]->forward({zeros({1, 64, 64, 3})})[0].size(3);
  CHECK(dynamic.parts[2]->forward({zeros({0, 3, 3, channels})})[0].shape() == Shape{0, 3});  // no regions
}

TEST_CASE("files of dynamic layers that do not fit are refused in one line") {
  const auto graph = fused_backbone("resnet18", 4);
  DynamicOptions options;
  options.predictors_float = false;
  TensorFile good;
  good.name = "model.safetensors";
  write_graph(*to_dynamic(*graph, options).graph, "backbone", good);
  const auto with = [&](const std::function<void(TensorFile&)>& change) {
    TensorFile file = good;
    change(file);
    return error_of([&] { read_graph(file, "backbone"); });
  };
  CHECK(with([](TensorFile&) {}) == "no error");
  const auto tensor_error = [&](const std::string& name, const Tensor& tensor) {
    REQUIRE(good.tensors.contains("backbone." + name));
    return with([&](TensorFile& f) { f.tensors["backbone." + name] = tensor; });
  };
  const std::int64_t channels = good.tensors.at("backbone.conv1.weight_scale").numel();
  for (const float bad : {0.0f, -1.0f, NAN, INFINITY}) {
    CHECK_THAT(tensor_error("conv1.weight_scale", full({channels}, bad)), Contains("conv1: its scale holds"));
  }
  CHECK_THAT(tensor_error("conv1.weight_scale", full({channels + 1}, 1.0f)), Contains("conv1: its scale has shape"));
  CHECK_THAT(tensor_error("conv1.weight", zeros({channels, 7, 7, 3})), Contains("conv1: its weight is f32: expected s8"));
  CHECK_THAT(tensor_error("conv1.weight", zeros({channels, 147}, Dtype::s8)), Contains("conv1: its weight has shape"));
  CHECK_THAT(tensor_error("conv1.bias", zeros({channels}, Dtype::s32)), Contains("conv1: its bias is s32: expected f32"));
  CHECK_THAT(tensor_error("conv1.bias", zeros({channels + 2})), Contains("conv1: its bias has shape"));
  CHECK_THAT(with([](TensorFile& f) { f.tensors.erase("backbone.conv1.weight_scale"); }), Contains("conv1.weight_scale"));

  const auto json_error = [&](const std::string& from, const std::string& to) {
    return with([&](TensorFile& f) {
      std::string& text = f.metadata["graph.backbone"];
      const auto at = text.find(from);
      REQUIRE(at != std::string::npos);
      text.replace(at, from.size(), to);
    });
  };
  CHECK_THAT(json_error("\"dtype\":\"s8\"", "\"dtype\":\"s4\""), Contains("codes of dtype 's4': expected u8 or s8"));
  CHECK_THAT(json_error("\"op\":\"dynamic_conv2d\"", "\"op\":\"dynamic_warp\""), Contains("which this build does not know"));
  // The first layer's codes without their scale, or with something else for it.
  const auto input = to_dynamic(*graph, options).graph;
  const Graph::Node& quantizer = input->nodes[0];
  REQUIRE(std::string(quantizer.op->name()) == "dynamic_quantize");
  const std::string codes = std::to_string(quantizer.outputs[0]), scale = std::to_string(quantizer.outputs[1]);
  CHECK_THAT(json_error("\"outputs\":[" + codes + "," + scale + "]", "\"outputs\":[" + codes + "]"),
             Contains("which nothing before it makes") || Contains("expected 1 and 2"));
  CHECK_THAT(json_error("," + scale + "],\"op\":\"dynamic_conv2d\"", "," + codes + "],\"op\":\"dynamic_conv2d\""),
             Contains("do not come from one dynamic_quantize"));
}
