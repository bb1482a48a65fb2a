// The whole detector against torchvision's, weights and all; tests/golden/faster_rcnn_golden.py wrote what is expected.
#include "apps/weights.hpp"
#include "catch.hpp"
#include "golden_detector.hpp"
#include "reference.hpp"
#include "shrike/graph/graph.hpp"
#include "shrike/nn/optim.hpp"
#include "shrike/ops/elementwise.hpp"

using namespace shrike;
using namespace shrike::models;
using namespace golden;

TEST_CASE("losses, every parameter's gradient and detections are torchvision's, on images of odd sizes") {
  const TensorFile file = load_safetensors(golden_path("faster_rcnn.safetensors"));
  const std::string backbone = GENERATE("vgg11", "resnet18", "resnet50");
  const std::string number = GENERATE("0.", "1.", "2.", "3.", "4.");
  if (backbone == "resnet50" && number > "2.") return;
  const DetectorConfig config = golden_config(backbone);
  const auto model = make_detector(config);
  apps::import_weights(part(file, backbone + ".weights."), config, *model);

  const Tensor image = nhwc(file.tensors.at(number + "image"));
  INFO(backbone << ", image " << number << " of " << image.size(1) << "x" << image.size(2));
  check_like_torchvision(*model, config, image, {file.tensors.at(number + "boxes"), file.tensors.at(number + "labels")},
                         part(file, backbone + "." + number));
}

TEST_CASE("ten training steps have torchvision's losses, with frozen batch norm and without batch norm") {
  const TensorFile file = load_safetensors(golden_path("faster_rcnn.safetensors"));
  const std::string backbone = GENERATE("vgg11", "resnet18");
  const DetectorConfig config = golden_config(backbone);
  const auto model = make_detector(config);
  apps::import_weights(part(file, backbone + ".weights."), config, *model);
  std::vector<nn::SgdParameter> parameters;
  for (const auto& [name, tensor] : nn::named_parameters(*model)) {
    if (tensor.requires_grad()) parameters.push_back({name, tensor, 1.0f, 5e-4f, {}});
  }
  nn::Sgd optimizer(parameters, {0.9f, 0});
  const Tensor& expected = file.tensors.at(backbone + ".totals");
  REQUIRE(expected.numel() == 10);
  for (int step = 0; step < 10; ++step) {
    INFO(backbone << ", step " << step);
    const std::string number = std::to_string(step % 5) + ".";
    const Tensor image = nhwc(file.tensors.at(number + "image"));
    const Losses losses = model->losses(image, {{static_cast<int>(image.size(1)), static_cast<int>(image.size(2))}},
                                        {{file.tensors.at(number + "boxes"), file.tensors.at(number + "labels")}}, 1,
                                        static_cast<std::uint64_t>(step));
    CHECK(losses.total.item() == Approx(expected.data<float>()[step]).epsilon(1e-4));
    backward(losses.total);
    optimizer.update(0.002f, losses.total);
  }
}

TEST_CASE("VGG's biases beside batch norm, as torchvision has them, come off the running means") {
  DetectorConfig config = golden_config();
  config.batch_norm = true;
  const auto model = make_detector(config), read = make_detector(config);
  nn::initialize(*model, 3);
  Random random(7, RandomStream::test);
  TensorFile file;
  file.name = "vgg11_bn";
  for (const auto& [name, tensor] : nn::named_state(*model)) {
    if (!name.starts_with("backbone.")) continue;
    if (name.ends_with("running_mean")) tensor.copy_from(reference::random_tensor(tensor.shape(), random));
    file.tensors["features." + name.substr(9)] = tensor.rank() == 4 ? permute(tensor, {0, 3, 1, 2}) : tensor.clone();
  }
  int biases = 0;
  for (int layer = 0; layer < 29; ++layer) {
    const std::string next = "features." + std::to_string(layer + 1) + ".running_mean";
    if (!file.tensors.contains(next)) continue;
    ++biases;
    const Tensor bias = reference::random_tensor(file.tensors.at(next).shape(), random);
    file.tensors["features." + std::to_string(layer) + ".bias"] = bias;
    file.tensors.at(next) = add(file.tensors.at(next), bias);
  }
  CHECK(biases == 8);
  file.tensors["classifier.6.weight"] = zeros({3, 3});
  CHECK_THAT(apps::import_weights(file, config, *read), Catch::Contains("without use here: classifier.6"));
  nn::train(*model, false);
  nn::train(*read, false);
  const NoGrad no_grad;
  const Tensor image = reference::random_tensor({1, 64, 80, 3}, random);
  CHECK(reference::difference(read->forward({image})[0], reference::doubles(model->forward({image})[0])) < 1e-4);
}

TEST_CASE("a batch's losses are means over the anchors and regions of all of its images") {
  DetectorConfig config = golden_config();
  const auto model = make_detector(config);
  nn::initialize(*model, 3);
  Random random(9, RandomStream::test);
  std::vector<Tensor> images;
  std::vector<Target> targets;
  const std::vector<ImageSize> size = {{64, 96}};
  for (int i = 0; i < 3; ++i) {
    const Tensor image({1, 64, 96, 3});
    for (int k = 0; k < image.numel(); ++k) image.data<float>()[k] = random.normal();
    images.push_back(image);
    const float x = random.uniform(0, 40);
    targets.push_back({tensor<float>({1, 4}, {x, 10, x + 50, 40}), tensor<std::int32_t>({1}, {1 + i})});
  }
  targets[1] = {Tensor({0, 4}), Tensor({0}, Dtype::s32)};  // an image without objects
  // Every anchor and every region is sampled; those anchors that match too well for negative ones take no part.
  const FasterRcnnOptions& options = model->options();
  model->options().test_proposals = options.train_proposals;
  double rpn_cls = 0, rpn_box = 0, cls = 0, box = 0, anchors_of_all = 0, regions_of_all = 0;
  std::vector<double> counts;
  for (std::size_t i = 0; i < 3; ++i) {
    const Losses one = model->losses(images[i], size, {targets[i]}, 1, 0);
    const NoGrad no_grad;
    const Tensors maps = model->forward({images[i]});
    const Tensor all = anchors(options.anchors, 16, 16, maps[0].size(1), maps[0].size(2));
    const Tensor sampled = rpn_targets(all, targets[i].boxes, 64, 96, options.rpn_targets, 1, 0).counts;
    const double n = sampled.data<std::int32_t>()[0] + sampled.data<std::int32_t>()[1];
    const auto m = static_cast<double>(model->regions(maps, images[i], size)[0].size(0) + targets[i].boxes.size(0));
    anchors_of_all += n;
    regions_of_all += m;
    rpn_cls += n * static_cast<double>(one.rpn_cls.item());
    rpn_box += n * static_cast<double>(one.rpn_box.item());
    cls += m * static_cast<double>(one.cls.item());
    box += m * static_cast<double>(one.box.item());
    counts.insert(counts.end(), {n, m});
  }
  CHECK((counts[0] != counts[2] && counts[1] != counts[3]));  // so that means of means would be others
  rpn_cls /= anchors_of_all;
  rpn_box /= anchors_of_all;
  cls /= regions_of_all;
  box /= regions_of_all;
  const Losses all = model->losses(concat(images, 0), {size[0], size[0], size[0]}, targets, 1, 0);
  CHECK(all.rpn_cls.item() == Approx(rpn_cls).epsilon(1e-5));
  CHECK(all.rpn_box.item() == Approx(rpn_box).epsilon(1e-5));
  CHECK(all.box.item() == Approx(box).epsilon(1e-4));
  CHECK(all.cls.item() == Approx(cls).epsilon(1e-4));
  backward(all.total);
}

TEST_CASE("every part can be traced, and the graph computes and trains the same") {
  for (const std::string backbone : {"vgg16", "resnet18"}) {
    DetectorConfig config = golden_config();
    config.backbone = backbone;
    config.batch_norm = true;
    const auto model = make_detector(config);
    nn::initialize(*model, 4);
    nn::train(*model, false);
    const Tensor image = full({1, 48, 64, 3}, 0.25f);
    const auto graph = trace(*model->backbone(), {image});
    const Tensor expected = model->backbone()->forward({image})[0];
    const Tensor found = graph->forward({image})[0];
    CHECK(found.to_vector<float>() == expected.to_vector<float>());
    CHECK(graph->to_string().find("conv2d stride=1 padding=1") != std::string::npos);

    backward({expected}, {full(expected.shape(), 1.0f)});
    std::vector<std::vector<float>> grads;
    for (const auto& [name, tensor] : nn::named_parameters(*model->backbone())) {
      grads.push_back(tensor.grad().defined() ? tensor.grad().to_vector<float>() : std::vector<float>{});
      tensor.clear_grad();
    }
    const Tensor again = graph->forward({image})[0];
    backward({again}, {full(again.shape(), 1.0f)});
    std::size_t i = 0;
    for (const auto& [name, tensor] : nn::named_parameters(*model->backbone())) {
      INFO(name);
      CHECK((tensor.grad().defined() ? tensor.grad().to_vector<float>() : std::vector<float>{}) == grads[i++]);
    }
  }
}

TEST_CASE("frozen stages get no gradient") {
  DetectorConfig config = golden_config();
  config.backbone = "vgg16";
  config.frozen_stages = 2;
  const auto model = make_detector(config);
  int frozen = 0;
  for (const auto& [name, tensor] : nn::named_parameters(*model)) {
    if (!tensor.requires_grad()) {
      ++frozen;
      CHECK((name.starts_with("backbone.0.") || name.starts_with("backbone.2.") || name.starts_with("backbone.5.") ||
             name.starts_with("backbone.7.")));
    }
  }
  CHECK(frozen == 8);
}

TEST_CASE("settings that do not fit are named") {
  DetectorConfig config = golden_config();
  config.backbone = "alexnet";
  CHECK_THROWS_WITH(make_detector(config), Catch::Matchers::Contains("backbone 'alexnet'"));
  CHECK_THROWS_WITH(vgg_stages(12), Catch::Matchers::Contains("VGG-12"));
}
