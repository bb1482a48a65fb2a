// Where anchors and pooled regions lie in the image, seen through the backbone itself; tests/golden holds a checkpoint of
// version 0.1, whose anchors lie elsewhere.
#include <fstream>

#include "apps/quantized.hpp"
#include "catch.hpp"
#include "golden.hpp"
#include "models/detector.hpp"
#include "reference.hpp"

using namespace shrike;
using namespace shrike::models;

namespace {

DetectorConfig config_of(const std::string& backbone) {
  DetectorConfig config;
  config.backbone = backbone;
  config.width = 1;
  config.head_width = 8;
  config.roi_size = 1;
  config.sampling_ratio = 1;
  config.anchor_sizes = {16};  // those of cells that begin within the image never lose all of their area
  config.anchor_ratios = {1};
  config.classes = {"a"};
  config.test_pre_nms = config.test_post_nms = 1 << 20;
  config.rpn_nms = 1;
  return config;
}

constexpr float offset = 2000;  // so that no ReLU cuts anything off

// Every convolution hands on the value in the middle of its window, in the first channel: what a cell of the map holds is what
// lies in the image where the cell looks. Predictors say 0: proposals are the anchors.
std::shared_ptr<FasterRcnn> looking_glass(const DetectorConfig& config) {
  const auto model = make_detector(config);
  nn::for_each_module(*model->backbone(), [](const std::string& name, nn::Module& module) {
    auto* const conv = dynamic_cast<nn::Conv2d*>(&module);
    if (conv == nullptr) return;
    conv->weight.zero();
    const std::int64_t kernel = conv->weight.size(1), channels = conv->weight.size(3), middle = kernel / 2;
    // Of a residual block only the shortcut counts.
    const bool counts = name.find("layer") == std::string::npos || name.find("downsample") != std::string::npos;
    if (counts) conv->weight.data<float>()[(middle * kernel + middle) * channels] = 1;
  });
  nn::train(*model, false);
  return model;
}

// An image that holds offset + sign * (the coordinate of the pixel's centre), along x or y.
Tensor ramp(int height, int width, bool along_x, float sign) {
  const Tensor image({1, height, width, 3});
  float* to = image.data<float>();
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < 3; ++c) {
        const auto at = static_cast<float>(along_x ? x : y) + 0.5f;
        *to++ = offset + sign * at;
      }
    }
  }
  return image;
}

// Where what `read` finds in the map comes from: poolings take the greatest value, so a rising and a falling ramp err to both
// sides alike.
template <class F> float place(FasterRcnn& model, int height, int width, bool along_x, const F& read) {
  const float up = read(model.forward({ramp(height, width, along_x, 1)})) - offset;
  const float down = offset - read(model.forward({ramp(height, width, along_x, -1)}));
  return (up + down) / 2;
}

void check_anchors(FasterRcnn& model, int height, int width, bool vgg) {
  INFO(height << " x " << width);
  const NoGrad no_grad;
  const Tensor image = ramp(height, width, true, 1);
  const Tensors maps = model.forward({image});
  const std::int64_t rows = maps[0].size(1), columns = maps[0].size(2), channels = maps[0].size(3);
  CHECK(rows == (height + 15) / 16);
  CHECK(columns == (width + 15) / 16);
  const Tensor boxes = model.regions(maps, image, {{height, width}})[0];
  REQUIRE(boxes.size(0) == rows * columns);
  for (const bool along_x : {false, true}) {
    const Tensors rising = model.forward({ramp(height, width, along_x, 1)}),
                  falling = model.forward({ramp(height, width, along_x, -1)});
    float worst = 0;
    std::int64_t where = 0, compared = 0;
    for (std::int64_t i = 0; i < rows * columns; ++i) {
      const float* const box = boxes.data<float>() + 4 * i;
      const bool clipped = box[2] - box[0] < 16 || box[3] - box[1] < 16;
      // VGG's last cells may look at padding, too.
      const bool beyond = vgg && ((i / columns + 1) * 16 > height || (i % columns + 1) * 16 > width);
      if (clipped || beyond) continue;
      const float seen = (rising[0].data<float>()[i * channels] - falling[0].data<float>()[i * channels]) / 2;
      const float centre = along_x ? (box[0] + box[2]) / 2 : (box[1] + box[3]) / 2;
      if (std::abs(centre - seen) > worst) worst = std::abs(centre - seen), where = i;
      ++compared;
    }
    INFO("cell " << where / columns << ", " << where % columns << (along_x ? " along x" : " along y"));
    CHECK(worst < 0.75f);
    CHECK((compared > 40 || std::min(height, width) < 48));
  }
}

}  // namespace

TEST_CASE("anchors lie where their cells look, whatever the image's sides") {
  const DetectorConfig config = config_of(GENERATE("vgg16", "resnet18", "resnet50"));
  INFO(config.backbone);
  const auto model = looking_glass(config);
  // Heights of 200 to 230 and widths of 230 to 260.
  for (int side = 200; side <= 230; ++side) check_anchors(*model, side, 460 - side, config.is_vgg());
  for (const auto& [height, width] : {std::pair{300, 473}, {600, 901}, {17, 1000}, {1333, 33}}) {
    check_anchors(*model, height, width, config.is_vgg());
  }
}

TEST_CASE("where VGG's poolings round up, images are not padded, and anchors lie where their cells look") {
  DetectorConfig config = config_of("vgg16");
  config.pool_rounding = "ceil";
  config.size_divisor = 1;
  const auto model = looking_glass(config);
  for (const auto& [height, width] : {std::pair{200, 333}, {231, 217}, {17, 1000}}) {
    CHECK(model->padded(zeros({1, height, width, 3})).shape() == Shape{1, height, width, 3});
    check_anchors(*model, height, width, true);
  }
}

TEST_CASE("regions are pooled from where they are") {
  const DetectorConfig config = config_of(GENERATE("vgg16", "resnet18"));
  const auto model = looking_glass(config);
  Random random(5, RandomStream::test);
  const NoGrad no_grad;
  for (int i = 0; i < 20; ++i) {
    const int height = 210 + 7 * i, width = 333 - 5 * i;
    const float x = random.uniform(40, 150), y = random.uniform(40, 130),
                size = random.uniform(16, 40);  // smaller ones RoIAlign makes a cell wide
    const Tensor rois = tensor<float>({1, 5}, {0, x, y, x + size, y + size});
    for (const bool along_x : {false, true}) {
      const float seen = place(*model, height, width, along_x,
                               [&](const Tensors& maps) { return model->pool(maps, height, rois).data<float>()[0]; });
      INFO(config.backbone << ": " << height << "x" << width << ", region at " << x << ", " << y << " of " << size);
      CHECK(std::abs((along_x ? x : y) + size / 2 - seen) < 0.75f);
    }
  }
}

TEST_CASE("what is padded in a batch is neither proposed nor trained") {
  DetectorConfig config = config_of(GENERATE("vgg11", "resnet18"));
  config.anchor_sizes = {16, 32};
  config.rpn_batch = 1 << 14;  // every anchor
  config.rpn_divisor = "batch";
  const auto model = looking_glass(config);
  Random random(6, RandomStream::test);
  const std::vector<ImageSize> sizes = {{70, 101}, {97, 50}, {97, 101}};
  const Tensor batch = zeros({3, 97, 101, 3});
  Tensors alone;
  std::vector<Target> targets;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    const Tensor image({1, sizes[i].height, sizes[i].width, 3});
    for (int y = 0; y < sizes[i].height; ++y) {
      for (int k = 0; k < 3 * sizes[i].width; ++k) {
        const float value = random.uniform(0, 1);
        image.data<float>()[y * 3 * sizes[i].width + k] = value;
        batch.data<float>()[((static_cast<std::int64_t>(i) * 97 + y) * 101) * 3 + k] = value;
      }
    }
    alone.push_back(image);
    const float x = random.uniform(0, 20);
    targets.push_back({tensor<float>({1, 4}, {x, 10, x + 25, 48}), tensor<std::int32_t>({1}, {1})});
  }
  {
    const NoGrad no_grad;
    const auto found = model->regions(model->forward({batch}), batch, sizes);
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      INFO("image " << i);
      CHECK(found[i].to_vector<float>() ==
            model->regions(model->forward({alone[i]}), alone[i], {sizes[i]})[0].to_vector<float>());
    }
  }
  double objectness = 0, boxes = 0;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    const Losses one = model->losses(alone[i], {sizes[i]}, {targets[i]}, 1, 0);
    objectness += one.rpn_cls.item() / 3;
    boxes += one.rpn_box.item() / 3;
  }
  const Losses all = model->losses(batch, sizes, targets, 1, 0);
  CHECK(all.rpn_cls.item() == Approx(objectness).epsilon(1e-5));
  CHECK(all.rpn_box.item() == Approx(boxes).epsilon(1e-5));
  backward(all.total);
}

TEST_CASE("a backbone with another stride is refused") {
  DetectorConfig config = config_of("vgg11");
  const auto model = make_detector(config);
  model->options().stride = 8;
  CHECK_THROWS_WITH(model->detect(zeros({1, 64, 64, 3}), {{64, 64}}), Catch::Contains("4x4 cells for images of 64x64"));
}

TEST_CASE("a checkpoint of version 0.1 finds what it found") {
  const apps::LoadedDetector loaded = apps::load_detector(load_safetensors(golden_path("checkpoint_0_1.safetensors")));
  CHECK(loaded.config.model.grid == "quotient");
  std::ifstream golden(golden_path("checkpoint_0_1.txt"));
  std::string word;
  int height = 0, width = 0, images = 0;
  std::size_t count = 0;
  while (golden >> word >> height >> width >> count) {
    INFO(height << "x" << width);
    ++images;
    Random random(static_cast<std::uint64_t>(height), RandomStream::test);
    const Tensor image = reference::random_tensor({1, height, width, 3}, random);
    const auto found = loaded.model->detect(image, {{height, width}})[0];
    REQUIRE(found.size() == count);
    for (const Detection& detection : found) {
      int label = 0;
      float score = 0;
      Box box;
      golden >> label >> score >> box.x1 >> box.y1 >> box.x2 >> box.y2;
      CHECK(detection.label == label);
      CHECK(detection.score == Approx(score).margin(1e-4));
      CHECK(detection.box.x1 == Approx(box.x1).margin(1e-2));
      CHECK(detection.box.y1 == Approx(box.y1).margin(1e-2));
      CHECK(detection.box.x2 == Approx(box.x2).margin(1e-2));
      CHECK(detection.box.y2 == Approx(box.y2).margin(1e-2));
    }
  }
  CHECK(images == 3);
}
