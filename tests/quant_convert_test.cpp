// A converted network against the same run with fake-quantize, layer by layer, on random networks and the detector's parts.
#include <cmath>

#include "catch.hpp"
#include "quantized_detector.hpp"
#include "shrike/graph/fuse.hpp"
#include "shrike/ops/quantize.hpp"
#include "shrike/ops/softmax.hpp"
#include "shrike/quant/convert.hpp"

using namespace shrike;
using namespace shrike::quant;
using reference::random_tensor;

namespace {

// Every value that a graph computes, by number.
template <class G> struct Recorder : G {
  std::map<Graph::Value, Tensor> seen;
  void computed(Graph::Value value, const Tensor& tensor) override { seen[value] = tensor; }
};

std::map<Graph::Value, Tensor> run(const Graph& graph, const Tensors& in, Tensors& out) {
  const NoGrad no_grad;
  Recorder<Graph> copy;
  copy.share(graph);
  out = copy.forward(in);
  return copy.seen;
}

Tensor as_float(const Tensor& tensor, const Graph& graph, Graph::Value value) {
  if (tensor.dtype() == Dtype::f32) return tensor;
  return dequantize(tensor, full({1}, graph.codes.at(value).scale));
}

void calibrate(Prepared& prepared, const std::vector<Tensors>& batches) {
  const NoGrad no_grad;
  nn::train(prepared, false);
  prepared.begin_calibration();
  for (const Tensors& batch : batches) prepared.forward(batch);
  prepared.end_calibration();
}

// The greatest difference between the two, in steps of the value's scale, over all values that are codes in `converted`.
double steps_apart(const Graph& prepared, const Graph& converted, const Tensors& fake_in, const Tensors& int8_in,
                   std::size_t& compared) {
  Tensors fake_out, int8_out;
  const auto fake = run(prepared, fake_in, fake_out);
  const auto codes = run(converted, int8_in, int8_out);
  double worst = 0;
  for (const auto& [value, tensor] : codes) {
    if (!converted.codes.contains(value) || !fake.contains(value)) continue;
    const double step = converted.codes.at(value).scale;
    const auto a = reference::doubles(as_float(tensor, converted, value)), b = reference::doubles(fake.at(value));
    REQUIRE(a.size() == b.size());
    for (std::size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(a[i] - b[i]) / step);
    compared += a.size();
  }
  return worst;
}

bool has_float_between(const Graph& graph, const std::set<std::string>& allowed) {
  for (const std::string& name : float_values(graph, true)) {
    if (!allowed.contains(name)) return true;
  }
  return false;
}

}  // namespace

TEST_CASE("converted backbones, residual blocks included, are within a step of fake-quantize in every layer") {
  Random random(1, RandomStream::test);
  for (const std::string name : {"vgg11", "resnet18"}) {
    const auto model = models::make_detector(quantized::small_detector(name));
    nn::initialize(*model, 2);
    const auto graph = trace(*model->backbone(), {random_tensor({1, 48, 48, 3}, random)});
    fuse(*graph);
    PrepareOptions options;
    options.prefix = "backbone";
    options.quantize_outputs = true;
    if (name == "vgg11") options.weights.choice = RangeChoice::mse;
    const auto prepared = prepare(*graph, options);
    calibrate(*prepared, {{random_tensor({2, 48, 64, 3}, random)}, {random_tensor({1, 64, 48, 3}, random)}});
    const Converted converted = convert(*prepared);
    INFO(converted.report.to_string());
    CHECK(converted.graph->forward({random_tensor({1, 33, 50, 3}, random)})[0].dtype() == Dtype::u8);
    CHECK_FALSE(has_float_between(*converted.graph, {"input"}));
    CHECK(float_values(*converted.graph).size() == 1);  // the image alone
    std::size_t layers = 0;
    for (const auto& line : converted.report.lines) layers += line.what.starts_with("int8");
    CHECK(layers == prepared->weights.size());
    for (const Shape& shape : {Shape{1, 48, 64, 3}, Shape{2, 33, 51, 3}}) {
      const Tensor x = random_tensor(shape, random);
      std::size_t compared = 0;
      CHECK(steps_apart(*prepared, *converted.graph, {x}, {x}, compared) <= 1.001);
      CHECK(compared > 1000);
    }
  }
}

TEST_CASE("codes go from the backbone through both heads without a float between") {
  Random random(2, RandomStream::test);
  for (const std::string name : {"vgg11", "resnet18"}) {
    auto config = quantized::small_detector(name);
    const auto model = models::make_detector(config);
    nn::initialize(*model, 3);
    const Tensor image = random_tensor({1, 64, 80, 3}, random);
    const auto backbone_graph = trace(*model->backbone(), {image});
    fuse(*backbone_graph);
    PrepareOptions options;
    options.quantize_outputs = true;
    const auto backbone = prepare(*backbone_graph, options);
    calibrate(*backbone, {{image}});
    const Port port = backbone->output_port(0);
    CHECK(port.dtype == Dtype::u8);
    CHECK(port.scale.item() > 0);

    const NoGrad no_grad;
    const Tensor map = backbone->forward({image})[0];
    const Tensor rois = random_tensor({6, 3, 3, map.size(3)}, random, 0.0f, 255 * port.scale.item());
    const auto codes = quantize(rois, port.scale, Dtype::u8);
    options = {};
    options.inputs = {port};
    struct Part {
      nn::ModulePtr module;
      Tensor fake, codes;
    };
    for (const Part& part : {Part{model->rpn_head(), map, quantize(map, port.scale, Dtype::u8)},
                             Part{model->box_head(), dequantize(codes, port.scale), codes}}) {
      const auto graph = trace(*part.module, {part.fake});
      fuse(*graph);
      const auto prepared = prepare(*graph, options);
      calibrate(*prepared, {{part.fake}});
      CHECK(prepared->float_layers.size() == 2);
      const Converted converted = convert(*prepared);
      INFO(converted.report.to_string());
      CHECK_FALSE(has_float_between(*converted.graph, {}));
      Tensors fake = prepared->forward({part.fake}), int8 = converted.graph->forward({part.codes});
      for (std::size_t i = 0; i < 2; ++i) {
        CHECK(int8[i].dtype() == Dtype::f32);
        CHECK(reference::difference(int8[i], reference::doubles(fake[i])) < 2e-3);
      }
      CHECK_THROWS_AS(converted.graph->forward({part.fake}), Error);
      // Any number of regions.
      if (part.module == model->box_head()) {
        const Tensor none({0, 3, 3, map.size(3)}, Dtype::u8);
        CHECK(converted.graph->forward({none})[0].shape() == Shape{0, 3});
      }
    }
  }
}

TEST_CASE("layers kept in float are listed, with their reformats, and compute the same") {
  Random random(3, RandomStream::test);
  const auto model = models::make_detector(quantized::small_detector("vgg11"));
  nn::initialize(*model, 4);
  const Tensor x = random_tensor({1, 48, 48, 3}, random);
  const auto graph = trace(*model->backbone(), {x});
  fuse(*graph);
  PrepareOptions options;
  options.keep_float = {"11"};
  options.first_layer_float = true;
  const auto prepared = prepare(*graph, options);
  calibrate(*prepared, {{x}});
  const Converted converted = convert(*prepared);
  const std::string report = converted.report.to_string();
  INFO(report << converted.graph->to_string());
  CHECK(report.find("float: first layer") != std::string::npos);
  CHECK(report.find("float: keep_float 11") != std::string::npos);
  CHECK(report.find("float: predictor") != std::string::npos);
  CHECK(report.find("int8 u8 -> f32") != std::string::npos);  // straight to float, as its reader needs
  CHECK(report.find("reformat f32 -> u8") != std::string::npos);
  CHECK(has_float_between(*converted.graph, {"input"}));
  const auto expected = reference::doubles(prepared->forward({x})[0]);
  double reach = 0;
  for (const double v : expected) reach = std::max(reach, std::abs(v));
  const auto found = reference::doubles(converted.graph->forward({x})[0]);
  for (std::size_t i = 0; i < found.size(); ++i) REQUIRE(std::abs(found[i] - expected[i]) < 0.02 * reach);
}

TEST_CASE("channels of no or tiny weights keep their bias") {
  Random random(4, RandomStream::test);
  nn::Sequential net;
  auto conv = std::make_shared<nn::Conv2d>(4, 3, 3);
  nn::initialize(*conv, 1);
  const std::int64_t channel = conv->weight.numel() / 3;
  for (std::int64_t i = 0; i < channel; ++i) {
    conv->weight.data<float>()[i] = 0;
    conv->weight.data<float>()[channel + i] *= 1e-9f;
  }
  conv->bias.copy_from(tensor<float>({3}, {0.75f, -3.0f, 0.1f}));
  net.add("conv", conv);
  const Tensor x = random_tensor({1, 7, 6, 4}, random);
  const auto prepared = prepare(*trace(net, {x}), [] {
    PrepareOptions options;
    options.predictors_float = false;
    return options;
  }());
  calibrate(*prepared, {{x}});
  const Converted converted = convert(*prepared);
  CHECK(reference::difference(converted.graph->forward({x})[0], reference::doubles(prepared->forward({x})[0])) < 1e-4);
}

TEST_CASE("weight-only: weights in f16 or s8, computed in float") {
  Random random(5, RandomStream::test);
  const auto model = models::make_detector(quantized::small_detector("resnet18"));
  nn::initialize(*model, 5);
  const Tensor x = random_tensor({1, 48, 48, 3}, random);
  const auto graph = trace(*model->backbone(), {x});
  fuse(*graph);
  const auto expected = reference::doubles(graph->forward({x})[0]);
  double reach = 0;
  for (const double v : expected) reach = std::max(reach, std::abs(v));
  for (const WeightType type : {WeightType::f16, WeightType::s8}) {
    const Converted narrow = quantize_weights(*graph, type, {"conv1"});
    CHECK(narrow.report.to_string().find("conv1                  float: keep_float conv1") != std::string::npos);
    const Tensor y = narrow.graph->forward({x})[0];
    const auto found = reference::doubles(y);
    double worst = 0;
    for (std::size_t i = 0; i < found.size(); ++i) worst = std::max(worst, std::abs(found[i] - expected[i]));
    CHECK(worst < (type == WeightType::f16 ? 0.002 : 0.08) * reach);
    CHECK(worst > 0);
    const std::size_t nodes = narrow.graph->nodes.size();
    expand_constants(*narrow.graph);
    CHECK(narrow.graph->nodes.size() < nodes);
    CHECK(narrow.graph->forward({x})[0].to_vector<float>() == y.to_vector<float>());
  }
}

TEST_CASE("training moves observers, evaluation and freezing do not; learned scales get gradients") {
  Random random(6, RandomStream::test);
  const auto model = models::make_detector(quantized::small_detector("resnet18"));
  nn::initialize(*model, 6);
  const auto graph = trace(*model->backbone(), {random_tensor({1, 48, 48, 3}, random)});
  fuse(*graph);
  for (const bool learned : {false, true}) {
    PrepareOptions options;
    options.quantize_outputs = true;
    options.observer.choice = RangeChoice::moving_average;
    options.observer.momentum = 0.5;
    options.freeze_after = 3;
    options.learned = learned;
    const auto prepared = prepare(*graph, options);
    CHECK_THROWS_AS(convert(*prepared), Error);
    const auto scales = [&] {
      std::vector<float> all;
      for (const auto& a : prepared->activations) all.push_back(prepared->constants.at(a.scale).item());
      return all;
    };
    nn::train(*prepared, true);
    std::vector<std::vector<float>> history;
    for (int step = 0; step < 5; ++step) {
      const Tensor y = prepared->forward({random_tensor({1, 48, 48, 3}, random, -1.0f - static_cast<float>(step), 1.0f)})[0];
      backward({y}, {full(y.shape(), 1.0f)});
      history.push_back(scales());
    }
    CHECK(std::count(history[0].begin(), history[0].end(), 0.0f) == 0);
    CHECK((history[1] == history[0]) == learned);
    CHECK((history[2] == history[1]) == learned);
    CHECK(history[3] == history[2]);  // frozen
    nn::train(*prepared, false);
    prepared->set_steps(0);
    prepared->forward({random_tensor({1, 48, 48, 3}, random, -9.0f, 9.0f)});
    CHECK(scales() == history[4]);
    std::size_t with_gradient = 0;
    for (const auto& [name, tensor] : nn::named_parameters(*prepared)) {
      INFO(name);
      CHECK(tensor.grad().defined());
      with_gradient += name.ends_with("_scale");
      tensor.clear_grad();
    }
    CHECK(with_gradient == (learned ? prepared->activations.size() + prepared->weights.size() : 0));
    CHECK(convert(*prepared).graph->forward({random_tensor({1, 48, 48, 3}, random)})[0].dtype() == Dtype::u8);
  }
}
