// Soft suppression beside the paper's algorithm in double precision.
#include "shrike/detection/soft_nms.hpp"

#include <cmath>
#include <limits>

#include "catch.hpp"
#include "reference.hpp"
#include "shrike/detection/proposals.hpp"

using namespace shrike;

namespace {

double overlap(const Box& a, const Box& b) {
  const auto length = [](float low, float high) { return static_cast<double>(high) - static_cast<double>(low); };
  const auto side = [&](float low_a, float low_b, float high_a, float high_b) {
    return std::max(0.0, length(std::max(low_a, low_b), std::min(high_a, high_b)));
  };
  const double both = side(a.x1, b.x1, a.x2, b.x2) * side(a.y1, b.y1, a.y2, b.y2);
  const auto area = [&](const Box& x) { return length(x.x1, x.x2) * length(x.y1, x.y2); };
  return both / (area(a) + area(b) - both);
}

// Figure 2 of the paper, over all labels at once.
std::vector<std::pair<std::size_t, double>> expected_of(const std::vector<Detection>& candidates,
                                                        const SoftNmsOptions& options) {
  std::vector<double> scores;
  for (const Detection& candidate : candidates) scores.push_back(static_cast<double>(candidate.score));
  std::vector<bool> left(candidates.size(), true);
  std::vector<std::pair<std::size_t, double>> result;
  while (static_cast<std::int64_t>(result.size()) < options.max_detections) {
    std::size_t best = candidates.size();
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      if (left[i] && (best == candidates.size() || scores[i] > scores[best])) best = i;
    }
    if (best == candidates.size() || scores[best] <= static_cast<double>(options.score_threshold)) break;
    left[best] = false;
    result.emplace_back(best, scores[best]);
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      if (!left[i] || candidates[i].label != candidates[best].label) continue;
      const double iou = overlap(candidates[best].box, candidates[i].box);
      if (options.kind == SoftNms::gaussian) scores[i] *= std::exp(-iou * iou / options.sigma);
      if (options.kind == SoftNms::linear && iou > options.iou) scores[i] *= 1 - iou;
    }
  }
  return result;
}

void check(const std::vector<Detection>& got, const std::vector<Detection>& candidates, const SoftNmsOptions& options) {
  const auto expected = expected_of(candidates, options);
  REQUIRE(got.size() == expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    INFO(i << " of " << got.size());
    CHECK(got[i].box == candidates[expected[i].first].box);
    CHECK(got[i].label == candidates[expected[i].first].label);
    CHECK(got[i].score == Approx(expected[i].second).epsilon(1e-5));
  }
}

}  // namespace

TEST_CASE("scores fall as the paper's algorithm says, label by label") {
  Random random(1, RandomStream::test);
  std::size_t found = 0, fallen = 0;
  for (const int n : {0, 1, 2, 7, 60}) {
    for (const SoftNms kind : {SoftNms::linear, SoftNms::gaussian}) {
      for (const std::int64_t most : {0, 3, 1000}) {
        std::vector<Detection> candidates;
        for (int i = 0; i < n; ++i) {
          const float x = random.uniform(0, 40), y = random.uniform(0, 40);
          candidates.push_back({{x, y, x + random.uniform(5, 40), y + random.uniform(5, 40)},
                                1 + static_cast<std::int32_t>(random.below(3)),
                                random.uniform()});
        }
        const SoftNmsOptions options{kind, 0.3, 0.4, 0.05f, most};
        INFO(n << " candidates, at most " << most);
        const auto got = soft_nms(candidates, options);
        check(got, candidates, options);
        found += got.size();
        for (const Detection& one : got) {
          fallen += std::none_of(candidates.begin(), candidates.end(), [&](const auto& c) { return c.score == one.score; });
        }
      }
    }
  }
  CHECK(found > 40);
  CHECK(fallen > 20);
}

TEST_CASE("two boxes that overlap by a third, by hand") {
  const Box a{0, 0, 10, 10}, b{0, 5, 10, 15};
  const auto second = [&](SoftNmsOptions options, std::int32_t label = 1) {
    options.score_threshold = 0.01f;
    const auto got = soft_nms({{b, label, 0.6f}, {a, 1, 0.9f}}, options);
    REQUIRE(got.size() == 2);
    CHECK((got[0].box == a && got[0].score == 0.9f));
    return got[1].score;
  };
  CHECK(second({SoftNms::linear, 0.3}) == Approx(0.4));
  CHECK(second({SoftNms::linear, 0.34}) == 0.6f);
  CHECK(second({SoftNms::gaussian, 0.3, 0.5}) == Approx(0.6 * std::exp(-1.0 / 9 / 0.5)));
  CHECK(second({SoftNms::linear, 0.3}, 2) == 0.6f);
  // A copy loses all by the linear rule, and what falls to the threshold drops out.
  CHECK(soft_nms({{a, 1, 0.9f}, {a, 1, 0.8f}}, {SoftNms::linear}).size() == 1);
  CHECK(soft_nms({{a, 1, 0.9f}, {b, 1, 0.6f}}, {SoftNms::linear, 0.3, 0.5, 0.41f}).size() == 1);
  // Of equals the first.
  const auto ties = soft_nms({{b, 2, 0.5f}, {a, 1, 0.5f}, {{20, 20, 30, 30}, 2, 0.5f}}, {SoftNms::linear, 0.9});
  REQUIRE(ties.size() == 3);
  CHECK((ties[0].box == b && ties[1].box == a && ties[2].box.x1 == 20));
}

TEST_CASE("detections are soft where they are asked to be") {
  Random random(2, RandomStream::test);
  constexpr std::int64_t n = 40, classes = 4;
  const Tensor logits = reference::random_tensor({n, classes}, random, -3, 3);
  const Tensor deltas = reference::random_tensor({n, 4 * classes}, random, -2, 2);
  const Tensor boxes({n, 4});
  for (std::int64_t i = 0; i < n; ++i) {
    const float x = random.uniform(0, 50), y = random.uniform(0, 50);
    const float side = i % 9 == 8 ? 0.0f : random.uniform(10, 40);  // padding has no area
    kernels::store_box({x, y, x + side, y + side}, boxes.data<float>() + 4 * i);
  }
  DetectionOptions all;
  all.nms_threshold = 1;  // nothing is suppressed
  all.max_detections = 1000;
  const auto candidates = detections(logits, deltas, boxes, 90, 80, all);
  REQUIRE(candidates.size() > 60);
  for (const SoftNms kind : {SoftNms::linear, SoftNms::gaussian}) {
    DetectionOptions options;
    options.soft_nms = kind;
    options.nms_threshold = 0.4;
    options.soft_nms_sigma = 0.3;
    options.max_detections = 50;
    check(detections(logits, deltas, boxes, 90, 80, options), candidates, {kind, 0.4, 0.3, options.score_threshold, 50});
    CHECK(detections(Tensor({0, 4}), Tensor({0, 16}), Tensor({0, 4}), 90, 80, options).empty());
  }
}

TEST_CASE("what makes no sense is refused") {
  using Catch::Matchers::Contains;
  CHECK(parse_soft_nms("off") == SoftNms::off);
  CHECK(parse_soft_nms("linear") == SoftNms::linear);
  CHECK(parse_soft_nms("gaussian") == SoftNms::gaussian);
  CHECK_THROWS_WITH(parse_soft_nms("cubic"), Contains("'cubic'") && Contains("linear or gaussian"));
  CHECK_THROWS_WITH(soft_nms({}, {SoftNms::off}), Contains("off"));
  CHECK_THROWS_WITH(soft_nms({}, {SoftNms::gaussian, 0.3, 0}), Contains("sigma 0"));
  const float nan = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_WITH(soft_nms({{{0, 0, 1, 1}, 1, nan}}, {}), Contains("candidate 0"));
}
