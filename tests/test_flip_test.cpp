// Detection in an image and its mirror image together.
#include <algorithm>
#include <cmath>

#include "catch.hpp"
#include "cuda/small_detector.hpp"
#include "reference.hpp"

using namespace shrike;
using namespace shrike::models;

namespace {

// Two images in one batch, the second smaller, odd sides.
const std::vector<ImageSize> sizes = {{67, 83}, {55, 71}};

Tensor batch() {
  Random random(3, RandomStream::test);
  const Tensor images = zeros({2, 67, 83, 3});
  for (std::size_t i = 0; i < 2; ++i) {
    for (int y = 0; y < sizes[i].height; ++y) {
      for (int x = 0; x < sizes[i].width; ++x) {
        float* pixel = images.data<float>() + ((static_cast<std::int64_t>(i) * 67 + y) * 83 + x) * 3;
        for (int c = 0; c < 3; ++c) pixel[c] = random.normal() + (x / 13 % 2 == 0 ? 1.5f : -1.0f);
      }
    }
  }
  return images;
}

Tensor mirrored_by_hand(const Tensor& images) {
  const Tensor result = images.clone();
  for (std::int64_t i = 0; i < 2; ++i) {
    const ImageSize size = sizes[static_cast<std::size_t>(i)];
    for (std::int64_t y = 0; y < size.height; ++y) {
      for (std::int64_t x = 0; x < size.width; ++x) {
        for (std::int64_t c = 0; c < 3; ++c) {
          result.data<float>()[((i * 67 + y) * 83 + x) * 3 + c] =
              images.data<float>()[((i * 67 + y) * 83 + size.width - 1 - x) * 3 + c];
        }
      }
    }
  }
  return result;
}

std::shared_ptr<FasterRcnn> detector() {
  const auto model = make_detector(small_detector("resnet18"));
  nn::initialize(*model, 4);
  nn::train(*model, false);
  model->options().detections.score_threshold = 0.2f;
  return model;
}

Detection mirrored(const Detection& one, int width) {
  const auto w = static_cast<float>(width);
  return {{w - one.box.x2, one.box.y1, w - one.box.x1, one.box.y2}, one.label, one.score};
}

bool near(const Detection& a, const Detection& b) {
  const auto close = [](float x, float y) { return std::abs(x - y) < 1e-3f; };
  return a.label == b.label && close(a.score, b.score) && close(a.box.x1, b.box.x1) && close(a.box.y1, b.box.y1) &&
         close(a.box.x2, b.box.x2) && close(a.box.y2, b.box.y2);
}

// Greedy suppression within each label, in double.
std::vector<Detection> suppressed(std::vector<Detection> all, double threshold, std::size_t most) {
  std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.score > b.score; });
  const auto length = [](float low, float high) { return static_cast<double>(high) - static_cast<double>(low); };
  const auto overlap = [&](const Box& a, const Box& b) {
    const double w = length(std::max(a.x1, b.x1), std::min(a.x2, b.x2));
    const double h = length(std::max(a.y1, b.y1), std::min(a.y2, b.y2));
    if (w <= 0 || h <= 0) return 0.0;
    const auto area = [&](const Box& x) { return length(x.x1, x.x2) * length(x.y1, x.y2); };
    return w * h / (area(a) + area(b) - w * h);
  };
  std::vector<Detection> kept;
  for (const Detection& one : all) {
    const bool beaten = std::any_of(kept.begin(), kept.end(), [&](const Detection& other) {
      return other.label == one.label && overlap(other.box, one.box) > threshold;
    });
    if (!beaten && kept.size() < most) kept.push_back(one);
  }
  return kept;
}

}  // namespace

TEST_CASE("what is found in an image and in its mirror image is suppressed together") {
  const auto model = detector();
  const Tensor images = batch();
  const auto plain = model->detect(images, sizes);
  // All candidates of both, one after the other.
  const DetectionOptions options = model->options().detections;
  model->options().detections.nms_threshold = 1;
  model->options().detections.max_detections = 1000;
  const auto candidates = model->detect(images, sizes), mirror = model->detect(mirrored_by_hand(images), sizes);
  model->options().detections = options;
  model->options().test_flip = true;
  const auto found = model->detect(images, sizes);
  REQUIRE(found.size() == 2);
  std::size_t from_mirror = 0;
  for (std::size_t i = 0; i < 2; ++i) {
    std::vector<Detection> all = candidates[i];
    for (const Detection& one : mirror[i]) all.push_back(mirrored(one, sizes[i].width));
    const auto expected = suppressed(all, options.nms_threshold, static_cast<std::size_t>(options.max_detections));
    REQUIRE(found[i].size() == expected.size());
    for (std::size_t k = 0; k < expected.size(); ++k) {
      INFO("image " << i << ", detection " << k);
      CHECK(near(found[i][k], expected[k]));
      from_mirror +=
          std::none_of(candidates[i].begin(), candidates[i].end(), [&](const auto& c) { return near(c, expected[k]); });
    }
    CHECK(found[i].size() != 0);
  }
  CHECK(from_mirror > 0);
}

TEST_CASE("a mirrored image has the mirrored detections") {
  const auto model = detector();
  model->options().test_flip = true;
  for (const SoftNms kind : {SoftNms::off, SoftNms::gaussian}) {
    model->options().detections.soft_nms = kind;
    const auto found = model->detect(batch(), sizes), mirror = model->detect(mirrored_by_hand(batch()), sizes);
    for (std::size_t i = 0; i < 2; ++i) {
      REQUIRE(found[i].size() == mirror[i].size());
      CHECK(found[i].size() > 1);
      for (const Detection& one : found[i]) {
        const Detection there = mirrored(one, sizes[i].width);
        CHECK(std::any_of(mirror[i].begin(), mirror[i].end(), [&](const Detection& other) { return near(other, there); }));
      }
    }
  }
}

TEST_CASE("nothing above the threshold is nothing in both") {
  const auto model = detector();
  model->options().test_flip = true;
  model->options().detections.score_threshold = 1;
  for (const auto& image : model->detect(batch(), sizes)) CHECK(image.empty());
}
