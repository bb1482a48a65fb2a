#include "shrike/ops/quantized_linear.hpp"
#include "error_of.hpp"
#include "quantized.hpp"
#include "threads.hpp"

using namespace shrike;
using quantized::code_types;
using quantized::output_types;

namespace {

void check(std::int64_t rows, std::int64_t in, std::int64_t out, Dtype type, Random& random, bool extremes = false,
           bool trained = false) {
  const Tensor x = quantized::random_codes({rows, in}, type, random, extremes);
  const Tensor weight =
      trained ? quantized::random_weights({out, in}, random) : quantized::random_codes({out, in}, Dtype::s8, random, extremes);
  const auto [bias, multiplier] = quantized::random_epilogue(out, in, random);
  const auto from = quantized::codes(x), by = quantized::codes(weight);
  std::vector<std::int64_t> acc;
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t k = 0; k < out; ++k) {
      std::int64_t sum = bias.data<std::int32_t>()[k];
      for (std::int64_t i = 0; i < in; ++i)
        sum += from[static_cast<std::size_t>(row * in + i)] * by[static_cast<std::size_t>(k * in + i)];
      acc.push_back(sum);
    }
  }
  for (const Dtype output : output_types) {
    for (const bool relu : {false, true}) {
      for (int added = 0; added < 3; ++added) {
        const Tensor residual =
            added > 0 ? quantized::random_codes({rows, out}, added == 1 ? Dtype::u8 : Dtype::s8, random) : Tensor();
        QuantizedLinear op;
        op.relu = relu;
        op.output = name(output);
        op.residual_multiplier = added > 0 ? 1.0 / 3 : 0.0;
        const Tensor expected =
            quantized::requantized(acc, {rows, out}, output, relu, multiplier, residual, op.residual_multiplier);
        INFO(rows << " x " << in << " x " << out << ", " << name(type) << " to " << name(output) << (relu ? ", relu" : "")
                  << ", residual " << added);
        quantized::on_every_isa([&, bias = bias, multiplier = multiplier] {
          Tensors operands{x, weight, bias, multiplier};
          if (residual.defined()) operands.push_back(residual);
          CHECK(quantized::same(call(op, operands)[0], expected));
        });
      }
    }
  }
}

}  // namespace

TEST_CASE("int8 linear layers equal the plain ones to the bit") {
  Random random(1, RandomStream::test);
  for (const Dtype type : code_types) {
    check(1, 1, 1, type, random);
    check(3, 7, 5, type, random);
    check(13, 63, 64, type, random);
    check(7, 130, 65, type, random);
    check(0, 8, 3, type, random);
    check(9, 2051, 530, type, random);  // weights past a million: by panels
  }
}

TEST_CASE("int8 linear layers with weights as training leaves them equal the plain ones to the bit") {
  Random random(4, RandomStream::test);
  for (const Dtype type : code_types) {
    check(1, 1, 1, type, random, false, true);
    check(3, 7, 5, type, random, false, true);
    check(13, 63, 64, type, random, false, true);
    check(7, 1030, 65, type, random, true, true);
    check(9, 2051, 530, type, random, true, true);
  }
}

TEST_CASE("int8 linear layers are exact at the ends of the range, as deep as fc6") {
  Random random(2, RandomStream::test);
  for (const Dtype type : code_types) {
    check(2, 25088, 43, type, random, true);
    const Tensor x = zeros({1, 25088}, type), weight = zeros({2, 25088}, Dtype::s8);
    std::fill_n(static_cast<std::uint8_t*>(x.raw()), 25088, static_cast<std::uint8_t>(type == Dtype::u8 ? 255 : 127));
    std::fill_n(weight.data<std::int8_t>(), 25088, std::int8_t{127});
    std::fill_n(weight.data<std::int8_t>() + 25088, 25088, std::int8_t{-127});
    QuantizedLinear op;
    op.output = "f32";
    const float sum = 25088.0f * (type == Dtype::u8 ? 255.0f : 127.0f) * 127.0f;
    quantized::on_every_isa([&] {
      CHECK(call(op, {x, weight, zeros({2}, Dtype::s32), full({2}, 1.0f)})[0].to_vector<float>() ==
            std::vector<float>{sum, -sum});
    });
  }
}

TEST_CASE("requantization rounds ties to even and clamps") {
  const Tensor x = tensor<std::uint8_t>({1, 1}, {1}), weight = zeros({8, 1}, Dtype::s8);
  const Tensor bias = tensor<std::int32_t>({8}, {1, 3, 5, -1, -3, 700, -700, 0});
  QuantizedLinear op;
  const auto result = [&](const char* output, bool relu) {
    op.output = output;
    op.relu = relu;
    return quantized::codes(call(op, {x, weight, bias, full({8}, 0.5f)})[0]);
  };
  using Codes = std::vector<std::int64_t>;
  quantized::on_every_isa([&] {
    CHECK(result("u8", false) == Codes{0, 2, 2, 0, 0, 255, 0, 0});
    CHECK(result("s8", false) == Codes{0, 2, 2, 0, -2, 127, -127, 0});
    CHECK(result("s8", true) == Codes{0, 2, 2, 0, 0, 127, 0, 0});
  });
}

TEST_CASE("int8 linear layers do not depend on the number of threads") {
  Random random(3, RandomStream::test);
  const Tensor x = quantized::random_codes({29, 3000}, Dtype::u8, random);
  const Tensor weight = quantized::random_codes({400, 3000}, Dtype::s8, random);
  const auto [bias, multiplier] = quantized::random_epilogue(400, 3000, random);
  quantized::on_every_isa([&, bias = bias, multiplier = multiplier] {
    CHECK(same_on_any_threads([&] { return call<QuantizedLinear>({}, {x, weight, bias, multiplier})[0]; }));
  });
}

TEST_CASE("int8 linear layers refuse what does not fit") {
  using Catch::Matchers::Contains;
  const Tensor x({2, 8}, Dtype::u8), weight({4, 8}, Dtype::s8), bias = zeros({4}, Dtype::s32), multiplier({4});
  const auto error = [](const Tensors& in) { return error_of([&] { call<QuantizedLinear>({}, in); }); };
  CHECK(error({x, weight, bias, multiplier}) == "no error");
  CHECK_THAT(error({x, weight}), Contains("2 inputs"));
  CHECK_THAT(error({Tensor({2, 2, 4}, Dtype::u8), weight, bias, multiplier}), Contains("[N, in]"));
  CHECK_THAT(error({x, Tensor({4, 7}, Dtype::s8), bias, multiplier}), Contains("[out, 8]"));
  CHECK_THAT(error({x, weight, Tensor({4}), multiplier}), Contains("bias is f32 [4]"));
  CHECK_THAT(error({Tensor({1, 66000}, Dtype::u8), Tensor({1, 66000}, Dtype::s8), zeros({1}, Dtype::s32), Tensor({1})}),
             Contains("sums of 66000 products of u8"));
}
