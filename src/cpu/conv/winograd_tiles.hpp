// The 4x4 tiles of a map, for Winograd's convolutions in float and int8. Files for several instruction sets include this: see
// simd.hpp.
#pragma once

#include <stdint.h>

namespace shrike::winograd {

struct Tiles {
  int64_t n, h, w, c;  // the map
  int64_t rows, columns;
  int64_t count() const { return n * rows * columns; }

  // Pointers to the pixels of the size x size square whose corner is (4 ty + offset, 4 tx + offset); `outside` where there is
  // none.
  template <int size, class T>
  __attribute__((always_inline)) void pixels(int64_t tile, int64_t offset, T* map, T* outside, T** pointers) const {
    const int64_t tx = tile % columns, ty = tile / columns % rows, image = tile / columns / rows;
    for (int64_t i = 0; i < size; ++i) {
      for (int64_t j = 0; j < size; ++j) {
        const int64_t y = 4 * ty + offset + i, x = 4 * tx + offset + j;
        const bool inside = y >= 0 && y < h && x >= 0 && x < w;
        *pointers++ = inside ? map + ((image * h + y) * w + x) * c : outside;
      }
    }
  }
};

__attribute__((always_inline)) inline Tiles tiles_of(int64_t n, int64_t h, int64_t w, int64_t c, int64_t out_h, int64_t out_w) {
  return {n, h, w, c, (out_h + 3) / 4, (out_w + 3) / 4};
}

}  // namespace shrike::winograd
