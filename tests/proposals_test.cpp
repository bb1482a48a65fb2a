#include "shrike/detection/proposals.hpp"

#include <cmath>
#include <limits>

#include "catch.hpp"
#include "golden.hpp"
#include "shrike/core/random.hpp"
#include "shrike/ops/layout.hpp"

using namespace shrike;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

Proposals of_levels(const Golden& golden, const std::string& name) {
  const auto counts = golden.values<std::int64_t>(name + ".counts");
  const auto numbers = golden.values<std::int64_t>(name + ".options");
  const Tensor anchors = golden.f32(name + ".anchors");
  const Tensor deltas = golden.f32(name + ".deltas");
  const Tensor objectness = golden.f32(name + ".objectness");
  ProposalOptions options;
  options.pre_nms = numbers[0];
  options.post_nms = numbers[1];
  std::vector<Proposals> levels;
  std::int64_t first = 0;
  for (const std::int64_t count : counts) {
    const auto part = [&](const Tensor& x) { return slice(x, 0, first, first + count); };
    levels.push_back(proposals(part(objectness), part(deltas), part(anchors), numbers[2], numbers[3], options));
    first += count;
  }
  return levels.size() == 1 ? levels[0] : merge_proposals(levels, options.post_nms);
}

}  // namespace

TEST_CASE("proposals of one and of several levels are torchvision's") {
  const Golden golden("detection_golden.txt");
  int cases = 0;
  for (; golden.has("proposals" + std::to_string(cases) + ".boxes"); ++cases) {
    const std::string name = "proposals" + std::to_string(cases);
    INFO(name);
    const Proposals found = of_levels(golden, name);
    const auto boxes = golden.values<float>(name + ".boxes");
    const auto scores = golden.values<float>(name + ".scores");
    const std::size_t count = scores.size();
    REQUIRE(found.count.item<std::int32_t>() == static_cast<int>(count));
    REQUIRE(found.boxes.size(0) == golden.values<std::int64_t>(name + ".options")[1]);
    const auto box = found.boxes.to_vector<float>();
    const auto score = found.scores.to_vector<float>();
    for (std::size_t i = 0; i < score.size(); ++i) {
      if (i < count) {
        REQUIRE(1 / (1 + std::exp(-score[i])) == Approx(scores[i]).epsilon(1e-5));
        for (std::size_t k = 4 * i; k < 4 * i + 4; ++k) REQUIRE(box[k] == Approx(boxes[k]).margin(1e-3));
      } else {
        REQUIRE(score[i] == -infinity);
        for (std::size_t k = 4 * i; k < 4 * i + 4; ++k) REQUIRE(box[k] == 0);
      }
    }
  }
  CHECK(cases == 4);
}

TEST_CASE("small boxes drop out after the best were taken, and so does what is not finite") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Tensor anchors =
      tensor<float>({6, 4}, {0, 0, 8, 40, 10, 10, 40, 40, -50, -50, -5, -5, 60, 60, 90, 90, 20, 60, 50, 90, 60, 10, 90, 40});
  std::vector<float> deltas(24, 0);
  deltas[4 * 3] = nan;
  deltas[4 * 4 + 2] = infinity;
  const Tensor objectness = tensor<float>({6}, {9, 1, 8, 7, 6, 0});
  ProposalOptions options;
  options.pre_nms = 2;
  options.post_nms = 5;
  options.min_size = 16;
  CHECK(proposals(objectness, tensor({6, 4}, deltas), anchors, 100, 100, options).count.item<std::int32_t>() == 0);
  options.pre_nms = 5;
  CHECK(proposals(objectness, tensor({6, 4}, deltas), anchors, 100, 100, options).count.item<std::int32_t>() == 1);
  options.pre_nms = 6;
  const Proposals found = proposals(objectness, tensor({6, 4}, deltas), anchors, 100, 100, options);
  CHECK(found.count.item<std::int32_t>() == 2);
  CHECK(found.scores.to_vector<float>() == std::vector<float>{1, 0, -infinity, -infinity, -infinity});
  CHECK(slice(found.boxes, 0, 0, 2).to_vector<float>() == std::vector<float>{10, 10, 40, 40, 60, 10, 90, 40});
  options.min_size = 0;
  const Proposals bad =
      proposals(tensor<float>({6}, {nan, nan, -infinity, nan, nan, nan}), zeros({6, 4}), anchors, 100, 100, options);
  CHECK(bad.count.item<std::int32_t>() == 0);
  CHECK(bad.boxes.to_vector<float>() == std::vector<float>(20, 0.0f));
}

TEST_CASE("no anchors give no proposals, and empty levels merge") {
  const Tensor none({0, 4});
  ProposalOptions options;
  options.post_nms = 3;
  const Proposals empty = proposals(Tensor({0}), none, none, 10, 10, options);
  CHECK(empty.count.item<std::int32_t>() == 0);
  CHECK(empty.boxes.shape() == Shape{3, 4});
  const Tensor box = tensor<float>({1, 4}, {1, 2, 8, 9});
  const Proposals one = proposals(full({1}, 2.5f), zeros({1, 4}), box, 10, 10, options);
  const Proposals merged = merge_proposals({empty, one, empty}, 2);
  CHECK(merged.count.item<std::int32_t>() == 1);
  CHECK(merged.boxes.to_vector<float>() == std::vector<float>{1, 2, 8, 9, 0, 0, 0, 0});
  CHECK(merged.scores.to_vector<float>() == std::vector<float>{2.5f, -infinity});
  CHECK(merge_proposals({one}, 20).boxes.shape() == Shape{20, 4});
}

TEST_CASE("proposals come by score, ties by anchor, and record no gradient") {
  const Tensor anchors = tensor<float>({3, 4}, {0, 0, 9, 9, 20, 0, 29, 9, 40, 0, 49, 9});
  const Tensor objectness = tensor<float>({3}, {1, 2, 2});
  objectness.set_requires_grad(true);
  const Proposals found = proposals(objectness, zeros({3, 4}), anchors, 50, 50, {});
  CHECK_FALSE((found.boxes.requires_grad() || found.scores.requires_grad()));
  CHECK(slice(found.boxes, 0, 0, 3).to_vector<float>() == std::vector<float>{20, 0, 29, 9, 40, 0, 49, 9, 0, 0, 9, 9});
}

TEST_CASE("detections are torchvision's") {
  const Golden golden("detection_golden.txt");
  int cases = 0;
  for (; golden.has("detections" + std::to_string(cases) + ".boxes"); ++cases) {
    const std::string name = "detections" + std::to_string(cases);
    INFO(name);
    const auto numbers = golden.values(name + ".options");
    DetectionOptions options;
    options.score_threshold = static_cast<float>(numbers[0]);
    options.nms_threshold = numbers[1];
    options.max_detections = static_cast<std::int64_t>(numbers[2]);
    const auto found = detections(golden.f32(name + ".logits"), golden.f32(name + ".deltas"), golden.f32(name + ".proposals"),
                                  91, 133, options);
    const auto boxes = golden.values<float>(name + ".boxes");
    const auto scores = golden.values<float>(name + ".scores");
    const auto labels = golden.values<std::int32_t>(name + ".labels");
    REQUIRE(found.size() == scores.size());
    for (std::size_t i = 0; i < found.size(); ++i) {
      REQUIRE(found[i].label == labels[i]);
      REQUIRE(found[i].score == Approx(scores[i]).epsilon(1e-5));
      REQUIRE(found[i].box.x1 == Approx(boxes[4 * i]).margin(1e-3));
      REQUIRE(found[i].box.y1 == Approx(boxes[4 * i + 1]).margin(1e-3));
      REQUIRE(found[i].box.x2 == Approx(boxes[4 * i + 2]).margin(1e-3));
      REQUIRE(found[i].box.y2 == Approx(boxes[4 * i + 3]).margin(1e-3));
    }
  }
  CHECK(cases == 4);
}

TEST_CASE("padding, NaN and background give no detections") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Tensor proposals = tensor<float>({4, 4}, {0, 0, 0, 0, 5, 5, 30, 30, 5, 5, 30, 30, 50, 50, 80, 80});
  const Tensor logits = tensor<float>({4, 3}, {0, 9, 0, nan, 9, 0, 9, 0, 0, 0, 0, 9});
  std::vector<float> deltas(48, 0.0f);
  const auto found = detections(logits, tensor({4, 12}, deltas), proposals, 100, 100, {});
  REQUIRE(found.size() == 1);
  CHECK(found[0].label == 2);
  CHECK(found[0].box == Box{50, 50, 80, 80});
  for (std::size_t i = 36; i < 48; ++i) deltas[i] = nan;
  CHECK(detections(logits, tensor({4, 12}, deltas), proposals, 100, 100, {}).empty());
  CHECK(detections(Tensor({0, 3}), Tensor({0, 12}), Tensor({0, 4}), 100, 100, {}).empty());
}

TEST_CASE("outputs of wrong shape are refused by name") {
  using Catch::Matchers::Contains;
  const Tensor anchors = zeros({3, 4});
  CHECK_THROWS_WITH(proposals(zeros({2}), zeros({3, 4}), anchors, 1, 1, {}), Contains("objectness") && Contains("[2]"));
  CHECK_THROWS_WITH(proposals(zeros({3}), zeros({3, 8}), anchors, 1, 1, {}), Contains("deltas") && Contains("[3, 8]"));
  CHECK_THROWS_WITH(detections(zeros({3, 1}), zeros({3, 4}), anchors, 1, 1, {}), Contains("C > 1"));
  CHECK_THROWS_WITH(detections(zeros({3, 2}), zeros({3, 4}), anchors, 1, 1, {}), Contains("[3, 8]"));
  CHECK_THROWS_WITH(merge_proposals({}, 3), Contains("0 levels"));
}
