// Dynamic layers on the device: the CPU's scales, codes and outputs to the bit, launched one by one or by a recorded graph.
#include "shrike/ops/dynamic.hpp"

#include <limits>

#include "cuda/compare.hpp"
#include "cuda/int8_paths.hpp"
#include "models/detector.hpp"
#include "reference.hpp"
#include "shrike/core/replay.hpp"
#include "shrike/graph/fuse.hpp"
#include "shrike/quant/dynamic.hpp"

using namespace shrike;
using quantized::code_types;
using reference::random_tensor;

namespace {

struct Case {
  std::int64_t n, h, w, c, k, r, s;
  Conv2dOptions options;
  bool biased, added;
};
const Case cases[] = {
    {1, 5, 7, 3, 16, 3, 3, {.padding = 1, .relu = true}, true, false},
    {2, 9, 6, 16, 33, 3, 3, {.padding = 1, .relu = true}, true, true},
    {1, 6, 5, 37, 70, 3, 3, {.padding = 1}, false, true},
    {1, 1, 1, 5, 7, 1, 1, {}, false, false},
    {1, 10, 13, 64, 130, 3, 3, {.padding = 1, .relu = true}, true, true},
    {1, 9, 8, 6, 5, 3, 2, {.stride = 2, .padding = 1}, true, true},
    {2, 6, 5, 12, 9, 3, 3, {.padding = 1, .groups = 3}, true, true},
    {0, 6, 5, 4, 4, 3, 3, {}, true, false},
};

}  // namespace

TEST_CASE("scales and codes on the device equal the CPU's to the bit") {
  Random random(1, RandomStream::test);
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  std::vector<Tensor> tensors = {zeros({3, 5}), full({4}, -1.5f), tensor<float>({5}, {nan, inf, -inf, 1.27f, -0.64f}),
                                 full({2}, nan), Tensor({0, 3})};
  for (const Shape& shape : {Shape{1}, Shape{2, 3, 7, 33}, Shape{131, 1009}})
    tensors.push_back(random_tensor(shape, random, -3, 2));
  for (const Dtype type : code_types) {
    for (const Tensor& x : tensors) {
      const auto [q, scale] = dynamic_quantize(x, type);
      const auto [device_q, device_scale] = dynamic_quantize(x.to(Device::cuda), type);
      INFO(name(type) << ' ' << message(x.shape()));
      CHECK(same_bits(device_q, q));
      CHECK(same_bits(device_scale, scale));
    }
  }
}

TEST_CASE("dynamic layers on the device equal the CPU's to the bit, whatever multiplies") {
  std::uint64_t number = 0;
  for (const Case& z : cases) {
    INFO("case " << number);
    Random random(2, RandomStream::test, number);
    const Dtype type = code_types[number++ % 2];
    const Tensor x = random_tensor({z.n, z.h, z.w, z.c}, random, type == Dtype::u8 ? 0.0f : -3.0f, 2.0f);
    const auto [q, scale] = dynamic_quantize(x, type);
    DynamicConv2d op;
    op.set(z.options);
    Tensors in{q, quantized::random_codes({z.k, z.r, z.s, z.c / z.options.groups}, Dtype::s8, random),
               z.biased ? random_tensor({z.k}, random) : Tensor(), random_tensor({z.k}, random, 1e-3f, 2e-2f), scale};
    if (z.added) in.push_back(random_tensor(call(op, in)[0].shape(), random));
    int8_paths::check(op, in);
  }
  for (const auto& [rows, in, out] : {std::array<std::int64_t, 3>{1, 1, 1}, {3, 49, 84}, {5, 640, 66}, {0, 8, 4}}) {
    INFO(rows << " rows, " << in << " to " << out);
    Random random(3, RandomStream::test, number++);
    const auto [q, scale] = dynamic_quantize(random_tensor({rows, in}, random), Dtype::s8);
    DynamicLinear op;
    op.relu = out == 84;
    int8_paths::check(op, {q, quantized::random_codes({out, in}, Dtype::s8, random), random_tensor({out}, random),
                           random_tensor({out}, random, 1e-3f, 2e-2f), scale});
  }
}

TEST_CASE("a recorded graph finds each input's range anew") {
  models::DetectorConfig config;
  config.backbone = "resnet18";
  config.width = 4;
  config.head_width = 8;
  config.batch_norm = true;
  config.classes = {"a"};
  const auto model = models::make_detector(config);
  nn::initialize(*model, 4);
  const auto fused = trace(*model->backbone(), {zeros({1, 48, 48, 3})});
  fuse(*fused);
  quant::DynamicOptions options;
  options.predictors_float = false;  // floats are summed in another order
  const auto on_cpu = quant::to_dynamic(*fused, options).graph;
  nn::to(*model, Device::cuda);
  const auto traced = trace(*model->backbone(), {zeros({1, 48, 48, 3}, Dtype::f32, Device::cuda)});
  fuse(*traced);
  const auto graph = quant::to_dynamic(*traced, options).graph;
  Tensors constants;
  for (const auto& [value, tensor] : graph->constants) constants.push_back(tensor);
  Replay replay;
  Random random(4, RandomStream::test);
  const NoGrad no_grad;
  for (const float reach : {1.0f, 2.0f, 0.01f, 300.0f, 0.0f}) {
    const Tensor x = random_tensor({1, 33, 37, 3}, random, -reach, reach);
    const Tensor got =
        replay({}, {constants, {graph}}, {x.to(Device::cuda)}, [&](const Tensors& in) { return graph->forward(in); })[0];
    INFO("inputs up to " << reach);
    CHECK(same_bits(got, on_cpu->forward({x})[0]));
  }
  CHECK(replay.counts().launched == 4);
  CHECK(replay.counts().failed == 0);
}
