#include "shrike/io/weights.hpp"

#include <cmath>
#include <filesystem>
#include <limits>

#include "catch.hpp"
#include "paths.hpp"
#include "shrike/core/random.hpp"

using namespace shrike;
using Catch::Matchers::Contains;

namespace {

Tensor random_tensor(const Shape& shape, std::uint64_t seed) {
  Random random(seed, RandomStream::test);
  const Tensor t(shape);
  for (std::int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = random.normal();
  return t;
}

TensorFile file_of(const std::map<std::string, Tensor>& tensors) { return {tensors, {}, "x.safetensors"}; }

}  // namespace

TEST_CASE("convolution weights turn from OIHW to KRSC and back") {
  for (const Shape& oihw : {Shape{5, 3, 2, 7}, Shape{1, 1, 1, 1}, Shape{4, 6, 1, 1}, Shape{9, 1, 3, 3}, Shape{70, 33, 3, 3}}) {
    const Tensor source = random_tensor(oihw, 1);
    const std::int64_t k = oihw[0], c = oihw[1], r = oihw[2], s = oihw[3];
    const Tensor weight = full({k, r, s, c}, 0.0f);
    const LoadedWeights loaded = load_named(file_of({{"w", source}}), {{"w", weight}});
    CHECK(loaded.loaded == std::vector<std::string>{"w"});
    for (std::int64_t ik = 0; ik < k; ++ik) {
      for (std::int64_t ic = 0; ic < c; ++ic) {
        for (std::int64_t ir = 0; ir < r; ++ir) {
          for (std::int64_t is = 0; is < s; ++is) {
            REQUIRE(weight.data<float>()[((ik * r + ir) * s + is) * c + ic] ==
                    source.data<float>()[((ik * c + ic) * r + ir) * s + is]);
          }
        }
      }
    }
    const TensorFile back = export_named({{"w", weight}});
    CHECK(back.tensors.at("w").shape() == oihw);
    CHECK(back.tensors.at("w").to_vector<float>() == source.to_vector<float>());
  }
}

TEST_CASE("the linear layer after a flatten gives the same outputs on either layout") {
  const std::int64_t out = 4, c = 5, h = 3, w = 2;
  const Tensor source = random_tensor({out, c * h * w}, 2);
  const Tensor weight = full({out, h * w * c}, 0.0f);
  WeightOptions options;
  options.flatten["fc6.weight"] = {c, h, w};
  load_named(file_of({{"fc6.weight", source}}), {{"fc6.weight", weight}}, options);
  const Tensor map = random_tensor({h, w, c}, 3);  // NHWC of one image
  for (std::int64_t o = 0; o < out; ++o) {
    double theirs = 0, ours = 0;
    for (std::int64_t ic = 0; ic < c; ++ic) {
      for (std::int64_t y = 0; y < h; ++y) {
        for (std::int64_t x = 0; x < w; ++x) {
          const double value = map.data<float>()[(y * w + x) * c + ic];
          theirs += value * source.data<float>()[o * c * h * w + (ic * h + y) * w + x];
          ours += value * weight.data<float>()[o * c * h * w + (y * w + x) * c + ic];
        }
      }
    }
    CHECK(ours == Approx(theirs).margin(1e-12));
  }
  const TensorFile back = export_named({{"fc6.weight", weight}}, options);
  CHECK(back.tensors.at("fc6.weight").to_vector<float>() == source.to_vector<float>());
  options.flatten["fc6.weight"] = {c, h, 3};
  CHECK_THROWS_WITH(load_named(file_of({{"fc6.weight", source}}), {{"fc6.weight", weight}}, options),
                    Contains("cannot follow a flattened map of 5 x 3 x 3"));
  options.flatten = {{"fc7.weight", {c, h, w}}};
  CHECK_THROWS_WITH(load_named(file_of({{"fc6.weight", source}}), {{"fc6.weight", weight}}, options),
                    Contains("the model has no tensor \"fc7.weight\""));
}

TEST_CASE("half precision widens exactly, other types must agree") {
  const Tensor half({2, 3, 2, 1}, Dtype::f16);
  for (std::int64_t i = 0; i < 12; ++i) half.data<Half>()[i] = Half(static_cast<float>(i) - 5.5f);
  const Tensor weight({2, 2, 1, 3});
  load_named(file_of({{"w", half}}), {{"w", weight}});
  CHECK(weight.to_vector<float>() ==
        std::vector<float>{-5.5f, -3.5f, -1.5f, -4.5f, -2.5f, -0.5f, 0.5f, 2.5f, 4.5f, 1.5f, 3.5f, 5.5f});

  const Tensor counts = tensor<std::int32_t>({2}, {1, -2});
  const Tensor into({2}, Dtype::s32);
  load_named(file_of({{"n", counts}}), {{"n", into}});
  CHECK(into.to_vector<std::int32_t>() == std::vector<std::int32_t>{1, -2});
  CHECK_THROWS_WITH(load_named(file_of({{"n", counts}}), {{"n", full({2}, 0.0f)}}),
                    Contains("\"n\" is s32 [2] in the file, expected f32 [2]"));
}

TEST_CASE("beginnings of names are mapped, the first rule that fits") {
  WeightOptions options;
  options.prefixes = {{"classifier.0.", "head.fc6."}, {"features.", "backbone."}, {"", "rest."}};
  const TensorFile file = file_of({{"features.0.weight", full({1}, 1.0f)},
                                   {"classifier.0.bias", full({1}, 2.0f)},
                                   {"other", full({1}, 3.0f)},
                                   {"features.1.num_batches_tracked", tensor<std::int64_t>({}, {7})}});
  const NamedTensors model = {
      {"backbone.0.weight", full({1}, 0.0f)}, {"head.fc6.bias", full({1}, 0.0f)}, {"rest.other", full({1}, 0.0f)}};
  const LoadedWeights loaded = load_named(file, model, options);
  CHECK(model[0].second.item() == 1.0f);
  CHECK(model[1].second.item() == 2.0f);
  CHECK(model[2].second.item() == 3.0f);
  CHECK(loaded.loaded.size() == 3);
  CHECK(loaded.extra.empty());
  const TensorFile back = export_named(model, options);
  CHECK(back.tensors.contains("features.0.weight"));
  CHECK(back.tensors.contains("classifier.0.bias"));
  CHECK(back.tensors.contains("other"));

  options.prefixes = {{"a.", "c."}, {"b.", "c."}};
  CHECK_THROWS_WITH(
      load_named(file_of({{"a.w", full({1}, 1.0f)}, {"b.w", full({1}, 1.0f)}}), {{"c.w", full({1}, 0.0f)}}, options),
      Contains("\"a.w\" and \"b.w\" are both \"c.w\""));
}

TEST_CASE("one line says all that does not fit, and nothing is changed") {
  const Tensor good = full({1}, 5.0f);
  const NamedTensors model = {{"good", good},
                              {"shape", full({2, 3}, 0.0f)},
                              {"conv", full({4, 3, 3, 2}, 0.0f)},
                              {"gone.1", full({1}, 0.0f)},
                              {"gone.2", full({1}, 0.0f)},
                              {"gone.3", full({1}, 0.0f)},
                              {"gone.4", full({1}, 0.0f)}};
  const TensorFile file = file_of({{"good", full({1}, 1.0f)},
                                   {"shape", full({3, 2}, 1.0f)},
                                   {"conv", full({4, 3, 3, 2}, 1.0f)},
                                   {"more\n", full({1}, 1.0f)}});
  CHECK_THROWS_WITH(
      load_named(file, model),
      "x.safetensors: the tensors do not fit the model: 4 missing: \"gone.1\", \"gone.2\", \"gone.3\", ...; "
      "1 extra: \"more\\n\"; 2 of another shape or type: \"shape\" is f32 [3, 2] in the file, expected f32 [2, 3], "
      "\"conv\" is f32 [4, 3, 3, 2] in the file, expected f32 [4, 2, 3, 3]");
  CHECK(good.item() == 5.0f);

  WeightOptions options;
  options.allow_missing = options.allow_extra = true;
  CHECK_THROWS_WITH(load_named(file, model, options),
                    Contains("2 of another shape") && !Contains("missing") && !Contains("extra"));
  options.layout = WeightLayout::shrike;
  CHECK_THROWS_WITH(load_named(file, model, options), Contains("1 of another shape"));
  const NamedTensors smaller = {model[0], model[2], model[3]};
  const LoadedWeights loaded = load_named(file, smaller, options);
  CHECK(loaded.loaded == std::vector<std::string>{"good", "conv"});
  CHECK(loaded.missing == std::vector<std::string>{"gone.1"});
  CHECK(loaded.extra == std::vector<std::string>{"more\n", "shape"});
  CHECK(good.item() == 1.0f);
}

TEST_CASE("weights that are not finite are refused by name and place") {
  const Tensor good = full({1}, 5.0f);
  const Tensor bad = full({4}, 1.0f);
  const NamedTensors model = {{"a", good}, {"b", full({4}, 0.0f)}};
  bad.data<float>()[2] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_WITH(load_named(file_of({{"a", full({1}, 1.0f)}, {"b", bad}}), model),
                    Contains("x.safetensors: tensor \"b\" has") && Contains("nan at element 2"));
  CHECK(good.item() == 5.0f);
  const Tensor half({4}, Dtype::f16);
  for (int i = 0; i < 4; ++i) half.data<Half>()[i] = Half(i == 3 ? 1e9f : 0.0f);
  CHECK_THROWS_WITH(load_named(file_of({{"a", good}, {"b", half}}), model), Contains("inf at element 3"));
}

TEST_CASE("shared pretrained weights, if they are there, load and come back unchanged") {
  const std::string path = shared_data_path("weights/resnet18_conv1_layer3_bnfolded_fp16.safetensors");
  if (!std::filesystem::exists(path)) {
    WARN("skipped: no " << path);
    return;
  }
  const TensorFile file = load_safetensors(path);
  NamedTensors model;
  for (const auto& [name, tensor] : file.tensors) {
    const Shape& s = tensor.shape();
    model.emplace_back(name, full(s.rank() == 4 ? Shape{s[0], s[2], s[3], s[1]} : s, 0.0f));
  }
  CHECK(load_named(file, model).loaded.size() == file.tensors.size());
  for (const auto& [name, tensor] : export_named(model).tensors) {
    const Tensor& half = file.tensors.at(name);
    REQUIRE(tensor.shape() == half.shape());
    std::int64_t different = 0;
    for (std::int64_t i = 0; i < tensor.numel(); ++i) {
      different += tensor.data<float>()[i] != static_cast<float>(half.data<Half>()[i]);
    }
    CHECK(different == 0);
  }
}
