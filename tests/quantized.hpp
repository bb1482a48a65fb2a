// Int8 layers as ops/requantize.hpp defines them, in plain loops over 64-bit integers, and random codes to try them on.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "catch.hpp"
#include "shrike/core/random.hpp"
#include "shrike/ops/quantized_conv.hpp"
#include "shrike/ops/quantized_linear.hpp"

namespace quantized {

using namespace shrike;

// Codes all over the range, and many at its ends; s8 with -128, which no quantizer makes, but a tensor can hold.
inline Tensor random_codes(const Shape& shape, Dtype dtype, Random& random, bool extremes = false) {
  const Tensor result(shape, dtype);
  for (std::int64_t i = 0; i < result.numel(); ++i) {
    auto code = static_cast<std::uint8_t>(random.below(256));
    if (extremes || random.below(8) == 0) code = random.below(2) == 0 ? 127 : dtype == Dtype::u8 ? 255 : 129;
    static_cast<std::uint8_t*>(result.raw())[i] = code;
  }
  return result;
}

// Weights as training leaves them: most are small, a few as large as can be, some of those neighbours.
inline Tensor random_weights(const Shape& shape, Random& random) {
  const Tensor result(shape, Dtype::s8);
  auto* const w = result.data<std::int8_t>();
  for (std::int64_t i = 0; i < result.numel(); ++i) {
    w[i] = static_cast<std::int8_t>(std::lround(std::clamp(20.0f * random.normal(), -127.0f, 127.0f)));
    if (random.below(500) == 0) w[i] = random.below(2) == 0 ? 127 : -128;
    if (i > 0 && std::abs(w[i - 1]) >= 127 && random.below(2) == 0) w[i] = w[i - 1];
  }
  return result;
}

inline std::vector<std::int64_t> codes(const Tensor& tensor) {
  if (tensor.dtype() == Dtype::u8) {
    const auto values = tensor.to_vector<std::uint8_t>();
    return {values.begin(), values.end()};
  }
  const auto values = tensor.to_vector<std::int8_t>();
  return {values.begin(), values.end()};
}

inline bool same(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.shape() == b.shape() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

// y of the sums acc, whose last dimension is the channel.
inline Tensor requantized(const std::vector<std::int64_t>& acc, const Shape& shape, Dtype dtype, bool relu,
                          const Tensor& multiplier, const Tensor& residual, double residual_multiplier) {
  const Tensor y(shape, dtype);
  const auto added = residual.defined() ? codes(residual) : std::vector<std::int64_t>();
  const std::int64_t channels = multiplier.numel();
  for (std::size_t i = 0; i < acc.size(); ++i) {
    REQUIRE(std::abs(acc[i]) < std::int64_t{1} << 31);
    float t = static_cast<float>(static_cast<std::int32_t>(acc[i])) *
              multiplier.data<float>()[static_cast<std::int64_t>(i) % channels];
    if (!added.empty()) t = std::fma(static_cast<float>(added[i]), static_cast<float>(residual_multiplier), t);
    if (dtype == Dtype::f32) {
      y.data<float>()[i] = relu && !(t > 0.0f) ? 0.0f : t;
      continue;
    }
    const float low = relu || dtype == Dtype::u8 ? 0.0f : -127.0f, high = dtype == Dtype::u8 ? 255.0f : 127.0f;
    const float q = std::min(std::max(std::rint(t), low), high);
    static_cast<std::uint8_t*>(y.raw())[i] = static_cast<std::uint8_t>(static_cast<int>(q));
  }
  return y;
}

// Operands of a layer of `channels` outputs: multipliers that bring most sums into the range of codes, some to ties.
struct Epilogue {
  Tensor bias, multiplier;
};
inline Epilogue random_epilogue(std::int64_t channels, std::int64_t depth, Random& random) {
  const Epilogue result{Tensor({channels}, Dtype::s32), Tensor({channels})};
  for (std::int64_t k = 0; k < channels; ++k) {
    result.bias.data<std::int32_t>()[k] = static_cast<std::int32_t>(random.below(20001)) - 10000;
    const float usual = 100.0f / (8000.0f * std::sqrt(static_cast<float>(depth)));
    result.multiplier.data<float>()[k] =
        random.below(4) == 0 ? std::exp2(std::round(std::log2(usual))) : usual * random.uniform(0.2f, 3.0f);
  }
  return result;
}

// Odd shapes.
struct ConvCase {
  std::int64_t n, h, w, c, k, r, s;
  Conv2dOptions options;
};

inline const std::vector<ConvCase> conv_cases = {
    {1, 5, 7, 3, 16, 3, 3, {.padding = 1}},
    {2, 9, 6, 16, 33, 3, 3, {.padding = 1}},
    {1, 13, 11, 37, 70, 3, 3, {.padding = 1}},
    {1, 1, 1, 64, 64, 3, 3, {.padding = 1}},
    {1, 1, 1, 5, 7, 1, 1, {}},
    {1, 10, 9, 64, 128, 3, 3, {.padding = 1}},
    {1, 4, 4, 32, 16, 3, 3, {}},
    {1, 9, 8, 6, 5, 3, 2, {.stride = 2, .padding = 1}},
    {1, 12, 11, 8, 17, 3, 3, {.stride = 3, .padding = 2, .dilation = 2}},
    {2, 6, 5, 12, 9, 3, 3, {.padding = 1, .groups = 3}},
    {1, 6, 7, 8, 8, 3, 3, {.padding = 1, .groups = 8}},
    {1, 7, 7, 65, 64, 1, 1, {.stride = 2}},
    {1, 14, 15, 3, 8, 7, 7, {.stride = 2, .padding = 3}},
    {0, 6, 5, 4, 4, 3, 3, {}},
};

// The sums of a convolution of codes, with the bias s32 if it is defined.
inline std::vector<std::int64_t> plain_conv(const ConvCase& z, const Shape& y, const Tensor& x, const Tensor& weight,
                                            const Tensor& bias) {
  const auto from = quantized::codes(x), by = quantized::codes(weight);
  const auto& o = z.options;
  const std::int64_t c = z.c / o.groups, per_group = z.k / o.groups;
  std::vector<std::int64_t> acc;
  for (std::int64_t n = 0; n < y[0]; ++n)
    for (std::int64_t p = 0; p < y[1]; ++p)
      for (std::int64_t q = 0; q < y[2]; ++q)
        for (std::int64_t k = 0; k < z.k; ++k) {
          std::int64_t sum = bias.defined() ? bias.data<std::int32_t>()[k] : 0;
          for (std::int64_t r = 0; r < z.r; ++r)
            for (std::int64_t s = 0; s < z.s; ++s) {
              const std::int64_t h = p * o.stride - o.padding + r * o.dilation, w = q * o.stride - o.padding + s * o.dilation;
              if (h < 0 || w < 0 || h >= z.h || w >= z.w) continue;
              for (std::int64_t i = 0; i < c; ++i) {
                sum += from[static_cast<std::size_t>(((n * z.h + h) * z.w + w) * z.c + k / per_group * c + i)] *
                       by[static_cast<std::size_t>(((k * z.r + r) * z.s + s) * c + i)];
              }
            }
          acc.push_back(sum);
        }
  return acc;
}

// What the same sums become in dynamic quantization; bias and residual may be undefined.
inline Tensor dynamic_output(const std::vector<std::int64_t>& acc, const Shape& shape, bool relu, const Tensor& weight_scale,
                             float x_scale, const Tensor& bias, const Tensor& residual) {
  const Tensor y(shape);
  const std::int64_t channels = weight_scale.numel();
  for (std::int64_t i = 0; i < y.numel(); ++i) {
    const std::int64_t k = i % channels;
    float t = static_cast<float>(static_cast<std::int32_t>(acc[static_cast<std::size_t>(i)])) *
              (weight_scale.data<float>()[k] * x_scale);
    if (bias.defined()) t += bias.data<float>()[k];
    if (residual.defined()) t += residual.data<float>()[i];
    y.data<float>()[i] = relu && t < 0 ? 0 : t;
  }
  return y;
}

// Runs f under each instruction set that this machine has.
inline void on_every_isa(const std::function<void()>& f) {
  for (const char* isa : {"plain", "avx2", "avxvnni", "avx512"}) {
    INFO("instruction set " << isa);
    setenv("SHRIKE_CPU_ISA", isa, 1);
    f();
  }
  unsetenv("SHRIKE_CPU_ISA");
}

constexpr Dtype code_types[] = {Dtype::u8, Dtype::s8};
constexpr Dtype output_types[] = {Dtype::u8, Dtype::s8, Dtype::f32};

}  // namespace quantized
