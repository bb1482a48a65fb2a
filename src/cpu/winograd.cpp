#include "winograd.hpp"

#include <algorithm>

#include "shrike/core/threads.hpp"
#include "winograd_tiles.hpp"

namespace shrike::winograd {
namespace {

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
  // Blocks whose working memory stays in a core's cache; but where U does not, enough tiles to make each pass over it pay.
  // Evenly many for each thread.
  const bool cached = points * c * k * 4 <= 3 << 20;
  const std::int64_t most = cached ? std::clamp<std::int64_t>((1 << 19) / (points * 4 * (c + k)), 28, 112) : 224;
  const std::int64_t rounds = (tiles + threads * most - 1) / (threads * most);
  const std::int64_t blocks = std::min(tiles, rounds * threads);
  const std::int64_t block = (tiles + blocks - 1) / blocks;
  const std::int64_t v_size = points * (block * (c + gap) + gap), m_size = points * (block * (k + gap) + gap);
  const std::int64_t each = v_size + m_size + k;
  const Scratch scratch = scratch_floats(threads * each + c);
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
  const Scratch u = scratch_floats(points * weight_stride(z.c, z.k));
  transform_weights(z.k, z.c, true, weight, u.data());
  convolve({tiles_of(z.n, z.h, z.w, z.c, z.p, z.q), tiles_of(z.n, z.p, z.q, z.k, z.p, z.q), z.padding, x, nullptr, u.data(),
            bias, z.relu, y});
}

void backward_data(const kernels::Conv2dSizes& z, const float* weight, const float* y, const float* dy, float* dx) {
  const Scratch u = scratch_floats(points * weight_stride(z.c, z.k));
  transform_weights(z.k, z.c, false, weight, u.data());
  convolve({tiles_of(z.n, z.p, z.q, z.k, z.h, z.w), tiles_of(z.n, z.h, z.w, z.c, z.h, z.w), 2 - z.padding, dy, y, u.data(),
            nullptr, false, dx});
}

}  // namespace shrike::winograd
