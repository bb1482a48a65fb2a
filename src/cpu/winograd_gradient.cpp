// Winograd's weight gradient: dU = sum over tiles of (A dy A^T) * (B^T d B), dweight = G^T dU G.
#include <algorithm>
#include <vector>

#include "shrike/core/threads.hpp"
#include "winograd.hpp"
#include "winograd_tiles.hpp"

namespace shrike::winograd {
namespace {

// The operands of the products of one block of tiles, V [36][c / panel][tile][panel] and dM [36][k / lanes][tile][lanes], and
// the sum of the products so far, dU [36][k][c].
struct Gradient {
  kernels::Conv2dSizes z;
  Tiles in, out;
  const float* x;
  const float* y;
  const float* dy;
  const float* zeros = nullptr;
  std::int64_t v_stride = 0, m_stride = 0, w_stride = 0;  // between points
  bool parallel = false;                                  // whether all threads share each step
  float* v = nullptr;
  float* m = nullptr;
  float* w = nullptr;

  template <class F> void loop(std::int64_t n, const F& f) const {
    if (parallel) {
      parallel_for(n, 1, f);
    } else {
      f(std::int64_t{0}, n);
    }
  }
};

template <bool masked> void transform_tiles(const Gradient& g, std::int64_t first, std::int64_t count) {
  g.loop(count, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      const float* pixels[36];
      g.in.pixels<6>(first + t, -g.z.padding, g.x, g.zeros, pixels);
      for (std::int64_t c = 0; c < g.z.c; c += lanes) {
        const std::int64_t start = c / panel * panel, width = std::min<std::int64_t>(panel, g.z.c - start);
        transform_input<false>(pixels, nullptr, 0, c, g.v + start * count + t * width + c - start, g.v_stride);
      }
      g.out.pixels<4>(first + t, 0, g.dy, g.zeros, pixels);
      for (std::int64_t k = 0; k < g.z.k; k += lanes) {
        Vector line[4], half[24], result[6];
        for (int j = 0; j < 4; ++j) {
#pragma GCC unroll 4
          for (int i = 0; i < 4; ++i) {
            const float* pixel = pixels[4 * i + j];
            line[i] = masked && pixel != g.zeros ? load_gradient<masked>(pixel + k, g.y - g.dy) : load(pixel + k);
          }
          output_gradient_line<1, 4>(line, half + j);
        }
        float* to = g.m + (k * count + t * lanes);
        for (int i = 0; i < 6; ++i) {
          output_gradient_line<1, 1>(half + 4 * i, result);
#pragma GCC unroll 6
          for (int j = 0; j < 6; ++j) store(to + (6 * i + j) * g.m_stride, result[j]);
        }
      }
    }
  });
}

void multiply_tiles(const Gradient& g, std::int64_t count, bool add) {
  constexpr int rows = lanes / 2;  // of a tile in registers
  const std::int64_t k_panels = g.z.k / lanes, c = g.z.c;
  g.loop(points * k_panels, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t job = begin; job < end; ++job) {
      const std::int64_t point = job / k_panels, k = job % k_panels * lanes;
      const float* m = g.m + point * g.m_stride + k * count;
      float* w = g.w + point * g.w_stride + k * c;
      for (std::int64_t start = 0; start < c; start += panel) {
        const float* v = g.v + point * g.v_stride + start * count;
        for (int row = 0; row < lanes; row += rows) {
          if (c - start >= panel) {
            accumulate_tile<rows, 2>(count, m + row, lanes, v, panel, add, w + row * c + start, c);
          } else {
            accumulate_tile<rows, 1>(count, m + row, lanes, v, lanes, add, w + row * c + start, c);
          }
        }
      }
    }
  });
}

// The sums of the gradients themselves, from A dy A^T.
void add_bias_gradient(const Gradient& g, std::int64_t count, double* sums) {
  g.loop(g.z.k / lanes, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t k = begin * lanes; k < end * lanes; k += lanes) {
      Vector total{};
      for (int i = 1; i < 5; ++i) {
        for (int j = 1; j < 5; ++j) {
          const float* m = g.m + (6 * i + j) * g.m_stride + k * count;
          Vector sum{};
          for (std::int64_t t = 0; t < count; ++t) sum += load(m + t * lanes);
          total += line_sum[i] * line_sum[j] * sum;
        }
      }
      for (int i = 0; i < lanes; ++i) sums[k + i] += static_cast<double>(total[i]);
    }
  });
}

// Tiles [first, last) of the image, in blocks of at most `block`.
void sum_blocks(const Gradient& g, std::int64_t first, std::int64_t last, std::int64_t block, double* bias_sums) {
  const std::int64_t blocks = (last - first + block - 1) / block;
  for (std::int64_t number = 0; number < blocks; ++number) {
    const std::int64_t begin = first + (last - first) * number / blocks, end = first + (last - first) * (number + 1) / blocks;
    if (g.y != nullptr) {
      transform_tiles<true>(g, begin, end - begin);
    } else {
      transform_tiles<false>(g, begin, end - begin);
    }
    multiply_tiles(g, end - begin, number > 0);
    add_bias_gradient(g, end - begin, bias_sums);
  }
}

}  // namespace

void backward_weight(const kernels::Conv2dSizes& z, const float* x, const float* y, const float* dy, float* dweight,
                     float* dbias) {
  Gradient g{.z = z,
             .in = tiles_of(z.n, z.h, z.w, z.c, z.p, z.q),
             .out = tiles_of(z.n, z.p, z.q, z.k, z.p, z.q),
             .x = x,
             .y = y,
             .dy = dy};
  const std::int64_t tiles = g.out.count();
  // Where dU is small and tiles are many, every thread sums its own over blocks that stay in its cache; else all share one.
  const std::int64_t w_bytes = points * z.c * z.k * 4;
  const bool own = w_bytes <= 3 << 20 && tiles >= 64 * num_threads();
  const std::int64_t parts = own ? num_threads() : 1;
  const std::int64_t block = std::min<std::int64_t>(own ? (w_bytes <= 1 << 20 ? 32 : 64) : 96, (tiles + parts - 1) / parts);
  g.v_stride = block * z.c + gap;
  g.m_stride = block * z.k + gap;
  g.w_stride = z.c * z.k + gap;
  g.parallel = !own;
  const std::int64_t zeros = std::max(z.c, z.k), each = points * (g.v_stride + g.m_stride + g.w_stride);
  const Scratch scratch = scratch_floats(parts * each + zeros);
  g.zeros = scratch.data() + parts * each;
  std::fill_n(scratch.data() + parts * each, zeros, 0.0f);
  const auto operands = [&](std::int64_t part) {
    Gradient result = g;
    result.v = scratch.data() + part * each;
    result.m = result.v + points * g.v_stride;
    result.w = result.m + points * g.m_stride;
    return result;
  };
  std::vector<double> bias_sums(static_cast<std::size_t>(parts * z.k));
  const auto run = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t part = begin; part < end; ++part) {
      sum_blocks(operands(part), tiles * part / parts, tiles * (part + 1) / parts, block, bias_sums.data() + part * z.k);
    }
  };
  if (own) {
    parallel_for(parts, 1, run);
  } else {
    run(0, 1);
  }
  for (std::int64_t k = 0; k < z.k && dbias != nullptr; ++k) {
    double sum = 0;
    for (std::int64_t part = 0; part < parts; ++part) sum += bias_sums[static_cast<std::size_t>(part * z.k + k)];
    dbias[k] = static_cast<float>(sum);
  }
  parallel_for(z.k, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t k = begin; k < end; ++k) {
      for (std::int64_t c = 0; c < z.c; c += lanes) {
        Vector line[6], half[18], result[3];
        for (int j = 0; j < 6; ++j) {
          for (int i = 0; i < 6; ++i) {
            const float* w = operands(0).w + (6 * i + j) * g.w_stride + k * z.c + c;
            line[i] = load(w);
            for (std::int64_t part = 1; part < parts; ++part) line[i] += load(w + part * each);
          }
          weight_gradient_line<1, 6>(line, half + j);
        }
        for (int r = 0; r < 3; ++r) {
          weight_gradient_line<1, 1>(half + 6 * r, result);
          for (int s = 0; s < 3; ++s) store(dweight + ((k * 3 + r) * 3 + s) * z.c + c, result[s]);
        }
      }
    }
  });
}

}  // namespace shrike::winograd
