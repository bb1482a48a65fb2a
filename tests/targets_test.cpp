#include "shrike/detection/targets.hpp"

#include <cmath>
#include <set>

#include "catch.hpp"
#include "golden.hpp"
#include "shrike/detection/anchors.hpp"

using namespace shrike;

namespace {

const Tensor no_boxes({0, 4});
const Tensor no_labels({0}, Dtype::s32);

std::vector<Box> boxes_of(const Tensor& tensor) {
  std::vector<Box> boxes;
  const auto v = tensor.to_vector<float>();
  for (std::size_t i = 0; i + 3 < v.size(); i += 4) boxes.push_back({v[i], v[i + 1], v[i + 2], v[i + 3]});
  return boxes;
}

Tensor random_boxes(Random& random, std::int64_t n, float height, float width) {
  std::vector<float> values;
  for (std::int64_t i = 0; i < n; ++i) {
    const float x = random.uniform(0, width - 9), y = random.uniform(0, height - 9);
    values.insert(values.end(), {x, y, x + random.uniform(8, width - x), y + random.uniform(8, height - y)});
  }
  return tensor({n, 4}, values);
}

// Everything sampled: each anchor's label shows in the weights.
RpnTargetOptions all_sampled() {
  RpnTargetOptions options;
  options.batch = 1 << 20;
  return options;
}

std::vector<std::int32_t> labels_of(const RpnTargets& targets) {
  const auto target = targets.cls_target.to_vector<float>();
  const auto weight = targets.cls_weight.to_vector<float>();
  std::vector<std::int32_t> labels;
  for (std::size_t i = 0; i < target.size(); ++i) labels.push_back(weight[i] > 0 ? static_cast<std::int32_t>(target[i]) : -1);
  return labels;
}

}  // namespace

TEST_CASE("anchors are labelled and encoded as torchvision does") {
  const Golden golden("detection_golden.txt");
  int cases = 0;
  for (; golden.has("rpn" + std::to_string(cases) + ".boxes"); ++cases) {
    const std::string name = "rpn" + std::to_string(cases);
    const auto size = golden.values<std::int64_t>(name + ".size");
    const Tensor anchor = anchors({{16, 32, 64}, {0.5f, 1, 2}}, 8, 8, (size[0] + 7) / 8, (size[1] + 7) / 8);
    const RpnTargets targets = rpn_targets(anchor, golden.f32(name + ".boxes"), size[0], size[1], all_sampled(), 1, 2);
    INFO(name);
    REQUIRE(labels_of(targets) == golden.values<std::int32_t>(name + ".labels"));
    const auto box_target = targets.box_target.to_vector<float>();
    const auto box_weight = targets.box_weight.to_vector<float>();
    const auto positive = golden.values<std::size_t>(name + ".positive");
    const auto encoded = golden.values<float>(name + ".encoded");
    std::size_t weighted = 0;
    for (const float w : box_weight) weighted += w > 0;
    REQUIRE(weighted == 4 * positive.size());
    for (std::size_t i = 0; i < encoded.size(); ++i) {
      const std::size_t place = 4 * positive[i / 4] + i % 4;
      REQUIRE(box_weight[place] > 0);
      REQUIRE(box_target[place] == Approx(encoded[i]).epsilon(1e-5).margin(1e-5));
    }
  }
  CHECK(cases == 4);
}

TEST_CASE("the anchors sampled are bounded in number, members of their kind, and weighted by their number") {
  Random random(3, RandomStream::test);
  const Tensor anchor = anchors({{16, 32, 64}, {0.5f, 1, 2}}, 8, 8, 19, 23);
  const Tensor boxes = random_boxes(random, 9, 150, 180);
  const auto every = labels_of(rpn_targets(anchor, boxes, 150, 180, all_sampled(), 0, 0));
  const auto positives = std::count(every.begin(), every.end(), 1);
  REQUIRE(positives > 12);
  for (const int batch : {1, 10, 24, 256}) {
    RpnTargetOptions options;
    options.batch = batch;
    const RpnTargets targets = rpn_targets(anchor, boxes, 150, 180, options, 11, 5);
    const auto labels = labels_of(targets);
    const auto counts = targets.counts.to_vector<std::int32_t>();
    const auto expected = std::min<std::int64_t>(positives, batch / 2);
    CHECK(std::count(labels.begin(), labels.end(), 1) == expected);
    CHECK(std::count(labels.begin(), labels.end(), 0) == batch - expected);
    CHECK(counts ==
          std::vector<std::int32_t>{static_cast<std::int32_t>(expected), static_cast<std::int32_t>(batch - expected)});
    double total = 0;
    const auto weights = targets.cls_weight.to_vector<float>();
    for (std::size_t i = 0; i < labels.size(); ++i) {
      if (labels[i] >= 0) REQUIRE(labels[i] == every[i]);
      total += static_cast<double>(weights[i]);
    }
    CHECK(total == Approx(1).epsilon(1e-5));
  }
}

TEST_CASE("samples repeat with their seed and index, and are uniform over them") {
  const Tensor anchor = anchors({{8}, {1}}, 8, 8, 5, 8);  // 40 anchors, all negative
  RpnTargetOptions options;
  options.batch = 10;
  std::vector<double> hits(40, 0);
  std::set<std::vector<float>> different;
  const int rounds = 4000;
  for (int i = 0; i < rounds; ++i) {
    const auto weights = rpn_targets(anchor, no_boxes, 40, 64, options, static_cast<std::uint64_t>(i / 2000),
                                     static_cast<std::uint64_t>(i % 2000))
                             .cls_weight.to_vector<float>();
    for (std::size_t k = 0; k < 40; ++k) hits[k] += weights[k] > 0;
    different.insert(weights);
    if (i % 500 == 0) {
      REQUIRE(weights == rpn_targets(anchor, no_boxes, 40, 64, options, static_cast<std::uint64_t>(i / 2000),
                                     static_cast<std::uint64_t>(i % 2000))
                             .cls_weight.to_vector<float>());
    }
  }
  CHECK(different.size() > rounds - 5);
  // Each anchor is drawn with probability 1/4; five standard deviations.
  const double spread = std::sqrt(rounds * 0.25 * 0.75);
  for (const double count : hits) CHECK(std::abs(count - rounds * 0.25) < 5 * spread);
}

TEST_CASE("all anchors that tie for the best of a box are positive") {
  // Two anchors mirrored about the box, and one on the far side.
  const Tensor anchor = tensor<float>({3, 4}, {0, 0, 10, 10, 8, 0, 18, 10, 100, 100, 110, 110});
  const Tensor box = tensor<float>({1, 4}, {5, 0, 13, 10});
  CHECK(labels_of(rpn_targets(anchor, box, 200, 200, all_sampled(), 0, 0)) == std::vector<std::int32_t>{1, 1, 0});
  RpnTargetOptions options = all_sampled();
  options.best_is_positive = false;
  CHECK(labels_of(rpn_targets(anchor, box, 200, 200, options, 0, 0)) == std::vector<std::int32_t>{-1, -1, 0});
  options.best_is_positive = true;  // their IoU is 50 / 130
  options.best_iou = 0.384f;
  CHECK(labels_of(rpn_targets(anchor, box, 200, 200, options, 0, 0)) == std::vector<std::int32_t>{1, 1, 0});
  options.best_iou = 0.385f;
  CHECK(labels_of(rpn_targets(anchor, box, 200, 200, options, 0, 0)) == std::vector<std::int32_t>{-1, -1, 0});
}

TEST_CASE("images without boxes, and boxes without area or far from every anchor, give negatives and no NaN") {
  const Tensor anchor = anchors({{16}, {1}}, 16, 16, 3, 3);
  const Tensor degenerate = tensor<float>({3, 4}, {8, 8, 8, 30, 4, 9, 4, 9, 500, 500, 520, 520});
  for (const Tensor& boxes : {no_boxes, degenerate}) {
    const RpnTargets targets = rpn_targets(anchor, boxes, 48, 48, {}, 0, 0);
    CHECK(labels_of(targets) == std::vector<std::int32_t>(9, 0));
    CHECK(targets.cls_weight.to_vector<float>() == std::vector<float>(9, 1.0f / 9));
    CHECK(targets.box_target.to_vector<float>() == std::vector<float>(36, 0.0f));
    CHECK(targets.box_weight.to_vector<float>() == std::vector<float>(36, 0.0f));
  }
  const RpnTargets none = rpn_targets(no_boxes, degenerate, 48, 48, {}, 0, 0);
  CHECK(none.cls_target.shape() == Shape{0});
  CHECK(none.counts.to_vector<std::int32_t>() == std::vector<std::int32_t>{0, 0});
}

TEST_CASE("anchors across the border can be left out, also as the best of a box") {
  const Tensor anchor = tensor<float>({3, 4}, {-4, 0, 16, 20, 0, 0, 20, 20, 30, 30, 52, 50});
  const Tensor boxes = tensor<float>({2, 4}, {0, 0, 12, 20, 32, 30, 50, 50});
  RpnTargetOptions options = all_sampled();
  CHECK(labels_of(rpn_targets(anchor, boxes, 50, 50, options, 0, 0)) == std::vector<std::int32_t>{1, 1, 1});
  options.straddle = 0;
  CHECK(labels_of(rpn_targets(anchor, boxes, 50, 50, options, 0, 0)) == std::vector<std::int32_t>{-1, 1, -1});
  options.straddle = 2;
  CHECK(labels_of(rpn_targets(anchor, boxes, 50, 50, options, 0, 0)) == std::vector<std::int32_t>{-1, 1, 1});
}

TEST_CASE("weights of a batch's images are means over all that was sampled, or over what was to be") {
  Random random(4, RandomStream::test);
  RpnTargetOptions options = all_sampled();
  std::vector<RpnTargets> alone;
  std::vector<double> sampled;
  for (const std::int64_t side : {3, 1, 5}) {
    const Tensor anchor = anchors({{16, 32}, {1}}, 8, 8, side, side);
    alone.push_back(rpn_targets(anchor, side == 1 ? no_boxes : random_boxes(random, 2, 40, 40), 40, 40, options, 1, 0));
    const auto counts = alone.back().counts.to_vector<std::int32_t>();
    sampled.push_back(counts[0] + counts[1]);
  }
  const double all = sampled[0] + sampled[1] + sampled[2];
  for (const std::int64_t least : {1, 1000}) {
    std::vector<RpnTargets> together = alone;
    share_weights({&together[0], &together[1], &together[2]}, least);
    for (std::size_t i = 0; i < 3; ++i) {
      const double weight = 1 / std::max(all, static_cast<double>(least));
      for (const auto part : {&RpnTargets::cls_weight, &RpnTargets::box_weight}) {
        const auto before = (alone[i].*part).to_vector<float>(), after = (together[i].*part).to_vector<float>();
        for (std::size_t k = 0; k < before.size(); ++k) REQUIRE(after[k] == Approx(before[k] > 0 ? weight : 0).epsilon(1e-6));
      }
    }
  }
}

TEST_CASE("proposals are labelled and encoded as torchvision does") {
  const Golden golden("detection_golden.txt");
  int cases = 0;
  for (; golden.has("roi" + std::to_string(cases) + ".boxes"); ++cases) {
    const std::string name = "roi" + std::to_string(cases);
    const Tensor proposals = golden.f32(name + ".proposals");
    const Tensor boxes = golden.f32(name + ".boxes");
    const auto expected = golden.values<std::int32_t>(name + ".labels");
    const auto n = static_cast<std::int64_t>(expected.size());
    RoiTargetOptions options;
    options.batch = static_cast<int>(n) + 3;  // everything, and padding
    options.positive_fraction = 1;
    const RoiTargets targets = roi_targets(proposals, boxes, golden.s32(name + ".box_labels"), 5, options, 1, 2, 3);
    auto labels = targets.labels.to_vector<std::int32_t>();
    REQUIRE(std::vector<std::int32_t>(labels.begin(), labels.begin() + n) == expected);
    REQUIRE(std::vector<std::int32_t>(labels.begin() + n, labels.end()) == std::vector<std::int32_t>(3, -1));
    const auto rois = targets.rois.to_vector<float>();
    auto candidates = boxes_of(proposals);
    for (const Box& box : boxes_of(boxes)) candidates.push_back(box);
    for (std::size_t i = 0; i < labels.size(); ++i) {
      const Box box{rois[5 * i + 1], rois[5 * i + 2], rois[5 * i + 3], rois[5 * i + 4]};
      REQUIRE(box == (i < candidates.size() ? candidates[i] : Box{}));
      REQUIRE(rois[5 * i] == (i < candidates.size() ? 3.0f : 0.0f));
    }
    const auto foreground = golden.values<std::size_t>(name + ".foreground");
    const auto encoded = golden.values<float>(name + ".encoded");
    const auto target = targets.box_target.to_vector<float>();
    const auto weight = targets.box_weight.to_vector<float>();
    std::size_t weighted = 0;
    for (const float w : weight) weighted += w > 0;
    CHECK(weighted == 4 * foreground.size());
    for (std::size_t i = 0; i < encoded.size(); ++i) {
      const std::size_t row = foreground[i / 4];
      const std::size_t place = 20 * row + 4 * static_cast<std::size_t>(labels[row]) + i % 4;
      REQUIRE(weight[place] == Approx(1.0 / static_cast<double>(n)));
      REQUIRE(target[place] == Approx(encoded[i]).epsilon(1e-4).margin(1e-4));
    }
  }
  CHECK(cases == 4);
}

TEST_CASE("regions are sampled a quarter foreground at most, in order, without the padding of the proposals") {
  Random random(8, RandomStream::test);
  const Tensor boxes = random_boxes(random, 5, 97, 131);
  const Tensor labels = tensor<std::int32_t>({5}, {1, 2, 3, 1, 2});
  auto values = random_boxes(random, 60, 97, 131).to_vector<float>();
  const auto near = boxes.to_vector<float>();
  for (int i = 0; i < 20; ++i) {  // 100 proposals close to the boxes
    for (const float v : near) values.push_back(v + random.uniform(-0.5f, 0.5f));
  }
  values.insert(values.end(), 4 * 40, 0.0f);  // padding
  const Tensor proposals = tensor({200, 4}, values);
  RoiTargetOptions options;
  const RoiTargets targets = roi_targets(proposals, boxes, labels, 4, options, 9, 1);
  CHECK(targets.rois.shape() == Shape{128, 5});
  CHECK(targets.box_target.shape() == Shape{128, 16});
  const auto found = targets.labels.to_vector<std::int32_t>();
  const auto counts = targets.counts.to_vector<std::int32_t>();
  CHECK(counts[0] == 32);
  CHECK(std::count_if(found.begin(), found.end(), [](int label) { return label > 0; }) == 32);
  CHECK(std::count(found.begin(), found.end(), 0) == counts[1]);
  const auto rois = targets.rois.to_vector<float>();
  const auto truth = boxes_of(boxes);
  for (std::size_t i = 0; i < found.size(); ++i) {
    const Box box{rois[5 * i + 1], rois[5 * i + 2], rois[5 * i + 3], rois[5 * i + 4]};
    float best = 0;
    for (const Box& t : truth) best = std::max(best, iou(t, box));
    if (found[i] > 0) CHECK(best >= 0.5f);
    if (found[i] == 0) CHECK((best < 0.5f && box.area() > 0));
    if (found[i] < 0) CHECK(box == Box{});
  }
  const RoiTargets again = roi_targets(proposals, boxes, labels, 4, options, 9, 1);
  CHECK(again.rois.to_vector<float>() == rois);
  CHECK(roi_targets(proposals, boxes, labels, 4, options, 9, 2).rois.to_vector<float>() != rois);
  options.negative_low = 0.1f;
  const RoiTargets harder = roi_targets(proposals, boxes, labels, 4, options, 9, 1);
  CHECK(harder.counts.to_vector<std::int32_t>()[1] < counts[1]);
}

TEST_CASE("without proposals the boxes are the regions, and without boxes all is background") {
  const Tensor boxes = tensor<float>({1, 4}, {3, 4, 20, 30});
  RoiTargetOptions options;
  options.batch = 2;
  options.positive_fraction = 0.5;
  const RoiTargets targets = roi_targets(no_boxes, boxes, tensor<std::int32_t>({1}, {2}), 3, options, 0, 0);
  CHECK(targets.labels.to_vector<std::int32_t>() == std::vector<std::int32_t>{2, -1});
  CHECK(targets.box_target.to_vector<float>() == std::vector<float>(24, 0.0f));
  const RoiTargets background = roi_targets(boxes, no_boxes, no_labels, 3, options, 0, 0);
  CHECK(background.labels.to_vector<std::int32_t>() == std::vector<std::int32_t>{0, -1});
  const RoiTargets nothing = roi_targets(no_boxes, no_boxes, no_labels, 3, options, 0, 0);
  CHECK(nothing.labels.to_vector<std::int32_t>() == std::vector<std::int32_t>{-1, -1});
  CHECK(nothing.rois.to_vector<float>() == std::vector<float>(10, 0.0f));
}

TEST_CASE("targets refuse what does not fit") {
  using Catch::Matchers::Contains;
  const Tensor boxes = zeros({2, 4});
  CHECK_THROWS_WITH(rpn_targets(zeros({2, 5}), boxes, 1, 1, {}, 0, 0), Contains("anchors") && Contains("[2, 5]"));
  RpnTargetOptions options;
  options.batch = 0;
  CHECK_THROWS_WITH(rpn_targets(boxes, boxes, 1, 1, options, 0, 0), Contains("batch 0"));
  CHECK_THROWS_WITH(roi_targets(boxes, boxes, zeros({3}, Dtype::s32), 3, {}, 0, 0), Contains("2 boxes"));
  CHECK_THROWS_WITH(roi_targets(boxes, boxes, zeros({2}, Dtype::s32), 1, {}, 0, 0), Contains("num_classes 1"));
}
