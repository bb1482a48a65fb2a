// Rows of gradients: copied where their output was positive, and summed for gradients of biases.
#pragma once

#include <algorithm>
#include <cstdint>

#include "gemm.hpp"

namespace shrike::cpu {

// to [n] = from where mask is positive, else 0.
inline void copy_where_positive(std::int64_t n, const float* __restrict from, const float* __restrict mask,
                                float* __restrict to) {
  for (std::int64_t i = 0; i < n; ++i) to[i] = mask[i] > 0.0f ? from[i] : 0.0f;
}

// Rows of `to` = rows of `from` where mask, laid out as they are, is positive; everywhere if it is null.
inline void copy_gradient_rows(std::int64_t rows, std::int64_t columns, const float* from, const float* mask,
                               std::int64_t from_stride, float* to, std::int64_t to_stride) {
  for (std::int64_t i = 0; i < rows; ++i) {
    const std::int64_t at = i * from_stride;
    if (mask == nullptr) {
      std::copy_n(from + at, columns, to + i * to_stride);
    } else {
      copy_where_positive(columns, from + at, mask + at, to + i * to_stride);
    }
  }
}

// bias [columns] += the sums of some rows, made in float; sums [columns] is working memory.
inline void add_row_sums(std::int64_t rows, std::int64_t columns, const Located& dy, float* __restrict sums, double* bias) {
  std::fill_n(sums, columns, 0.0f);
  for (std::int64_t i = 0; i < rows; ++i) {
    const float* __restrict from = dy.data + i * dy.stride;
    for (std::int64_t k = 0; k < columns; ++k) sums[k] += from[k];
  }
  for (std::int64_t k = 0; k < columns; ++k) bias[k] += static_cast<double>(sums[k]);
}

// to [n] = the sum of sums [parts, n] over the parts, in their order; nothing if `to` is null.
inline void sum_bias_parts(std::int64_t parts, std::int64_t n, const double* sums, float* to) {
  for (std::int64_t k = 0; k < n && to != nullptr; ++k) {
    double total = 0;
    for (std::int64_t part = 0; part < parts; ++part) total += sums[part * n + k];
    to[k] = static_cast<float>(total);
  }
}

}  // namespace shrike::cpu
