#include "halves.hpp"

#include "error_of.hpp"
#include "shrike/ops/pool.hpp"
#include "shrike/ops/roi.hpp"
#include "threads.hpp"

using namespace shrike;

TEST_CASE("every half comes back from float, and floats go to the nearest half or to the greatest") {
  std::vector<Half> all;
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    if ((bits & 0x7fff) < 0x7c00) all.push_back(std::bit_cast<Half>(static_cast<std::uint16_t>(bits)));
  }
  const Tensor x = tensor({static_cast<std::int64_t>(all.size())}, all);
  CHECK(halves::same(narrow(widen(x)), x));

  const float inf = std::numeric_limits<float>::infinity();
  const Tensor y = narrow(
      tensor<float>({12}, {65504, 65519.996f, 65520, 1e30f, inf, -65520, -inf, 2049, 2051, 0x1p-25f, 0x1.8p-25f, -0.0f}));
  const std::vector<float> expected = {65504, 65504, 65504, 65504, 65504, -65504, -65504, 2048, 2052, 0, 0x1p-24f, -0.0f};
  CHECK(widen(y).to_vector<float>() == expected);
  CHECK(std::isnan(widen(narrow(full({1}, std::nanf("")))).item()));
}

TEST_CASE("convolutions of halves are the double reference's, up to what float32 sums round") {
  std::uint64_t number = 0;
  for (const auto& z : halves::cases) {
    for (const char* output : {"f16", "f32"}) {
      for (const bool relu : {false, true}) {
        INFO("case " << number / 4 << ' ' << output << " relu " << relu);
        Random random(1, RandomStream::test, number++);
        const auto op = halves::conv_op(z, output, relu);
        Tensors in{halves::random_halves({z.n, z.h, z.w, z.c}, random),
                   halves::random_halves({z.k, z.r, z.s, z.c / z.options.groups}, random)};
        if (number % 3 != 0) in.push_back(reference::random_tensor({z.k}, random));
        if (number % 2 == 0) {
          const Shape shape = call(op, in)[0].shape();
          in.resize(3);
          in.push_back(halves::random_halves(shape, random));
        }
        const Tensor y = call(op, in)[0];
        CHECK(y.dtype() == (op.output == "f16" ? Dtype::f16 : Dtype::f32));
        halves::check_close(y, halves::exact(in, z.options, relu), z.r * z.s * z.c / z.options.groups);
      }
    }
  }
}

TEST_CASE("linear layers of halves are convolutions of one pixel") {
  for (const auto& [rows, depth, out] : {std::tuple{1, 1, 1}, {3, 49, 84}, {70, 128, 21}, {5, 640, 66}, {0, 8, 4}}) {
    Random random(2, RandomStream::test);
    HalfLinear op;
    op.relu = rows == 3;
    const Tensor bias = reference::random_tensor({out}, random);
    const Tensors in{halves::random_halves({rows, depth}, random), halves::random_halves({out, depth}, random), bias};
    const Tensor y = call(op, in)[0];
    CHECK(y.shape() == Shape{rows, out});
    halves::check_close(y, halves::exact({in[0].view({rows, 1, 1, depth}), in[1].view({out, 1, 1, depth}), bias}, {}, op.relu),
                        depth);
  }
}

TEST_CASE("sums beyond the greatest half saturate, in f32 they do not; NaN stays") {
  HalfLinear op;
  const Tensor weight = narrow(tensor<float>({3, 2}, {1, 1, -1, -1, 1, -1}));
  const Tensor x = narrow(tensor<float>({3, 2}, {60000, 6000, 1, std::nanf(""), 65504, 65504}));
  const auto y = widen(call(op, {x, weight})[0]).to_vector<float>();
  CHECK((y[0] == 65504 && y[1] == -65504 && y[6] == 65504 && y[7] == -65504 && y[8] == 0));
  CHECK((std::isnan(y[3]) && std::isnan(y[4]) && std::isnan(y[5])));
  op.output = "f32";
  const auto floats = call(op, {x, weight})[0].to_vector<float>();
  CHECK((floats[0] == 66000 && floats[6] == 131008));
}

TEST_CASE("pooling halves is pooling their values") {
  Random random(3, RandomStream::test);
  const PoolOptions options[] = {{}, {.ceil_mode = true}, {.kernel = 3, .stride = 2, .padding = 1}, {.kernel = 3, .stride = 1}};
  for (const Shape& shape : {Shape{2, 9, 7, 3}, Shape{1, 6, 5, 70}, Shape{0, 4, 4, 2}, Shape{1, 3, 3, 1}}) {
    const Tensor x = halves::random_halves(shape, random), values = widen(x);
    for (const auto& o : options) CHECK(halves::same(max_pool2d(x, o), narrow(max_pool2d(values, o))));
    const Tensor rois({6, 5});
    for (std::int64_t i = 0; i < rois.numel(); ++i) rois.data<float>()[i] = i % 5 == 0 ? 0 : random.uniform(-40, 180);
    const RoiOptions o{.height = 3, .width = 4, .spatial_scale = 1.0 / 16};
    CHECK(halves::same(roi_pool(x, rois, o), narrow(roi_pool(values, rois, o))));
    const auto got = halves::doubles(roi_align(x, rois, o)), expected = reference::doubles(roi_align(values, rois, o));
    for (std::size_t i = 0; i < got.size(); ++i) {
      REQUIRE(std::abs(got[i] - expected[i]) <= 0x1p-11 * std::abs(expected[i]) + 1e-6);
    }
  }
  const float nan = std::nanf(""), inf = std::numeric_limits<float>::infinity();
  const Tensor odd =
      tensor<Half>({1, 2, 2, 2}, {Half(1), Half(-inf), Half(nan), Half(-inf), Half(inf), Half(-inf), Half(2), Half(-inf)});
  const auto y = widen(max_pool2d(odd)).to_vector<float>();
  CHECK((std::isnan(y[0]) && y[1] == -inf));
}

TEST_CASE("layers and pooling of halves do not depend on the number of threads") {
  Random random(4, RandomStream::test);
  const Tensor x = halves::random_halves({2, 17, 15, 40}, random), weight = halves::random_halves({24, 3, 3, 40}, random);
  CHECK(same_on_any_threads([&] { return max_pool2d(x); }));
  CHECK(same_on_any_threads([&] { return call(HalfConv2d{}, {x, weight})[0]; }));
}

TEST_CASE("operands that do not fit a layer of halves are named") {
  const Tensor x({1, 4, 4, 3}, Dtype::f16), weight({2, 3, 3, 3}, Dtype::f16), bias({2});
  const auto error = [](const Tensors& in, const char* output = "f16") {
    HalfConv2d op;
    op.output = output;
    return error_of([&] { call(op, in); });
  };
  using Catch::Matchers::Contains;
  CHECK_THAT(error({Tensor({1, 4, 4, 3}), weight}), Contains("half_conv2d: x is f32"));
  CHECK_THAT(error({x, Tensor({2, 3, 3, 3})}), Contains("weight f32"));
  CHECK_THAT(error({x, weight, Tensor({3})}), Contains("bias is f32 [3]"));
  CHECK_THAT(error({x, weight, bias, Tensor({1, 2, 2, 2})}), Contains("residual is f32"));
  CHECK_THAT(error({x, weight, bias}, "s8"), Contains("output 's8'"));
  CHECK_THAT(error_of([&] {
               call(HalfLinear{}, {Tensor({2, 3}, Dtype::f16), Tensor({4, 5}, Dtype::f16)});
             }),
             Contains("half_linear: weight has shape [4, 5]"));
}
