// Fake-quantize, quantize, dequantize against the formulas; gradients straight through and of learned scales.
#include <cmath>
#include <limits>

#include "catch.hpp"
#include "reference.hpp"
#include "shrike/ops/quantize.hpp"

using namespace shrike;
using reference::random_tensor;

namespace {

double code(double x, double s, Dtype dtype) {
  const CodeRange range = code_range(dtype);
  return std::clamp(std::nearbyint(x / s), static_cast<double>(range.low), static_cast<double>(range.high));
}

}  // namespace

TEST_CASE("scales come from ranges") {
  CHECK(scale_from_range(0, 2.55f, Dtype::u8) == 2.55f / 255);
  CHECK(scale_from_range(-3, 2, Dtype::s8) == 3.0f / 127);
  CHECK(scale_from_range(-1, 2, Dtype::s8) == 2.0f / 127);
  CHECK(scale_from_range(0, 0, Dtype::u8) > 0);
  CHECK(scale_from_range(0, 0, Dtype::s8) > 0);
  CHECK_THROWS_WITH(scale_from_range(0, INFINITY, Dtype::u8), "the range 0 to inf has no scale");
  CHECK_THROWS_AS(scale_from_range(NAN, 1, Dtype::u8), Error);
}

TEST_CASE("values and gradients are the formulas', per tensor and per channel") {
  Random random(1, RandomStream::test);
  for (const Dtype dtype : {Dtype::u8, Dtype::s8}) {
    for (const Shape& shape : {Shape{1}, Shape{3, 5}, Shape{7, 3, 3, 5}, Shape{2, 40000}}) {
      for (const bool per_channel : {false, true}) {
        INFO(name(dtype) << message(shape) << per_channel);
        const std::int64_t channels = per_channel ? shape[0] : 1;
        const Tensor x = random_tensor(shape, random, -2.0f, 2.0f);
        const Tensor scale = random_tensor({channels}, random, 0.004f, 0.01f);
        const Tensor g = random_tensor(shape, random);
        x.set_requires_grad(true), scale.set_requires_grad(true);
        FakeQuantize op;
        op.dtype = name(dtype);
        op.per_channel = per_channel;
        op.learned = true;
        const Tensor y = call(op, {x, scale})[0];
        backward({y}, {g});

        const std::int64_t inner = shape.numel() / channels;
        const CodeRange range = code_range(dtype);
        std::vector<double> slopes(static_cast<std::size_t>(channels));
        std::int64_t wrong = 0, clipped = 0;
        const Tensor q = quantize(x.detach(), scale.detach(), dtype);
        const Tensor back = dequantize(q, scale.detach());
        for (std::int64_t i = 0; i < shape.numel(); ++i) {
          const float s = scale.data<float>()[i / inner], v = x.data<float>()[i];
          const float ratio = v / s;  // rounded to float, as the kernels see it
          const double c = code(ratio, 1, dtype);
          const bool inside = std::nearbyint(ratio) >= range.low && std::nearbyint(ratio) <= range.high;
          clipped += !inside;
          wrong += y.data<float>()[i] != static_cast<float>(c) * s;
          wrong += back.data<float>()[i] != static_cast<float>(c) * s;
          wrong += c != (dtype == Dtype::u8 ? q.data<std::uint8_t>()[dtype == Dtype::u8 ? i : 0]
                                            : static_cast<double>(q.data<std::int8_t>()[i]));
          wrong += x.grad().data<float>()[i] != (inside ? g.data<float>()[i] : 0.0f);
          slopes[static_cast<std::size_t>(i / inner)] += g.data<float>()[i] * (inside ? c - ratio : c);
        }
        CHECK(wrong == 0);
        if (shape.numel() > 100) CHECK(clipped > 0);
        for (double& slope : slopes) slope /= std::sqrt(static_cast<double>(inner) * range.high);
        CHECK(reference::difference(scale.grad(), slopes) < 1e-4);
      }
    }
  }
}

TEST_CASE("the learned scale's gradient is that of the loss where rounding is held") {
  // d/ds of sum g * clamp(r + x / s, low, high) * s, with r = rint(x / s) - x / s held fixed, by central differences.
  Random random(2, RandomStream::test);
  const Tensor x = random_tensor({200}, random, -2.0f, 2.0f), g = random_tensor({200}, random);
  const Tensor scale = full({1}, 0.011f);
  for (float* v = x.data<float>(); v < x.data<float>() + 200; ++v) {
    if (std::abs(std::nearbyint(*v / 0.011f)) == 127) *v = 0;  // there the clamp has a kink
  }
  scale.set_requires_grad(true);
  FakeQuantize op;
  op.learned = true;
  backward({call(op, {x, scale})[0]}, {g});
  const auto xs = reference::doubles(x), gs = reference::doubles(g);
  const double s0 = scale.item();
  const auto loss = [&](const reference::Doubles& s) {
    double sum = 0;
    for (std::size_t i = 0; i < xs.size(); ++i) {
      const double r = std::nearbyint(xs[i] / s0) - xs[i] / s0;
      sum += gs[i] * std::clamp(r + xs[i] / s[0], -127.0, 127.0) * s[0];
    }
    return sum / std::sqrt(200.0 * 127);
  };
  CHECK(reference::difference(scale.grad(), reference::numeric_gradient(loss, {s0}, 1e-7)) < 1e-3);
}

TEST_CASE("so are the gradients of the scales of a weight's output channels, each scaled by its own number of weights") {
  Random random(5, RandomStream::test);
  const Shape shape{5, 3, 3, 4};
  const Tensor w = random_tensor(shape, random, -2.0f, 2.0f), g = random_tensor(shape, random);
  const Tensor scale = random_tensor({5}, random, 0.008f, 0.02f);  // some channels are clipped
  for (std::int64_t i = 0; i < w.numel(); ++i) {
    float& v = w.data<float>()[i];
    if (std::abs(std::nearbyint(v / scale.data<float>()[i / 36])) == 127) v = 0;  // there the clamp has a kink
  }
  scale.set_requires_grad(true);
  w.set_requires_grad(true);
  FakeQuantize op;
  op.per_channel = true;
  op.learned = true;
  backward({call(op, {w, scale})[0]}, {g});
  const auto ws = reference::doubles(w), gs = reference::doubles(g), start = reference::doubles(scale);
  const auto loss = [&](const reference::Doubles& values, const reference::Doubles& s) {
    double sum = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double s0 = start[i / 36], r = std::nearbyint(ws[i] / s0) - ws[i] / s0;
      sum += gs[i] * std::clamp(r + values[i] / s[i / 36], -127.0, 127.0) * s[i / 36];
    }
    return sum;
  };
  auto expected = reference::numeric_gradient([&](const auto& s) { return loss(ws, s); }, start, 1e-7);
  for (double& v : expected) v /= std::sqrt(36.0 * 127);
  CHECK(reference::difference(scale.grad(), expected) < 1e-3);
  const auto straight = reference::numeric_gradient([&](const auto& values) { return loss(values, start); }, ws, 1e-6);
  CHECK(reference::difference(w.grad(), straight) < 1e-5);
}

TEST_CASE("rounding is to even, ends are exact, zero scale passes, NaN is seen") {
  const Tensor one = full({1}, 1.0f);
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  const std::vector<float> values = {0.5f,    1.5f,   2.5f,   -0.5f, -1.5f,  126.5f, 127.5f,
                                     -127.5f, 254.5f, 255.5f, 1e30f, -1e30f, inf,    -inf};
  const Tensor x = tensor<float>({14}, values);
  CHECK(quantize(x, one, Dtype::u8).to_vector<std::uint8_t>() ==
        std::vector<std::uint8_t>{0, 2, 2, 0, 0, 126, 128, 0, 254, 255, 255, 0, 255, 0});
  CHECK(quantize(x, one, Dtype::s8).to_vector<std::int8_t>() ==
        std::vector<std::int8_t>{0, 2, 2, 0, -2, 126, 127, -127, 127, 127, 127, -127, 127, -127});
  CHECK(fake_quantize(x, zeros({1}), Dtype::s8).to_vector<float>() == values);
  CHECK(std::isnan(fake_quantize(tensor<float>({1}, {nan}), one, Dtype::u8).item()));
  CHECK(fake_quantize(Tensor({0, 3}), one, Dtype::u8).numel() == 0);
  CHECK_THROWS_WITH(fake_quantize(x, full({3}, 1.0f), Dtype::u8),
                    "fake_quantize: scale of shape [3] for x of shape [14]: expected [14]");
}

TEST_CASE("rounding what is rounded changes nothing") {
  Random random(3, RandomStream::test);
  for (int i = 0; i < 50; ++i) {
    const Tensor scale = full({1}, random.uniform(1e-4f, 3.0f));
    const Tensor x = random_tensor({3000}, random, -300 * scale.item(), 300 * scale.item());
    for (const Dtype dtype : {Dtype::u8, Dtype::s8}) {
      const Tensor y = fake_quantize(x, scale, dtype);
      CHECK(fake_quantize(y, scale, dtype).to_vector<float>() == y.to_vector<float>());
    }
  }
}

TEST_CASE("ranges and histograms") {
  Random random(4, RandomStream::test);
  for (const std::int64_t inner : {1, 5, 70000}) {
    const Tensor x = random_tensor({3, inner}, random);
    const auto values = x.to_vector<float>();
    float range[6];
    std::int64_t odd = -1;
    kernels::min_max_rows(Cpu{}, 3, inner, x.data<float>(), range, &odd);
    CHECK(odd == 0);
    for (int row = 0; row < 3; ++row) {
      const auto begin = values.begin() + row * inner;
      CHECK(range[2 * row] == *std::min_element(begin, begin + inner));
      CHECK(range[2 * row + 1] == *std::max_element(begin, begin + inner));
    }
    std::vector<std::int64_t> counts(16), expected(16);
    kernels::histogram_abs(Cpu{}, x.numel(), 16, 0.05f, x.data<float>(), counts.data());
    kernels::histogram_abs(Cpu{}, x.numel(), 16, 0.05f, x.data<float>(), counts.data());
    for (const float v : values) expected[static_cast<std::size_t>(std::min(15, static_cast<int>(std::abs(v) / 0.05f)))] += 2;
    CHECK(counts == expected);
  }
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  const std::vector<float> odd_values = {nan, 2, -inf, nan, nan, inf};
  float range[4];
  std::int64_t odd = 0;
  kernels::min_max_rows(Cpu{}, 2, 3, odd_values.data(), range, &odd);
  CHECK(odd == 5);
  CHECK(std::vector<float>(range, range + 4) == std::vector<float>{2, 2, 0, 0});
}
