// Sums over the rows of a matrix, for every column: bias gradients, batch statistics.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "shrike/core/threads.hpp"

namespace shrike {

// sums[0 .. columns) = the sum over all rows of what add(row, float* sums) adds. Up to 64 rows are summed in float, and these
// sums in double; the order depends on the sizes alone, not on the number of threads.
template <class F> void sum_rows(std::int64_t rows, std::int64_t columns, double* sums, const F& add) {
  constexpr std::int64_t block = 64;
  const std::int64_t parts = std::clamp<std::int64_t>(rows / (4 * block), 1, 64);
  std::vector<double> partial(static_cast<std::size_t>(parts * columns));
  parallel_for(parts, 1, [&](std::int64_t first, std::int64_t last) {
    std::vector<float> buffer(static_cast<std::size_t>(columns));
    for (std::int64_t part = first; part < last; ++part) {
      double* total = partial.data() + part * columns;
      const std::int64_t end = rows * (part + 1) / parts;
      for (std::int64_t begin = rows * part / parts; begin < end; begin += block) {
        std::fill(buffer.begin(), buffer.end(), 0.0f);
        for (std::int64_t row = begin; row < std::min(begin + block, end); ++row) add(row, buffer.data());
        for (std::int64_t i = 0; i < columns; ++i) total[i] += static_cast<double>(buffer[static_cast<std::size_t>(i)]);
      }
    }
  });
  std::copy_n(partial.data(), columns, sums);
  for (std::int64_t part = 1; part < parts; ++part) {
    for (std::int64_t i = 0; i < columns; ++i) sums[i] += partial[static_cast<std::size_t>(part * columns + i)];
  }
}

// sums [c] = the columns' sums of x [rows, c].
inline void column_sums(std::int64_t rows, std::int64_t c, const float* x, float* sums) {
  std::vector<double> totals(static_cast<std::size_t>(c));
  sum_rows(rows, c, totals.data(), [=](std::int64_t row, float* __restrict buffer) {
    const float* __restrict from = x + row * c;
    for (std::int64_t i = 0; i < c; ++i) buffer[i] += from[i];
  });
  for (std::int64_t i = 0; i < c; ++i) sums[i] = static_cast<float>(totals[static_cast<std::size_t>(i)]);
}

}  // namespace shrike
