// How the heads begin decides how much of the loss reaches the layers before them.
#include "catch.hpp"
#include "models/detector.hpp"
#include "reference.hpp"

using namespace shrike;
using namespace shrike::models;

namespace {

// Root mean square norms of the first gradients of some parameters, over some seeds.
std::vector<double> gradient_norms(const DetectorConfig& config, const std::string& rule,
                                   const std::vector<std::string>& names) {
  std::vector<double> squares(names.size());
  const std::uint64_t seeds = config.head_width > 1000 ? 1 : 3;  // wide heads take long to fill
  for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
    const auto model = make_detector(config, head_init(rule));
    nn::initialize(*model, seed);
    Random random(seed, RandomStream::test);
    const Tensor image = reference::random_tensor({1, 96, 128, 3}, random);
    const Target target{tensor<float>({2, 4}, {8, 8, 60, 50, 70, 20, 120, 90}), tensor<std::int32_t>({2}, {1, 2})};
    backward(model->losses(image, {{96, 128}}, {target}, seed, 0).total);
    for (const auto& [name, parameter] : nn::named_parameters(*model)) {
      for (std::size_t i = 0; i < names.size(); ++i) {
        if (name != names[i]) continue;
        for (const float g : parameter.grad().to_vector<float>()) squares[i] += static_cast<double>(g) * static_cast<double>(g);
      }
    }
  }
  for (double& square : squares) {
    REQUIRE(square > 0);
    square = std::sqrt(square / static_cast<double>(seeds));
  }
  return squares;
}

double deviation(const Tensor& tensor) {
  double square = 0;
  for (const float value : tensor.to_vector<float>()) square += static_cast<double>(value) * static_cast<double>(value);
  return std::sqrt(square / static_cast<double>(tensor.numel()));
}

}  // namespace

TEST_CASE("with He's start as much of the loss reaches head and backbone as with torchvision's, with any width of the head") {
  DetectorConfig config;
  config.backbone = "vgg11";
  config.width = 8;
  config.classes = {"a", "b", "c"};
  config.anchor_sizes = {16, 32, 64};
  config.roi_size = 3;
  config.head_width = GENERATE(512, 4096);
  const std::vector<std::string> names = {"backbone.6.weight", "backbone.16.weight", "roi_heads.box_head.fc6.weight"};
  const auto he = gradient_norms(config, "he", names), torchvision = gradient_norms(config, "pytorch", names);
  for (std::size_t i = 0; i < names.size(); ++i) {
    INFO(names[i] << ", head " << config.head_width << ": " << he[i] << " and " << torchvision[i]);
    CHECK(he[i] > 0.8 * torchvision[i]);
    if (i < 2) CHECK(he[i] > torchvision[i]);
  }
}

TEST_CASE("the rules are what they say") {
  DetectorConfig config;
  config.width = 8;
  config.head_width = 300;
  config.classes = {"a", "b", "c"};
  const auto state = [&](const std::string& rule) {
    const auto model = make_detector(config, head_init(rule));
    nn::initialize(*model, 4);
    std::map<std::string, Tensor> result;
    for (const auto& [name, tensor] : nn::named_parameters(*model)) result[name] = tensor;
    return result;
  };
  const std::string predictor = "roi_heads.box_predictor.";
  const auto he = state("he"), paper = state("paper"), pytorch = state("pytorch");
  for (const auto* rule : {&he, &paper, &pytorch}) {
    CHECK(deviation(rule->at("rpn.head.cls_logits.weight")) == Approx(0.01).epsilon(0.1));
    CHECK(deviation(rule->at("rpn.head.cls_logits.bias")) == 0);
  }
  for (const auto* rule : {&he, &paper}) {
    CHECK(deviation(rule->at("roi_heads.box_head.fc7.weight")) == Approx(std::sqrt(2.0 / 300)).epsilon(0.05));
    CHECK(deviation(rule->at(predictor + "cls_score.weight")) == Approx(0.01).epsilon(0.1));
    CHECK(deviation(rule->at(predictor + "cls_score.bias")) == 0);
  }
  CHECK(deviation(he.at(predictor + "bbox_pred.weight")) == Approx(0.01).epsilon(0.1));
  CHECK(deviation(paper.at(predictor + "bbox_pred.weight")) == Approx(0.001).epsilon(0.1));
  for (const char* name :
       {"box_head.fc7.weight", "box_head.fc7.bias", "box_predictor.cls_score.weight", "box_predictor.bbox_pred.bias"}) {
    INFO(name);
    // Uniform in +-1 / sqrt(300).
    CHECK(deviation(pytorch.at(std::string("roi_heads.") + name)) == Approx(1 / std::sqrt(3.0 * 300)).epsilon(0.3));
  }
  CHECK_THROWS_WITH(head_init("xavier"), Catch::Contains("init 'xavier'"));
}
