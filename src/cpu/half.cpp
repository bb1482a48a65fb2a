// Halves on the CPU, which has no instruction for them worth having: what a device computes in f16 can be run and checked here.
// A layer gathers rows of x as floats and multiplies them in float32: products of halves are exact there.
#include "shrike/ops/half.hpp"

#include <algorithm>
#include <limits>
#include <vector>

#include "gemm/gemm.hpp"
#include "isa.hpp"
#include "shrike/core/last_kernel.hpp"
#include "shrike/core/threads.hpp"

namespace shrike::kernels {
namespace {

constexpr std::int64_t grain = 1 << 14;

std::vector<float> widened(std::int64_t n, const Half* x) {
  std::vector<float> y(static_cast<std::size_t>(n));
  widen_forward(Cpu{}, n, x, y.data());
  return y;
}

// Row `pixel` of the matrix that a group's filters multiply: to [r, s, channels], zeros outside of x [n, h, w, c].
void gather(const Conv2dSizes& z, const float* x, std::int64_t pixel, std::int64_t first, std::int64_t channels, float* to) {
  const std::int64_t image = pixel / (z.p * z.q), p = pixel / z.q % z.p, q = pixel % z.q;
  for (std::int64_t r = 0; r < z.r; ++r) {
    const std::int64_t h = p * z.stride - z.padding + r * z.dilation;
    for (std::int64_t s = 0; s < z.s; ++s, to += channels) {
      const std::int64_t w = q * z.stride - z.padding + s * z.dilation;
      if (h < 0 || h >= z.h || w < 0 || w >= z.w) {
        std::fill_n(to, channels, 0.0f);
      } else {
        std::copy_n(x + ((image * z.h + h) * z.w + w) * z.c + first, channels, to);
      }
    }
  }
}

}  // namespace

void widen_forward(Cpu, std::int64_t n, const Half* x, float* y) {
  parallel_for(n, grain, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) y[i] = static_cast<float>(x[i]);
  });
}

void narrow_forward(Cpu, std::int64_t n, const float* x, Half* y) {
  parallel_for(n, grain, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) y[i] = saturated_half(x[i]);
  });
}

void half_conv2d_forward(Cpu, const Conv2dSizes& z, const HalfOperands& operands) {
  const std::int64_t channels = z.c / z.groups, filters = z.k / z.groups, depth = z.r * z.s * channels;
  const std::int64_t pixels = z.n * z.p * z.q, rows = std::clamp<std::int64_t>((1 << 21) / depth, 1, pixels);
  const auto x = widened(z.n * z.h * z.w * z.c, operands.x), weight = widened(z.k * depth, operands.weight);
  std::vector<float> gathered(static_cast<std::size_t>(rows * depth)), sums(static_cast<std::size_t>(rows * filters));
  for (std::int64_t first = 0; first < pixels; first += rows) {
    const std::int64_t count = std::min(rows, pixels - first);
    for (std::int64_t group = 0; group < z.groups; ++group) {
      parallel_for(count, std::max<std::int64_t>(1, grain / depth), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          gather(z, x.data(), first + i, group * channels, channels, gathered.data() + i * depth);
        }
      });
      cpu::multiply(cpu::float_kernels(), {count, filters, depth}, cpu::MatrixLeft(gathered.data(), depth),
                    cpu::MatrixRight(weight.data() + group * filters * depth, depth, true), nullptr, {},
                    {sums.data(), filters});
      parallel_for(count, std::max<std::int64_t>(1, grain / filters), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          for (std::int64_t k = 0; k < filters; ++k) {
            const std::int64_t filter = group * filters + k, at = (first + i) * z.k + filter;
            float y = sums[static_cast<std::size_t>(i * filters + k)];
            if (operands.bias != nullptr) y += operands.bias[filter];
            if (operands.residual != nullptr) y += static_cast<float>(operands.residual[at]);
            if (z.relu && y < 0.0f) y = 0.0f;  // NaN stays
            if (operands.y_type == Dtype::f32) {
              static_cast<float*>(operands.y)[at] = y;
            } else {
              static_cast<Half*>(operands.y)[at] = saturated_half(y);
            }
          }
        }
      });
    }
  }
  last_kernel() = "f16 as float";
}

}  // namespace shrike::kernels
