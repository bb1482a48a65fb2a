// Layers whose input becomes codes when they run, against plain loops over 64-bit integers: equal to the bit.
#include "shrike/ops/dynamic.hpp"

#include <bit>
#include <limits>

#include "error_of.hpp"
#include "quantized.hpp"
#include "reference.hpp"
#include "threads.hpp"

using namespace shrike;
using quantized::code_types;
using reference::random_tensor;

namespace {

constexpr float no_number = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();

// The scale by a look at every element.
float plain_scale(const Tensor& x, Dtype dtype) {
  float reach = 0x1p-24f;
  for (const float v : x.to_vector<float>()) {
    if (std::isfinite(v)) reach = std::max(reach, dtype == Dtype::s8 ? std::abs(v) : v);
  }
  return reach / (dtype == Dtype::s8 ? 127.0f : 255.0f);
}

Tensor random_scales(std::int64_t channels, Random& random) { return random_tensor({channels}, random, 1e-3f, 2e-2f); }

// With and without bias, residual and ReLU, under every instruction set.
void check_conv(const quantized::ConvCase& z, Dtype type, Random& random, bool extremes = false) {
  const Tensor x = random_tensor({z.n, z.h, z.w, z.c}, random, type == Dtype::u8 ? 0.0f : -3.0f, 2.0f);
  const Shape weight_shape{z.k, z.r, z.s, z.c / z.options.groups};
  const Tensor weight = extremes ? quantized::random_codes(weight_shape, Dtype::s8, random, true)
                                 : quantized::random_weights(weight_shape, random);
  const Tensor scales = random_scales(z.k, random), bias = random_tensor({z.k}, random);
  const auto [q, x_scale] = dynamic_quantize(x, type);
  DynamicConv2d op;
  op.set(z.options);
  const auto sizes = op.sizes(x.shape(), weight.shape());
  const Shape shape{sizes.n, sizes.p, sizes.q, sizes.k};
  const auto acc = quantized::plain_conv(z, shape, q, weight, {});
  for (int way = 0; way < 8; ++way) {
    op.relu = way % 2 == 1;
    const Tensor some_bias = way / 2 % 2 == 1 ? bias : Tensor();
    const Tensor residual = way / 4 == 1 ? random_tensor(shape, random) : Tensor();
    const Tensor expected = quantized::dynamic_output(acc, shape, op.relu, scales, x_scale.item(), some_bias, residual);
    INFO(name(type) << ", way " << way);
    quantized::on_every_isa([&, q = q, x_scale = x_scale] {
      Tensors in{q, weight, some_bias, scales, x_scale};
      if (residual.defined()) in.push_back(residual);
      CHECK(quantized::same(call(op, in)[0], expected));
    });
  }
}

void check_linear(std::int64_t rows, std::int64_t in, std::int64_t out, Dtype type, Random& random) {
  const Tensor x = random_tensor({rows, in}, random, type == Dtype::u8 ? 0.0f : -3.0f, 2.0f);
  const Tensor weight = quantized::random_weights({out, in}, random);
  const Tensor scales = random_scales(out, random), bias = random_tensor({out}, random);
  const auto [q, x_scale] = dynamic_quantize(x, type);
  // A linear layer is a convolution of maps of one pixel.
  const auto acc =
      quantized::plain_conv({rows, 1, 1, in, out, 1, 1, {}}, {rows, 1, 1, out}, q, weight.view({out, 1, 1, in}), {});
  for (const bool relu : {false, true}) {
    for (const Tensor& some_bias : {bias, Tensor()}) {
      DynamicLinear op;
      op.relu = relu;
      const Tensor expected = quantized::dynamic_output(acc, {rows, out}, relu, scales, x_scale.item(), some_bias, {});
      INFO(rows << " x " << in << " x " << out << ", " << name(type) << (relu ? ", relu" : ""));
      quantized::on_every_isa([&, q = q, x_scale = x_scale] {
        CHECK(quantized::same(call(op, {q, weight, some_bias, scales, x_scale})[0], expected));
      });
    }
  }
}

}  // namespace

TEST_CASE("the scale is that of the greatest element, and the codes are those at this scale") {
  Random random(1, RandomStream::test);
  for (const Dtype type : code_types) {
    for (const Shape& shape : {Shape{1}, Shape{3, 5}, Shape{1, 1, 1, 37}, Shape{2, 3, 7, 33}, Shape{131, 1009}, Shape{0, 4}}) {
      for (const auto& [low, high] : {std::pair{-1.0f, 2.0f}, std::pair{-5.0f, 0.5f}, std::pair{0.0f, 1e-6f}}) {
        INFO(name(type) << ' ' << message(shape) << ' ' << low << " to " << high);
        const Tensor x = random_tensor(shape, random, low, high);
        const auto [q, scale] = dynamic_quantize(x, type);
        CHECK(scale.shape() == Shape{1});
        CHECK(scale.item() == plain_scale(x, type));
        CHECK(quantized::same(q, quantize(x, scale, type)));
        CHECK(same_on_any_threads([&] { return dynamic_quantize(x, type).first; }));
      }
    }
  }
}

TEST_CASE("zeros, tensors without positive elements and what is not finite have a scale above 0") {
  const float least = 0x1p-24f;
  for (const Dtype type : code_types) {
    const float high = type == Dtype::u8 ? 255.0f : 127.0f;
    for (const Tensor& x : {zeros({1, 2, 3, 4}), full({5}, -0.0f), full({3}, no_number), full({3}, inf), full({2}, 1e-40f)}) {
      const auto [q, scale] = dynamic_quantize(x, type);
      CHECK(scale.item() == least / high);
    }
    const auto [zero, scale] = dynamic_quantize(zeros({7}), type);
    CHECK(quantized::codes(zero) == std::vector<std::int64_t>(7));
  }
  CHECK(dynamic_quantize(full({3}, -2.0f), Dtype::u8).second.item() == least / 255);
  const Tensor odd = tensor<float>({5}, {no_number, inf, -inf, 1.27f, -0.64f});
  const auto [s8, s8_scale] = dynamic_quantize(odd, Dtype::s8);
  CHECK(s8_scale.item() == 1.27f / 127);
  CHECK(quantized::codes(s8) == std::vector<std::int64_t>{-127, 127, -127, 127, -64});
  const auto [u8, u8_scale] = dynamic_quantize(odd, Dtype::u8);
  CHECK(u8_scale.item() == 1.27f / 255);
  CHECK(quantized::codes(u8) == std::vector<std::int64_t>{0, 255, 0, 255, 0});
  CHECK(error_of([] { dynamic_quantize(zeros({2}, Dtype::s32), Dtype::s8); }) != "no error");
}

TEST_CASE("dynamic convolution equals the plain one to the bit") {
  for (std::size_t number = 0; number < quantized::conv_cases.size(); ++number) {
    INFO("case " << number);
    Random random(2, RandomStream::test, number);
    for (const Dtype type : code_types) check_conv(quantized::conv_cases[number], type, random);
  }
}

TEST_CASE("dynamic convolution in 3x3 tiles and of weights at the ends of the range") {
  Random random(3, RandomStream::test);
  for (const Dtype type : code_types) {
    check_conv({2, 9, 14, 32, 48, 3, 3, {.padding = 1}}, type, random);
    check_conv({1, 8, 7, 96, 80, 3, 3, {.padding = 2}}, type, random);
    check_conv({1, 3, 4, 512, 20, 3, 3, {.padding = 1}}, type, random, true);
  }
}

TEST_CASE("dynamic linear layers equal the plain ones to the bit") {
  Random random(4, RandomStream::test);
  for (const Dtype type : code_types) {
    check_linear(1, 1, 1, type, random);
    check_linear(3, 7, 5, type, random);
    check_linear(13, 63, 64, type, random);
    check_linear(7, 130, 65, type, random);
    check_linear(0, 8, 3, type, random);
    check_linear(9, 2051, 530, type, random);  // weights past a million: by panels
  }
}

TEST_CASE("of an input of zeros a dynamic layer makes its bias") {
  Random random(5, RandomStream::test);
  const Tensor bias = random_tensor({19}, random), scales = random_scales(19, random);
  for (const Dtype type : code_types) {
    const auto [q, x_scale] = dynamic_quantize(zeros({1, 5, 1, 6}), type);
    DynamicConv2d op;
    op.padding = 1;
    quantized::on_every_isa([&, q = q, x_scale = x_scale] {
      const Tensor y = call(op, {q, quantized::random_weights({19, 3, 3, 6}, random), bias, scales, x_scale})[0];
      for (std::int64_t i = 0; i < y.numel(); ++i) REQUIRE(y.data<float>()[i] == bias.data<float>()[i % 19]);
    });
  }
}

TEST_CASE("a residual that is no number stays one, with ReLU too") {
  const auto [q, x_scale] = dynamic_quantize(full({1, 1, 1, 2}, 1.0f), Dtype::s8);
  DynamicConv2d op;
  op.relu = true;
  const Tensor weight = zeros({3, 1, 1, 2}, Dtype::s8), residual = tensor<float>({1, 1, 1, 3}, {no_number, -inf, 2});
  quantized::on_every_isa([&, q = q, x_scale = x_scale] {
    const auto y = call(op, {q, weight, Tensor(), full({3}, 1.0f), x_scale, residual})[0].to_vector<float>();
    CHECK(std::isnan(y[0]));
    CHECK(y[1] == 0);
    CHECK(y[2] == 2);
  });
}

TEST_CASE("a dynamic layer is the float one, but for rounding") {
  Random random(6, RandomStream::test);
  const Tensor x = random_tensor({2, 9, 7, 21}, random), w = random_tensor({10, 3, 3, 21}, random);
  const Tensor bias = random_tensor({10}, random);
  const Tensor scales({10});
  for (std::int64_t k = 0; k < 10; ++k) {
    const auto begin = w.data<float>() + k * 189;
    scales.data<float>()[k] =
        std::abs(*std::max_element(begin, begin + 189, [](float a, float b) { return std::abs(a) < std::abs(b); })) / 127;
  }
  const auto [q, x_scale] = dynamic_quantize(x, Dtype::s8);
  DynamicConv2d op;
  op.padding = 1;
  const Tensor y = call(op, {q, quantize(w, scales, Dtype::s8), bias, scales, x_scale})[0];
  const auto expected = reference::doubles(conv2d(x, w, bias, {.padding = 1}));
  // 189 products of values near 0.58, each off by steps of 1 / 127 over sqrt(12), twice: a deviation of about 0.026.
  double squares = 0;
  const auto got = reference::doubles(y);
  for (std::size_t i = 0; i < got.size(); ++i) squares += (got[i] - expected[i]) * (got[i] - expected[i]);
  const double deviation = std::sqrt(squares / static_cast<double>(got.size()));
  CHECK(deviation > 0.01);
  CHECK(deviation < 0.04);
}

TEST_CASE("dynamic layers do not depend on the number of threads, and refuse what does not fit") {
  using Catch::Matchers::Contains;
  Random random(7, RandomStream::test);
  const auto [q, scale] = dynamic_quantize(random_tensor({29, 3000}, random), Dtype::s8);
  const Tensor big = quantized::random_weights({400, 3000}, random), scales = random_scales(400, random);
  quantized::on_every_isa([&, q = q, scale = scale] {
    CHECK(same_on_any_threads([&] { return call<DynamicLinear>({}, {q, big, Tensor(), scales, scale})[0]; }));
  });

  const Tensor x({2, 8}, Dtype::u8), weight({4, 8}, Dtype::s8), bias = zeros({4}), four = full({4}, 1.0f),
                                                                one = full({1}, 1.0f);
  const auto error = [](const Tensors& in) { return error_of([&] { call<DynamicLinear>({}, in); }); };
  CHECK(error({x, weight, bias, four, one}) == "no error");
  CHECK_THAT(error({x, weight, bias, four}), Contains("4 inputs"));
  CHECK_THAT(error({zeros({2, 8}), weight, bias, four, one}), Contains("x is f32: expected u8 or s8"));
  CHECK_THAT(error({x, zeros({4, 8}), bias, four, one}), Contains("weight is f32: expected s8"));
  CHECK_THAT(error({x, Tensor({4, 7}, Dtype::s8), bias, four, one}), Contains("[out, 8]"));
  CHECK_THAT(error({x, weight, zeros({4}, Dtype::s32), four, one}), Contains("bias is s32 [4]: expected f32 [4]"));
  CHECK_THAT(error({x, weight, bias, one, one}), Contains("the weight's scale is f32 [1]: expected f32 [4]"));
  CHECK_THAT(error({x, weight, bias, four, four}), Contains("the scale of x is f32 [4]: expected f32 [1]"));
  CHECK_THAT(error({x, weight, bias, Tensor(), one}), Contains("the weight's scale is missing"));
  CHECK_THAT(error({Tensor({1, 66000}, Dtype::u8), Tensor({1, 66000}, Dtype::s8), Tensor(), one, one}),
             Contains("sums of 66000 products of u8"));
  CHECK_THAT(error_of([&] {
               call<DynamicConv2d>({}, {Tensor({1, 2, 2, 3}, Dtype::u8), Tensor({4, 1, 1, 3}, Dtype::s8), bias, four, one,
                                        zeros({1, 2, 3, 4})});
             }),
             Contains("residual is f32 [1, 2, 3, 4]: expected f32 [1, 2, 2, 4]"));
}
