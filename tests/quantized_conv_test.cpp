#include "shrike/ops/quantized_conv.hpp"
#include "error_of.hpp"
#include "quantized.hpp"
#include "threads.hpp"

using namespace shrike;
using quantized::code_types;
using quantized::output_types;

namespace {

using quantized::conv_cases;
using quantized::ConvCase;
using quantized::plain_conv;

QuantizedConv2d op_of(const ConvCase& z, Dtype output, bool relu, double residual_multiplier) {
  QuantizedConv2d op;
  op.set(z.options);
  op.relu = relu;
  op.output = name(output);
  op.residual_multiplier = residual_multiplier;
  return op;
}

// Every output type, with and without ReLU, with and without a residual of either type.
void check(const ConvCase& z, Dtype type, Random& random, bool extremes = false) {
  const std::int64_t depth = z.r * z.s * z.c / z.options.groups;
  const Tensor x = quantized::random_codes({z.n, z.h, z.w, z.c}, type, random, extremes);
  const Tensor weight = quantized::random_codes({z.k, z.r, z.s, z.c / z.options.groups}, Dtype::s8, random, extremes);
  const auto [bias, multiplier] = quantized::random_epilogue(z.k, depth, random);
  Conv2d conv;
  conv.set(z.options);
  const auto sizes = conv.sizes(x.shape(), weight.shape());
  const Shape shape{sizes.n, sizes.p, sizes.q, sizes.k};
  const auto acc = plain_conv(z, shape, x, weight, bias);
  for (const Dtype output : output_types) {
    for (const bool relu : {false, true}) {
      for (int added = 0; added < 3; ++added) {
        const double scale = added > 0 ? 0.37 : 0.0;
        const Tensor residual =
            added > 0 ? quantized::random_codes(shape, added == 1 ? Dtype::u8 : Dtype::s8, random) : Tensor();
        const Tensor expected = quantized::requantized(acc, shape, output, relu, multiplier, residual, scale);
        INFO(name(type) << " to " << name(output) << (relu ? ", relu" : "") << ", residual " << added);
        quantized::on_every_isa([&, bias = bias, multiplier = multiplier] {
          Tensors in{x, weight, bias, multiplier};
          if (residual.defined()) in.push_back(residual);
          CHECK(quantized::same(call(op_of(z, output, relu, scale), in)[0], expected));
        });
      }
    }
  }
}

}  // namespace

TEST_CASE("int8 convolution equals the plain one to the bit") {
  for (std::size_t number = 0; number < conv_cases.size(); ++number) {
    INFO("case " << number);
    Random random(2, RandomStream::test, number);
    for (const Dtype type : code_types) check(conv_cases[number], type, random);
  }
}

TEST_CASE("int8 convolution in 3x3 tiles is exact up to the greatest sums that it takes") {
  Random random(5, RandomStream::test);
  for (const Dtype type : code_types) {
    check({2, 9, 14, 32, 48, 3, 3, {.padding = 1}}, type, random);
    check({1, 8, 7, 96, 80, 3, 3, {.padding = 2}}, type, random);
    check({1, 3, 3, 32, 16, 3, 3, {}}, type, random);
    // Weights of one sign, and inputs all at the end, just below, at and above 2^25: 131586 * 255 < 2^25 <= 131587 * 255.
    const std::int64_t depth = 9 * 160;
    const std::int64_t at = type == Dtype::u8 ? 131586 : 262143;
    for (const std::int64_t total : {at, at + 1, -at, -at - 1}) {
      const std::int64_t spread = type == Dtype::u8 ? depth : 9 * 320;
      const Tensor weight({16, 3, 3, spread / 9}, Dtype::s8);
      for (std::int64_t i = 0; i < weight.numel(); ++i) {
        const std::int64_t place = i % spread, size = std::abs(total);
        const std::int64_t value = size / spread + (place < size % spread ? 1 : 0);
        weight.data<std::int8_t>()[i] = static_cast<std::int8_t>(total < 0 ? -value : value);
      }
      const Tensor x({1, 6, 5, spread / 9}, type);
      std::memset(x.raw(), type == Dtype::u8 ? 255 : 128, x.bytes());
      QuantizedConv2d op;
      op.output = "f32";
      const auto sum = static_cast<float>(total * (type == Dtype::u8 ? 255 : -128));
      quantized::on_every_isa([&] {
        const Tensor y = call(op, {x, weight, zeros({16}, Dtype::s32), full({16}, 1.0f)})[0];
        CHECK(quantized::same(y, full(y.shape(), sum)));
      });
    }
  }
}

TEST_CASE("int8 convolution is exact at the ends of the range") {
  Random random(3, RandomStream::test);
  for (const Dtype type : code_types) {
    check({1, 3, 4, 512, 20, 3, 3, {.padding = 1}}, type, random, true);
    check({1, 2, 1, 64, 16, 3, 3, {.padding = 1}}, type, random, true);
  }
}

TEST_CASE("int8 weights are packed once, and again when they change") {
  Random random(6, RandomStream::test);
  // By tiles, by rows, in groups, and by panels.
  for (const ConvCase& z : std::vector<ConvCase>{{1, 6, 5, 32, 48, 3, 3, {.padding = 1}},
                                                 {1, 6, 5, 5, 33, 3, 3, {.padding = 1}},
                                                 {1, 5, 5, 12, 9, 3, 3, {.padding = 1, .groups = 3}},
                                                 {1, 2, 3, 1031, 1030, 1, 1, {}}}) {
    const std::int64_t depth = z.r * z.s * z.c / z.options.groups;
    const Tensor x = quantized::random_codes({z.n, z.h, z.w, z.c}, Dtype::s8, random);
    const Tensor weight = quantized::random_codes({z.k, z.r, z.s, z.c / z.options.groups}, Dtype::s8, random);
    const auto [bias, multiplier] = quantized::random_epilogue(z.k, depth, random);
    quantized::on_every_isa([&, bias = bias, multiplier = multiplier] {
      const auto run = [&](const Tensor& w, const Tensor& input) {
        return call(op_of(z, Dtype::f32, false, 0.0), {input, w, bias, multiplier})[0];
      };
      run(weight, x);
      const auto packed = weight.companion().get();
      REQUIRE(packed != nullptr);
      run(weight, x);
      CHECK(weight.companion().get() == packed);
      const std::int64_t last = weight.numel() - 1;
      for (const std::int64_t at : {std::int64_t{0}, last / 2, last}) {
        auto* const code = weight.data<std::int8_t>() + at;
        *code = static_cast<std::int8_t>(*code ^ 1);
        CHECK(quantized::same(run(weight, x), run(weight.clone(), x)));
        CHECK(weight.companion().get() != packed);
      }
      Tensor unsigned_x(x.shape(), Dtype::u8);  // the same bytes, which want other sums
      std::memcpy(unsigned_x.raw(), x.raw(), x.bytes());
      CHECK(quantized::same(run(weight, unsigned_x), run(weight.clone(), unsigned_x)));
    });
  }
}

TEST_CASE("int8 convolution does not depend on the number of threads") {
  Random random(4, RandomStream::test);
  const ConvCase z{1, 23, 19, 64, 80, 3, 3, {.padding = 1}};
  const Tensor x = quantized::random_codes({1, 23, 19, 64}, Dtype::s8, random);
  const Tensor weight = quantized::random_codes({80, 3, 3, 64}, Dtype::s8, random);
  const auto [bias, multiplier] = quantized::random_epilogue(80, 576, random);
  quantized::on_every_isa([&, bias = bias, multiplier = multiplier] {
    CHECK(same_on_any_threads([&] { return call(op_of(z, Dtype::u8, true, 0.0), {x, weight, bias, multiplier})[0]; }));
  });
}

TEST_CASE("int8 convolution refuses what does not fit") {
  using Catch::Matchers::Contains;
  const Tensor x({1, 4, 4, 8}, Dtype::u8), weight({4, 3, 3, 8}, Dtype::s8), bias = zeros({4}, Dtype::s32), multiplier({4});
  const auto error = [](const Tensors& in, const std::string& output = "u8") {
    return error_of([&] {
      QuantizedConv2d op;
      op.output = output;
      call(op, in);
    });
  };
  CHECK(error({x, weight, bias, multiplier}) == "no error");
  CHECK_THAT(error({x.to(Device::cpu), weight, bias}), Contains("3 inputs"));
  CHECK_THAT(error({Tensor({1, 4, 4, 8}), weight, bias, multiplier}), Contains("x is f32"));
  CHECK_THAT(error({x, Tensor({4, 3, 3, 8}, Dtype::u8), bias, multiplier}), Contains("weight is u8"));
  CHECK_THAT(error({x, weight, zeros({5}, Dtype::s32), multiplier}), Contains("bias is s32 [5]"));
  CHECK_THAT(error({x, weight, bias, Tensor({3})}), Contains("multiplier is f32 [3]"));
  CHECK_THAT(error({x, weight, bias, multiplier, Tensor({1, 2, 2, 5}, Dtype::u8)}), Contains("residual is u8 [1, 2, 2, 5]"));
  CHECK_THAT(error({x, weight, bias, multiplier}, "s32"), Contains("output 's32'"));
  CHECK_THAT(error({x, Tensor({4, 3, 3, 7}, Dtype::s8), bias, multiplier}), Contains("8 channels"));
  // 2^31 - 1 - 72 * 255 * 128 is the most that a bias may add.
  CHECK(error({x, weight, tensor<std::int32_t>({4}, {0, 0, 0, -2145133567}), multiplier}) == "no error");
  CHECK_THAT(error({x, weight, tensor<std::int32_t>({4}, {0, 0, 0, -2145133568}), multiplier}), Contains("bias[3]"));
  CHECK_THAT(
      error({Tensor({1, 3, 3, 7400}, Dtype::u8), zeros({1, 3, 3, 7400}, Dtype::s8), zeros({1}, Dtype::s32), Tensor({1})}),
      Contains("sums of 66600 products of u8"));
}
