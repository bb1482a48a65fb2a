// The greatest codes or halves of a window, for pooling.
#pragma once

#include <cstdint>
#include <cstring>

#include "shrike/core/dtype.hpp"

namespace shrike {

// Of `block` channels; the greatest so far stay in registers.
template <int block, class T> void greatest_of_block(std::int64_t rows, std::int64_t columns, std::int64_t row_stride,
                                                     std::int64_t channels, const T* corner, T* y) {
  typedef T Codes __attribute__((vector_size(block)));
  Codes best;
  std::memcpy(&best, corner, block);
  for (std::int64_t row = 0; row < rows; ++row) {
    const T* from = corner + row * row_stride;
    for (std::int64_t column = 0; column < columns; ++column, from += channels) {
      Codes codes;
      std::memcpy(&codes, from, block);
      best = codes > best ? codes : best;
    }
  }
  std::memcpy(y, &best, block);
}

// y [channels] = the greatest of `rows` by `columns` pixels, at least one, from `corner` on; a row of the map is row_stride
// codes.
template <class T> void greatest_codes(std::int64_t rows, std::int64_t columns, std::int64_t row_stride, std::int64_t channels,
                                       const T* corner, T* y) {
  std::int64_t c = 0;
  for (; c + 64 <= channels; c += 64) greatest_of_block<64>(rows, columns, row_stride, channels, corner + c, y + c);
  for (; c + 16 <= channels; c += 16) greatest_of_block<16>(rows, columns, row_stride, channels, corner + c, y + c);
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
