// Graphs in halves: what became of each node, and what no longer is a float.
#include "halves.hpp"
#include "models/quantized.hpp"
#include "quantized_detector.hpp"
#include "shrike/graph/save.hpp"

using namespace shrike;
using namespace shrike::models;

namespace {

std::map<std::string, int> operations(const Graph& graph) {
  std::map<std::string, int> count;
  for (const Graph::Node& node : graph.nodes) ++count[node.op->name()];
  return count;
}

FusedDetector fused_detector(const std::string& backbone, const std::string& roi) {
  auto config = quantized::small_detector(backbone);
  config.roi = roi;
  const auto model = make_detector(config);
  nn::initialize(*model, 3);
  nn::train(*model, false);
  return fuse_detector(*model);
}

}  // namespace

TEST_CASE("from the narrowed image to the predictors no tensor of a detector in halves is float") {
  for (const char* backbone : {"vgg11", "resnet18"}) {
    INFO(backbone);
    const FusedDetector fused = fused_detector(backbone, "align");
    const ConvertedDetector half = half_detector(fused);
    for (std::size_t i = 0; i < 3; ++i) {
      const Graph& graph = *half.parts[i];
      INFO(graph.to_string());
      const auto before = operations(*fused.parts[i]), after = operations(graph);
      CHECK(after.count("conv2d") + after.count("linear") + after.count("widen") == 0);
      for (const auto& [op, layer] : {std::pair("conv2d", "half_conv2d"), std::pair("linear", "half_linear")}) {
        CHECK((before.contains(op) ? before.at(op) : 0) == (after.contains(layer) ? after.at(layer) : 0));
      }
      CHECK(quant::float_values(graph, true) == (i == 0 ? std::vector<std::string>{"input"} : std::vector<std::string>()));
      CHECK(quant::float_values(graph).size() == (i == 0 ? 1 : 2));
      for (const auto& [value, tensor] : graph.constants) {
        const std::string name = graph.value_name(value);
        INFO(name);
        CHECK(tensor.dtype() == (name.ends_with("bias") ? Dtype::f32 : Dtype::f16));
      }
    }
    CHECK(operations(*half.parts[0]).at("narrow") == 1);
    // Every value has the type that the graph says.
    Random random(1, RandomStream::test);
    const Tensors maps = half.parts[0]->forward({reference::random_tensor({1, 64, 96, 3}, random)});
    CHECK(maps[0].dtype() == Dtype::f16);
    for (const Tensor& y : half.parts[1]->forward(maps)) CHECK(y.dtype() == Dtype::f32);
    const std::string report = half.report.to_string();
    CHECK_THAT(report, Catch::Matchers::Contains("backbone.input") && Catch::Matchers::Contains("reformat f32 -> f16") &&
                           Catch::Matchers::Contains("half f16 -> f32"));
    CHECK((report.find("half f16 + f16 -> f16") != std::string::npos) == (std::string(backbone) == "resnet18"));
  }
}

TEST_CASE("layers of a detector in halves can stay float") {
  const FusedDetector fused = fused_detector("vgg11", "pool");
  const ConvertedDetector half = half_detector(fused, {"backbone.0", "roi_heads.box_head.*"});
  CHECK(operations(*half.parts[0]).at("conv2d") == 1);
  CHECK(operations(*half.parts[2]).at("linear") == 2);
  CHECK(operations(*half.parts[2]).at("widen") == 1);
  CHECK_THAT(half.report.to_string(), Catch::Matchers::Contains("float: keep_float backbone.0") &&
                                          Catch::Matchers::Contains("float: keep_float roi_heads.box_head.*"));
  Random random(2, RandomStream::test);
  const Tensor image = reference::random_tensor({1, 64, 64, 3}, random);
  const Tensor map = half.parts[0]->forward({image})[0];
  CHECK(reference::difference(widen(map), reference::doubles(fused.parts[0]->forward({image})[0])) < 0.01);
}

TEST_CASE("an operation without a half form is computed in float between halves") {
  struct Net : nn::Module {
    nn::Conv2d first{3, 8, 3, {}, true}, second{8, 4, 1, {}, true};
    Tensors forward(const Tensors& in) override { return {second(avg_pool2d(first(in[0])))}; }
    void visit(nn::Members& members) override {
      members.child("first", first);
      members.child("second", second);
    }
  } net;
  nn::initialize(net, 1);
  Random random(3, RandomStream::test);
  const Tensor x = reference::random_tensor({1, 8, 10, 3}, random);
  const auto float_graph = trace(net, {x});
  const auto half = quant::to_half(*float_graph);
  CHECK_THAT(half.report.to_string(), Catch::Matchers::Contains("avg_pool2d has no half form"));
  const auto count = operations(*half.graph);
  CHECK((count.at("narrow") == 2 && count.at("avg_pool2d") == 1 && count.at("half_conv2d") == 2));
  const Tensor y = half.graph->forward({x})[0];
  CHECK(y.dtype() == Dtype::f32);
  CHECK(reference::difference(y, reference::doubles(float_graph->forward({x})[0])) < 0.005);
}

TEST_CASE("a detector in halves goes through a file, and gives the same halves") {
  const ConvertedDetector half = half_detector(fused_detector("resnet18", "align"));
  TensorFile file;
  write_parts(half.parts, file);
  const Parts<Graph> read = read_parts(file);
  Random random(4, RandomStream::test);
  const Tensor image = reference::random_tensor({1, 64, 80, 3}, random);
  CHECK(halves::same(read[0]->forward({image})[0], half.parts[0]->forward({image})[0]));
  CHECK(read[1]->to_string() == half.parts[1]->to_string());
}
