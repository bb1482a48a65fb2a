// Bias correction on coarsely quantized graphs: the mean of every channel of every layer comes back to the float one.
#include "models/bias_correction.hpp"

#include "catch.hpp"
#include "error_of.hpp"
#include "quantized_detector.hpp"

using namespace shrike;
using namespace shrike::models;
using namespace shrike::quant;
using reference::random_tensor;

namespace {

// The greatest |float mean - quantized mean| of a channel, over all layers.
double worst_mean(const LayerSums& floats, const LayerSums& quantized) {
  REQUIRE(floats.sums.size() == quantized.sums.size());
  double worst = 0;
  for (const auto& [value, sum] : floats.sums) {
    const LayerSums::Sum& other = quantized.sums.at(value);
    REQUIRE(sum.rows == other.rows);
    for (std::size_t k = 0; k < sum.channels.size(); ++k) worst = std::max(worst, std::abs(sum.mean(k) - other.mean(k)));
  }
  return worst;
}

// Steps so wide that a handful of codes is left.
void coarsen(Prepared& prepared, float factor) {
  for (const auto& activation : prepared.activations) {
    const Tensor& scale = prepared.constants.at(activation.scale);
    scale.copy_from(full({1}, scale.item() * factor, scale.device()));
  }
}

DetectorConfig small(const std::string& backbone) {
  DetectorConfig config = quantized::small_detector(backbone);
  config.anchor_sizes = {16, 32};
  config.test_pre_nms = 60;
  config.test_post_nms = 20;
  return config;
}

}  // namespace

TEST_CASE("sums of a layer are those of its output before the ReLU, in a whole graph and alone") {
  Random random(1, RandomStream::test);
  const NoGrad no_grad;
  Graph graph;
  graph.inputs = {0};
  graph.outputs = {5};
  graph.next_value = 6;
  Conv2d conv;
  conv.padding = 1;
  conv.relu = true;
  const Tensor w1 = random_tensor({5, 3, 3, 2}, random), w2 = random_tensor({3, 1, 1, 5}, random),
               b = random_tensor({5}, random);
  graph.constants = {{1, w1}, {2, b}, {4, w2}};
  graph.names = {{1, "a.weight"}, {2, "a.bias"}, {4, "b.weight"}};
  graph.nodes = {{std::make_shared<const Conv2d>(conv), {0, 1, 2}, {3}},
                 {std::make_shared<const Conv2d>(), {3, 4, Graph::none}, {5}}};
  const Tensor x = random_tensor({2, 7, 5, 2}, random);
  Conv2d plain = conv;
  plain.relu = false;
  const auto y = reference::doubles(plain.forward({x, w1, b})[0]);
  std::vector<double> expected(5);
  for (std::size_t i = 0; i < y.size(); ++i) expected[i % 5] += 2 * y[i];

  LayerSums all(graph), one(graph, 3);
  for (LayerSums* sums : {&all, &one}) {
    sums->forward({x});
    sums->forward({x});
    CHECK(sums->sums.at(3).name == "a");
    CHECK(sums->sums.at(3).rows == 2 * 70);
    CHECK(reference::difference(sums->sums.at(3).channels, expected) < 1e-12);
  }
  CHECK(reference::difference(all.forward({x})[0], reference::doubles(graph.forward({x})[0])) == 0);
  CHECK(all.sums.size() == 2);
  CHECK(one.nodes.size() == 1);
  CHECK(error_of([&] { LayerSums(graph, 4); }).find("no conv2d or linear makes %4") != std::string::npos);
}

TEST_CASE("after the correction the means of a coarse detector are the float ones, and the float detector is as it was") {
  const std::string backbone = GENERATE("vgg11", "resnet18");
  INFO(backbone);
  const NoGrad no_grad;
  const auto model = make_detector(small(backbone));
  nn::initialize(*model, 1);
  nn::train(*model, false);
  const FusedDetector fused = fuse_detector(*model);
  std::vector<std::vector<float>> before;
  for (const auto& part : fused.parts) {
    for (const auto& [value, tensor] : part->constants) before.push_back(tensor.to_vector<float>());
  }
  PrepareOptions options;
  options.keep_float = {"*.fc7"};
  const PreparedDetector prepared = prepare_detector(fused, options);
  calibrate(prepared, quantized::random_images(3, 2));
  for (const auto& part : prepared.parts) coarsen(*part, 16);

  // What there was to correct: each part on the inputs that it would have.
  const auto measure = [&](std::size_t part) {
    LayerSums floats(*fused.parts[part]), quantized(*prepared.parts[part]);
    const auto reference = join(fused.parts, fused.options);
    for (NextImages next = quantized::random_images(3, 2); const auto batch = next();) {
      const Tensors maps = reference->forward({batch->first});
      const Tensors rounded = prepared.model->forward({batch->first});
      const Tensor rois = boxes_to_rois(reference->regions(maps, batch->first, batch->second)[0], 0);
      const auto input = [&](const Tensors& from) {
        return part == 0   ? reference->padded(batch->first)
               : part == 1 ? from[0]
                           : reference->pool(from, batch->first.size(1), rois);
      };
      floats.forward({input(maps)});
      quantized.forward({input(rounded)});
    }
    return worst_mean(floats, quantized);
  };
  std::array<double, 3> errors{};
  for (std::size_t i = 0; i < 3; ++i) errors[i] = measure(i);
  const BiasReport report = correct_biases(fused, prepared, [] { return quantized::random_images(3, 2); });
  INFO(report.to_string());
  std::size_t layers = 0;
  for (std::size_t i = 0; i < 3; ++i) {
    INFO(part_names[i] << " was off by " << errors[i]);
    const double left = measure(i);
    CHECK(errors[i] > 1e-5);
    CHECK(left < 1e-2 * errors[i]);
    for (const auto& node : fused.parts[i]->nodes) layers += dynamic_cast<const Conv2d*>(node.op.get()) != nullptr;
    for (const auto& node : fused.parts[i]->nodes) layers += dynamic_cast<const Linear*>(node.op.get()) != nullptr;
  }
  CHECK(report.lines.size() == layers);
  CHECK(report.lines.front().name == (backbone == "vgg11" ? "backbone.0" : "backbone.conv1"));
  CHECK(report.lines.back().name == "roi_heads.box_predictor.bbox_pred");

  std::size_t at = 0;
  for (const auto& part : fused.parts) {
    for (const auto& [value, tensor] : part->constants) CHECK((before[at++] == tensor.to_vector<float>()));
  }
  Random random(9, RandomStream::test);
  const Tensor image = random_tensor({1, 64, 80, 3}, random);
  CHECK(convert_detector(prepared).parts[0]->forward({image})[0].dtype() == Dtype::u8);
}

TEST_CASE("without images there is nothing to correct by") {
  const auto model = make_detector(small("vgg11"));
  nn::initialize(*model, 3);
  const FusedDetector fused = fuse_detector(*model);
  const PreparedDetector prepared = prepare_detector(fused, {});
  calibrate(prepared, quantized::random_images(1, 4));
  CHECK(error_of([&] {
          correct_biases(fused, prepared, [] { return quantized::random_images(0, 4); });
        }).find("without images") != std::string::npos);
}
