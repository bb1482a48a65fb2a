// The innermost loops of float products and convolutions, once for every instruction set; see isa.hpp for the choice. This
// header and the files that implement it are compiled with instructions that the machine may not have, so they include nothing
// whose inline functions others could pick up.
#pragma once

#include <stdint.h>

namespace shrike::cpu {

// Rows of floats that are fetched into the second-level cache, `lines` cache lines for every 16 terms of a sum.
struct Fetch {
  const float* row;
  int64_t rows, width, stride;
  int64_t lines;
  int64_t at = 0;  // in the row
};

// c [rows, columns] = (c or start) + a * b + residual, clamped below at 0 with relu; the sums run over `segments` times `depth`
// terms, in this order:
//   c[r][n] = start[n] + sum over s < segments, i < depth of a[r * a_row + s * a_segment + i * a_step] * b[s * depth + i][n]
// A row of b is at least as wide as the columns, rounded up to a vector.
struct Product {
  int64_t segments = 1, depth;
  const float* a;
  int64_t a_row, a_step = 1, a_segment = 0;
  const float* b;
  int64_t b_step;  // from a row of b to the next
  float* c;
  int64_t c_row;
  bool add = false;                 // start with c
  const float* start = nullptr;     // else with these, [columns, rounded up to a vector], or null: zeros
  const float* residual = nullptr;  // with c's rows; null: none
  bool relu = false;
  const float* next_c = nullptr;  // what will be written next, or null: the rows after these; it is fetched meanwhile
  Fetch* fetch = nullptr;         // what will be read later, or null: the rows of a after these; fetched meanwhile
};

struct WinogradKernels;  // conv/winograd_kernels.hpp

struct FloatKernels {
  const char* name;
  int lanes;  // of a vector
  int rows;   // of c in a tile in registers
  int panel;  // its columns

  // a_step is 1, or a_row is 1. Any number of rows, at most `panel` columns.
  void (*multiply_rows)(int64_t rows, int columns, const Product& of);
  void (*multiply_columns)(int64_t rows, int columns, const Product& of);

  // to [depth, panel] = the transpose of from [columns, depth], whose rows are `stride` apart; zeros past the columns.
  void (*pack_transposed)(int columns, int64_t depth, const float* from, int64_t stride, float* to);
  // to [columns / rows][depth][rows] = from [depth, columns]; `to_tile` floats from a tile to the next. The last tile may have
  // fewer columns, and what is past them is left as it is.
  void (*pack_tiles)(int64_t columns, int64_t depth, const float* from, int64_t stride, float* to, int64_t to_tile);
  // to [depth, panel] = from [depth, columns], zeros past the columns.
  void (*pack_rows)(int columns, int64_t depth, const float* from, int64_t stride, float* to);

  // to [n] (+)= the sum over `rows` <= 4 rows of weights[row] * from[row][i].
  void (*weighted_sum)(int64_t n, int rows, const float* const* from, const float* weights, bool add, float* to);

  const WinogradKernels* winograd;
};

const FloatKernels& plain_float_kernels();
#if defined(__x86_64__)
const FloatKernels& avx2_float_kernels();
const FloatKernels& avx512_float_kernels();
#endif

}  // namespace shrike::cpu
