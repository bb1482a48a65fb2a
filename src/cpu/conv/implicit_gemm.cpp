// y = X W, where X [pixels, r s c] are the pixels that windows meet; dW = dy^T X. The gradient of x is such a product as well:
// a pixel of dx collects what its taps sent to pixels of y. With a stride, pixels of dx whose coordinates have the same
// remainders meet the same taps: each such class is a convolution of dy with stride 1, of those taps alone.
#include "implicit_gemm.hpp"

#include <algorithm>
#include <numeric>
#include <vector>

#include "../isa.hpp"
#include "pixel_rows.hpp"
#include "shrike/core/threads.hpp"

namespace shrike::cpu::implicit_gemm {
namespace {

using kernels::Conv2dSizes;

PixelRows windows(const Conv2dSizes& z, const float* x, std::int64_t group) {
  PixelRows rows;
  rows.x = x;
  rows.n = z.n, rows.h = z.h, rows.w = z.w, rows.c = z.c;
  rows.channels = z.c / z.groups, rows.channel = group * rows.channels;
  rows.r = z.r, rows.s = z.s, rows.stride = z.stride, rows.dilation = z.dilation, rows.top = rows.left = -z.padding;
  rows.p = z.p, rows.q = z.q;
  return rows;
}

// One coordinate of a class of dx's pixels: h = first + stride * i for i < count, and the taps that they meet, by ascending
// coordinate in y: tap number j is at i + start + j * step of y.
struct Class {
  std::int64_t first, count, start = 0, step = 1;
  std::vector<std::int64_t> taps;
};

std::vector<Class> classes(std::int64_t size, std::int64_t kernel, const Conv2dSizes& z) {
  std::vector<Class> result;
  for (std::int64_t first = 0; first < std::min(z.stride, size); ++first) {
    Class one{first, (size - first + z.stride - 1) / z.stride, 0, z.dilation / std::gcd(z.dilation, z.stride), {}};
    for (std::int64_t tap = kernel - 1; tap >= 0; --tap) {
      const std::int64_t at = first + z.padding - tap * z.dilation;
      if (at % z.stride != 0) continue;
      if (one.taps.empty()) one.start = at / z.stride;
      one.taps.push_back(tap);
    }
    result.push_back(std::move(one));
  }
  return result;
}

// The weights of a class as [taps, filters] rows of c columns.
struct TapWeights : RightOperand {
  const float* weight;  // of the group: [filters, r * s, channels]
  std::int64_t filters, taps_of_all, channels;
  std::vector<std::int64_t> taps;  // r * s

  void pack(const FloatKernels& isa, std::int64_t first, int columns, std::int64_t k0, std::int64_t k1,
            float* to) const override {
    for (std::int64_t k = k0; k < k1;) {
      const std::int64_t tap = k / filters, filter = k % filters, count = std::min(filters - filter, k1 - k);
      const float* const from = weight + (filter * taps_of_all + taps[static_cast<std::size_t>(tap)]) * channels + first;
      isa.pack_rows(columns, count, from, taps_of_all * channels, to + (k - k0) * isa.panel);
      k += count;
    }
  }
};

void backward_class(const Conv2dSizes& z, std::int64_t group, const Class& rows, const Class& columns, const float* weight,
                    const float* y, const float* dy, float* dx) {
  const std::int64_t channels = z.c / z.groups, filters = z.k / z.groups;
  if (rows.taps.empty() || columns.taps.empty()) return;  // no output sees these pixels: zeros
  PixelRows left;
  left.x = dy, left.mask = y;
  left.n = z.n, left.h = z.p, left.w = z.q, left.c = z.k;
  left.channel = group * filters, left.channels = filters;
  left.r = static_cast<std::int64_t>(rows.taps.size()), left.s = static_cast<std::int64_t>(columns.taps.size());
  left.stride = 1, left.dilation = rows.step, left.top = rows.start, left.left = columns.start;
  left.p = rows.count, left.q = columns.count;
  TapWeights right;
  right.weight = weight + group * filters * z.r * z.s * channels;
  right.filters = filters, right.taps_of_all = z.r * z.s, right.channels = channels;
  for (const std::int64_t r : rows.taps) {
    for (const std::int64_t s : columns.taps) right.taps.push_back(r * z.s + s);
  }
  Target target{dx + (rows.first * z.w + columns.first) * z.c + group * channels, z.stride * z.c};
  if (z.stride > 1) {
    target.line = columns.count, target.lines = rows.count;
    target.line_stride = z.stride * z.w * z.c, target.image_stride = z.h * z.w * z.c;
  }
  multiply(float_kernels(), {z.n * rows.count * columns.count, channels, left.r * left.s * filters}, left, right, nullptr, {},
           target);
}

}  // namespace

PackedRight pack(const Conv2dSizes& z, const float* weight) {
  const std::int64_t depth = z.r * z.s * (z.c / z.groups);
  return {float_kernels(), z.k / z.groups, depth, MatrixRight(weight, depth, true)};
}

void forward(const Conv2dSizes& z, const float* x, const float* weight, const PackedRight* packed, const float* bias,
             const float* residual, float* y) {
  const std::int64_t filters = z.k / z.groups, depth = z.r * z.s * (z.c / z.groups);
  parallel_for(z.groups, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t group = begin; group < end; ++group) {
      const std::int64_t k = group * filters;
      const MatrixRight right(weight + k * depth, depth, true);
      const Epilogue epilogue{bias != nullptr ? bias + k : nullptr, residual != nullptr ? residual + k : nullptr, z.relu};
      multiply(float_kernels(), {z.n * z.p * z.q, filters, depth}, windows(z, x, group), right, packed, epilogue, {y + k, z.k});
    }
  });
}

void backward_data(const Conv2dSizes& z, const float* weight, const float* y, const float* dy, float* dx) {
  const auto rows = classes(z.h, z.r, z), columns = classes(z.w, z.s, z);
  const auto unseen = [](const Class& one) { return one.taps.empty(); };
  if (std::any_of(rows.begin(), rows.end(), unseen) || std::any_of(columns.begin(), columns.end(), unseen)) {
    kernels::fill_f32(Cpu{}, z.n * z.h * z.w * z.c, 0.0f, dx);
  }
  parallel_for(z.groups, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t group = begin; group < end; ++group) {
      for (const Class& row : rows) {
        for (const Class& column : columns) backward_class(z, group, row, column, weight, y, dy, dx);
      }
    }
  });
}

void backward_weight(const Conv2dSizes& z, const float* x, const float* y, const float* dy, float* dweight, float* dbias) {
  const std::int64_t filters = z.k / z.groups, depth = z.r * z.s * (z.c / z.groups);
  parallel_for(z.groups, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t group = begin; group < end; ++group) {
      const std::int64_t k = group * filters;
      multiply_outer(float_kernels(),
                     {z.n * z.p * z.q, filters, depth, dy + k, y != nullptr ? y + k : nullptr, z.k,
                      dweight != nullptr ? dweight + k * depth : nullptr, depth, dbias != nullptr ? dbias + k : nullptr},
                     windows(z, x, group));
    }
  });
}

}  // namespace shrike::cpu::implicit_gemm
