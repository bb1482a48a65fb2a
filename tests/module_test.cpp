// Modules: names, initial values, modes.
#include <cmath>
#include <set>

#include "catch.hpp"
#include "models/detector.hpp"

using namespace shrike;

TEST_CASE("parameters have torchvision's names") {
  models::DetectorConfig config;
  config.width = 1;
  config.classes = {"a"};
  config.head_width = 8;
  std::set<std::string> names;
  for (const auto& [name, tensor] : nn::named_state(*models::make_detector(config))) names.insert(name);
  for (const std::string expected : {"backbone.0.weight", "backbone.28.bias", "rpn.head.conv.0.0.weight",
                                     "rpn.head.cls_logits.bias", "rpn.head.bbox_pred.weight", "roi_heads.box_head.fc6.weight",
                                     "roi_heads.box_predictor.cls_score.weight", "roi_heads.box_predictor.bbox_pred.bias"}) {
    INFO(expected);
    CHECK(names.contains(expected));
  }
  CHECK(names.size() == 2 * (13 + 3 + 4));

  config.backbone = "resnet34";
  config.batch_norm = true;
  names.clear();
  for (const auto& [name, tensor] : nn::named_state(*models::make_detector(config))) names.insert(name);
  for (const std::string expected : {"backbone.conv1.weight", "backbone.bn1.running_var", "backbone.layer3.5.conv2.weight",
                                     "backbone.layer2.0.downsample.0.weight", "backbone.layer2.0.downsample.1.bias"}) {
    INFO(expected);
    CHECK(names.contains(expected));
  }
  CHECK_FALSE(names.contains("backbone.conv1.bias"));
}

TEST_CASE("initial weights depend on seed and name alone, with the variance asked for") {
  nn::Conv2d conv(16, 64, 3, {}, true, nn::Init::he());
  nn::Linear plain(300, 400);
  nn::Linear linear(400, 300, false, nn::Init::normal(0.01f));
  nn::Sequential a, b;
  a.add("x", std::make_shared<nn::Linear>(50, 40)).add("y", std::make_shared<nn::Linear>(40, 40));
  b.add("y", std::make_shared<nn::Linear>(40, 40));
  nn::initialize(a, 7);
  nn::initialize(b, 7);
  CHECK(nn::named_parameters(a)[2].second.to_vector<float>() == nn::named_parameters(b)[0].second.to_vector<float>());
  nn::initialize(b, 8);
  CHECK(nn::named_parameters(a)[2].second.to_vector<float>() != nn::named_parameters(b)[0].second.to_vector<float>());

  nn::initialize(conv, 1);
  nn::initialize(linear, 1);
  nn::initialize(plain, 1);
  const auto deviation = [](const Tensor& tensor) {
    double squares = 0;
    for (const float w : tensor.to_vector<float>()) squares += static_cast<double>(w) * w;
    return std::sqrt(squares / static_cast<double>(tensor.numel()));
  };
  CHECK(deviation(conv.weight) == Approx(std::sqrt(2.0 / (16 * 9))).epsilon(0.03));
  CHECK(deviation(linear.weight) == Approx(0.01).epsilon(0.02));
  CHECK(deviation(plain.weight) == Approx(1 / std::sqrt(3.0 * 300)).epsilon(0.02));
  CHECK(linear.bias.to_vector<float>() == std::vector<float>(300, 0.0f));
}

TEST_CASE("dropout drops only in training, anew in each step, and the same when the step is repeated") {
  nn::Sequential model;
  model.add("a", std::make_shared<nn::Dropout>(0.5)).add("b", std::make_shared<nn::Dropout>(0.5));
  const Tensor x = full({40, 25}, 1.0f);
  nn::set_step(model, 3, 10);
  const auto first = model(x).to_vector<float>();
  CHECK(model(x).to_vector<float>() == first);
  nn::set_step(model, 3, 11);
  CHECK(model(x).to_vector<float>() != first);
  nn::set_step(model, 3, 10);
  CHECK(model(x).to_vector<float>() == first);
  // Two independent halvings leave a quarter, times four.
  int kept = 0;
  for (const float v : first) kept += v == 4.0f;
  CHECK(kept > 190);
  CHECK(kept < 310);
  nn::train(model, false);
  CHECK(model(x).to_vector<float>() == x.to_vector<float>());
}
