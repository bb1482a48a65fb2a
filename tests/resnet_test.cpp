// How a ResNet starts, and which of its batch norm learns.
#include "apps/weights.hpp"
#include "catch.hpp"
#include "models/detector.hpp"
#include "reference.hpp"
#include "shrike/nn/optim.hpp"

using namespace shrike;
using namespace shrike::models;

namespace {

double mean_square(const Tensor& tensor) {
  double sum = 0;
  for (const float x : tensor.to_vector<float>()) sum += static_cast<double>(x) * static_cast<double>(x);
  return sum / static_cast<double>(tensor.numel());
}

Tensor normal_image(const Shape& shape, std::uint64_t seed) {
  Random random(seed, RandomStream::test);
  const Tensor image(shape);
  for (std::int64_t i = 0; i < image.numel(); ++i) image.data<float>()[i] = random.normal();
  return image;
}

DetectorConfig config_of(const std::string& backbone) {
  DetectorConfig config;
  config.backbone = backbone;
  config.width = 4;
  config.batch_norm = true;
  config.roi_size = 4;
  config.anchor_sizes = {16, 32};
  config.classes = {"a", "b"};
  config.roi_batch = 16;
  config.train_pre_nms = 100;
  config.train_post_nms = 40;
  return config;
}

const Target two_boxes{tensor<float>({2, 4}, {4, 4, 40, 36, 30, 20, 62, 60}), tensor<std::int32_t>({2}, {1, 2})};

Losses losses_of(FasterRcnn& model, std::uint64_t step) {
  return model.losses(normal_image({1, 64, 64, 3}, 9), {{64, 64}}, {two_boxes}, 1, step);
}

}  // namespace

TEST_CASE(
    "the maps of a random ResNet neither vanish nor explode, however deep, without batch norm, with live and with frozen") {
  ResnetOptions options;
  options.depth = GENERATE(18, 50, 101);
  options.width = 16;
  const std::string norm = GENERATE("none", "live", "frozen");
  options.batch_norm = norm != "none";
  options.frozen_norm = norm == "frozen";
  ResnetC4 c4(options);
  const auto layer4 = resnet_layer(4, options);
  double map = 0, after = 0;
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    nn::initialize(c4, seed);
    nn::initialize(*layer4, seed + 10);
    const NoGrad no_grad;
    const Tensor y = c4.forward({normal_image({1, 64, 96, 3}, seed)})[0];
    map += mean_square(y) / 3;
    after += mean_square((*layer4)(y)) / 3;
  }
  INFO("ResNet-" << options.depth << ", batch norm " << norm << ": " << map << ", after layer4 " << after);
  // The image's is 1. Max pooling of half-normal values adds to it, as do the sums of live batch norm.
  CHECK(map > 0.3);
  CHECK(map < 30);
  CHECK(after > 0.3);
  CHECK(after < 30);
}

TEST_CASE("the loss that reaches the first convolution of a random ResNet neither vanishes nor explodes") {
  ResnetOptions options;
  options.depth = GENERATE(18, 101);
  options.width = 16;
  options.batch_norm = false;
  ResnetC4 c4(options);
  nn::initialize(c4, 2);
  const Tensor image = normal_image({1, 64, 96, 3}, 3);
  image.set_requires_grad(true);
  const Tensor y = c4.forward({image})[0];
  backward({y}, {normal_image(y.shape(), 4)});
  // Summed up over the map and over the image: a chain of layers that keep variances keeps this, but for the widths.
  const double ratio = mean_square(image.grad()) * static_cast<double>(image.numel()) / static_cast<double>(y.numel());
  INFO("ResNet-" << options.depth << ": " << ratio);
  CHECK(ratio > 1e-2);
  CHECK(ratio < 1e2);
}

TEST_CASE("batch norm is live or frozen by one setting for VGG and ResNet, and frozen in frozen stages") {
  struct Case {
    std::string backbone, norm;
    int frozen_stages;
    bool live;
  };
  const Case c =
      GENERATE(Case{"vgg11", "auto", 0, true}, Case{"vgg11", "live", 2, true}, Case{"vgg11", "frozen", 0, false},
               Case{"resnet18", "auto", 0, false}, Case{"resnet18", "frozen", 1, false}, Case{"resnet18", "live", 0, true},
               Case{"resnet18", "live", 2, true}, Case{"resnet50", "live", 5, true});
  INFO(c.backbone << " " << c.norm << " " << c.frozen_stages);
  DetectorConfig config = config_of(c.backbone);
  config.norm = c.norm;
  config.frozen_stages = c.frozen_stages;
  config.head = config.is_vgg() ? "fc" : "res5";
  const auto model = make_detector(config);
  nn::initialize(*model, 3);
  backward(losses_of(*model, 0).total);
  // The names of batch norm in frozen stages.
  const std::vector<std::string> stages =
      config.is_vgg() ? std::vector<std::string>{"backbone.1.", "backbone.5."}
                      : std::vector<std::string>{"backbone.bn1.", "backbone.layer1.", "backbone.layer2.", "backbone.layer3.",
                                                 "roi_heads.box_head.layer4."};
  int live = 0, frozen = 0;
  nn::for_each_module(*model, [&](const std::string& name, nn::Module& module) {
    auto* const norm = dynamic_cast<nn::BatchNorm*>(&module);
    if (norm == nullptr) return;
    INFO(name);
    bool expected = c.live;
    for (int i = 0; i < c.frozen_stages; ++i) expected &= !(name + ".").starts_with(stages[static_cast<std::size_t>(i)]);
    CHECK(norm->weight.requires_grad() == expected);
    CHECK(norm->weight.grad().defined() == expected);
    CHECK(norm->bias.grad().defined() == expected);
    CHECK((mean_square(norm->running_mean) > 0) == expected);
    ++(expected ? live : frozen);
  });
  CHECK(live + frozen == (config.is_vgg() ? 8 : c.backbone == "resnet18" ? 20 : 53));
  CHECK((live > 0) == (c.live && c.frozen_stages < 5));
  CHECK((frozen > 0) == (!c.live || c.frozen_stages > 0));
}

TEST_CASE(
    "batch norm that is not set otherwise is live without weights and in VGG, and stays frozen in a ResNet from weights") {
  const auto settled = [](const std::string& backbone, bool from_weights, bool batch_norm, const std::string& norm) {
    DetectorConfig config = config_of(backbone);
    config.batch_norm = batch_norm;
    config.norm = norm;
    apps::settle_norm(from_weights, config);
    return config.norm;
  };
  CHECK(settled("resnet18", false, true, "auto") == "live");
  CHECK(settled("resnet18", true, true, "auto") == "frozen");
  CHECK(settled("resnet18", true, true, "live") == "live");
  CHECK(settled("resnet18", false, true, "frozen") == "frozen");
  CHECK(settled("resnet18", false, false, "auto") == "auto");
  CHECK(settled("vgg16", true, true, "auto") == "live");
  CHECK(settled("vgg16", false, true, "auto") == "live");
}

TEST_CASE("a ResNet learns from random weights, with live batch norm and without any, with either head") {
  DetectorConfig config = config_of("resnet18");
  config.head = GENERATE("fc", "res5");
  config.batch_norm = GENERATE(true, false);
  config.norm = config.batch_norm ? "live" : "auto";
  INFO(config.head << ", batch norm " << config.batch_norm);
  const auto model = make_detector(config);
  nn::initialize(*model, 4);
  std::vector<nn::SgdParameter> parameters;
  for (const auto& [name, tensor] : nn::named_parameters(*model)) {
    if (tensor.requires_grad()) parameters.push_back({name, tensor, 1.0f, 1e-4f, {}});
  }
  nn::Sgd optimizer(parameters, {0.9f, 10});
  double first = 0, last = 0;
  constexpr std::uint64_t steps = 120;
  for (std::uint64_t step = 0; step < steps; ++step) {
    const Losses losses = losses_of(*model, step);
    if (step < 5) first += losses.total.item() / 5;
    if (step + 5 >= steps) last += losses.total.item() / 5;
    backward(losses.total);
    optimizer.step(0.02f);
  }
  INFO("from " << first << " to " << last);
  CHECK(last < 0.6 * first);
}
