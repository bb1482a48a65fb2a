// Training and detection of a whole detector on the device, beside the CPU's.
#include "catch.hpp"
#include "cuda/compare.hpp"
#include "cuda/small_detector.hpp"
#include "shrike/core/cuda.hpp"
#include "shrike/nn/optim.hpp"

using namespace shrike;
using namespace shrike::models;

namespace {

constexpr int steps = sanitized ? 2 : 10;
constexpr int height = 64;
constexpr int width = 80;

struct Example {
  Tensor images;
  std::vector<ImageSize> sizes;
  std::vector<Target> targets;
};

// Noise with a dark and a bright rectangle in each image; the second image is padded, and every third step has none in it.
Example example(int step, int batch) {
  Random random(100 + static_cast<std::uint64_t>(step), RandomStream::test);
  Example result;
  result.images = zeros({batch, height, width, 3});
  for (int i = 0; i < batch; ++i) {
    const ImageSize size = {height - 10 * i, width - 6 * i};
    std::vector<float> boxes;
    std::vector<std::int32_t> labels;
    for (int object = 1; object <= 2 && !(i == 1 && step % 3 == 2); ++object) {
      const float x = random.uniform(0, 40), y = random.uniform(0, 24);
      boxes.insert(boxes.end(), {x, y, x + random.uniform(12, 32), y + random.uniform(12, 28)});
      labels.push_back(object);
    }
    for (int y = 0; y < size.height; ++y) {
      for (int x = 0; x < size.width; ++x) {
        float value = 0;
        for (std::size_t k = 0; k < labels.size(); ++k) {
          const auto px = static_cast<float>(x), py = static_cast<float>(y);
          const float* box = &boxes[4 * k];
          if (px >= box[0] && px < box[2] && py >= box[1] && py < box[3]) value = labels[k] == 1 ? -1.5f : 1.5f;
        }
        float* pixel = result.images.data<float>() + 3 * ((i * height + y) * width + x);
        for (int c = 0; c < 3; ++c) pixel[c] = value + 0.3f * random.normal();
      }
    }
    const auto count = static_cast<std::int64_t>(labels.size());
    result.sizes.push_back(size);
    result.targets.push_back({tensor<float>({count, 4}, boxes), tensor<std::int32_t>({count}, labels)});
  }
  return result;
}

struct Outcome {
  std::vector<double> losses;  // five of each step, then the gradients' norm
  NamedTensors weights;
  NamedTensors momenta;
  std::vector<std::vector<Detection>> detections;
};

Outcome train(const DetectorConfig& config, int batch, Device device) {
  const auto model = make_detector(config);
  nn::initialize(*model, 5);
  nn::to(*model, device);
  std::vector<nn::SgdParameter> parameters;
  for (const auto& [name, tensor] : nn::named_parameters(*model)) {
    if (tensor.requires_grad()) parameters.push_back({name, tensor, 1.0f, 1e-4f, {}});
  }
  nn::Sgd optimizer(parameters, {0.9f, 10});
  Outcome outcome;
  for (int step = 0; step < steps; ++step) {
    const auto index = static_cast<std::uint64_t>(step);
    nn::set_step(*model, 7, index);
    Example data = example(step, batch);
    for (Target& target : data.targets) target = {target.boxes.to(device), target.labels.to(device)};
    const Losses losses = model->losses(data.images.to(device), data.sizes, data.targets, 7, index);
    backward(losses.total);
    const Tensor norm = optimizer.update(0.01f, losses.total);
    for (const Tensor& value : {losses.total, losses.rpn_cls, losses.rpn_box, losses.cls, losses.box, norm}) {
      REQUIRE(value.device() == device);
      outcome.losses.push_back(static_cast<double>(value.item()));
    }
  }
  nn::train(*model, false);
  const Example data = example(steps, batch);
  outcome.detections = model->detect(data.images.to(device), data.sizes);
  outcome.weights = nn::named_state(*model);
  outcome.momenta = optimizer.state();
  for (const auto& [name, tensor] : outcome.weights) REQUIRE(tensor.device() == device);
  return outcome;
}

void check_same_bits(const NamedTensors& a, const NamedTensors& b) {
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    INFO(a[i].first);
    CHECK(same_bits(a[i].second, b[i].second));
  }
}

// How far apart two tensors are, in parts of the first's largest element.
double difference(const Tensor& expected, const Tensor& got) {
  const auto a = expected.to_vector<float>(), b = got.to_vector<float>();
  double largest = 0, apart = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(a[i])));
    apart = std::max(apart, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  }
  return apart == 0 ? 0 : apart / largest;
}

void compare(const DetectorConfig& config, int batch) {
  cuda_settings().tf32 = false;
  cuda_settings().provider = CudaSettings::Provider::native;
  const Outcome expected = train(config, batch, Device::cpu);
  const Outcome got = train(config, batch, Device::cuda);
  const Outcome again = train(config, batch, Device::cuda);

  CHECK(got.losses == again.losses);
  check_same_bits(got.weights, again.weights);
  check_same_bits(got.momenta, again.momenta);

  REQUIRE(got.losses.size() == expected.losses.size());
  for (std::size_t i = 0; i < got.losses.size(); ++i) {
    INFO("step " << i / 6 + 1 << ", value " << i % 6);
    CHECK(got.losses[i] == Approx(expected.losses[i]).epsilon(1e-4).margin(1e-7));
  }
  if (!sanitized) CHECK(expected.losses[6 * (steps - 1)] < 0.95 * expected.losses[0]);  // it learns
  for (std::size_t i = 0; i < got.weights.size(); ++i) {
    INFO(got.weights[i].first);
    CHECK(difference(expected.weights[i].second, got.weights[i].second) < 1e-3);
  }

  std::size_t found = 0;
  for (std::size_t image = 0; image < expected.detections.size(); ++image) {
    const auto &a = expected.detections[image], &b = got.detections[image], &c = again.detections[image];
    REQUIRE(b.size() == a.size());
    REQUIRE(c.size() == a.size());
    for (std::size_t i = 0; i < a.size(); ++i) {
      INFO("image " << image << ", detection " << i);
      CHECK(b[i].label == a[i].label);
      CHECK(b[i].score == Approx(a[i].score).epsilon(1e-3));
      CHECK(b[i].box.x1 == Approx(a[i].box.x1).margin(1e-2));
      CHECK(b[i].box.y1 == Approx(a[i].box.y1).margin(1e-2));
      CHECK(b[i].box.x2 == Approx(a[i].box.x2).margin(1e-2));
      CHECK(b[i].box.y2 == Approx(a[i].box.y2).margin(1e-2));
      CHECK((c[i].score == b[i].score && c[i].box.x1 == b[i].box.x1 && c[i].box.y2 == b[i].box.y2));
      ++found;
    }
  }
  CHECK(found > 0);
}

}  // namespace

TEST_CASE("ten steps of a VGG detector with batch norm and dropout, two images each, and its detections are the CPU's") {
  DetectorConfig config = small_detector("vgg11");
  config.batch_norm = true;
  config.dropout = 0.25;
  config.roi = "pool";
  compare(config, 2);
}

TEST_CASE("ten steps of a ResNet C4 detector with frozen batch norm, and its detections are the CPU's") {
  DetectorConfig config = small_detector("resnet18");
  config.batch_norm = true;
  compare(config, 1);
}

TEST_CASE("ten steps of a ResNet C4 detector with layer4 as its head and live batch norm, and its detections are the CPU's") {
  DetectorConfig config = small_detector("resnet18");
  config.batch_norm = true;
  config.norm = "live";
  config.head = "res5";
  config.head_width = 0;
  compare(config, 1);
}
