// The box head of ResNet's layer4: against torchvision's modules (tests/golden/res5_golden.py wrote what is expected), its
// weights by torchvision's names, and quantized.
#include <algorithm>

#include "apps/quantized.hpp"
#include "apps/weights.hpp"
#include "catch.hpp"
#include "error_of.hpp"
#include "golden_detector.hpp"
#include "quantized_detector.hpp"
#include "shrike/detection/boxes.hpp"
#include "temporary_folder.hpp"

using namespace shrike;
using namespace shrike::models;
using namespace golden;

namespace {

// value() and weight() of res5_golden.py.
double value(const std::string& name, std::int64_t i) {
  std::uint64_t z = nn::hash_name(name) + static_cast<std::uint64_t>(i + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return static_cast<double>((z ^ (z >> 31)) >> 40) * 0x1p-23 - 1;
}

Tensor weight(const std::string& name, const Shape& shape) {
  const Tensor result(shape);
  const double variance = name.starts_with("roi_heads.box_predictor.") ? 0.2 : 1.8;
  const double spread = std::sqrt(3 * variance / (static_cast<double>(result.numel()) / static_cast<double>(shape[0])));
  for (std::int64_t i = 0; i < result.numel(); ++i) {
    double x = value(name, i);
    if (shape.rank() > 1) {
      x *= spread;
    } else if (name.ends_with("running_var")) {
      x = 1 + 0.5 * x;
    } else if (name.ends_with("weight")) {
      x = (1 + 0.3 * x) * (name.find(".bn3.") != std::string::npos ? 0.3 : 1);
    } else {
      x *= 0.2;
    }
    result.data<float>()[i] = static_cast<float>(x);
  }
  return result;
}

Tensor nchw(const Tensor& x) { return x.rank() == 4 ? permute(x, {0, 3, 1, 2}) : x; }

// A classifier's file as torchvision's state_dict() has it, with random weights: of a detector that has layer4.
TensorFile classifier(nn::Module& detector) {
  TensorFile file;
  file.name = "resnet.safetensors";
  const std::string head = "roi_heads.box_head.", backbone = "backbone.";
  for (const auto& [name, tensor] : nn::named_state(detector)) {
    if (name.starts_with(head)) file.tensors[name.substr(head.size())] = nchw(tensor).clone();
    if (name.starts_with(backbone)) file.tensors[name.substr(backbone.size())] = nchw(tensor).clone();
  }
  file.tensors["fc.weight"] = zeros({1000, 8});
  return file;
}

DetectorConfig small_res5(const std::string& backbone) {
  DetectorConfig config = quantized::small_detector(backbone);
  config.head = "res5";
  config.head_width = 0;
  config.roi_size = 6;
  config.anchor_sizes = {16, 32};
  config.test_pre_nms = 60;
  config.test_post_nms = 20;
  return config;
}

}  // namespace

TEST_CASE("with head res5 losses, every parameter's gradient and detections are torchvision's, batch norm frozen or live") {
  const TensorFile file = load_safetensors(golden_path("res5.safetensors"));
  const std::string name = GENERATE("resnet18_frozen", "resnet18_live", "resnet50_frozen");
  INFO(name);
  const TensorFile theirs = part(file, name + ".");
  DetectorConfig config = golden_config(name.substr(0, 8));
  config.norm = name.substr(9);
  config.head = "res5";
  config.head_width = 0;
  config.roi_size = 5;
  config.roi_batch = theirs.tensors.at("output.regions").item<std::int32_t>();  // rows of padding would have statistics, too
  const auto model = make_detector(config);
  TensorFile weights;
  for (const auto& [key, tensor] : nn::named_state(*model)) {
    weights.tensors[key] = weight(key, nchw(tensor).shape());
  }
  apps::import_weights(weights, config, *model);

  const auto* const size = theirs.tensors.at("output.size").data<std::int32_t>();
  const Tensor image({1, 3, size[0], size[1]});
  for (std::int64_t i = 0; i < image.numel(); ++i) {
    image.data<float>()[i] = static_cast<float>(1.7 * value(name + ".image", i));
  }
  const Target target{tensor<float>({3, 4}, {5, 8, 40, 45, 20.5f, 3.25f, 48, 30, 10, 30, 44, 60}),
                      tensor<std::int32_t>({3}, {1, 3, 2})};
  check_like_torchvision(*model, config, nhwc(image), target, theirs);

  std::size_t statistics = 0;
  for (const auto& [key, tensor] : nn::named_buffers(*model)) {
    const auto expected = theirs.tensors.find("state." + key);
    INFO(key);
    REQUIRE((expected != theirs.tensors.end()) == (config.norm == "live"));
    if (expected == theirs.tensors.end()) continue;
    CHECK(relative_difference(tensor, expected->second, key, config) < 1e-4);
    ++statistics;
  }
  CHECK(statistics == (config.norm == "live" ? 40u : 0u));
}

TEST_CASE("a classifier's layer4 becomes the head, whole or not at all") {
  const std::string backbone = GENERATE("resnet18", "resnet50");
  const DetectorConfig config = small_res5(backbone);
  const auto model = make_detector(config), read = make_detector(config);
  nn::initialize(*model, 3);
  nn::initialize(*read, 4);
  TensorFile file = classifier(*model);
  CHECK_THAT(apps::import_weights(file, config, *read), Catch::Contains("without use here: fc"));
  std::size_t equal = 0;
  for (const auto& [name, tensor] : nn::named_state(*model)) {
    if (!name.starts_with("backbone.") && !name.starts_with("roi_heads.box_head.layer4.")) continue;
    const auto state = nn::named_state(*read);
    const auto other = std::find_if(state.begin(), state.end(), [&](const auto& one) { return one.first == name; });
    equal += tensor.to_vector<float>() == other->second.to_vector<float>();
  }
  CHECK(equal == file.tensors.size() - 1);

  DetectorConfig with_fc = config;
  with_fc.head = "fc";
  CHECK_THAT(apps::import_weights(file, with_fc, *make_detector(with_fc)), Catch::Contains("without use here: fc, layer4"));
  file.tensors.erase("layer4.1.bn2.bias");
  CHECK_THAT(error_of([&] { apps::import_weights(file, config, *read); }), Catch::Contains("layer4.1.bn2.bias"));
  std::erase_if(file.tensors, [](const auto& entry) { return entry.first.starts_with("layer4."); });
  CHECK(error_of([&] { apps::import_weights(file, config, *read); }) == "no error");  // a backbone alone
}

TEST_CASE("the head takes regions of any side, even or odd, and none at all") {
  DetectorConfig config = small_res5("resnet18");
  CHECK(config.pooled_size() == 6);
  config.roi_size = 0;
  CHECK(config.pooled_size() == 14);
  CHECK(detector_options(config).roi.height == 14);
  config.roi_size = 6;
  const auto model = make_detector(config);
  nn::initialize(*model, 5);
  nn::train(*model, false);
  const std::int64_t channels = config.channels();
  Random random(6, RandomStream::test);
  for (const std::int64_t side : {1, 2, 7, 14, 32}) {
    const Tensor regions = reference::random_tensor({2, side, side, channels}, random);
    const Tensors both = model->box_head()->forward({regions});
    CHECK(both[0].shape() == Shape{2, 3});
    CHECK(both[1].shape() == Shape{2, 12});
    const Tensors second = model->box_head()->forward({slice(regions, 0, 1, 2)});  // each region for itself
    CHECK(reference::difference(second[0], reference::doubles(slice(both[0], 0, 1, 2))) < 1e-6);
  }
  const Tensors none = model->box_head()->forward({Tensor({0, 6, 6, channels})});
  CHECK(none[0].shape() == Shape{0, 3});
  CHECK(none[1].shape() == Shape{0, 12});
}

TEST_CASE("an int8 detector with head res5 finds what the float one finds, before it is saved and after it is loaded") {
  apps::TrainConfig config;
  config.model = small_res5(GENERATE("resnet18", "resnet50"));
  INFO(config.model.backbone);
  const auto model = make_detector(config.model);
  nn::initialize(*model, 1);
  nn::train(*model, false);
  const FusedDetector fused = fuse_detector(*model);
  const PreparedDetector prepared = prepare_detector(fused, {});
  CHECK(calibrate(prepared, quantized::random_images(4, 2)).empty());
  const ConvertedDetector converted = convert_detector(prepared);
  INFO(converted.report.to_string());
  // Every convolution in int8: layer4's last one gives the floats that are averaged.
  CHECK(quant::float_values(*converted.parts[2], true).empty());
  std::size_t convolutions = 0;
  for (const Graph::Node& node : converted.parts[2]->nodes) {
    CHECK(std::string(node.op->name()) != "conv2d");
    convolutions += std::string(node.op->name()) == "quantized_conv2d";
  }
  CHECK(convolutions == (config.model.backbone == "resnet18" ? 5u : 10u));

  const auto detect = [](FasterRcnn& detector) {
    std::vector<Detection> all;
    const NextImages next = quantized::random_images(3, 3);
    while (const auto batch = next()) {
      const auto found = detector.detect(batch->first, batch->second).at(0);
      all.insert(all.end(), found.begin(), found.end());
    }
    return all;
  };
  const auto expected = detect(*model), before = detect(*join(converted.parts, fused.options));
  const TemporaryFolder folder;
  save_safetensors(folder / "int8.safetensors", apps::quantized_file(converted.parts, config, "static", fused.weights));
  const apps::LoadedDetector loaded = apps::load_detector(load_safetensors(folder / "int8.safetensors"));
  CHECK(loaded.config.model.head == "res5");
  const auto after = detect(*loaded.model);
  REQUIRE(after.size() == before.size());
  for (std::size_t i = 0; i < after.size(); ++i) {
    CHECK((after[i].box == before[i].box && after[i].label == before[i].label && after[i].score == before[i].score));
  }
  REQUIRE(expected.size() > 3);
  std::size_t agreeing = 0;
  for (const Detection& one : expected) {
    agreeing += std::any_of(after.begin(), after.end(), [&](const Detection& other) {
      return one.label == other.label && iou(one.box, other.box) > 0.7f && std::abs(one.score - other.score) < 0.05f;
    });
  }
  CHECK(static_cast<double>(agreeing) > 0.6 * static_cast<double>(expected.size()));
}

TEST_CASE("weights alone and halves with head res5, through a file") {
  apps::TrainConfig config;
  config.model = small_res5("resnet18");
  const auto model = make_detector(config.model);
  nn::initialize(*model, 1);
  nn::train(*model, false);
  const FusedDetector fused = fuse_detector(*model);
  const Tensor image = (*quantized::random_images(1, 3)()).first;
  const TensorFile weights_alone =
      apps::quantized_file(quantize_weights(fused, quant::WeightType::s8, {}).parts, config, "dynamic", fused.weights);
  CHECK_FALSE(apps::load_detector(weights_alone).model->detect(image, {{65, 80}})[0].empty());
  const ConvertedDetector half = half_detector(fused);
  CHECK_THAT(half.report.to_string(), Catch::Contains("avg_pool2d has no half form"));
  CHECK(quant::float_values(*half.parts[2], true).size() == 3);  // what layer4 gives, its mean, and that flat
}

TEST_CASE("what head res5 and norm cannot be is one line") {
  const auto refused = [](const std::function<void(DetectorConfig&)>& change) {
    DetectorConfig config = small_res5("resnet18");
    change(config);
    return error_of([&] { make_detector(config); });
  };
  CHECK(refused([](DetectorConfig&) {}) == "no error");
  CHECK_THAT(refused([](DetectorConfig& c) { c.backbone = "vgg16"; }),
             Catch::Contains("head res5") && Catch::Contains("vgg16"));
  CHECK_THAT(refused([](DetectorConfig& c) { c.head = "res6"; }), Catch::Contains("head 'res6': expected fc or res5"));
  CHECK_THAT(refused([](DetectorConfig& c) { c.head_width = 16; }), Catch::Contains("head-width 0"));
  CHECK_THAT(refused([](DetectorConfig& c) { c.dropout = 0.5; }), Catch::Contains("dropout 0"));
  CHECK_THAT(refused([](DetectorConfig& c) { c.roi_size = 33; }), Catch::Contains("roi-size 33: expected 1 to 32"));
  CHECK_THAT(refused([](DetectorConfig& c) { c.norm = "warm"; }),
             Catch::Contains("norm 'warm': expected auto, live or frozen"));
  CHECK_THAT(refused([](DetectorConfig& c) { c.norm = "live", c.batch_norm = false; }), Catch::Contains("--batch-norm"));
}
