// One layer alone in int8, the noise it makes, and the choice of layers to keep in float.
#include "models/sensitivity.hpp"

#include <algorithm>
#include <set>

#include "catch.hpp"
#include "error_of.hpp"
#include "models/detector.hpp"
#include "reference.hpp"
#include "shrike/ops/pool.hpp"
#include "shrike/ops/quantize.hpp"

using namespace shrike;
using namespace shrike::quant;
using reference::random_tensor;

namespace {

using Value = Graph::Value;

bool same(const Tensor& a, const Tensor& b) { return a.shape() == b.shape() && a.to_vector<float>() == b.to_vector<float>(); }

models::NextImages images(int count, std::uint64_t seed) {
  auto random = std::make_shared<Random>(seed, RandomStream::test);
  auto left = std::make_shared<int>(count);
  return [=]() -> std::optional<std::pair<Tensor, std::vector<ImageSize>>> {
    if ((*left)-- == 0) return std::nullopt;
    return std::pair{random_tensor({1, 65, 81, 3}, *random), std::vector<ImageSize>{{65, 81}}};
  };
}

}  // namespace

TEST_CASE("one layer alone is rounded at its weights, its input before pooling, and its residual") {
  const NoGrad no_grad;
  Random random(1, RandomStream::test);
  Graph graph;
  Conv2d relu;
  relu.padding = 1;
  relu.relu = true;
  MaxPool2d pool;
  pool.kernel = pool.stride = 2;
  graph.inputs = {graph.next_value++};
  const auto constant = [&](const std::string& name, const Shape& shape) {
    return graph.add_constant(random_tensor(shape, random), name);
  };
  const auto add = [&](OpPtr op, std::vector<Value> in) {
    graph.nodes.push_back({std::move(op), std::move(in), {graph.next_value}});
    return graph.next_value++;
  };
  const Value wa = constant("a.weight", {5, 3, 3, 3}), wb = constant("b.weight", {5, 3, 3, 5}),
              wc = constant("c.weight", {5, 3, 3, 5});
  const Value a = add(std::make_shared<const Conv2d>(relu), {0, wa, Graph::none});
  const Value pooled = add(std::make_shared<const MaxPool2d>(pool), {a});
  const Value b = add(std::make_shared<const Conv2d>(relu), {pooled, wb, Graph::none});
  const Value c = add(std::make_shared<const Conv2d>(relu), {b, wc, Graph::none, pooled});
  graph.outputs = {c};

  PrepareOptions options;
  options.prefix = "part";
  options.quantize_outputs = true;
  const auto prepared = prepare(graph, options);
  const Tensor x = random_tensor({2, 9, 11, 3}, random);
  nn::train(*prepared, false);
  prepared->begin_calibration();
  prepared->forward({x});
  prepared->end_calibration();
  const auto layers = quantized_layers(*prepared);
  REQUIRE(layers.size() == 3);
  CHECK(layers[0].name == "part.a");
  CHECK(layers[2].name == "part.c");
  CHECK(layers[2].output == c);

  const auto scale = [&](const std::string& name) {
    for (const auto& activation : prepared->activations) {
      if (activation.observer.name() == name) return prepared->constants.at(activation.scale);
    }
    FAIL("no activation " << name);
    return Tensor();
  };
  const auto weight = [&](Value w) {
    return fake_quantize(graph.constants.at(w), weight_scales(graph.constants.at(w), ""), Dtype::s8);
  };
  const auto plain = [&](Value w) { return graph.constants.at(w); };
  const Tensor fa = relu.forward({x, plain(wa), Tensor()})[0], fp = pool.forward({fa})[0],
               fb = relu.forward({fp, plain(wb), Tensor()})[0];
  const auto rest = [&](const Tensor& from_b, const Tensor& from_pool) {
    return relu.forward({from_b, plain(wc), Tensor(), from_pool})[0];
  };
  const Tensor ra = relu.forward({fake_quantize(x, scale("part.input"), Dtype::s8), weight(wa), Tensor()})[0];
  const Tensor rp = pool.forward({ra})[0];
  CHECK(same(quantize_only(*prepared, a)->forward({x})[0], rest(relu.forward({rp, plain(wb), Tensor()})[0], rp)));
  const Tensor qp = fake_quantize(fp, scale("part.a"), Dtype::u8);
  CHECK(same(quantize_only(*prepared, b)->forward({x})[0], rest(relu.forward({qp, weight(wb), Tensor()})[0], fp)));
  const Tensor qb = fake_quantize(fb, scale("part.b"), Dtype::u8);
  CHECK(same(quantize_only(*prepared, c)->forward({x})[0], relu.forward({qb, weight(wc), Tensor(), qp})[0]));
  CHECK_FALSE(same(quantize_only(*prepared, c)->forward({x})[0], rest(fb, fp)));
  CHECK(error_of([&] { quantize_only(*prepared, 999); }).find("no layer makes %999") != std::string::npos);
}

TEST_CASE("the ratio of signal to noise is that of the sums of squares") {
  Random random(2, RandomStream::test);
  Sqnr ratio;
  CHECK(ratio.decibels() == HUGE_VAL);
  double signal = 0, noise = 0;
  for (int i = 0; i < 3; ++i) {
    const Tensor x = random_tensor({3, 7}, random), y = random_tensor({3, 7}, random);
    ratio.add(x, y);
    const auto a = reference::doubles(x), b = reference::doubles(y);
    for (std::size_t k = 0; k < a.size(); ++k) signal += a[k] * a[k], noise += (a[k] - b[k]) * (a[k] - b[k]);
  }
  CHECK(ratio.decibels() == Approx(10 * std::log10(signal / noise)).epsilon(1e-12));
  CHECK(ratio.noise_share() == Approx(noise / signal).epsilon(1e-12));
  Sqnr weighted;  // x^2 is 4 and 9, (x - y)^2 is 1 and 4
  weighted.add(full({1}, 2.0f), full({1}, 1.0f), 0.5);
  weighted.add(full({1}, 3.0f), full({1}, 5.0f));
  CHECK(weighted.noise_share() == Approx((0.5 * 1 + 4) / (0.5 * 4 + 9)).epsilon(1e-12));
  CHECK_THROWS_AS(ratio.add(zeros({2}), zeros({3})), Error);
}

TEST_CASE("every layer of a detector is ranked, the one with coarse steps first, and its multiply-adds are counted") {
  models::DetectorConfig config;
  config.backbone = GENERATE("vgg11", "resnet18");
  config.width = 8;
  config.batch_norm = true;
  config.head_width = 24;
  config.roi_size = 3;
  config.anchor_sizes = {16, 32};
  config.test_post_nms = 20;
  config.classes = {"a", "b"};
  const auto model = models::make_detector(config);
  nn::initialize(*model, 3);
  nn::train(*model, false);
  const models::FusedDetector fused = models::fuse_detector(*model);
  PrepareOptions options;
  options.keep_float = {"roi_heads.box_head.fc7"};
  const models::PreparedDetector prepared = models::prepare_detector(fused, options);
  models::calibrate(prepared, images(2, 4));
  // The image, which the first layer alone reads, in steps 30 times too wide.
  const auto& input = prepared.parts[0]->activations.front();
  REQUIRE(input.observer.name() == "backbone.input");
  const Tensor& scale = prepared.parts[0]->constants.at(input.scale);
  scale.copy_from(full({1}, 30 * scale.item()));

  const auto layers = models::layer_sensitivities(fused, prepared, images(2, 4));
  std::size_t expected = 0;
  for (const auto& part : prepared.parts) expected += part->weights.size();
  REQUIRE(layers.size() == expected);
  const bool vgg = config.backbone == "vgg11";
  CHECK(layers[0].layer.name == (vgg ? "backbone.0" : "backbone.conv1"));
  CHECK(layers[0].sqnr < layers[1].sqnr - 6);
  CHECK(layers[0].macs == (vgg ? 80 * 96 * 8 * 27 : 40 * 48 * 8 * 147));
  for (std::size_t i = 0; i < layers.size(); ++i) {
    INFO(layers[i].layer.name << " " << layers[i].sqnr);
    CHECK(layers[i].layer.name != "roi_heads.box_head.fc7");
    CHECK(layers[i].sqnr == Approx(-10 * std::log10(layers[i].noise_share)));
    if (i > 0) CHECK(layers[i].sqnr >= layers[i - 1].sqnr);
    if (i > 0) CHECK(layers[i].sqnr > 15);
    if (layers[i].layer.name == "rpn.head.conv.0.0") CHECK(layers[i].macs == 5 * 6 * (vgg ? 64 * 576 : 32 * 288));
  }
  CHECK(error_of([&] { models::layer_sensitivities(fused, prepared, images(0, 4)); }).find("no images") != std::string::npos);

  // With the worst one in float, the others at the scales that they had.
  const models::PreparedDetector fewer = models::keep_more_float(fused, prepared, options, {layers[0].layer.name});
  std::size_t left = 0;
  for (const auto& part : fewer.parts) left += part->weights.size();
  CHECK(left == expected - 1);
  for (const auto& activation : fewer.parts[2]->activations) {
    for (const auto& other : prepared.parts[2]->activations) {
      if (other.observer.name() != activation.observer.name()) continue;
      CHECK(fewer.parts[2]->constants.at(activation.scale).item() == prepared.parts[2]->constants.at(other.scale).item());
    }
  }
  CHECK(models::convert_detector(fewer).report.to_string().find("float: keep_float " + layers[0].layer.name) !=
        std::string::npos);
}

TEST_CASE("the noise of every layer is that in the whole detector's answers at the places that the float one looks at") {
  const NoGrad no_grad;
  models::DetectorConfig config;
  config.backbone = "vgg11";
  config.width = 8;
  config.batch_norm = true;
  config.head_width = 24;
  config.roi_size = 3;
  config.anchor_sizes = {16, 32};
  config.test_post_nms = 7;
  config.classes = {"a", "b"};
  const auto model = models::make_detector(config);
  nn::initialize(*model, 3);
  nn::train(*model, false);
  const models::FusedDetector fused = models::fuse_detector(*model);
  const models::PreparedDetector prepared = models::prepare_detector(fused, {});
  models::calibrate(prepared, images(2, 4));

  using reference::Doubles;
  struct Answer {
    Doubles objectness, anchor_offsets, class_logits, region_offsets;
  };
  const auto plain = models::join(fused.parts, fused.options);
  // The float detector's regions, and the anchors that it holds to be objects most.
  const auto answer = [&](models::FasterRcnn& detector, const Tensor& image, const std::vector<ImageSize>& size) {
    const Tensors float_maps = plain->forward({image});
    const Doubles float_logits = reference::doubles(plain->rpn_head()->forward(float_maps)[0]);
    std::vector<std::size_t> anchors(float_logits.size());
    for (std::size_t i = 0; i < anchors.size(); ++i) anchors[i] = i;
    std::stable_sort(anchors.begin(), anchors.end(),
                     [&](std::size_t a, std::size_t b) { return float_logits[a] > float_logits[b]; });
    anchors.resize(7);
    const Tensor rois = boxes_to_rois(plain->regions(float_maps, image, size)[0], 0);

    const Tensors maps = detector.forward({image});
    const Tensors rpn = detector.rpn_head()->forward(maps);
    const Tensors head = detector.box_head()->forward({detector.pool(maps, image.size(1), rois)});
    const Doubles logits = reference::doubles(rpn[0]), offsets = reference::doubles(rpn[1]);
    Answer result{{}, {}, reference::doubles(head[0]), reference::doubles(head[1])};
    for (const std::size_t i : anchors) {
      result.objectness.push_back(logits[i]);
      for (std::size_t k = 0; k < 4; ++k) result.anchor_offsets.push_back(offsets[4 * i + k]);
    }
    for (std::size_t i = 0; i < result.region_offsets.size(); ++i) result.region_offsets[i] /= i % 4 < 2 ? 10 : 5;
    return result;
  };
  const auto layers = models::layer_sensitivities(fused, prepared, images(2, 9));
  std::set<std::size_t> parts;
  for (const auto& layer : layers) {
    parts.insert(layer.part);
    const auto with = models::quantize_only(fused, prepared, layer);
    double signal[2] = {}, noise[2] = {};  // of log-odds and of offsets
    for (auto next = images(2, 9); const auto batch = next();) {
      const Answer x = answer(*plain, batch->first, batch->second), y = answer(*with, batch->first, batch->second);
      const auto add = [&](int kind, const Doubles& a, const Doubles& b) {
        REQUIRE(!a.empty());
        for (std::size_t i = 0; i < a.size(); ++i) {
          signal[kind] += a[i] * a[i] / static_cast<double>(a.size());
          noise[kind] += (a[i] - b[i]) * (a[i] - b[i]) / static_cast<double>(a.size());
        }
      };
      add(0, x.objectness, y.objectness);
      add(0, x.class_logits, y.class_logits);
      add(1, x.anchor_offsets, y.anchor_offsets);
      add(1, x.region_offsets, y.region_offsets);
    }
    INFO(layer.layer.name);
    CHECK(layer.noise_share == Approx((noise[0] / signal[0] + noise[1] / signal[1]) / 2).epsilon(1e-4));
    CHECK(layer.noise_share > 0);
  }
  CHECK(parts.size() == 3);
}

TEST_CASE("a loss within its error does not put a layer first") {
  // The second loses most for its multiply-adds, but not more than chance; the third has the noise.
  const std::vector<Candidate> layers = {{10, 0.010, 0.004, 0.1}, {10, 0.020, 0.021, 0.01}, {10, -0.001, 0.002, 0.3}};
  std::vector<std::vector<std::size_t>> asked;
  const FloatChoice all = choose_float(layers, 2, [&](const std::vector<std::size_t>& kept) {
    asked.push_back(kept);
    return 0.0;
  });
  CHECK_FALSE(all.met);
  REQUIRE(asked.size() == 4);
  CHECK(asked.back() == std::vector<std::size_t>{0, 2, 1});
}

TEST_CASE("layers are kept in float by what they gain for their cost, until it is enough, and no more than that") {
  const double nan = NAN;
  // Losses that add up; the last two are known by their noise alone, and one of these is harmless.
  const std::vector<Candidate> layers = {
      {100, 0.02, 0, 0.5}, {10, 0.01, 0, 0.1}, {1, -0.001, 0, 0.2}, {5, nan, 0, 0.04}, {50, nan, 0, 0.01}};
  const std::vector<double> losses = {0.02, 0.01, 0, 0.004, 0.001};
  int calls = 0;
  const auto score = [&](const std::vector<std::size_t>& kept) {
    ++calls;
    double value = 0.9;
    for (std::size_t i = 0; i < losses.size(); ++i) {
      if (std::find(kept.begin(), kept.end(), i) == kept.end()) value -= losses[i];
    }
    return value;
  };
  using Kept = std::vector<std::size_t>;
  const auto choose = [&](double max_drop) {
    calls = 0;
    return choose_float(layers, 0.9 - max_drop - 1e-9, score);
  };
  CHECK(choose(0.05).kept.empty());
  CHECK(calls == 1);
  CHECK(choose(0.03).kept == Kept{1});
  CHECK(choose(0.015).kept == Kept{0});  // with 1 first, and then without it: 0 alone is enough
  CHECK(choose(0.005).kept == Kept{1, 0});
  // 2 comes before 3, for its noise; it turns out to be of no use, and goes again.
  CHECK(choose(0.001).kept == Kept{1, 0, 3});
  CHECK(choose(0.001).met);
  CHECK(choose(0.001).score == Approx(0.899));
  CHECK(calls <= 11);
  const FloatChoice never = choose(-0.01);
  CHECK_FALSE(never.met);
  CHECK(never.kept.size() == 5);
  CHECK(never.score == Approx(0.9));
}
