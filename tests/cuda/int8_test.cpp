// Layers and pooling of int8 codes on the device: the CPU's codes to the bit, whatever multiplies them.
#include "cuda/int8_paths.hpp"
#include "reference.hpp"
#include "shrike/ops/pool.hpp"
#include "shrike/ops/roi.hpp"

using namespace shrike;
using kernels::int8::Path;
using quantized::code_types;

namespace {

using int8_paths::check;

struct Epilogue {
  Dtype x, y;
  bool relu;
  int residual;  // 0: none, 1: u8, 2: s8
};
const Epilogue epilogues[] = {{Dtype::u8, Dtype::u8, true, 0},   {Dtype::s8, Dtype::s8, false, 1},
                              {Dtype::u8, Dtype::f32, false, 0}, {Dtype::s8, Dtype::u8, true, 2},
                              {Dtype::u8, Dtype::s8, true, 1},   {Dtype::s8, Dtype::f32, true, 2}};

struct Case {
  std::int64_t n, h, w, c, k, r, s;
  Conv2dOptions options;
};
const Case cases[] = {
    {1, 5, 7, 3, 16, 3, 3, {.padding = 1}},
    {2, 9, 6, 16, 33, 3, 3, {.padding = 1}},
    {1, 6, 5, 37, 70, 3, 3, {.padding = 1}},
    {1, 1, 1, 5, 7, 1, 1, {}},
    {1, 10, 13, 64, 130, 3, 3, {.padding = 1}},  // more than one tile each way, nine turns along K
    {1, 9, 8, 6, 5, 3, 2, {.stride = 2, .padding = 1}},
    {1, 12, 11, 8, 17, 3, 3, {.stride = 3, .padding = 2, .dilation = 2}},
    {2, 6, 5, 12, 9, 3, 3, {.padding = 1, .groups = 3}},
    {0, 6, 5, 4, 4, 3, 3, {}},
};

}  // namespace

TEST_CASE("int8 convolution on the device equals the CPU's to the bit") {
  std::uint64_t number = 0;
  for (const Case& z : cases) {
    const Epilogue& e = epilogues[number % std::size(epilogues)];
    INFO("case " << number);
    Random random(1, RandomStream::test, number++);
    QuantizedConv2d op;
    op.set(z.options);
    op.relu = e.relu;
    op.output = name(e.y);
    op.residual_multiplier = e.residual > 0 ? 0.37 : 0.0;
    const Tensor x = quantized::random_codes({z.n, z.h, z.w, z.c}, e.x, random);
    const Tensor weight = quantized::random_codes({z.k, z.r, z.s, z.c / z.options.groups}, Dtype::s8, random);
    const auto [bias, multiplier] = quantized::random_epilogue(z.k, z.r * z.s * z.c / z.options.groups, random);
    Tensors in{x, weight, bias, multiplier};
    if (e.residual > 0) {
      const Shape shape = call(op, in)[0].shape();
      in.push_back(quantized::random_codes(shape, e.residual == 1 ? Dtype::u8 : Dtype::s8, random));
    }
    check(op, in);
  }
}

TEST_CASE("int8 linear layers on the device equal the CPU's to the bit") {
  struct Sizes {
    std::int64_t rows, in, out;
  };
  std::uint64_t number = 0;
  for (const Sizes& z : {Sizes{1, 1, 1}, {3, 49, 84}, {70, 128, 21}, {5, 640, 66}, {0, 8, 4}}) {
    for (const Epilogue& e : {epilogues[number % 6], epilogues[(number + 3) % 6]}) {
      INFO(z.rows << " rows, " << z.in << " to " << z.out);
      Random random(2, RandomStream::test, number);
      QuantizedLinear op;
      op.relu = e.relu;
      op.output = name(e.y);
      op.residual_multiplier = e.residual > 0 ? 0.37 : 0.0;
      const auto [bias, multiplier] = quantized::random_epilogue(z.out, z.in, random);
      Tensors in{quantized::random_codes({z.rows, z.in}, e.x, random),
                 quantized::random_codes({z.out, z.in}, Dtype::s8, random), bias, multiplier};
      if (e.residual > 0) {
        in.push_back(quantized::random_codes({z.rows, z.out}, e.residual == 1 ? Dtype::u8 : Dtype::s8, random));
      }
      check(op, in);
    }
    ++number;
  }
}

TEST_CASE("K is split where tiles alone would leave multiprocessors idle, and nowhere else") {
  const cuda::Properties h100{"H100 SXM", 90, 132, 227 * 1024};
  using kernels::int8::plan_of;
  const auto conv3 = plan_of(Path::tensor32, {30000, 256, 2304}, h100), fc6 = plan_of(Path::tensor32, {300, 4096, 25088}, h100);
  CHECK(conv3.tile == 128);
  CHECK(conv3.splits == 1);
  CHECK(fc6.splits > 1);
  CHECK(fc6.splits <= 25088 / 64 / 8);
  for (const std::int64_t length : {1, 64, 576}) CHECK(plan_of(Path::dp4a, {1, 1, length}, h100).splits == 1);
}

TEST_CASE("int8 sums of 25088 products at the ends of the range are exact on the device") {
  for (const Dtype type : code_types) {
    Random random(3, RandomStream::test);
    QuantizedLinear op;
    op.output = "f32";
    const Tensor x = quantized::random_codes({2, 25088}, type, random, true);
    const Tensor weight({8, 25088}, Dtype::s8);
    for (std::int64_t i = 0; i < weight.numel(); ++i) {  // rows of one sign, and rows of both
      const bool negative = i / 25088 < 2 ? i / 25088 == 1 : random.below(2) == 0;
      weight.data<std::int8_t>()[i] = negative ? -127 : 127;
    }
    check(op, {x, weight, zeros({8}, Dtype::s32), full({8}, 1.0f)}, false);
  }
}

TEST_CASE("pooling of codes on the device equals the CPU's to the bit") {
  const PoolOptions options[] = {{}, {.ceil_mode = true}, {.kernel = 3, .stride = 2, .padding = 1}, {.kernel = 3, .stride = 1}};
  for (const Dtype type : code_types) {
    Random random(4, RandomStream::test);
    for (const Shape& shape : {Shape{2, 9, 7, 3}, Shape{1, 6, 5, 48}, Shape{0, 4, 4, 2}, Shape{1, 3, 3, 1}}) {
      const Tensor x = quantized::random_codes(shape, type, random);
      for (const auto& o : options) {
        CHECK(quantized::same(max_pool2d(x.to(Device::cuda), o).to(Device::cpu), max_pool2d(x, o)));
      }
      const Tensor rois({9, 5});
      for (std::int64_t i = 0; i < 9; ++i) {
        float* const roi = rois.data<float>() + 5 * i;
        roi[0] = static_cast<float>(static_cast<int>(random.below(static_cast<std::uint32_t>(shape[0] + 2))) - 1);
        for (int k = 1; k < 5; ++k) roi[k] = random.uniform(-30.0f, 16.0f * static_cast<float>(shape[1]) + 30.0f);
        if (i == 7) roi[3] = 1e9f;
        if (i == 8) roi[2] = std::nanf("");
      }
      for (const bool aligned : {false, true}) {
        for (const std::int64_t ratio : {0, 2, 3}) {
          RoiOptions o;
          o.height = 3;
          o.width = 5;
          o.spatial_scale = 1.0 / 16;
          o.sampling_ratio = ratio;
          o.aligned = aligned;
          INFO(name(type) << message(shape) << " aligned " << aligned << " ratio " << ratio);
          const Tensor x_cuda = x.to(Device::cuda), rois_cuda = rois.to(Device::cuda);
          CHECK(quantized::same(roi_pool(x_cuda, rois_cuda, o).to(Device::cpu), roi_pool(x, rois, o)));
          CHECK(quantized::same(roi_align(x_cuda, rois_cuda, o).to(Device::cpu), roi_align(x, rois, o)));
        }
      }
    }
  }
}
