// What the matrix products of fp32 and TF32 share: sizes, the epilogue, and the sum over a split K.
//
// C [m, n] = A [m, k] B [k, n]. A convolution is such a product of matrices that are never written down: an operand
// (conv_operands.cuh) finds the elements of its tile in a feature map while it loads them. Where m n is too small to occupy the
// multiprocessors, K is cut into splits, blockIdx.z; each writes its sums to memory of its own and sum_splits_kernel adds them
// in order, so that two runs agree to the bit.
#pragma once

#include "kernels/cuda.hpp"

namespace shrike::kernels::gemm {

// n / divisor for 0 <= n < 2^31 by a multiplication (Granlund and Montgomery, 1994): with 2^(l-1) < d <= 2^l and
// m = ceil(2^(31+l) / d), floor(n m / 2^(31+l)) is the quotient, for the error n (m d - 2^(31+l)) / d is below 2^(31+l) / d.
struct Divisor {
  int divisor = 1;
  int shift = 31;
  unsigned multiplier = 1u << 31;

  Divisor() = default;
  explicit Divisor(std::int64_t d) : divisor(static_cast<int>(d)) {
    while ((std::int64_t{1} << (shift - 31)) < d) ++shift;
    multiplier = static_cast<unsigned>(((std::uint64_t{1} << shift) + static_cast<std::uint64_t>(d) - 1) /
                                       static_cast<std::uint64_t>(d));
  }
  __device__ __forceinline__ int quotient(int n) const {
    return static_cast<int>(static_cast<unsigned long long>(static_cast<unsigned>(n)) * multiplier >> shift);
  }
};

// Where the rows of C lie in the output. Strided dgrad computes every stride-th pixel of every stride-th row at a time.
struct RowMap {
  bool identity = true;
  Divisor rows, columns;  // of the pixels computed
  int height = 0, width = 0, stride = 1, first_row = 0, first_column = 0;

  __device__ __forceinline__ std::int64_t operator()(int m) const {
    if (identity) return m;
    const int line = columns.quotient(m), column = m - line * columns.divisor;
    const int image = rows.quotient(line), row = line - image * rows.divisor;
    return (std::int64_t{image} * height + row * stride + first_row) * width + column * stride + first_column;
  }
};

// out = C + bias + residual, clamped below at 0 with relu; or, where partial is not null, partial[split] = C.
struct Epilogue {
  int rows, columns;
  float* out;
  const float* bias;      // [columns] or null
  const float* residual;  // like out, or null
  float* partial;         // [splits, rows, columns]
  bool relu;
  bool vectors;  // columns % 4 == 0 and every pointer aligned to 16 bytes
  RowMap row_map;

  __device__ __forceinline__ float finish(float sum, int column, std::int64_t at) const {
    if (bias != nullptr) sum += bias[column];
    if (residual != nullptr) sum += residual[at];
    return relu && sum < 0.0f ? 0.0f : sum;
  }

  // Four neighbours of a row of C, those inside it.
  __device__ __forceinline__ void store(int row, int column, float4 sum, float* part) const {
    if (row >= rows || column >= columns) return;
    const std::int64_t at = (part != nullptr ? row : row_map(row)) * columns + column;
    float* to = (part != nullptr ? part : out) + at;
    float value[4] = {sum.x, sum.y, sum.z, sum.w};
    if (part == nullptr) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (vectors || column + i < columns) value[i] = finish(value[i], column + i, at + i);
      }
    }
    if (vectors) {
      *reinterpret_cast<float4*>(to) = make_float4(value[0], value[1], value[2], value[3]);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (column + i < columns) to[i] = value[i];
      }
    }
  }

  __device__ __forceinline__ float* part(unsigned split) const {
    return partial == nullptr ? nullptr : partial + std::int64_t{split} * rows * columns;
  }
};

// One launch: blocks of x are tiles of C, those of a row of tiles after each other, for they read the same rows of A.
struct Sizes {
  int k;
  int tiles_n;
  int tiles_per_split;  // of K
};

// out = the sum over splits, in order, finished.
void sum_splits(int splits, const Epilogue& epilogue);

}  // namespace shrike::kernels::gemm
