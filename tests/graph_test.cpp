// Graphs as text and in files; what is wrong with a file is named.
#include "catch.hpp"
#include "error_of.hpp"
#include "models/detector.hpp"
#include "reference.hpp"
#include "shrike/graph/fuse.hpp"
#include "shrike/graph/save.hpp"
#include "shrike/quant/convert.hpp"
#include "shrike/quant/dynamic.hpp"
#include "temporary_folder.hpp"

using namespace shrike;
using reference::random_tensor;

namespace {

struct Convolutions : nn::Sequential {
  Convolutions() {
    Conv2dOptions options;
    options.padding = 1;
    options.relu = true;
    add("a", std::make_shared<nn::Conv2d>(3, 5, 3, options));
    add("b", std::make_shared<nn::Conv2d>(5, 4, 3, options));
    nn::initialize(*this, 1);
  }
};

// One int8 graph in a file in memory.
TensorFile quantized_file(const Tensor& x) {
  const NoGrad no_grad;
  Convolutions net;
  quant::PrepareOptions options;
  options.quantize_outputs = true;
  const auto prepared = quant::prepare(*trace(net, {x}), options);
  nn::train(*prepared, false);
  prepared->begin_calibration();
  prepared->forward({x});
  prepared->end_calibration();
  TensorFile file;
  file.name = "model.safetensors";
  write_graph(*quant::convert(*prepared).graph, "backbone", file);
  return file;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const auto at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

}  // namespace

TEST_CASE("every graph comes back from its file as it was") {
  Random random(1, RandomStream::test);
  const Tensor x = random_tensor({1, 48, 64, 3}, random);
  models::DetectorConfig config;
  config.backbone = "resnet18";
  config.width = 4;
  config.batch_norm = true;
  config.head_width = 8;
  config.classes = {"a"};
  const auto model = models::make_detector(config);
  nn::initialize(*model, 2);
  const auto plain = trace(*model->backbone(), {x});
  const auto fused = trace(*model->backbone(), {x});
  fuse(*fused);
  const auto narrow = quant::quantize_weights(*fused, quant::WeightType::s8).graph;
  const auto half = quant::quantize_weights(*fused, quant::WeightType::f16).graph;
  const auto dynamic = quant::to_dynamic(*fused).graph;
  const TemporaryFolder folder;
  const std::string path = (folder.path() / "graph.safetensors").string();
  for (const auto& graph : {plain, fused, narrow, half, dynamic}) {
    TensorFile file;
    write_graph(*graph, "backbone", file);
    save_safetensors(path, file);
    const auto loaded = read_graph(load_safetensors(path), "backbone");
    CHECK(loaded->to_string() == graph->to_string());
    CHECK(loaded->to_dot() == graph->to_dot());
    CHECK(loaded->buffers == graph->buffers);
    CHECK(loaded->forward({x})[0].to_vector<float>() == graph->forward({x})[0].to_vector<float>());
  }
  const TensorFile file = quantized_file(random_tensor({1, 9, 7, 3}, random));
  save_safetensors(path, file);
  const auto before = read_graph(file, "backbone"), after = read_graph(load_safetensors(path), "backbone");
  CHECK(after->to_string() == before->to_string());
  CHECK(graph_parts(file) == std::vector<std::string>{"backbone"});
  const Tensor small = random_tensor({2, 5, 4, 3}, random);
  CHECK(after->forward({small})[0].to_vector<std::uint8_t>() == before->forward({small})[0].to_vector<std::uint8_t>());
  for (const auto& [value, code] : before->codes) CHECK(after->codes.at(value).scale == code.scale);
  CHECK(before->to_string().find(":u8*") != std::string::npos);
  CHECK(before->to_dot().find("label=\"s8*") != std::string::npos);
}

TEST_CASE("what is wrong with a file is named") {
  Random random(2, RandomStream::test);
  const TensorFile good = quantized_file(random_tensor({1, 9, 7, 3}, random));
  const std::string key = "graph.backbone";
  const auto error = [&](const std::string& from, const std::string& to) {
    TensorFile file = good;
    file.metadata[key] = replaced(file.metadata[key], from, to);
    return error_of([&] { read_graph(file, "backbone"); });
  };
  const std::string start = "model.safetensors: the graph backbone";
  CHECK(error("\"version\":1", "\"version\":2") == start + " is of version 2: this build reads up to 1");
  CHECK(error("\"op\":\"quantize\"", "\"op\":\"warp\"") ==
        start + " has the operation \"warp\", which this build does not know");
  CHECK(error("\"scale\":", "\"scale\":-").find(": expected a positive number") != std::string::npos);
  CHECK(error("\"scale\":", "\"scale\":0,\"x\":").find(" is 0: expected a positive number") != std::string::npos);
  CHECK(error("\"scale\":", "\"size\":") == start + " lacks scale");
  CHECK(error("\"stride\":1", "\"stride\":\"one\"").find("the field stride is \"one\": of the wrong type") !=
        std::string::npos);
  CHECK(error("\"stride\":1", "\"stride\":1,\"strange\":2").find("fields: this build knows") != std::string::npos);
  CHECK(error("{", "{{").find(" is not JSON") != std::string::npos);
  CHECK(error("\"inputs\":[0]", "\"inputs\":[77]").find("reads %0, which nothing before it makes") != std::string::npos);
  CHECK(error("{", "{\"a\":[[[[[[[[[[[1]]]]]]]]]]],") == start + " is nested too deep");
  CHECK(error_of([&] { read_graph(good, "rpn"); }) == "model.safetensors: there is no graph \"rpn\" in it");

  const auto tensor_error = [&](const std::string& name, const Tensor& tensor) {
    TensorFile file = good;
    REQUIRE(file.tensors.contains("backbone." + name));
    if (tensor.defined()) {
      file.tensors["backbone." + name] = tensor;
    } else {
      file.tensors.erase("backbone." + name);
    }
    return error_of([&] { read_graph(file, "backbone"); });
  };
  CHECK(tensor_error("a.multiplier", full({5}, 0.0f)) == start + ": a: its multiplier holds 0: expected positive numbers");
  CHECK(tensor_error("a.multiplier", full({4}, 1.0f)) == start + ": a: its multiplier has shape [4]: expected [5]");
  CHECK(tensor_error("a.multiplier", {}) == start + " needs the tensor \"backbone.a.multiplier\", which the file lacks");
  CHECK(tensor_error("b.bias", full({4}, 1.0f)) == start + ": b: its bias is f32: expected s32");
  CHECK(tensor_error("b.weight", Tensor({4, 5}, Dtype::s8)) == start + ": b: its weight has shape [4, 5]");
}

TEST_CASE("dead nodes and their constants go") {
  Random random(3, RandomStream::test);
  Convolutions net;
  const Tensor x = random_tensor({1, 5, 5, 3}, random);
  const auto graph = trace(net, {x});
  const auto value = graph->nodes[0].outputs[0];
  graph->outputs = {value};
  CHECK(graph->remove_dead() == 1);
  CHECK(graph->constants.size() == 2);
  CHECK(graph->forward({x})[0].shape() == Shape{1, 5, 5, 5});
}
