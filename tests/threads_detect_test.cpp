// Detectors and threads: the same bits with any number of threads, and for each of several users of one detector.
#include <atomic>
#include <cstring>
#include <thread>

#include "catch.hpp"
#include "loops.hpp"
#include "quantized_detector.hpp"
#include "shrike/nn/optim.hpp"

using namespace shrike;
using namespace shrike::models;
using loops::Threads;
using Bytes = std::vector<unsigned char>;

namespace {

#if defined(__SANITIZE_THREAD__)  // which is slow: enough to see every loop
constexpr std::uint64_t steps = 2;
constexpr std::initializer_list<int> numbers = {1, 3};
#else
constexpr std::uint64_t steps = 10;
constexpr std::initializer_list<int> numbers = {1, 2, 3, 5, 8};
#endif

DetectorConfig config_of(const std::string& backbone, const std::string& roi) {
  DetectorConfig config = quantized::small_detector(backbone);
  config.width = 16;
  config.roi = roi;
  config.anchor_sizes = {16, 32};
  config.rpn_batch = 64;
  config.roi_batch = 32;
  config.train_pre_nms = 100;
  config.train_post_nms = 40;
  config.test_pre_nms = 60;
  config.test_post_nms = 20;
  config.score_threshold = 0.01;
  return config;
}

std::shared_ptr<FasterRcnn> detector(const std::string& backbone, const std::string& roi) {
  const auto model = make_detector(config_of(backbone, roi));
  nn::initialize(*model, 5);
  nn::train(*model, false);
  return model;
}

PreparedDetector prepared(FasterRcnn& model) {
  PreparedDetector result = prepare_detector(fuse_detector(model), {});
  REQUIRE(calibrate(result, quantized::random_images(3, 2)).empty());
  return result;
}

std::shared_ptr<FasterRcnn> int8_detector(const std::string& backbone, const std::string& roi) {
  const auto model = detector(backbone, roi);
  const FusedDetector fused = fuse_detector(*model);
  return join(convert_detector(prepared(*model)).parts, fused.options);
}

template <class T> void put(const T& value, Bytes& to) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(&value);
  to.insert(to.end(), bytes, bytes + sizeof value);
}

void put(const Tensor& tensor, Bytes& to) {
  const auto* bytes = static_cast<const unsigned char*>(tensor.raw());
  to.insert(to.end(), bytes, bytes + tensor.bytes());
}

// What is found in a few images of different sizes.
Bytes found(FasterRcnn& model, std::uint64_t seed) {
  const NoGrad no_grad;
  Bytes all;
  const NextImages next = quantized::random_images(3, seed);
  while (const auto batch = next()) {
    const auto detections = model.detect(batch->first, batch->second);
    for (const Detection& detection : detections.at(0)) {
      put(detection.box.x1, all), put(detection.box.y1, all), put(detection.box.x2, all), put(detection.box.y2, all);
      put(detection.score, all), put(detection.label, all);
    }
  }
  return all;
}

// The losses of the steps, and all parameters, buffers and momenta after them.
Bytes trained(FasterRcnn& model) {
  Bytes all;
  std::vector<nn::SgdParameter> parameters;
  for (const auto& [name, tensor] : nn::named_parameters(model)) parameters.push_back({name, tensor, 1, 1e-4f, {}});
  nn::Sgd optimizer(parameters, {0.9f, 10.0f});
  Random random(3, RandomStream::test);
  for (std::uint64_t step = 0; step < steps; ++step) {
    const Tensor images = reference::random_tensor({2, 64, 96, 3}, random);
    const float x = random.uniform(0, 40);
    const std::vector<Target> targets = {
        {tensor<float>({1, 4}, {x, 10, x + 50, 50}), tensor<std::int32_t>({1}, {1})},
        {tensor<float>({2, 4}, {4, 4, 30, 40, x, 20, x + 20, 60}), tensor<std::int32_t>({2}, {2, 1})}};
    const Losses losses = model.losses(images, {{64, 96}, {60, 90}}, targets, 7, step);
    put(losses.total, all);
    backward(losses.total);
    optimizer.step(0.01f);
  }
  for (const auto& [name, tensor] : nn::named_state(model)) put(tensor, all);
  for (const auto& [name, tensor] : optimizer.state()) put(tensor, all);
  return all;
}

// Whether f() gives the same with any number of threads as with one.
void check_bits(const std::function<Bytes()>& f) {
  Bytes expected;
  for (const int threads : numbers) {
    const Threads number(threads);
    const Bytes got = f();
    INFO(threads << " threads");
    REQUIRE(!got.empty());
    if (threads == 1) expected = got;
    CHECK((got == expected));
  }
}

}  // namespace

TEST_CASE("any number of threads gives the same bits in ten training steps") {
  const auto [backbone, roi] = GENERATE(table<std::string, std::string>({{"vgg11", "pool"}, {"resnet18", "align"}}));
  INFO(backbone << ", roi " << roi);
  check_bits([&] {
    const auto model = detector(backbone, roi);
    nn::train(*model, true);
    return trained(*model);
  });
}

TEST_CASE("any number of threads gives the same bits in ten steps of quantization-aware training") {
  const std::string backbone = "resnet18", roi = "align";
  check_bits([&] {
    const auto model = detector(backbone, roi);
    const PreparedDetector twin = prepared(*model);
    nn::train(*twin.model, true);
    return trained(*twin.model);
  });
}

TEST_CASE("any number of threads gives the same bits in a detection, float and int8") {
  const auto [backbone, roi] = GENERATE(table<std::string, std::string>({{"vgg11", "pool"}, {"resnet18", "align"}}));
  INFO(backbone << ", roi " << roi);
  const auto model = detector(backbone, roi);
  const auto fused = fuse_detector(*model);
  const auto graphs = join(fused.parts, fused.options);
  check_bits([&] { return found(*model, 4); });
  check_bits([&] { return found(*graphs, 4); });
  const auto codes = int8_detector(backbone, roi);
  check_bits([&] { return found(*codes, 4); });
}

TEST_CASE("eight users of one detector get what one gets") {
  const std::string roi = GENERATE("align", "pool");
  const auto model = detector("resnet18", roi);
  const auto fused = fuse_detector(*model);
  const std::vector<std::shared_ptr<FasterRcnn>> detectors = {model, join(fused.parts, fused.options),
                                                              int8_detector("resnet18", roi)};
  for (std::size_t kind = 0; kind < detectors.size(); ++kind) {
    INFO("roi " << roi << ", detector " << kind);
    std::vector<Bytes> expected;
    {
      const Threads number(1);  // another copy of the detector: this one's first use is by all at once
      const auto other = detector("resnet18", roi);
      const auto graphs = fuse_detector(*other);
      const auto same = kind == 0 ? other : kind == 1 ? join(graphs.parts, graphs.options) : int8_detector("resnet18", roi);
      for (std::uint64_t image = 0; image < 4; ++image) expected.push_back(found(*same, image));
      REQUIRE(!expected[0].empty());
    }
    const Threads number(2);
    std::atomic<int> wrong{0};
    std::vector<std::thread> users;
    for (std::uint64_t user = 0; user < 8; ++user) {
      users.emplace_back([&, user] {
        for (std::uint64_t round = 0; round < 3; ++round) {
          const std::uint64_t image = (user + round) % 4;
          if (found(*detectors[kind], image) != expected[image]) ++wrong;
        }
      });
    }
    for (std::thread& user : users) user.join();
    CHECK(wrong == 0);
  }
}
