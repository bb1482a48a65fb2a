// What Winograd's forward and backward passes share: the tiles of a map, and the transform of their pixels.
#pragma once

#include <cstddef>

#include "scratch.hpp"
#include "winograd_kernels.hpp"

namespace shrike::winograd {


constexpr std::int64_t gap = 16;  // floats between matrices, so that they do not share a cache's sets


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
template <bool masked> inline Vector load_gradient(const float* from, std::ptrdiff_t to_mask) {
  const Vector value = load(from);
  if constexpr (masked) {
    const Vector output = load(from + to_mask);
    return output > 0.0f ? value : Vector{};
  }
  return value;
}

// B^T d B of one tile and `lanes` channels; the 36 results at `stride`.
template <bool masked> inline void transform_input(const float* const* pixels, const float* outside, std::ptrdiff_t to_mask,
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

inline Tiles tiles_of(std::int64_t n, std::int64_t h, std::int64_t w, std::int64_t c, std::int64_t out_h, std::int64_t out_w) {
  return {n, h, w, c, (out_h + 3) / 4, (out_w + 3) / 4};
}

}  // namespace shrike::winograd
