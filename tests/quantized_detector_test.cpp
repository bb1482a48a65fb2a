// A whole detector in int8: from float to a file and back, on random weights.
#include "apps/quantized.hpp"

#include "catch.hpp"
#include "error_of.hpp"
#include "quantized_run.hpp"
#include "temporary_folder.hpp"

using namespace shrike;
using quantized::detect, quantized::same, quantized::small;
using namespace shrike::models;
using reference::random_tensor;

namespace {

std::shared_ptr<FasterRcnn> random_detector(const apps::TrainConfig& config, std::uint64_t seed) {
  const auto model = make_detector(config.model);
  nn::initialize(*model, seed);
  nn::train(*model, false);
  return model;
}

}  // namespace

TEST_CASE("an int8 detector finds the same before it is saved and after it is loaded, without floats before the predictors") {
  const std::string backbone = GENERATE("vgg11", "resnet18");
  const std::string roi = GENERATE("align", "pool");
  INFO(backbone << ", roi " << roi);
  const auto config = small(backbone, roi);
  const auto model = random_detector(config, 1);
  const FusedDetector fused = fuse_detector(*model);
  CHECK(fused.reports[0].applied() > 0);
  const PreparedDetector prepared = prepare_detector(fused, {});
  CHECK(calibrate(prepared, quantized::random_images(4, 2)).empty());
  const ConvertedDetector converted = convert_detector(prepared);
  INFO(converted.report.to_string());

  CHECK(quant::float_values(*converted.parts[0]) == std::vector<std::string>{"input"});
  for (std::size_t i = 1; i < 3; ++i) {
    CHECK(quant::float_values(*converted.parts[i], true).empty());
    CHECK(converted.parts[i]->codes.at(converted.parts[i]->inputs[0]).scale ==
          converted.parts[0]->codes.at(converted.parts[0]->outputs[0]).scale);
  }
  const auto before = detect(*join(converted.parts, fused.options), 3);
  CHECK(before.size() > 3);
  const TemporaryFolder folder;
  const std::string path = folder / "int8.safetensors";
  save_safetensors(path, apps::quantized_file(converted.parts, config, "static", fused.weights));
  const apps::LoadedDetector loaded = apps::load_detector(load_safetensors(path));
  CHECK(same(detect(*loaded.model, 3), before));
  CHECK(loaded.config.model.classes == config.model.classes);

  // It is the float detector, but for rounding: most of what both are sure of agrees.
  const auto expected = detect(*model, 3);
  const auto found = detect(*loaded.model, 3);
  REQUIRE(!expected.empty());
  std::size_t agreeing = 0;
  for (const Detection& one : expected) {
    agreeing += std::any_of(found.begin(), found.end(), [&](const Detection& other) {
      return one.label == other.label && iou(one.box, other.box) > 0.7f && std::abs(one.score - other.score) < 0.05f;
    });
  }
  CHECK(static_cast<double>(agreeing) > 0.6 * static_cast<double>(expected.size()));

  // And what it was trained or calibrated as: the same network with fake-quantize.
  const auto fake = detect(*prepared.model, 3);
  CHECK(std::abs(static_cast<double>(fake.size()) - static_cast<double>(before.size())) <=
        0.2 * static_cast<double>(before.size()) + 1);
}

TEST_CASE("weights alone in f16 or s8, through a file, also one from when their mode was called dynamic") {
  const auto config = small("resnet18", "align");
  const auto model = random_detector(config, 4);
  const FusedDetector fused = fuse_detector(*model);
  const TemporaryFolder folder;
  for (const auto type : {quant::WeightType::f16, quant::WeightType::s8}) {
    const ConvertedDetector narrow = quantize_weights(fused, type, {"roi_heads.box_predictor.*"});
    CHECK(narrow.report.to_string().find("keep_float roi_heads.box_predictor.*") != std::string::npos);
    const std::string path = folder / "weights.safetensors";
    const auto expected = detect(*join(narrow.parts, fused.options), 5);
    for (const char* mode : {"weight-only", "dynamic"}) {
      save_safetensors(path, apps::quantized_file(narrow.parts, config, mode, fused.weights));
      const apps::LoadedDetector loaded = apps::load_detector(load_safetensors(path));
      CHECK(same(detect(*loaded.model, 5), expected));
    }
  }
}

TEST_CASE("a calibration is kept in a file, and refused by other weights") {
  const auto config = small("vgg11", "align");
  const auto model = random_detector(config, 6);
  const PreparedDetector first = prepare_detector(fuse_detector(*model), {});
  CHECK(error_of([&] { calibration_file(first); }).find("calibrate first") != std::string::npos);
  calibrate(first, quantized::random_images(2, 7));
  const TensorFile file = calibration_file(first);

  const PreparedDetector again = prepare_detector(fuse_detector(*model), {});
  take_calibration(file, again);
  CHECK(same(detect(*join(convert_detector(first).parts, model->options()), 8),
             detect(*join(convert_detector(again).parts, model->options()), 8)));

  const auto refused = [&](const TensorFile& changed, const PreparedDetector& detector) {
    return error_of([&] { take_calibration(changed, detector); });
  };
  const auto other = random_detector(config, 9);
  CHECK(refused(file, prepare_detector(fuse_detector(*other), {})).find("other weights") != std::string::npos);
  nn::named_parameters(*model).at(0).second.data<float>()[0] += 1e-6f;
  CHECK(refused(file, prepare_detector(fuse_detector(*model), {})).find("other weights") != std::string::npos);
  TensorFile changed = file;
  changed.tensors.erase(changed.tensors.begin());
  CHECK(refused(changed, again).find(file.tensors.begin()->first + " is missing") != std::string::npos);
  for (const float bad : {0.0f, -1.0f, NAN, INFINITY}) {
    changed = file;
    changed.tensors.begin()->second = full({1}, bad);
    CHECK(refused(changed, again).find("expected a positive number") != std::string::npos);
  }
  changed.tensors.begin()->second = full({2}, 1.0f);
  CHECK(refused(changed, again).find("expected f32 [1]") != std::string::npos);
  changed.metadata["format"] = "other";
  CHECK(refused(changed, again).find("format 'other'") != std::string::npos);
}

TEST_CASE("training goes on from the scales of a calibration file: averages move from there, histograms keep them") {
  const auto model = random_detector(small("vgg11", "align"), 3);
  const FusedDetector fused = fuse_detector(*model);
  quant::PrepareOptions options;
  options.observer.choice = GENERATE(quant::RangeChoice::moving_average, quant::RangeChoice::mse);
  options.input_reach = 3;
  const PreparedDetector first = prepare_detector(fused, options);
  calibrate(first, quantized::random_images(2, 7));
  TensorFile file = calibration_file(first);
  const auto& input = first.parts[0]->activations.front();
  CHECK(first.parts[0]->constants.at(input.scale).item() == Approx(3.0 / 127));
  for (const float factor : {1.0f, 10.0f}) {
    TensorFile scaled = file;
    for (auto& [name, tensor] : scaled.tensors) tensor = full({1}, factor * tensor.item());
    const PreparedDetector prepared = prepare_detector(fused, options);
    take_calibration(scaled, prepared);
    nn::train(*prepared.model, true);
    const auto image = (*quantized::random_images(1, 9)()).first;
    prepared.model->forward({image});
    int compared = 0;
    for (const auto& activation : prepared.parts[0]->activations) {
      const std::string& name = activation.observer.name();
      const float given = scaled.tensors.at(name).item(), now = prepared.parts[0]->constants.at(activation.scale).item();
      INFO(name << ", times " << factor);
      const bool stays = activation.known || options.observer.choice == quant::RangeChoice::mse;
      CHECK(now == Approx(given).epsilon(stays ? 1e-6 : 0.03));  // momentum 0.01, and a range of up to some times the other
      if (!stays) CHECK(now != given);
      ++compared;
    }
    CHECK(compared > 3);
  }
}

TEST_CASE("what cannot be quantized or loaded is one line") {
  const auto config = small("vgg11", "pool");
  const auto model = random_detector(config, 10);
  const FusedDetector fused = fuse_detector(*model);
  const PreparedDetector prepared = prepare_detector(fused, {});
  CHECK(error_of([&] { convert_detector(prepared); }).find("calibrate or train") != std::string::npos);
  CHECK(error_of([&] { calibrate(prepared, quantized::random_images(0, 1)); }).find("no calibration images") !=
        std::string::npos);
  CHECK(error_of([&] {
          bool done = false;
          calibrate(prepared, [&]() -> std::optional<std::pair<Tensor, std::vector<ImageSize>>> {
            if (std::exchange(done, true)) return std::nullopt;
            return std::pair{full({1, 64, 64, 3}, NAN), std::vector<ImageSize>{{64, 64}}};
          });
        }).find("backbone.input") != std::string::npos);
  calibrate(prepared, quantized::random_images(2, 11));
  const TensorFile good = apps::quantized_file(convert_detector(prepared).parts, config, "static", fused.weights);
  CHECK(error_of([&] { apps::load_detector(good); }) == "no error");
  CHECK(error_of([&] { apps::checkpoint_config(good); }).find("shrike-quantized-detector-1") != std::string::npos);

  const auto with = [&](const std::function<void(TensorFile&)>& change) {
    TensorFile file = good;
    change(file);
    return error_of([&] { apps::load_detector(file); });
  };
  const auto ending = [&](const std::string& end) {
    const auto found =
        std::find_if(good.tensors.begin(), good.tensors.end(), [&](const auto& t) { return t.first.ends_with(end); });
    REQUIRE(found != good.tensors.end());
    return found->first;
  };
  const std::string multiplier = ending(".multiplier");
  CHECK(with([&](TensorFile& f) { f.metadata["format"] = "shrike-quantized-detector-2"; }).find("this build reads") !=
        std::string::npos);
  CHECK(with([&](TensorFile& f) { f.tensors.erase(multiplier); }).find(multiplier) != std::string::npos);
  CHECK(with([&](TensorFile& f) {
          f.tensors[multiplier] = full(good.tensors.at(multiplier).shape(), -1.0f);
        }).find("expected positive numbers") != std::string::npos);
  CHECK(with([&](TensorFile& f) { f.tensors["surplus"] = full({1}, 1.0f); }).find("tensors, of which") != std::string::npos);
  CHECK(with([&](TensorFile& f) { f.metadata.erase("graph.roi_heads"); }).find("\"roi_heads\"") != std::string::npos);
  CHECK(with([&](TensorFile& f) { f.metadata["graph.rpn.head"] = f.metadata["graph.roi_heads"]; }).find("tensors, of which") !=
        std::string::npos);
  CHECK(with([&](TensorFile& f) { f.metadata["model.roi"] = "crop"; }).find("roi 'crop'") != std::string::npos);
  CHECK(with([&](TensorFile& f) {
          const std::string predictor = ending("cls_score.weight");
          f.tensors[predictor] = full(good.tensors.at(predictor).shape(), NAN);
        }).find("cls_score.weight holds nan") != std::string::npos);
  const FusedDetector other = fuse_detector(*random_detector(config, 12));
  const PreparedDetector second = prepare_detector(other, {});
  calibrate(second, quantized::random_images(1, 13));
  const TensorFile foreign = apps::quantized_file(convert_detector(second).parts, config, "static", other.weights);
  CHECK(with([&](TensorFile& f) {
          f.metadata["graph.rpn.head"] = foreign.metadata.at("graph.rpn.head");
        }).find("the backbone makes u8 at scale") != std::string::npos);
}
