// The kernels of winograd_kernels.hpp, for the instruction set that this is compiled for.
#pragma once

#include "../gemm/tile.hpp"
#include "winograd_kernels.hpp"
#include "winograd_lines.hpp"

namespace shrike::cpu {
inline namespace SHRIKE_SIMD {

// A gradient's vector, zero where the output it belongs to is not positive.
template <bool masked> inline Vector load_gradient(const float* from, const float* mask) {
  const Vector value = load(from);
  if constexpr (masked) return load(mask) > 0.0f ? value : Vector{};
  return value;
}

inline void winograd_weights(int64_t k, int64_t c, bool forward, const float* weight, int64_t job, float* u, int64_t u_point) {
  const int64_t in = forward ? c : k, out = forward ? k : c, chunks = in / 16;
  const int64_t o0 = job / chunks * panel, i0 = job % chunks * 16;
  const int width = static_cast<int>(out - o0 < panel ? out - o0 : panel);
  alignas(64) float block[9][16][panel];  // [tap][in][out]
  for (int tap = 0; tap < 9; ++tap) {
    if (forward) {
      for (int o = 0; o < width; o += lanes) {
        for (int i = 0; i < 16; i += lanes) {
          Vector rows[lanes];
#pragma GCC unroll 16
          for (int row = 0; row < lanes; ++row) rows[row] = load(weight + ((o0 + o + row) * 9 + tap) * c + i0 + i);
          transpose(rows);
#pragma GCC unroll 16
          for (int row = 0; row < lanes; ++row) store(&block[tap][i + row][o], rows[row]);
        }
      }
    } else {
      for (int i = 0; i < 16; ++i) {
        memcpy(block[tap][i], weight + ((i0 + i) * 9 + 8 - tap) * c + o0, sizeof(float) * static_cast<size_t>(width));
      }
    }
  }
  for (int i = 0; i < 16; ++i) {
    for (int o = 0; o < width; o += lanes) {
      Vector g[9], half[18], result[6];
      for (int tap = 0; tap < 9; ++tap) g[tap] = load(&block[tap][i][o]);
      for (int s = 0; s < 3; ++s) weight_line<3, 3>(g + s, half + s);
      for (int r = 0; r < 6; ++r) {
        weight_line<1, 1>(half + 3 * r, result);
        for (int s = 0; s < 6; ++s) store(u + (6 * r + s) * u_point + o0 * in + (i0 + i) * width + o, result[s]);
      }
    }
  }
}

// B^T d B of one tile and one vector of channels; the 36 results are `stride` apart.
template <bool masked> inline void transform_input(const float* const* pixels, const float* outside, int64_t to_mask,
                                                   int64_t channel, float* to, int64_t stride) {
  Vector line[6], half[36], result[6];
  for (int j = 0; j < 6; ++j) {
#pragma GCC unroll 6
    for (int i = 0; i < 6; ++i) {
      const float* pixel = pixels[i * 6 + j];
      line[i] = masked && pixel != outside ? load_gradient<masked>(pixel + channel, pixel + channel + to_mask)
                                           : load(pixel + channel);
    }
    input_line<1, 6>(line, half + j);
  }
  for (int i = 0; i < 6; ++i) {
    input_line<1, 1>(half + 6 * i, result);
#pragma GCC unroll 6
    for (int j = 0; j < 6; ++j) store(to + (6 * i + j) * stride, result[j]);
  }
}

inline void winograd_input(const WinogradMaps& z, int64_t first, int64_t count, float* v, int64_t v_row, int64_t v_point) {
  for (int64_t t = 0; t < count; ++t) {
    const float* pixels[36];
    z.in.pixels<6>(first + t, -z.padding, z.x, z.zeros, pixels);
    for (int64_t c = 0; c < z.in.c; c += lanes) {
      float* const to = v + t * v_row + c;
      if (z.mask != nullptr) {
        transform_input<true>(pixels, z.zeros, z.mask - z.x, c, to, v_point);
      } else {
        transform_input<false>(pixels, z.zeros, 0, c, to, v_point);
      }
    }
  }
}

template <bool with_residual> inline void transform_output(const WinogradMaps& z, int64_t first, int64_t count, int64_t k0,
                                                           int64_t k1, const float* m, int64_t m_row, int64_t m_point) {
  const Vector floor = splat(z.relu ? 0.0f : -__builtin_inff());
  alignas(64) float waste[lanes];
  for (int64_t t = 0; t < count; ++t) {
    float* pixels[16];
    z.out.pixels<4>(first + t, 0, z.y, static_cast<float*>(nullptr), pixels);
    for (int64_t k = k0; k < k1; k += lanes) {
      Vector line[6], half[24], result[4];
      const float* const from = m + t * m_row + k - k0;
      for (int j = 0; j < 6; ++j) {
#pragma GCC unroll 6
        for (int i = 0; i < 6; ++i) line[i] = load(from + (6 * i + j) * m_point);
        output_line<1, 6>(line, half + j);
      }
      const Vector bias = z.bias != nullptr ? load(z.bias + k) : Vector{};
      for (int i = 0; i < 4; ++i) {
        output_line<1, 1>(half + 6 * i, result);
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) {
          float* const pixel = pixels[4 * i + j];
          Vector value = result[j] + bias;
          if (with_residual && pixel != nullptr) value += load(z.residual + (pixel - z.y) + k);
          store(pixel != nullptr ? pixel + k : waste, value < floor ? floor : value);  // NaN stays
        }
      }
    }
  }
}

inline void winograd_output(const WinogradMaps& z, int64_t first, int64_t count, int64_t k0, int64_t k1, const float* m,
                            int64_t m_row, int64_t m_point) {
  const auto transform = z.residual != nullptr ? transform_output<true> : transform_output<false>;
  transform(z, first, count, k0, k1, m, m_row, m_point);
}

template <bool masked> inline void transform_gradient_input(const WinogradGradient& g, int64_t first, int64_t begin,
                                                            int64_t end, int64_t tiles, float* v, int64_t v_point, float* m,
                                                            int64_t m_point) {
  const int64_t channels = g.in.c, filters = g.out.c;
  for (int64_t t = begin; t < end; ++t) {
    const float* pixels[36];
    g.in.pixels<6>(first + t, -g.padding, g.x, g.zeros, pixels);
    for (int64_t c = 0; c < channels; c += lanes) {
      const int64_t start = c / panel * panel, width = channels - start < panel ? channels - start : panel;
      transform_input<false>(pixels, nullptr, 0, c, v + start * tiles + t * width + c - start, v_point);
    }
    g.out.pixels<4>(first + t, 0, g.dy, g.zeros, pixels);
    for (int64_t k = 0; k < filters; k += lanes) {
      Vector line[4], half[24], result[6];
      for (int j = 0; j < 4; ++j) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
          const float* const pixel = pixels[4 * i + j];
          line[i] = masked && pixel != g.zeros ? load_gradient<masked>(pixel + k, pixel + k + (g.y - g.dy)) : load(pixel + k);
        }
        output_gradient_line<1, 4>(line, half + j);
      }
      float* const to = m + (k * tiles + t * lanes);
      for (int i = 0; i < 6; ++i) {
        output_gradient_line<1, 1>(half + 4 * i, result);
#pragma GCC unroll 6
        for (int j = 0; j < 6; ++j) store(to + (6 * i + j) * m_point, result[j]);
      }
    }
  }
}

inline void winograd_gradient_input(const WinogradGradient& g, int64_t first, int64_t begin, int64_t end, int64_t tiles,
                                    float* v, int64_t v_point, float* m, int64_t m_point) {
  const auto transform = g.y != nullptr ? transform_gradient_input<true> : transform_gradient_input<false>;
  transform(g, first, begin, end, tiles, v, v_point, m, m_point);
}

inline void winograd_gradient_bias(int64_t tiles, const float* m, int64_t m_point, double* sums) {
  Vector total{};
  for (int i = 1; i < 5; ++i) {
    for (int j = 1; j < 5; ++j) {
      const float* const from = m + (6 * i + j) * m_point;
      Vector sum{};
      for (int64_t t = 0; t < tiles; ++t) sum += load(from + t * lanes);
      total += line_sum[i] * line_sum[j] * sum;
    }
  }
  for (int i = 0; i < lanes; ++i) sums[i] += static_cast<double>(total[i]);
}

inline void winograd_gradient_weight(int64_t c, int64_t parts, const float* w, int64_t part, int64_t w_point, float* dweight) {
  for (int64_t channel = 0; channel < c; channel += lanes) {
    Vector line[6], half[18], result[3];
    for (int j = 0; j < 6; ++j) {
      for (int i = 0; i < 6; ++i) {
        const float* const from = w + (6 * i + j) * w_point + channel;
        line[i] = load(from);
        for (int64_t p = 1; p < parts; ++p) line[i] += load(from + p * part);
      }
      weight_gradient_line<1, 6>(line, half + j);
    }
    for (int r = 0; r < 3; ++r) {
      weight_gradient_line<1, 1>(half + 6 * r, result);
      for (int s = 0; s < 3; ++s) store(dweight + (r * 3 + s) * c + channel, result[s]);
    }
  }
}

inline constexpr WinogradKernels winograd_kernels = {winograd_weights,        winograd_input,         winograd_output,
                                                     winograd_gradient_input, winograd_gradient_bias, winograd_gradient_weight};

}  // namespace SHRIKE_SIMD
}  // namespace shrike::cpu
