// The settings in which published recipes differ: each changes what it says, by plain references. Presets; years of VOC.
#include <map>

#include "apps/checkpoint.hpp"
#include "apps/datasets.hpp"
#include "apps/presets.hpp"
#include "apps/trainer.hpp"
#include "catch.hpp"
#include "error_of.hpp"
#include "models/detector.hpp"
#include "voc_folder.hpp"

using namespace shrike;
using namespace shrike::models;
using Catch::Contains;

namespace {

DetectorConfig small(const std::string& backbone = "vgg11") {
  DetectorConfig config;
  config.backbone = backbone;
  config.width = 1;
  config.head_width = 8;
  config.roi_size = 2;
  config.anchor_sizes = {16, 40};
  config.classes = {"a", "b"};
  config.rpn_batch = 1 << 14;  // every anchor and region is sampled
  config.roi_batch = 1 << 10;
  config.roi_positive_fraction = 1;
  config.rpn_nms = 1;
  config.train_pre_nms = config.train_post_nms = config.test_pre_nms = config.test_post_nms = 900;
  return config;
}

// Sizes of the feature map of an image of 0.
std::pair<std::int64_t, std::int64_t> map_size(const DetectorConfig& config, int height, int width) {
  const auto model = make_detector(config);
  const NoGrad no_grad;
  const Tensor map = model->forward({zeros({1, height, width, 3})})[0];
  return {map.size(1), map.size(2)};
}

const std::vector<ImageSize> seen = {{97, 130}};

Target one_target() { return {tensor<float>({2, 4}, {5, 8, 40, 50, 60, 30, 125, 95}), tensor<std::int32_t>({2}, {1, 2})}; }

// Smooth L1 by its definition.
double smooth(double difference, double beta) {
  const double d = std::abs(difference);
  return d < beta ? d * d / (2 * beta) : d - beta / 2;
}

double weighted_smooth(const Tensor& target, const Tensor& weight, double beta) {
  double sum = 0;
  for (std::int64_t i = 0; i < target.numel(); ++i) {
    sum += static_cast<double>(weight.data<float>()[i]) * smooth(static_cast<double>(target.data<float>()[i]), beta);
  }
  return sum;
}

}  // namespace

TEST_CASE("maps of 600 x 1000 pixels are the recipes'") {
  using Size = std::pair<std::int64_t, std::int64_t>;
  const auto of = [](const std::string& backbone, const std::string& rounding, int divisor) {
    DetectorConfig config = small(backbone);
    config.pool_rounding = rounding;
    config.size_divisor = divisor;
    return map_size(config, 600, 1000);
  };
  CHECK(of("vgg16", "ceil", 1) == Size{38, 63});    // py-faster-rcnn
  CHECK(of("vgg11", "floor", 16) == Size{38, 63});  // of 608 x 1008
  CHECK(of("vgg11", "ceil", 32) == Size{38, 64});   // MMDetection, of 608 x 1024
  CHECK(of("resnet18", "floor", 1) == Size{38, 63});
  CHECK(of("resnet18", "floor", 32) == Size{38, 64});
  DetectorConfig config = small();
  config.size_divisor = 8;
  CHECK_THAT(error_of([&] { make_detector(config); }), Contains("size-divisor 8") && Contains("multiple of 16"));
  config.size_divisor = 0;
  CHECK_THAT(error_of([&] { make_detector(config); }), Contains("size-divisor 0"));
  config.pool_rounding = "up";
  CHECK_THAT(error_of([&] { make_detector(config); }), Contains("pool-rounding 'up'"));
}

TEST_CASE("images padded to 32 have no anchors over padding, and RoIs where they are") {
  DetectorConfig config = small("resnet18");
  config.size_divisor = 32;
  const auto model = make_detector(config);
  const NoGrad no_grad;
  const Tensor image = zeros({1, 97, 130, 3});
  const Tensors maps = model->forward({image});
  CHECK(maps[0].shape() == Shape{1, 8, 10, 4});
  const auto boxes = model->regions(maps, image, seen)[0];
  CHECK(boxes.size(0) == 7 * 9 * 6);  // cells that see the image; nothing is suppressed
}

TEST_CASE("anchors across the border get no label where they are dropped") {
  DetectorConfig config = small();
  config.anchor_border = "drop";
  const FasterRcnnOptions options = detector_options(config);
  const Tensor all = anchors(options.anchors, 16, 16, 7, 9);
  const RpnTargets targets = rpn_targets(all, one_target().boxes, 97, 130, options.rpn_targets, 1, 0);
  const auto corners = all.to_vector<float>(), weights = targets.cls_weight.to_vector<float>();
  int across = 0, labelled = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const float* const box = &corners[4 * i];
    const bool inside = box[0] >= 0 && box[1] >= 0 && box[2] <= 130 && box[3] <= 97;
    across += !inside;
    labelled += weights[i] > 0;
    if (!inside) CHECK(weights[i] == 0);
  }
  CHECK(across > 100);
  CHECK(labelled > 100);
  // Without boxes nothing else leaves an anchor out.
  const RpnTargets empty = rpn_targets(all, Tensor({0, 4}), 97, 130, options.rpn_targets, 1, 0);
  CHECK(empty.counts.to_vector<std::int32_t>()[1] == 7 * 9 * 6 - across);
  config.anchor_border = "cut";
  CHECK_THAT(error_of([&] { detector_options(config); }), Contains("anchor-border 'cut'"));
}

TEST_CASE("the first anchor's centre is where --anchor-offset says") {
  DetectorConfig config = small();
  const auto centre = [&] {
    const FasterRcnnOptions options = detector_options(config);
    const auto box = anchors(options.anchors, options.stride, options.stride, 1, 1).to_vector<float>();
    return (box[0] + box[2]) / 2;
  };
  CHECK(centre() == 8);
  config.grid = "torchvision";
  CHECK(centre() == 0);
  config.anchor_offset = 7.5;
  CHECK(centre() == 7.5f);
  config.grid = "quotient";
  CHECK_THAT(error_of(centre), Contains("anchor-offset 7.5 with grid quotient"));
}

TEST_CASE("proposals below the least side are dropped, which counts pixels of the image as stored") {
  DetectorConfig config = small();
  const double least = GENERATE(0.001, 10.0, 20.0);
  config.proposal_min_size = least;
  const auto model = make_detector(config);  // of weights 0: proposals are the anchors, clipped
  const NoGrad no_grad;
  const Tensor image = zeros({1, 97, 130, 3});
  const Tensors maps = model->forward({image});
  const Tensor clipped = clip_boxes(anchors(model->options().anchors, 16, 16, 7, 9), 97, 130);
  for (const float scale : {1.0f, 1.6f}) {
    INFO("at least " << least << " at scale " << scale);
    const float side = static_cast<float>(least) * (least < 1 ? 1.0f : scale);
    std::int64_t expected = 0;
    const auto values = clipped.to_vector<float>();
    for (std::size_t i = 0; i < values.size(); i += 4) {
      expected += std::min(values[i + 2] - values[i], values[i + 3] - values[i + 1]) >= side;
    }
    CHECK(model->regions(maps, image, {{97, 130, scale}})[0].size(0) == expected);
  }
  config.proposal_min_size = -1;
  CHECK_THAT(error_of([&] { make_detector(config); }), Contains("proposal-min-size -1"));
}

TEST_CASE("box losses turn linear at their beta; 0 is L1") {
  DetectorConfig config = small();
  const double beta = GENERATE(0.0, 1.0 / 9, 1.0);
  const bool rpn = GENERATE(true, false);
  (rpn ? config.rpn_beta : config.box_beta) = beta;
  const auto model = make_detector(config);  // of weights 0: predictions are 0
  const FasterRcnnOptions& options = model->options();
  const Tensor image = zeros({1, 97, 130, 3});
  const Target target = one_target();
  const Losses losses = model->losses(image, seen, {target}, 1, 0);
  const NoGrad no_grad;
  const Tensor all = anchors(options.anchors, 16, 16, 7, 9);
  const RpnTargets anchors_wanted = rpn_targets(all, target.boxes, 97, 130, options.rpn_targets, 1, 0);
  const Tensor regions = model->regions(model->forward({image}), image, seen)[0];
  const RoiTargets regions_wanted = roi_targets(regions, target.boxes, target.labels, 3, options.roi_targets, 1, 0);
  CHECK(losses.rpn_box.item() ==
        Approx(weighted_smooth(anchors_wanted.box_target, anchors_wanted.box_weight, rpn ? beta : 1.0 / 9)).epsilon(1e-5));
  CHECK(losses.box.item() ==
        Approx(weighted_smooth(regions_wanted.box_target, regions_wanted.box_weight, rpn ? 1.0 / 9 : beta)).epsilon(1e-5));
  CHECK(losses.rpn_box.item() > 0);
  config.box_beta = -1;
  CHECK_THAT(error_of([&] { make_detector(config); }), Contains("box-beta -1"));
}

TEST_CASE("the proposal losses are divided by what was sampled or by what was to be") {
  DetectorConfig config = small();
  const Tensor image = zeros({1, 97, 130, 3});
  const Losses sampled = make_detector(config)->losses(image, seen, {one_target()}, 1, 0);
  config.rpn_divisor = "batch";
  const auto model = make_detector(config);
  const Losses batch = model->losses(image, seen, {one_target()}, 1, 0);
  const RpnTargets targets = rpn_targets(anchors(model->options().anchors, 16, 16, 7, 9), one_target().boxes, 97, 130,
                                         model->options().rpn_targets, 1, 0);
  const auto counts = targets.counts.to_vector<std::int32_t>();
  const double share = static_cast<double>(counts[0] + counts[1]) / config.rpn_batch;
  CHECK(batch.rpn_cls.item() == Approx(static_cast<double>(sampled.rpn_cls.item()) * share).epsilon(1e-5));
  CHECK(batch.rpn_box.item() == Approx(static_cast<double>(sampled.rpn_box.item()) * share).epsilon(1e-5));
  CHECK(batch.box.item() == sampled.box.item());
  config.rpn_divisor = "all";
  CHECK_THAT(error_of([&] { make_detector(config); }), Contains("rpn-divisor 'all'"));
}

TEST_CASE("anchors of low quality are positive, or from an IoU on, or never") {
  DetectorConfig config = small();
  const Tensor anchor = tensor<float>({2, 4}, {0, 0, 10, 10, 100, 100, 110, 110});
  const Tensor box = tensor<float>({1, 4}, {5, 0, 13, 10});  // IoU 0.385
  const auto positives = [&] {
    return rpn_targets(anchor, box, 200, 200, detector_options(config).rpn_targets, 1, 0).counts.to_vector<std::int32_t>()[0];
  };
  CHECK(positives() == 1);
  config.rpn_low_quality_iou = 0.3;
  CHECK(positives() == 1);
  config.rpn_low_quality_iou = 0.4;
  CHECK(positives() == 0);
  config.rpn_low_quality_iou = 0;
  config.rpn_low_quality = false;
  CHECK(positives() == 0);
}

TEST_CASE("every preset makes a detector's options; voc07_vgg16 takes py-faster-rcnn's steps on VOC 2007") {
  for (const char* name : {"shapes", "resnet18", "resnet34", "resnet50", "resnet101", "vgg16", "bccd", "bccd_resnet18",
                           "voc07_vgg16", "voc07_vgg16_best"}) {
    INFO(name);
    apps::TrainConfig config = apps::preset(name);
    CHECK(config.preset == name);
    if (config.model.classes.empty()) config.model.classes = {"a"};
    detector_options(config.model);
  }
  CHECK_THAT(error_of([] { apps::preset("voc12"); }), Contains("preset 'voc12'"));

  apps::TrainConfig config = apps::preset("voc07_vgg16");
  Dataset trainval;
  trainval.samples.resize(5011);
  CHECK(apps::steps_per_epoch(trainval, config) == 2506);
  config.model = small();
  const auto model = make_detector(config.model);
  nn::Sgd optimizer({}, {});
  apps::Progress progress;
  const apps::Trainer trainer(config, Device::cpu, *model, optimizer, trainval, trainval, progress);
  CHECK(trainer.total_steps() == 70000);
  const nn::Schedule schedule = trainer.schedule();
  CHECK(schedule.at(0) == 0.001f);
  CHECK(schedule.at(49999) == 0.001f);
  CHECK(schedule.at(50000) == Approx(0.0001f));
  CHECK(schedule.at(69999) == Approx(0.0001f));
  config.epochs = 3;
  CHECK(trainer.total_steps() == 3 * 2506);
}

TEST_CASE("checkpoints from before the recipes' settings behave as they did") {
  apps::TrainConfig config;
  config.model = small();
  TensorFile file;
  apps::write_settings(file.metadata, config);
  const auto all = file.metadata;
  for (const char* name : {"train.test-years", "train.max-steps", "train.accumulate", "train.train-sizes",
                           "train.match-inclusive", "model.pool-rounding", "model.size-divisor", "model.anchor-rounding",
                           "model.anchor-offset", "model.anchor-border", "model.proposal-min-size", "model.rpn-low-quality",
                           "model.rpn-low-quality-iou", "model.rpn-divisor", "model.rpn-beta", "model.box-beta"}) {
    INFO(name);
    REQUIRE(file.metadata.erase(name) == 1);
  }
  std::map<std::string, std::string> read;
  apps::write_settings(read, apps::read_settings(file));
  CHECK(read == all);
  const FasterRcnnOptions options = detector_options(apps::read_settings(file).model);
  CHECK(options.size_divisor == 16);
  CHECK(options.rpn_beta == 1.0f / 9);
  CHECK(options.box_beta == 1.0f / 9);
  CHECK(options.train_proposals.min_size == 1e-3f);
  CHECK(options.rpn_targets.straddle == std::numeric_limits<float>::infinity());
}

TEST_CASE("the test set may be of other years than the training set") {
  const VocFolder folder;
  const auto add = [&](const std::string& year, const std::string& split, const std::string& id) {
    const std::string at = folder / ("VOC" + year + "/");
    write_text(at + "Annotations/" + id + ".xml", voc_xml(40, 40, voc_object("cat", "2", "3", "30", "31")));
    write_text(at + "ImageSets/Main/" + split + ".txt", id + "\n");
    std::filesystem::create_directories(at + "JPEGImages");
    write_image(at + "JPEGImages/" + id + ".png", make_image(40, 40));
  };
  add("2007", "trainval", "000001");
  add("2007", "test", "000002");
  add("2012", "trainval", "2008_000001");
  apps::TrainConfig config;
  config.data = folder.root();
  config.years = "2007+2012";
  CHECK_THAT(error_of([&] { apps::open_data(config); }),
             Contains("VOC2012") && Contains("test.txt") && Contains("--test-years names the years"));
  config.test_years = "2007";
  const auto [train, val, test] = apps::open_data(config);
  CHECK(val.samples.empty());
  REQUIRE(train.samples.size() == 2);
  CHECK(train.samples[1].id == "2008_000001");
  REQUIRE(test.samples.size() == 1);
  CHECK(test.samples[0].id == "000002");
  CHECK(apps::open_test_set(config, config).samples.size() == 1);
  config.resplit = "1:1";
  CHECK_THAT(error_of([&] { apps::open_data(config); }), Contains("--resplit 1:1 with --test-years 2007"));
  // One year without such a list is no matter of years.
  config.resplit = config.test_years = "";
  config.years = "2012";
  CHECK_THAT(error_of([&] { apps::open_data(config); }), Contains("test.txt") && !Contains("--test-years"));
}
