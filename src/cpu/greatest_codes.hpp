// The greatest codes or halves of a window, for pooling.
#pragma once

#include <cstdint>
#include <cstring>

#include "shrike/core/dtype.hpp"

namespace shrike {

// y [channels] = the greatest of `rows` by `columns` pixels, at least one, from `corner` on; a row of the map is row_stride
// codes. Channels in blocks as wide as the vectors, so that the greatest so far stay in registers.
template <class T> void greatest_codes(std::int64_t rows, std::int64_t columns, std::int64_t row_stride, std::int64_t channels,
                                       const T* corner, T* y) {
  constexpr int block = 64;
  typedef T Codes __attribute__((vector_size(block)));
  std::int64_t c = 0;
  for (; c + block <= channels; c += block) {
    Codes best;
    std::memcpy(&best, corner + c, block);
    for (std::int64_t row = 0; row < rows; ++row) {
      const T* from = corner + row * row_stride + c;
      for (std::int64_t column = 0; column < columns; ++column, from += channels) {
        Codes codes;
        std::memcpy(&codes, from, block);
        best = codes > best ? codes : best;
      }
    }
    std::memcpy(y + c, &best, block);
  }
  for (; c < channels; ++c) {
    T best = corner[c];
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t column = 0; column < columns; ++column) {
        const T code = corner[row * row_stride + column * channels + c];
        best = code > best ? code : best;
      }
    }
    y[c] = best;
  }
}

// The same of halves: the first of equals, the last NaN if there is one.
inline void greatest_codes(std::int64_t rows, std::int64_t columns, std::int64_t row_stride, std::int64_t channels,
                           const Half* corner, Half* y) {
  for (std::int64_t c = 0; c < channels; ++c) {
    Half best = corner[c];
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t column = 0; column < columns; ++column) {
        const Half half = corner[row * row_stride + column * channels + c];
        const auto value = static_cast<float>(half);
        if (value > static_cast<float>(best) || value != value) best = half;
      }
    }
    y[c] = best;
  }
}

}  // namespace shrike
