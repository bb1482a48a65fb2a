#include "shrike/ops/nms.hpp"

#include "catch.hpp"
#include "golden.hpp"
#include "shrike/core/box.hpp"
#include "shrike/core/random.hpp"
#include "threads.hpp"

using namespace shrike;

namespace {

using Indices = std::vector<std::int32_t>;

std::vector<float> random_boxes(std::int64_t n, Random& random, float extent) {
  std::vector<float> boxes;
  for (std::int64_t i = 0; i < n; ++i) {
    const float x = random.uniform(0, extent), y = random.uniform(0, extent);
    boxes.insert(boxes.end(), {x, y, x + random.uniform(0, extent / 2), y + random.uniform(0, extent / 2)});
  }
  return boxes;
}

// Few different values, so that there are ties.
std::vector<float> random_scores(std::int64_t n, Random& random) {
  std::vector<float> scores;
  for (std::int64_t i = 0; i < n; ++i) scores.push_back(static_cast<float>(random.below(200)) / 100.0f - 1.0f);
  return scores;
}

Indices sorted(const std::vector<float>& scores) {
  Indices order(scores.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int32_t>(i);
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    const float x = scores[static_cast<std::size_t>(a)], y = scores[static_cast<std::size_t>(b)];
    return std::isnan(x) ? false : std::isnan(y) || x > y;
  });
  return order;
}

Box box_at(const std::vector<float>& boxes, std::int32_t i) {
  const float* b = boxes.data() + 4 * i;
  return {b[0], b[1], b[2], b[3]};
}

// The definition, one pair at a time.
Indices plain_nms(const std::vector<float>& boxes, const Indices& order, const Indices& labels, float threshold) {
  Indices keep;
  for (const std::int32_t i : order) {
    if (i < 0) continue;
    const bool free = std::none_of(keep.begin(), keep.end(), [&](std::int32_t k) {
      const bool same = labels.empty() || labels[static_cast<std::size_t>(k)] == labels[static_cast<std::size_t>(i)];
      return same && iou(box_at(boxes, k), box_at(boxes, i)) > threshold;
    });
    if (free) keep.push_back(i);
  }
  return keep;
}

}  // namespace

TEST_CASE("top_k sorts like a stable sort, whatever k") {
  Random random(1, RandomStream::test);
  for (const int n : {0, 1, 2, 63, 1000, 5000}) {
    std::vector<float> scores = random_scores(n, random);
    for (std::size_t i = 0; i < scores.size(); i += 7) {
      scores[i] = std::vector<float>{NAN, HUGE_VALF, -HUGE_VALF, -0.0f, 0.0f, 1e-40f, -1e-40f}[i / 7 % 7];
    }
    const Indices all = sorted(scores);
    for (const int k : {0, 1, 5, n / 2, n - 1, n, n + 3}) {
      if (k < 0) continue;
      INFO("the " << k << " greatest of " << n);
      const Indices expected(all.begin(), all.begin() + std::min(k, n));
      REQUIRE(top_k(tensor<float>({n}, scores), k).to_vector<std::int32_t>() == expected);
    }
  }
}

TEST_CASE("nms keeps what the definition keeps") {
  Random random(2, RandomStream::test);
  for (const int n : {0, 1, 2, 64, 65, 257, 1500}) {
    for (const float threshold : {0.0f, 0.3f, 0.7f, 1.0f}) {
      INFO(n << " boxes, threshold " << threshold);
      const std::vector<float> boxes = random_boxes(n, random, 100);
      const std::vector<float> scores = random_scores(n, random);
      Indices labels;
      for (int i = 0; i < n; ++i) labels.push_back(static_cast<std::int32_t>(random.below(4)) - 1);
      const Tensor b = tensor<float>({n, 4}, boxes);
      const Tensor s = tensor<float>({n}, scores);
      const Indices expected = plain_nms(boxes, sorted(scores), {}, threshold);
      REQUIRE(nms(b, s, threshold).to_vector<std::int32_t>() == expected);
      REQUIRE(batched_nms(b, s, tensor<std::int32_t>({n}, labels), threshold).to_vector<std::int32_t>() ==
              plain_nms(boxes, sorted(scores), labels, threshold));
    }
  }
}

TEST_CASE("nms in a given order stops at max_keep, passes over what is not a box and pads") {
  Random random(3, RandomStream::test);
  const int n = 700;
  const std::vector<float> boxes = random_boxes(n, random, 200);
  Indices order, labels;
  for (int i = 0; i < n; ++i) {
    order.push_back(i % 5 == 3 ? -1 : (i * 37) % n);
    labels.push_back(i % 3);
  }
  for (const bool labelled : {false, true}) {
    Indices expected = plain_nms(boxes, order, labelled ? labels : Indices{}, 0.5f);
    for (const int most : {0, 1, 40, 5000}) {
      const NmsResult result = nms_in_order(tensor<float>({n, 4}, boxes), tensor<std::int32_t>({n}, order),
                                            labelled ? tensor<std::int32_t>({n}, labels) : Tensor(), 0.5, most);
      Indices padded = expected;
      const auto found = std::min<std::size_t>(expected.size(), static_cast<std::size_t>(most));
      padded.resize(found);
      padded.resize(static_cast<std::size_t>(most), -1);
      REQUIRE(result.keep.to_vector<std::int32_t>() == padded);
      REQUIRE(result.count.item<std::int32_t>() == static_cast<std::int32_t>(found));
    }
  }
}

TEST_CASE("boxes with a NaN, without area or inside out neither remove others nor are removed") {
  const Tensor boxes = tensor<float>({6, 4}, {0, 0, 10, 10, NAN, 0, 10, 10, 5, 5, 5, 5, 5, 5, 5, 5, 8, 8, 2, 2, 0, 0, 10, 9});
  const Tensor scores = tensor<float>({6}, {NAN, 6, 5, 4, 3, 2});
  CHECK(nms(boxes, scores, 0.5).to_vector<std::int32_t>() ==
        Indices{1, 2, 3, 4, 5});  // the first is last and overlaps the last
  CHECK(nms(boxes, scores, 0.95).to_vector<std::int32_t>() == Indices{1, 2, 3, 4, 5, 0});
}

TEST_CASE("an IoU of exactly the threshold does not suppress, in double") {
  const Tensor boxes = tensor<float>({2, 4}, {0, 0, 10, 1, 0, 0, 3, 1});  // IoU is the float nearest 0.3, above 0.3
  const Tensor scores = tensor<float>({2}, {2, 1});
  CHECK(nms(boxes, scores, 0.3).numel() == 1);
  CHECK(nms(boxes, scores, static_cast<double>(0.3f)).numel() == 2);
}

TEST_CASE("nms refuses what does not fit") {
  const auto says = [](const char* text) { return Catch::Matchers::Contains(text); };
  CHECK_THROWS_WITH(nms(zeros({3, 5}), zeros({3}), 0.5), says("[3, 5]"));
  CHECK_THROWS_WITH(nms(zeros({3, 4}), zeros({2}), 0.5), says("[2]"));
  CHECK_THROWS_WITH(nms(zeros({3, 4}), zeros({3}), -0.5), says("-0.5"));
  CHECK_THROWS_WITH(batched_nms(zeros({3, 4}), zeros({3}), zeros({4}, Dtype::s32), 0.5), says("[4]"));
  CHECK_THROWS_WITH(top_k(zeros({3, 4}), 1), says("[3, 4]"));
}

TEST_CASE("nms and batched_nms keep exactly what torchvision's keep") {
  const Golden golden("nms_golden.txt");
  for (int i = 0; i < golden.values<int>("cases")[0]; ++i) {
    const std::string name = std::to_string(i);
    INFO("case " << name);
    const Tensor boxes = golden.f32(name + ".boxes");
    const Tensor scores = golden.f32(name + ".scores");
    const double threshold = golden.values(name + ".threshold")[0];
    CHECK(nms(boxes, scores, threshold).to_vector<std::int32_t>() == golden.values<std::int32_t>(name + ".keep"));
    CHECK(batched_nms(boxes, scores, golden.s32(name + ".labels"), threshold).to_vector<std::int32_t>() ==
          golden.values<std::int32_t>(name + ".batched"));
  }
}

TEST_CASE("nms gives the same on any number of threads") {
  Random random(4, RandomStream::test);
  const Tensor boxes = tensor<float>({3000, 4}, random_boxes(3000, random, 300));
  const Tensor scores = tensor<float>({3000}, random_scores(3000, random));
  CHECK(same_on_any_threads([&] { return nms(boxes, scores, 0.6); }));
}
