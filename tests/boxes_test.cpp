#include "shrike/detection/boxes.hpp"

#include <limits>

#include "catch.hpp"
#include "golden.hpp"
#include "shrike/core/random.hpp"

using namespace shrike;

namespace {

void check_close(const Tensor& found, const Tensor& expected, double tolerance) {
  REQUIRE(found.shape() == expected.shape());
  const auto a = found.to_vector<float>();
  const auto b = expected.to_vector<float>();
  for (std::size_t i = 0; i < a.size(); ++i) {
    INFO("element " << i);
    REQUIRE(a[i] == Approx(b[i]).epsilon(tolerance).margin(tolerance));
  }
}

}  // namespace

TEST_CASE("boxes are coded as torchvision codes them") {
  const Golden golden("detection_golden.txt");
  for (int i = 0; golden.has("coder" + std::to_string(i) + ".weights"); ++i) {
    const std::string name = "coder" + std::to_string(i);
    const auto w = golden.values<float>(name + ".weights");
    const BoxWeights weights{w[0], w[1], w[2], w[3]};
    const Tensor references = golden.f32(name + ".references");
    check_close(encode_boxes(golden.f32(name + ".boxes"), references, weights), golden.f32(name + ".encoded"), 1e-5);
    const Tensor decoded = decode_boxes(golden.f32(name + ".deltas"), references, weights);
    check_close(decoded, golden.f32(name + ".decoded"), 1e-5);
    check_close(clip_boxes(decoded.view({decoded.numel() / 4, 4}), 333, 517), golden.f32(name + ".clipped"), 1e-4);
  }
}

TEST_CASE("decoding undoes encoding") {
  Random random(5, RandomStream::test);
  const std::int64_t n = 5003;
  std::vector<float> boxes, references;
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::vector<float>* values : {&boxes, &references}) {
      const float x = random.uniform(-50, 900), y = random.uniform(-50, 500);
      values->insert(values->end(), {x, y, x + random.uniform(20, 300), y + random.uniform(20, 300)});
    }
  }
  const Tensor box = tensor({n, 4}, boxes);
  const Tensor reference = tensor({n, 4}, references);
  for (const BoxWeights& weights : {anchor_weights, roi_weights}) {
    check_close(decode_boxes(encode_boxes(box, reference, weights), reference, weights), box, 1e-3);
  }
}

TEST_CASE("nothing that is not finite comes out of the box coder") {
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Box reference{10, 20, 40, 60};
  for (const float bad : {inf, -inf, nan}) {
    for (int place = 0; place < 4; ++place) {
      std::vector<float> delta(4, 0.1f);
      delta[static_cast<std::size_t>(place)] = bad;
      const Tensor box = decode_boxes(tensor({1, 4}, delta), tensor<float>({1, 4}, {10, 20, 40, 60}));
      REQUIRE(box.to_vector<float>() == std::vector<float>(4, 0.0f));
    }
  }
  CHECK(decode_box({3e38f, 0, 0, 0}, reference, anchor_weights) == Box{});
  const Box large = decode_box({0, 0, 80, 80}, reference, anchor_weights);
  CHECK(large.width() == Approx(30 * 1000.0 / 16));
  CHECK(large.height() == Approx(40 * 1000.0 / 16));
  for (const Box& box : {Box{5, 5, 5, 9}, Box{7, 3, 2, 1}, Box{}}) {
    for (const auto& [a, b] : {std::pair{box, reference}, std::pair{reference, box}, std::pair{box, box}}) {
      const BoxDelta delta = encode_box(a, b, roi_weights);
      CHECK((std::isfinite(delta.x) && std::isfinite(delta.y) && std::isfinite(delta.w) && std::isfinite(delta.h)));
    }
  }
}

TEST_CASE("no boxes are boxes too") {
  const Tensor none({0, 4});
  CHECK(encode_boxes(none, none).shape() == Shape{0, 4});
  CHECK(decode_boxes(Tensor({0, 84}), none).shape() == Shape{0, 84});
  CHECK(clip_boxes(none, 3, 4).shape() == Shape{0, 4});
  CHECK(box_tensor({}).shape() == Shape{0, 4});
  CHECK(label_tensor({}).shape() == Shape{0});
  const std::vector<Object> objects{{{1, 2, 3, 4}, 7}};
  CHECK(box_tensor(objects).to_vector<float>() == std::vector<float>{1, 2, 3, 4});
  CHECK(label_tensor(objects).to_vector<std::int32_t>() == std::vector<std::int32_t>{7});
}

TEST_CASE("boxes of wrong shape or dtype are refused by name") {
  using Catch::Matchers::Contains;
  CHECK_THROWS_WITH(encode_boxes(zeros({3, 4}), zeros({2, 4})), Contains("[3, 4]") && Contains("[2, 4]"));
  CHECK_THROWS_WITH(encode_boxes(zeros({3, 5}), zeros({3, 4})), Contains("[3, 5]"));
  CHECK_THROWS_WITH(encode_boxes(zeros({3, 4}, Dtype::s32), zeros({3, 4})), Contains("s32"));
  CHECK_THROWS_WITH(decode_boxes(zeros({3, 6}), zeros({3, 4})), Contains("[3, 6]"));
  CHECK_THROWS_WITH(clip_boxes(zeros({3, 3}), 1, 1), Contains("[3, 3]"));
}
