#include "winograd.hpp"

#include <algorithm>
#include <vector>

#include "onednn.hpp"
#include "shrike/core/parallel.hpp"
#include "winograd_kernels.hpp"

namespace shrike::winograd {
namespace {

using onednn::Scratch;

constexpr std::int64_t gap = 16;  // floats between matrices, so that they do not share a cache's sets

Scratch floats(std::int64_t count) { return Scratch(static_cast<std::size_t>(count) * sizeof(float)); }

// The 4x4 tiles of a map, and their pixels.
struct Tiles {
  std::int64_t n, h, w, c;  // the map
  std::int64_t rows, columns;
  std::int64_t count() const { return n * rows * columns; }

  // Pointers to the pixels of the size x size square whose corner is (4 ty + offset, 4 tx + offset); `outside` where there is
  // none.
  template <int size, class T> void pixels(std::int64_t tile, std::int64_t offset, T* map, T* outside, T** pointers) const {
    const std::int64_t tx = tile % columns, ty = tile / columns % rows, image = tile / columns / rows;
    for (std::int64_t i = 0; i < size; ++i) {
      for (std::int64_t j = 0; j < size; ++j) {
        const std::int64_t y = 4 * ty + offset + i, x = 4 * tx + offset + j;
        const bool inside = y >= 0 && y < h && x >= 0 && x < w;
        *pointers++ = inside ? map + ((image * h + y) * w + x) * c : outside;
      }
    }
  }
};

// A gradient's vector, zero where the output it belongs to is not positive.
template <bool masked> Vector load_gradient(const float* from, std::ptrdiff_t to_mask) {
  const Vector value = load(from);
  if constexpr (masked) {
    const Vector output = load(from + to_mask);
    return output > 0.0f ? value : Vector{};
  }
  return value;
}

// B^T d B of one tile and `lanes` channels; the 36 results at `stride`.
template <bool masked> void transform_input(const float* const* pixels, const float* outside, std::ptrdiff_t to_mask,
                                            std::int64_t channel, float* to, std::int64_t stride) {
  Vector line[6], half[36], result[6];
  for (int j = 0; j < 6; ++j) {
#pragma GCC unroll 6
    for (int i = 0; i < 6; ++i) {
      const float* pixel = pixels[i * 6 + j];
      line[i] = masked && pixel != outside ? load_gradient<masked>(pixel + channel, to_mask) : load(pixel + channel);
    }
    input_line<1, 6>(line, half + j);
  }
  for (int i = 0; i < 6; ++i) {
    input_line<1, 1>(half + 6 * i, result);
#pragma GCC unroll 6
    for (int j = 0; j < 6; ++j) store(to + (6 * i + j) * stride, result[j]);
  }
}

// G g G^T for all pairs of channels, as U [36][out / panel][in][panel]; `forward`: in = C, out = K, else in = K, out = C and g
// turned by 180 degrees. weight [k, 3, 3, c].
std::int64_t weight_stride(std::int64_t c, std::int64_t k) { return c * k + gap; }

void transform_weights(std::int64_t k, std::int64_t c, bool forward, const float* weight, float* u) {
  const std::int64_t in = forward ? c : k, out = forward ? k : c;
  const std::int64_t panels = (out + panel - 1) / panel, chunks = in / 16, stride = weight_stride(c, k);
  parallel_for(panels * chunks, 1, [=](std::int64_t first, std::int64_t last) {
    alignas(64) float block[9][16][panel];  // [tap][in][out]
    for (std::int64_t job = first; job < last; ++job) {
      const std::int64_t o0 = job / chunks * panel, i0 = job % chunks * 16;
      const int width = static_cast<int>(std::min<std::int64_t>(panel, out - o0));
      for (int tap = 0; tap < 9; ++tap) {
        if (forward) {
          for (int o = 0; o < width; ++o) {
            const float* from = weight + ((o0 + o) * 9 + tap) * c + i0;
            for (int i = 0; i < 16; ++i) block[tap][i][o] = from[i];
          }
        } else {
          for (int i = 0; i < 16; ++i)
            std::memcpy(block[tap][i], weight + ((i0 + i) * 9 + 8 - tap) * c + o0,
                        sizeof(float) * static_cast<std::size_t>(width));
        }
      }
      for (int i = 0; i < 16; ++i) {
        for (int o = 0; o < width; o += lanes) {
          Vector g[9], half[18], result[6];
          for (int tap = 0; tap < 9; ++tap) g[tap] = load(&block[tap][i][o]);
          for (int s = 0; s < 3; ++s) weight_line<3, 3>(g + s, half + s);
          for (int r = 0; r < 6; ++r) {
            weight_line<1, 1>(half + 3 * r, result);
            for (int s = 0; s < 6; ++s) store(u + (6 * r + s) * stride + o0 * in + (i0 + i) * width + o, result[s]);
          }
        }
      }
    }
  });
}

// y = conv(x * (mask > 0), U) + bias on tiles; what forward and backward_data share. in_tiles is the map read, out_tiles the
// one written; mask, bias may be null.
struct Maps {
  Tiles in, out;
  std::int64_t padding;
  const float* x;
  const float* mask;
  const float* u;
  const float* bias;
  bool relu;
  float* y;
};

// One block of tiles: transform, 36 products, transform back. v and m are working memory.
template <bool masked> void convolve_block(const Maps& z, std::int64_t first, std::int64_t count, const float* zeros,
                                           float* waste, float* v, float* m) {
  const std::int64_t c = z.in.c, k = z.out.c;
  const std::int64_t v_row = c + gap, m_row = k + gap, v_stride = count * v_row + gap, m_stride = count * m_row + gap;
  for (std::int64_t t = 0; t < count; ++t) {
    const float* pixels[36];
    z.in.pixels<6>(first + t, -z.padding, z.x, zeros, pixels);
    for (std::int64_t i = 0; i < c; i += lanes) {
      transform_input<masked>(pixels, zeros, z.mask - z.x, i, v + t * v_row + i, v_stride);
    }
  }
  for (int point = 0; point < points; ++point) {
    const float* u = z.u + point * weight_stride(c, k);
    for (std::int64_t o = 0; o < k; o += panel) {
      if (k - o >= panel) {
        multiply_rows<2>(count, c, v + point * v_stride, v_row, u + o * c, m + point * m_stride + o, m_row);
      } else {
        multiply_rows<1>(count, c, v + point * v_stride, v_row, u + o * c, m + point * m_stride + o, m_row);
      }
    }
  }
  const float floor = z.relu ? 0.0f : -__builtin_inff();
  for (std::int64_t t = 0; t < count; ++t) {
    float* pixels[16];
    z.out.pixels<4>(first + t, 0, z.y, waste, pixels);
    for (std::int64_t o = 0; o < k; o += lanes) {
      Vector line[6], half[24], result[4];
      const float* from = m + t * m_row + o;
      for (int j = 0; j < 6; ++j) {
#pragma GCC unroll 6
        for (int i = 0; i < 6; ++i) line[i] = load(from + (6 * i + j) * m_stride);
        output_line<1, 6>(line, half + j);
      }
      const Vector bias = z.bias != nullptr ? load(z.bias + o) : Vector{};
      for (int i = 0; i < 4; ++i) {
        output_line<1, 1>(half + 6 * i, result);
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) {
          const Vector value = result[j] + bias;
          store(pixels[4 * i + j] + o, value < floor ? Vector{} + floor : value);
        }
      }
    }
  }
}

void convolve(const Maps& z) {
  const std::int64_t c = z.in.c, k = z.out.c, tiles = z.out.count();
  const std::int64_t threads = num_threads();
  // Blocks whose working memory stays in a core's cache, but not too few tiles for each pass over U; evenly many for each
  // thread.
  const std::int64_t most = std::clamp<std::int64_t>((1 << 20) / (points * 4 * (c + k)), 4 * max_rows, 16 * max_rows);
  const std::int64_t rounds = (tiles + threads * most - 1) / (threads * most);
  const std::int64_t blocks = std::min(tiles, rounds * threads);
  const std::int64_t block = (tiles + blocks - 1) / blocks;
  const std::int64_t v_size = points * (block * (c + gap) + gap), m_size = points * (block * (k + gap) + gap);
  const std::int64_t each = v_size + m_size + k;
  const Scratch scratch = floats(threads * each + c);
  float* zeros = scratch.data() + threads * each;
  std::fill_n(zeros, c, 0.0f);
  parallel_for(threads, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t part = begin; part < end; ++part) {
      float* v = scratch.data() + part * each;
      float* m = v + v_size;
      float* waste = m + m_size;
      for (std::int64_t b = blocks * part / threads; b < blocks * (part + 1) / threads; ++b) {
        const std::int64_t first = tiles * b / blocks, count = tiles * (b + 1) / blocks - first;
        if (z.mask != nullptr) {
          convolve_block<true>(z, first, count, zeros, waste, v, m);
        } else {
          convolve_block<false>(z, first, count, zeros, waste, v, m);
        }
      }
    }
  });
}

Tiles tiles_of(std::int64_t n, std::int64_t h, std::int64_t w, std::int64_t c, std::int64_t out_h, std::int64_t out_w) {
  return {n, h, w, c, (out_h + 3) / 4, (out_w + 3) / 4};
}

}  // namespace

bool fits(const kernels::Conv2dSizes& z) {
#if defined(__AVX2__) && defined(__FMA__)
  return z.r == 3 && z.s == 3 && z.stride == 1 && z.dilation == 1 && z.groups == 1 && z.padding <= 2 && z.c % 16 == 0 &&
         z.k % 16 == 0;
#else
  (void)z;
  return false;
#endif
}

void forward(const kernels::Conv2dSizes& z, const float* x, const float* weight, const float* bias, float* y) {
  const Scratch u = floats(points * weight_stride(z.c, z.k));
  transform_weights(z.k, z.c, true, weight, u.data());
  convolve({tiles_of(z.n, z.h, z.w, z.c, z.p, z.q), tiles_of(z.n, z.p, z.q, z.k, z.p, z.q), z.padding, x, nullptr, u.data(),
            bias, z.relu, y});
}

void backward_data(const kernels::Conv2dSizes& z, const float* weight, const float* y, const float* dy, float* dx) {
  const Scratch u = floats(points * weight_stride(z.c, z.k));
  transform_weights(z.k, z.c, false, weight, u.data());
  convolve({tiles_of(z.n, z.p, z.q, z.k, z.h, z.w), tiles_of(z.n, z.h, z.w, z.c, z.h, z.w), 2 - z.padding, dy, y, u.data(),
            nullptr, false, dx});
}

namespace {

// Both operands of the products of one block of tiles: V [36][c / panel][tile][panel], dM [36][k / lanes][tile][lanes].
struct Gradient {
  kernels::Conv2dSizes z;
  Tiles in, out;
  const float* x;
  const float* y;
  const float* dy;
  std::int64_t v_stride, m_stride, w_stride;  // between points
  const float* zeros;
  float* v;
  float* m;
  float* w;  // dU [36][k][c]
};

template <bool masked> void transform_tiles(const Gradient& g, std::int64_t first, std::int64_t count) {
  parallel_for(count, 1, [&](std::int64_t begin, std::int64_t end) {
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
  const std::int64_t k_panels = g.z.k / lanes, c = g.z.c;
  parallel_for(points * k_panels, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t job = begin; job < end; ++job) {
      const std::int64_t point = job / k_panels, k = job % k_panels * lanes;
      const float* m = g.m + point * g.m_stride + k * count;
      float* w = g.w + point * g.w_stride + k * c;
      for (std::int64_t start = 0; start < c; start += panel) {
        const float* v = g.v + point * g.v_stride + start * count;
        for (int row = 0; row < lanes; row += gradient_rows) {
          if (c - start >= panel) {
            accumulate_tile<gradient_rows, 2>(count, m + row, v, add, w + row * c + start, c);
          } else {
            accumulate_tile<gradient_rows, 1>(count, m + row, v, add, w + row * c + start, c);
          }
        }
      }
    }
  });
}

// The sums of the gradients themselves, from A dy A^T.
void add_bias_gradient(const Gradient& g, std::int64_t count, std::vector<double>& sums) {
  parallel_for(g.z.k / lanes, 1, [&](std::int64_t begin, std::int64_t end) {
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
      for (int i = 0; i < lanes; ++i) sums[static_cast<std::size_t>(k + i)] += static_cast<double>(total[i]);
    }
  });
}

}  // namespace

void backward_weight(const kernels::Conv2dSizes& z, const float* x, const float* y, const float* dy, float* dweight,
                     float* dbias) {
  Gradient g{z,
             tiles_of(z.n, z.h, z.w, z.c, z.p, z.q),
             tiles_of(z.n, z.p, z.q, z.k, z.p, z.q),
             x,
             y,
             dy,
             0,
             0,
             0,
             nullptr,
             nullptr,
             nullptr,
             nullptr};
  const std::int64_t tiles = g.out.count();
  const std::int64_t blocks = (tiles + 255) / 256, block = (tiles + blocks - 1) / blocks;
  g.v_stride = block * z.c + gap;
  g.m_stride = block * z.k + gap;
  g.w_stride = z.c * z.k + gap;
  const std::int64_t zeros = std::max(z.c, z.k);
  const Scratch scratch = floats(points * (g.v_stride + g.m_stride + g.w_stride) + zeros);
  g.v = scratch.data();
  g.m = g.v + points * g.v_stride;
  g.w = g.m + points * g.m_stride;
  g.zeros = std::fill_n(g.w + points * g.w_stride, zeros, 0.0f) - zeros;
  std::vector<double> bias_sums(static_cast<std::size_t>(z.k));
  for (std::int64_t number = 0; number < blocks; ++number) {
    const std::int64_t first = tiles * number / blocks, count = tiles * (number + 1) / blocks - first;
    if (y != nullptr) {
      transform_tiles<true>(g, first, count);
    } else {
      transform_tiles<false>(g, first, count);
    }
    multiply_tiles(g, count, number > 0);
    if (dbias != nullptr) add_bias_gradient(g, count, bias_sums);
  }
  if (dbias != nullptr) std::copy(bias_sums.begin(), bias_sums.end(), dbias);
  parallel_for(z.k, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t k = begin; k < end; ++k) {
      for (std::int64_t c = 0; c < z.c; c += lanes) {
        Vector line[6], half[18], result[3];
        for (int j = 0; j < 6; ++j) {
          for (int i = 0; i < 6; ++i) line[i] = load(g.w + (6 * i + j) * g.w_stride + k * z.c + c);
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
