#include "few_channels.hpp"

#include <algorithm>
#include <vector>

#include "scratch.hpp"
#include "shrike/core/threads.hpp"
#include "simd.hpp"

namespace shrike::few_channels {
namespace {

using namespace simd;
using kernels::Conv2dSizes;


// One row of gradients [q, k]: as it is, or with zeros where the output is not positive, in `copy`.
const float* gradient_row(const Conv2dSizes& z, const float* y, const float* dy, std::int64_t row, float* __restrict copy) {
  const std::int64_t n = z.q * z.k;
  const float* __restrict gradient = dy + row * n;
  if (y == nullptr) return gradient;
  const float* __restrict output = y + row * n;
  for (std::int64_t i = 0; i < n; ++i) copy[i] = output[i] > 0.0f ? gradient[i] : 0.0f;
  return copy;
}

// sums [k] += the columns' sums of x [rows, k].
void add_columns(std::int64_t rows, std::int64_t k, const float* x, float* sums) {
  for (std::int64_t i = 0; i < k; i += lanes) {
    Vector even{}, odd{};
    for (std::int64_t row = 0; row + 1 < rows; row += 2) {
      even += load(x + row * k + i);
      odd += load(x + (row + 1) * k + i);
    }
    if (rows % 2 != 0) even += load(x + (rows - 1) * k + i);
    store(sums + i, load(sums + i) + (even + odd));
  }
}

// sums [taps, N vectors] += x^T dy over a row of outputs, in even tiles of at most max_taps taps.
constexpr int max_taps = max_rows - 2;

template <int N, int R = max_taps> void add_taps(std::int64_t taps, std::int64_t depth, const float* x, std::int64_t x_stride,
                                                 const float* dy, std::int64_t dy_stride, float* sums, std::int64_t stride) {
  if constexpr (R > 0) {
    if (taps == R) {
      accumulate_tile<R, N>(depth, x, x_stride, dy, dy_stride, true, sums, stride);
    } else {
      add_taps<N, R - 1>(taps, depth, x, x_stride, dy, dy_stride, sums, stride);
    }
  }
}

// The convolution of a row of outputs: for each row of the kernel there is a line, the row of inputs that it meets with its
// padding.
struct Line {
  std::int64_t line_stride;  // floats from one line to the next
  std::int64_t step;         // floats from one output's inputs to the next one's
  std::int64_t rows, taps;   // of the kernel: r, and s * c
  std::int64_t k;
  float floor;
};

// y [R outputs, N vectors] = bias + sum over the kernel's rows and taps, not below the floor.
template <int R, int N> void convolve_tile(const Line& z, const float* __restrict x, const float* __restrict weights,
                                           const float* __restrict bias, float* __restrict y) {
  Vector sums[R][N];
#pragma GCC unroll 14
  for (int q = 0; q < R; ++q) {
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) sums[q][n] = load(bias + n * lanes);
  }
  for (std::int64_t r = 0; r < z.rows; ++r) {
    const float* __restrict from = x + r * z.line_stride;
    for (std::int64_t i = 0; i < z.taps; ++i, weights += N * lanes) {
      Vector row[N];
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) row[n] = load(weights + n * lanes);
#pragma GCC unroll 14
      for (int q = 0; q < R; ++q) {
#pragma GCC unroll 2
        for (int n = 0; n < N; ++n) sums[q][n] += from[q * z.step + i] * row[n];
      }
    }
  }
#pragma GCC unroll 14
  for (int q = 0; q < R; ++q) {
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) {
      store(y + q * z.k + n * lanes, sums[q][n] < z.floor ? Vector{} + z.floor : sums[q][n]);
    }
  }
}

template <int N, int R = max_rows>
void convolve_rest(std::int64_t outputs, const Line& z, const float* x, const float* weights, const float* bias, float* y) {
  if constexpr (R > 0) {
    if (outputs == R) {
      convolve_tile<R, N>(z, x, weights, bias, y);
    } else {
      convolve_rest<N, R - 1>(outputs, z, x, weights, bias, y);
    }
  }
}

}  // namespace

bool fits(const Conv2dSizes& z) {
#if defined(__AVX2__) && defined(__FMA__)
  return z.c < 16 && z.k % 16 == 0 && z.dilation == 1 && z.groups == 1;
#else
  (void)z;
  return false;
#endif
}

void forward(const Conv2dSizes& z, const float* x, const float* weight, const float* bias, float* y) {
  const std::int64_t rows = z.n * z.p, taps = z.s * z.c, width = (z.w + 2 * z.padding) * z.c;
  const std::int64_t parts = std::min<std::int64_t>(num_threads(), rows);
  const Scratch scratch = scratch_floats(z.k * (z.r * taps + 1) + parts * z.r * width);
  float* packed = scratch.data();  // [k / panel][r * taps][panel]
  float* biases = packed + z.k * z.r * taps;
  float* lines = biases + z.k;
  for (std::int64_t k = 0; k < z.k; ++k) {
    const std::int64_t start = k / panel * panel, columns = std::min<std::int64_t>(panel, z.k - start);
    for (std::int64_t tap = 0; tap < z.r * taps; ++tap) {
      packed[start * z.r * taps + tap * columns + k - start] = weight[k * z.r * taps + tap];
    }
    biases[k] = bias == nullptr ? 0.0f : bias[k];
  }
  parallel_for(parts, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t part = first; part < last; ++part) {
      float* own = lines + part * z.r * width;
      const Line line{width, z.stride * z.c, z.r, taps, z.k, z.relu ? 0.0f : -__builtin_inff()};
      std::fill_n(own, z.r * width, 0.0f);
      for (std::int64_t row = rows * part / parts; row < rows * (part + 1) / parts; ++row) {
        for (std::int64_t r = 0; r < z.r; ++r) {
          const std::int64_t h = row % z.p * z.stride - z.padding + r;
          float* to = own + r * width + z.padding * z.c;
          if (h >= 0 && h < z.h) {
            std::copy_n(x + (row / z.p * z.h + h) * z.w * z.c, z.w * z.c, to);
          } else {
            std::fill_n(to, z.w * z.c, 0.0f);
          }
        }
        const std::int64_t tiles = (z.q + max_rows - 1) / max_rows;
        for (std::int64_t tile = 0; tile < tiles; ++tile) {
          const std::int64_t q = z.q * tile / tiles, count = z.q * (tile + 1) / tiles - q;
          for (std::int64_t k = 0; k < z.k; k += panel) {
            float* to = y + (row * z.q + q) * z.k + k;
            if (z.k - k >= panel) {
              convolve_rest<2>(count, line, own + q * line.step, packed + k * z.r * taps, biases + k, to);
            } else {
              convolve_rest<1>(count, line, own + q * line.step, packed + k * z.r * taps, biases + k, to);
            }
          }
        }
      }
    }
  });
}

bool forward_fits(const Conv2dSizes& z) { return lanes < 16 && fits(z); }

// The s * c inputs that one kernel row meets lie side by side, so dweight [k, r, s * c] is, for each r, a product of the rows
// of x, each s * c wide and stride * c after the one before, with those of dy. The image's rows are dealt to a fixed number of
// sums.
void backward_weight(const Conv2dSizes& z, const float* x, const float* y, const float* dy, float* dweight, float* dbias) {
  const std::int64_t rows = z.n * z.p, parts = std::min<std::int64_t>(rows, 32);
  const std::int64_t taps = z.s * z.c, width = (z.w + 2 * z.padding) * z.c;
  const std::int64_t sums_size = z.r * taps * z.k, each = sums_size + z.q * z.k + width + z.k;
  const Scratch scratch = scratch_floats(parts * each);
  parallel_for(parts, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t part = first; part < last; ++part) {
      float* sums = scratch.data() + part * each;
      float* bias = sums + sums_size;
      float* copy = bias + z.k;
      float* line = copy + z.q * z.k;
      std::fill_n(sums, sums_size + z.k, 0.0f);
      std::fill_n(line, width, 0.0f);
      for (std::int64_t row = rows * part / parts; row < rows * (part + 1) / parts; ++row) {
        const float* gradients = gradient_row(z, y, dy, row, copy);
        if (dbias != nullptr) add_columns(z.q, z.k, gradients, bias);
        for (std::int64_t r = 0; r < z.r; ++r) {
          const std::int64_t h = row % z.p * z.stride - z.padding + r;
          if (h < 0 || h >= z.h) continue;
          std::copy_n(x + (row / z.p * z.h + h) * z.w * z.c, z.w * z.c, line + z.padding * z.c);
          const std::int64_t tiles = (taps + max_taps - 1) / max_taps;
          for (std::int64_t tile = 0; tile < tiles; ++tile) {
            const std::int64_t begin = taps * tile / tiles, count = taps * (tile + 1) / tiles - begin;
            for (std::int64_t k = 0; k < z.k; k += panel) {
              float* to = sums + (r * taps + begin) * z.k + k;
              if (z.k - k >= panel) {
                add_taps<2>(count, z.q, line + begin, z.stride * z.c, gradients + k, z.k, to, z.k);
              } else {
                add_taps<1>(count, z.q, line + begin, z.stride * z.c, gradients + k, z.k, to, z.k);
              }
            }
          }
        }
      }
    }
  });
  std::vector<double> totals(static_cast<std::size_t>(sums_size + z.k));
  for (std::int64_t part = 0; part < parts; ++part) {
    const float* sums = scratch.data() + part * each;
    for (std::int64_t i = 0; i < sums_size + z.k; ++i) totals[static_cast<std::size_t>(i)] += static_cast<double>(sums[i]);
  }
  for (std::int64_t k = 0; k < z.k; ++k) {
    for (std::int64_t tap = 0; tap < z.r * taps; ++tap) {
      dweight[k * z.r * taps + tap] = static_cast<float>(totals[static_cast<std::size_t>(tap * z.k + k)]);
    }
    if (dbias != nullptr) dbias[k] = static_cast<float>(totals[static_cast<std::size_t>(sums_size + k)]);
  }
}

// Each row of dy times all weights gives what it adds to r rows of dx; blocks of rows of dx are separate, and recompute the few
// products that they share.
void backward_data(const Conv2dSizes& z, const float* weight, const float* y, const float* dy, float* dx) {
  constexpr std::int64_t block = 32;
  const std::int64_t taps = z.r * z.s * z.c, columns = (taps + panel - 1) / panel * panel, line = z.s * z.c;
  const std::int64_t blocks = (z.h + block - 1) / block, width = (z.w + 2 * z.padding) * z.c;
  const std::int64_t parts = std::min<std::int64_t>(num_threads(), z.n * blocks);
  const std::int64_t each = z.q * (z.k + columns) + block * width;
  const Scratch scratch = scratch_floats(z.k * columns + parts * each);
  float* packed = scratch.data();  // [columns / panel][k][panel]
  for (std::int64_t column = 0; column < columns; ++column) {
    for (std::int64_t k = 0; k < z.k; ++k) {
      packed[(column / panel * z.k + k) * panel + column % panel] = column < taps ? weight[k * taps + column] : 0.0f;
    }
  }
  parallel_for(parts, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t part = first; part < last; ++part) {
      float* copy = packed + z.k * columns + part * each;
      float* products = copy + z.q * z.k;
      float* sums = products + z.q * columns;
      for (std::int64_t job = z.n * blocks * part / parts; job < z.n * blocks * (part + 1) / parts; ++job) {
        const std::int64_t image = job / blocks, begin = job % blocks * block, end = std::min(begin + block, z.h);
        std::fill_n(sums, block * width, 0.0f);
        const std::int64_t above = begin + z.padding - z.r + 1;
        for (std::int64_t p = above <= 0 ? 0 : (above + z.stride - 1) / z.stride; p < z.p; ++p) {
          const std::int64_t top = p * z.stride - z.padding;
          if (top >= end) break;
          const float* gradients = gradient_row(z, y, dy, image * z.p + p, copy);
          for (std::int64_t column = 0; column < columns; column += panel) {
            multiply_rows<2>(z.q, z.k, gradients, z.k, packed + column * z.k, products + column, columns);
          }
          for (std::int64_t r = std::max<std::int64_t>(0, begin - top); r < std::min(z.r, end - top); ++r) {
            float* __restrict to = sums + (top + r - begin) * width;
            const float* __restrict from = products + r * line;
            for (std::int64_t q = 0; q < z.q; ++q) {
              for (std::int64_t i = 0; i < line; ++i) to[q * z.stride * z.c + i] += from[q * columns + i];
            }
          }
        }
        for (std::int64_t h = begin; h < end; ++h) {
          std::copy_n(sums + (h - begin) * width + z.padding * z.c, z.w * z.c, dx + (image * z.h + h) * z.w * z.c);
        }
      }
    }
  });
}

}  // namespace shrike::few_channels
