// Detection by graphs that were recorded once, beside the same launched kernel by kernel: equal to the bit.
#include "shrike/core/replay.hpp"

#include <thread>

#include "cuda/compare.hpp"
#include "cuda/small_detector.hpp"
#include "error_of.hpp"
#include "kernels/cuda.hpp"
#include "models/quantized.hpp"
#include "reference.hpp"
#include "shrike/nn/optim.hpp"
#include "shrike/ops/elementwise.hpp"

using namespace shrike;
using namespace shrike::models;

namespace {

using Found = std::vector<std::vector<Detection>>;

std::shared_ptr<FasterRcnn> detector(const std::string& backbone, std::uint64_t seed) {
  DetectorConfig config = small_detector(backbone);
  config.batch_norm = backbone != "vgg16";
  config.roi = backbone == "resnet18" ? "align" : "pool";
  const auto model = make_detector(config);
  nn::initialize(*model, seed);
  nn::to(*model, Device::cuda);
  nn::train(*model, false);
  return model;
}

struct Images {
  Tensor pixels;  // on the device
  std::vector<ImageSize> sizes;
};

// Noise; every image after the first is padded.
Images images(std::uint64_t seed, int batch, int height, int width) {
  Random random(seed, RandomStream::test);
  Images result{reference::random_tensor({batch, height, width, 3}, random).to(Device::cuda), {}};
  for (int i = 0; i < batch; ++i) result.sizes.push_back({height - 9 * i, width - 5 * i});
  return result;
}

Found detect(FasterRcnn& model, const Images& images, bool graphs = true) {
  cuda_settings().graphs = graphs;
  Found found = model.detect(images.pixels, images.sizes);
  cuda_settings().graphs = true;
  return found;
}

// Compares the two ways, and gives the number of objects.
std::size_t check_same(FasterRcnn& model, const Images& images) {
  const Found got = detect(model, images);
  const Found expected = detect(model, images, false);
  REQUIRE(got.size() == expected.size());
  std::size_t objects = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    REQUIRE(got[i].size() == expected[i].size());
    for (std::size_t k = 0; k < got[i].size(); ++k) {
      CHECK((got[i][k].box == expected[i][k].box && got[i][k].label == expected[i][k].label));
      CHECK(got[i][k].score == expected[i][k].score);
    }
    objects += got[i].size();
  }
  return objects;
}

PreparedDetector prepared_detector(FasterRcnn& model) {
  const PreparedDetector prepared = prepare_detector(fuse_detector(model), {});
  int left = 3;
  calibrate(prepared, [&]() -> std::optional<std::pair<Tensor, std::vector<ImageSize>>> {
    if (left-- == 0) return std::nullopt;
    const Images some = images(100 + static_cast<std::uint64_t>(left), 1, 64, 70);
    return std::pair{some.pixels, some.sizes};
  });
  return prepared;
}

}  // namespace

TEST_CASE("a detector finds the same by graphs, in float and in int8, in one image and in two padded ones") {
  const std::string backbone = GENERATE("vgg11", "vgg16", "resnet18");
  const bool int8 = GENERATE(false, true);
  const int batch = GENERATE(1, 2);
  if (backbone == "vgg16" && int8) return;
  INFO(backbone << (int8 ? ", int8" : "") << ", " << batch << " image(s)");
  auto model = detector(backbone, 5);
  if (int8) {
    model = join(convert_detector(prepared_detector(*model)).parts, model->options());
    nn::train(*model, false);
  }
  std::size_t objects = 0;
  for (std::uint64_t i = 0; i < 4; ++i) objects += check_same(*model, images(i, batch, 49, 65));
  CHECK(objects > 0);
  const Replay::Counts counts = model->replay().counts();
  CHECK(counts.run == 1);
  CHECK(counts.recorded == 1);
  CHECK(counts.launched == 3);
  CHECK(counts.failed == 0);
}

TEST_CASE("graphs follow the shapes, and those used last are kept") {
  const auto model = detector("vgg11", 6);
  const auto shape = [](int i) { return images(static_cast<std::uint64_t>(i), 1, 33 + 2 * i, 40 + 5 * (i % 4)); };
  constexpr int shapes = 11;
  for (int i = 0; i < shapes; ++i) {
    for (int repeat = 0; repeat < 3; ++repeat) check_same(*model, shape(i));
    CHECK(model->replay().graphs() == std::min<std::size_t>(static_cast<std::size_t>(i) + 1, Replay::most_shapes));
  }
  Replay::Counts counts = model->replay().counts();
  CHECK(counts.recorded == shapes);
  CHECK(counts.launched == 2 * shapes);
  check_same(*model, shape(shapes - 1));  // is still there
  check_same(*model, shape(0));           // is not
  CHECK(model->replay().counts().launched == counts.launched + 1);
  CHECK(model->replay().counts().run == counts.run + 1);
  // More shapes in turn than are kept: none is recorded.
  counts = model->replay().counts();
  for (int round = 0; round < 2; ++round) {
    for (int i = 1; i < 10; ++i) check_same(*model, images(1, 1, 40, 60 + 4 * i));
  }
  CHECK(model->replay().counts().recorded == counts.recorded);
  CHECK(model->replay().graphs() == 0);
  // The same tensor shape with another valid part is another graph.
  Images padded = images(2, 1, 50, 50);
  for (int i = 0; i < 4; ++i) {
    padded.sizes[0] = {50 - 20 * (i % 2), 50};
    check_same(*model, padded);
  }
  CHECK(model->replay().graphs() == 2);
}

TEST_CASE("graphs follow training between evaluations, which itself is never recorded") {
  const bool quantized = GENERATE(false, true);
  INFO((quantized ? "with fake-quantize" : "float"));
  auto model = detector("vgg11", 7);
  PreparedDetector prepared;  // keeps the parts
  if (quantized) {
    prepared = prepared_detector(*model);
    model = prepared.model;
  }
  const Images image = images(1, 1, 49, 65);
  const Target target{tensor<float>({1, 4}, {4, 4, 30, 40}, Device::cuda), tensor<std::int32_t>({1}, {1}, Device::cuda)};
  std::vector<nn::SgdParameter> parameters;
  for (const auto& [name, tensor] : nn::named_parameters(*model)) {
    if (tensor.requires_grad()) parameters.push_back({name, tensor, 1.0f, 0.0f, {}});
  }
  REQUIRE(!parameters.empty());
  nn::Sgd optimizer(parameters, {0.9f, 10});
  Found before;
  for (std::uint64_t step = 0; step < 3; ++step) {
    nn::train(*model, false);
    for (int i = 0; i < 3; ++i) check_same(*model, image);
    const Found now = detect(*model, image);
    if (step > 0 && !now[0].empty() && !before[0].empty()) CHECK(now[0][0].score != before[0][0].score);
    before = now;
    nn::train(*model, true);
    const Replay::Counts counts = model->replay().counts();
    detect(*model, image);
    CHECK(model->replay().counts().launched == counts.launched);
    CHECK(model->replay().counts().run == counts.run);
    nn::set_step(*model, 3, step);
    backward(model->losses(image.pixels, image.sizes, {target}, 3, step).total);
    optimizer.update(0.05f, {});
  }
  CHECK(!before[0].empty());
  CHECK(model->replay().counts().recorded == 1);
  CHECK(model->replay().counts().launched >= 8);
}

TEST_CASE("graphs follow weights, parts and options that are replaced") {
  const auto model = detector("vgg11", 8), other = detector("vgg11", 9);
  const Images image = images(1, 1, 49, 65);
  const auto settle = [&] {
    for (int i = 0; i < 3; ++i) check_same(*model, image);
    CHECK(model->replay().graphs() == 1);
    return detect(*model, image);
  };
  const Found first = settle();
  REQUIRE(!first[0].empty());

  nn::to(*model, Device::cpu);  // other places, and other values in them
  for (const auto& [name, tensor] : nn::named_parameters(*model)) {
    if (name.find("cls_score.bias") != std::string::npos) tensor.copy_from(shrike::tensor<float>({3}, {0, 1, -1}));
  }
  nn::to(*model, Device::cuda);
  const Found second = settle();
  REQUIRE(!second[0].empty());
  CHECK(second[0][0].score != first[0][0].score);

  model->box_head() = other->box_head();
  const Found third = settle();
  CHECK((third[0].empty() || third[0][0].score != second[0][0].score));

  model->options().test_flip = true;
  model->options().detections.soft_nms = SoftNms::linear;
  for (int i = 0; i < 3; ++i) check_same(*model, image);
  model->options().test_flip = false;
  model->options().detections.soft_nms = SoftNms::off;
  model->options().detections.score_threshold = 0.4f;
  for (int i = 0; i < 3; ++i) check_same(*model, image);
  model->options().detections.max_detections = 1;
  for (int i = 0; i < 3; ++i) check_same(*model, image);
  CHECK(detect(*model, image)[0].size() <= 1);
}

TEST_CASE("a thousand sizes of images do not grow the memory of graphs, and they give it back when there is no other") {
  CachingAllocator& memory = allocator(Cuda{});
  const std::size_t before = memory.stats().in_use;
  {
    const auto model = detector("vgg11", 10);
    const std::size_t weights = memory.stats().in_use;
    // Of a graph alone, for the largest size.
    const Images largest = images(0, 1, 64, 64);
    for (int i = 0; i < 2; ++i) detect(*model, largest);
    const std::size_t alone = memory.stats().in_use - weights;
    REQUIRE(model->replay().graphs() == 1);
    std::size_t most = 0;
    for (int i = 0; i < 16; ++i) {
      const Images some = images(0, 1, 64 - 2 * (i % 8), 32 + 8 * (i % 5));
      for (int repeat = 0; repeat < 2; ++repeat) detect(*model, some);
      most = std::max(most, memory.stats().in_use - weights);
    }
    CHECK(model->replay().graphs() == Replay::most_shapes);
    CHECK(most < 4 * alone);

    CHECK_THROWS_AS(memory.allocate(std::size_t{1} << 50), Error);
    CHECK(model->replay().graphs() == 0);
    CHECK(memory.stats().in_use <= weights + largest.pixels.bytes() * 3 / 2);
    for (int i = 0; i < 3; ++i) check_same(*model, largest);
    CHECK(model->replay().graphs() == 1);
  }
  CHECK(memory.stats().in_use <= before + 4096);  // base anchors are kept for ever
}

TEST_CASE("work that cannot be recorded runs as ever, and errors stay the work's own") {
  Replay replay;
  const auto numbers = [](float value) { return full({10}, value, Device::cuda); };
  const auto reads = [](const Tensors& in) {
    const float first = in[0].to_vector<float>()[0];
    return Tensors{add(in[0], full({10}, first, Device::cuda))};
  };
  for (int i = 0; i < 4; ++i) {
    const auto value = static_cast<float>(i);
    CHECK(replay({}, {}, {numbers(value)}, reads)[0].to_vector<float>() == std::vector<float>(10, 2 * value));
  }
  CHECK(replay.counts().failed == 1);
  CHECK(replay.counts().run == 4);
  CHECK(replay.counts().launched == 0);

  bool broken = false;
  const auto may_fail = [&](const Tensors& in) {
    const Tensor sum = add(in[0], in[0]);
    SHRIKE_CHECK(!broken, "broken");
    return Tensors{sum};
  };
  replay({1}, {}, {numbers(1)}, may_fail);
  broken = true;
  CHECK(error_of([&] { replay({1}, {}, {numbers(1)}, may_fail); }).find("broken") == 0);
  broken = false;
  for (int i = 0; i < 3; ++i) {
    CHECK(replay({1}, {}, {numbers(3)}, may_fail)[0].to_vector<float>() == std::vector<float>(10, 6));
    CHECK(replay({2}, {}, {numbers(3)}, may_fail)[0].to_vector<float>() == std::vector<float>(10, 6));
  }
  CHECK(replay.counts().recorded == 1);
  // Results are the caller's: later launches do not touch them.
  const Tensor kept = replay({2}, {}, {numbers(4)}, may_fail)[0];
  replay({2}, {}, {numbers(5)}, may_fail);
  CHECK(kept.to_vector<float>() == std::vector<float>(10, 8));
}

TEST_CASE("threads that detect with one model at the same time find what each would alone") {
  const auto model = detector("vgg11", 11);
  std::vector<Images> given;
  std::vector<Found> expected;
  for (std::uint64_t i = 0; i < 3; ++i) {
    given.push_back(images(i, 1, 48, i == 2 ? 64 : 56));
    expected.push_back(detect(*model, given.back(), false));
  }
  std::vector<int> wrong(3);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 4; ++i) {
        const Found found = model->detect(given[t].pixels, given[t].sizes);
        const auto same = [](const Detection& a, const Detection& b) { return a.box == b.box && a.score == b.score; };
        const auto &got = found[0], &wanted = expected[t][0];
        wrong[t] += std::equal(got.begin(), got.end(), wanted.begin(), wanted.end(), same) ? 0 : 1;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == std::vector<int>(3));
  CHECK(model->replay().counts().launched >= 6);
}
