// The report on anchors before training, beside all anchors of the map one by one.
#include "apps/anchor_fit.hpp"

#include "catch.hpp"
#include "shrike/core/random.hpp"

using namespace shrike;
using namespace shrike::apps;

namespace {

TrainConfig config_of(const std::string& backbone) {
  TrainConfig config;
  config.model.backbone = backbone;
  config.model.min_size = 240;
  config.model.max_size = 400;
  config.model.anchor_sizes = {24, 60, 130};
  config.model.classes = {"a"};
  return config;
}

Dataset random_boxes(std::uint64_t seed, int images) {
  Random random(seed, RandomStream::test);
  Dataset data;
  for (int i = 0; i < images; ++i) {
    Sample sample;
    sample.height = 200 + 31 * (i % 9);
    sample.width = 300 - 17 * (i % 7);
    for (int k = 0; k < 6; ++k) {
      const float width = random.uniform(10, 150), height = random.uniform(10, 150);
      const float x = random.uniform(0, static_cast<float>(sample.width) - width),
                  y = random.uniform(0, static_cast<float>(sample.height) - height);
      sample.objects.push_back({{x, y, x + width, y + height}, 1, k == 5, false});
    }
    data.samples.push_back(sample);
  }
  return data;
}

}  // namespace

TEST_CASE("boxes that anchors reach are counted as by all anchors one by one, difficult ones not at all") {
  const TrainConfig config = config_of(GENERATE("vgg16", "resnet18"));
  const models::FasterRcnnOptions options = models::detector_options(config.model);
  const Dataset data = random_boxes(3, 40);
  const std::vector<SeenBox> boxes = seen_boxes(data, config.model);
  CHECK(boxes.size() == 200);
  double half = 0, seven = 0;
  for (const SeenBox& seen : boxes) {
    const Tensor all = anchors(options.anchors, 16, 16, (seen.image.height + 15) / 16, (seen.image.width + 15) / 16);
    float best = 0;
    for (std::int64_t i = 0; i < all.size(0); ++i)
      best = std::max(best, iou(seen.box, kernels::load_box(all.data<float>() + 4 * i)));
    half += best >= 0.5f;
    seven += best >= 0.7f;
  }
  const AnchorFit fit = anchor_fit(boxes, options);
  CHECK(fit.half == Approx(half / 200));
  CHECK(fit.seven == Approx(seven / 200));
  CHECK(half > seven);
  CHECK(seen_boxes(data, config.model, 50).size() == 50);
}

TEST_CASE("auto takes sizes that fit better, as many as there were") {
  TrainConfig config = config_of("resnet18");
  config.model.anchor_sizes = {8, 12, 16};
  const Dataset data = random_boxes(4, 60);
  fit_anchors(data, config);
  CHECK(config.model.anchor_sizes == std::vector<float>{8, 12, 16});
  const auto boxes = seen_boxes(data, config.model);
  const AnchorFit before = anchor_fit(boxes, models::detector_options(config.model));
  config.anchors = "auto";
  fit_anchors(data, config);
  CHECK(config.model.anchor_sizes.size() == 3);
  const AnchorFit after = anchor_fit(boxes, models::detector_options(config.model));
  CHECK(after.half > before.half + 0.3);
  CHECK(after.half > 0.8);
  config.anchors = "all";
  CHECK_THROWS_WITH(fit_anchors(data, config), Catch::Contains("anchors 'all': expected given or auto"));
}
