// Every candidate of every pass, on small integers, whose sums are exact in fp32 and in TF32, against loops in double.
#include <cmath>

#include "kernels/conv.hpp"
#include "reference.hpp"
#include "shrike/core/cuda.hpp"
#include "shrike/ops/conv.hpp"

using namespace shrike;
using namespace shrike::kernels;
using reference::Doubles;

namespace {

struct Case {
  std::int64_t n, h, w, c, k, r, s;
  Conv2dOptions options;
};

Conv2dSizes sizes_of(const Case& z) {
  Conv2d op;
  op.set(z.options);
  return op.sizes({z.n, z.h, z.w, z.c}, {z.k, z.r, z.s, z.c / z.options.groups});
}

// Calls f(index of y, of x, of weight) for every product of the convolution.
template <class F> void each_product(const Conv2dSizes& z, F f) {
  const std::int64_t channels = z.c / z.groups, filters = z.k / z.groups;
  std::int64_t of_y = 0;
  for (std::int64_t n = 0; n < z.n; ++n)
    for (std::int64_t p = 0; p < z.p; ++p)
      for (std::int64_t q = 0; q < z.q; ++q)
        for (std::int64_t k = 0; k < z.k; ++k, ++of_y)
          for (std::int64_t r = 0; r < z.r; ++r)
            for (std::int64_t s = 0; s < z.s; ++s) {
              const std::int64_t h = p * z.stride - z.padding + r * z.dilation, w = q * z.stride - z.padding + s * z.dilation;
              if (h < 0 || h >= z.h || w < 0 || w >= z.w) continue;
              const std::int64_t x = ((n * z.h + h) * z.w + w) * z.c + k / filters * channels;
              const std::int64_t weight = ((k * z.r + r) * z.s + s) * channels;
              for (std::int64_t c = 0; c < channels; ++c) {
                f(static_cast<std::size_t>(of_y), static_cast<std::size_t>(x + c), static_cast<std::size_t>(weight + c));
              }
            }
}

Tensor on_device(const Tensor& tensor) { return tensor.to(Device::cuda); }

// What a pass writes, into memory that held something else before.
Doubles run(const ConvCandidate& candidate, const Conv2dSizes& sizes, ConvPointers pointers, const Shape& shape) {
  const Tensor out = on_device(full(shape, 777.0f));
  pointers.out = out.data<float>();
  candidate.run(sizes, pointers);
  return reference::doubles(out.to(Device::cpu));
}

struct Data {
  Conv2dSizes sizes;
  Shape y_shape;
  Tensor x, weight, dy, bias, residual;
  Doubles y, dx, dweight;

  Data(const Case& z, std::uint64_t number, bool integers) : sizes(sizes_of(z)), y_shape{z.n, sizes.p, sizes.q, z.k} {
    Random random(7, RandomStream::test, number);
    const auto make = [&](const Shape& shape) {
      return integers ? reference::random_integers(shape, random) : reference::random_tensor(shape, random);
    };
    x = make({z.n, z.h, z.w, z.c});
    weight = make({z.k, z.r, z.s, z.c / z.options.groups});
    dy = make(y_shape);
    bias = make({z.k});
    residual = make(y_shape);
    const Doubles of_x = reference::doubles(x), of_weight = reference::doubles(weight), of_dy = reference::doubles(dy);
    const Doubles of_bias = reference::doubles(bias), of_residual = reference::doubles(residual);
    y.resize(of_dy.size());
    dx.resize(of_x.size());
    dweight.resize(of_weight.size());
    each_product(sizes, [&](std::size_t i, std::size_t j, std::size_t k) {
      y[i] += of_x[j] * of_weight[k];
      dx[j] += of_dy[i] * of_weight[k];
      dweight[k] += of_dy[i] * of_x[j];
    });
    for (std::size_t i = 0; i < y.size(); ++i) {
      y[i] += of_bias[i % of_bias.size()] + of_residual[i];
      if (sizes.relu) y[i] = std::max(y[i], 0.0);
    }
  }
};

// The greatest error of a pass by a candidate, relative to the greatest value.
double error_of(const ConvCandidate& candidate, ConvPass pass, const Data& data) {
  const Tensor x = on_device(data.x), weight = on_device(data.weight), dy = on_device(data.dy);
  const Tensor bias = on_device(data.bias), residual = on_device(data.residual);
  const ConvPointers pointers{.x = x.data<float>(),
                              .weight = weight.data<float>(),
                              .dy = dy.data<float>(),
                              .bias = bias.data<float>(),
                              .residual = residual.data<float>()};
  const Doubles& expected = pass == ConvPass::fprop ? data.y : pass == ConvPass::dgrad ? data.dx : data.dweight;
  const Shape& shape = pass == ConvPass::fprop ? data.y_shape : pass == ConvPass::dgrad ? data.x.shape() : data.weight.shape();
  const Doubles got = run(candidate, data.sizes, pointers, shape);
  double error = 0, largest = 1;
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (std::isnan(got[i])) return HUGE_VAL;
    error = std::max(error, std::abs(got[i] - expected[i]));
    largest = std::max(largest, std::abs(expected[i]));
  }
  return error / largest;
}

constexpr ConvPass passes[] = {ConvPass::fprop, ConvPass::dgrad, ConvPass::wgrad};

const std::vector<Case> cases = {
    {1, 7, 9, 3, 8, 3, 3, {.padding = 1}},                              // an image's channels
    {1, 5, 6, 5, 7, 3, 3, {.stride = 2, .padding = 1}},                 // nothing divides anything
    {2, 4, 5, 33, 9, 1, 1, {.relu = true}},                             //
    {1, 9, 11, 36, 68, 3, 3, {.padding = 1, .relu = true}},             // vectors, and ends of every tile; K = 324: 11 turns
    {1, 6, 7, 4, 8, 3, 3, {.padding = 2, .dilation = 2}},               // a turn is eight taps
    {2, 7, 6, 8, 12, 3, 2, {.stride = 2, .padding = 1}},                //
    {1, 7, 5, 8, 4, 3, 3, {.stride = 2, .padding = 2, .dilation = 2}},  // half of the pixels meet no tap
    {1, 6, 6, 4, 4, 1, 1, {.stride = 3}},                               //
    {1, 1, 1, 1, 1, 1, 1, {}},                                          //
    {3, 1, 1, 132, 5, 3, 3, {.padding = 1, .relu = true}},              // a map of one pixel
    {1, 2, 3, 8, 4, 7, 7, {.stride = 1, .padding = 3}},                 //
    {1, 23, 25, 4, 4, 3, 3, {.padding = 1}},                            // many pixels: wgrad's K is 18 turns
    {2, 6, 5, 6, 4, 3, 3, {.padding = 1, .groups = 2, .relu = true}},   //
};

}  // namespace

TEST_CASE("cuda conv2d: every candidate of every pass is exact on small integers") {
  for (std::size_t number = 0; number < cases.size(); ++number) {
    const Data data(cases[number], number, true);
    int ran = 0;
    for (const ConvPass pass : passes) {
      for (const ConvCandidate& candidate : conv_candidates(pass)) {
        if (!candidate.supported(data.sizes, cuda::properties())) continue;
        INFO("case " << number << " pass " << static_cast<int>(pass) << " by " << candidate.name);
        CHECK(error_of(candidate, pass, data) == 0);
        ++ran;
      }
    }
    CHECK(ran >= (data.sizes.groups == 1 ? 9 : 3));
  }
}

TEST_CASE("cuda conv2d: fp32 and TF32 are as near to double as their mantissas allow") {
  const Data data({1, 6, 7, 36, 20, 3, 3, {.padding = 1}}, 100, false);
  for (const ConvPass pass : passes) {
    for (const ConvCandidate& candidate : conv_candidates(pass)) {
      if (!candidate.supported(data.sizes, cuda::properties())) continue;
      INFO("pass " << static_cast<int>(pass) << " by " << candidate.name);
      const double error = error_of(candidate, pass, data);
      CHECK(error <= (candidate.tf32 ? 2e-3 : 2e-6));
      if (candidate.tf32) CHECK(error >= 1e-6);  // or it is not what it says
    }
  }
}

TEST_CASE("cuda conv2d's operation agrees with the CPU's, gradients included") {
  std::uint64_t number = 200;
  for (const Case& z :
       {Case{2, 8, 7, 8, 12, 3, 3, {.padding = 1, .relu = true}}, Case{1, 9, 8, 3, 8, 3, 3, {.stride = 2, .padding = 1}},
        Case{1, 5, 5, 6, 4, 3, 3, {.padding = 1, .groups = 2, .relu = true}}}) {
    Random random(8, RandomStream::test, number++);
    const Tensors on_cpu{reference::random_integers({z.n, z.h, z.w, z.c}, random),
                         reference::random_integers({z.k, z.r, z.s, z.c / z.options.groups}, random),
                         reference::random_integers({z.k}, random)};
    Tensors results[2];
    const Shape y_shape{z.n, sizes_of(z).p, sizes_of(z).q, z.k};
    const Tensor dy = reference::random_integers(y_shape, random), residual = reference::random_integers(y_shape, random);
    for (const Device device : {Device::cpu, Device::cuda}) {
      Tensors leaves;
      for (const Tensor& tensor : on_cpu) {
        leaves.push_back(device == Device::cuda ? tensor.to(device) : tensor);
        leaves.back().set_requires_grad(true);
      }
      const Tensor y = conv2d(leaves[0], leaves[1], leaves[2], z.options);
      backward({y}, {dy.to(device)});
      Conv2d with_residual;
      with_residual.set(z.options);
      leaves.push_back(residual.to(device));
      const Tensor sum = call(with_residual, leaves)[0];
      auto& to = results[device == Device::cuda];
      for (const Tensor& tensor : {y, leaves[0].grad(), leaves[1].grad(), leaves[2].grad(), sum})
        to.push_back(tensor.to(Device::cpu));
    }
    for (std::size_t i = 0; i < 5; ++i) {
      INFO("result " << i << " of case " << number);
      CHECK(results[1][i].to_vector<float>() == results[0][i].to_vector<float>());
    }
  }
}

TEST_CASE("cuda conv2d without TF32 keeps 24 bits, and of an empty batch is empty") {
  const Conv2dSizes sizes = sizes_of({1, 8, 8, 64, 64, 3, 3, {.padding = 1}});
  const bool before = cuda_settings().tf32;
  for (const bool tf32 : {true, false}) {
    cuda_settings().tf32 = tf32;
    for (const ConvPass pass : passes) {
      CHECK(predicted_conv(pass, sizes).tf32 == (tf32 && cuda::properties().compute_capability >= 80));
    }
  }
  cuda_settings().tf32 = before;

  const Tensor x = on_device(Tensor({0, 4, 4, 4})), weight = on_device(full({4, 3, 3, 4}, 1.0f)),
               bias = on_device(full({4}, 1.0f));
  for (const Tensor& tensor : {x, weight, bias}) tensor.set_requires_grad(true);
  const Tensor y = conv2d(x, weight, bias, {.padding = 1, .relu = true});
  REQUIRE(y.shape() == Shape{0, 4, 4, 4});
  backward({y}, {Tensor(y.shape(), Dtype::f32, Device::cuda)});
  CHECK(weight.grad().to(Device::cpu).to_vector<float>() == std::vector<float>(144, 0.0f));
  CHECK(bias.grad().to(Device::cpu).to_vector<float>() == std::vector<float>(4, 0.0f));
}
