// The innermost loops of int8 layers, once for every instruction set. This header and the files that implement it are compiled
// with instructions that the machine may not have, so they include nothing whose inline functions others could pick up.
#pragma once

#include <stdint.h>

namespace shrike::int8 {

// How a row of y is made; see ops/requantize.hpp. Types: 0 u8, 1 s8, 2 f32, which a residual is in dynamic quantization alone.
struct Finish {
  int y_type, residual_type;
  float low, high, residual_multiplier;
};

// Where it is made: from the sums acc + offsets[row] (offsets may be null). A stride is the elements from one row to the next.
struct Rows {
  const int32_t* acc;
  int64_t acc_stride;
  const int32_t* offsets;
  const float* multiplier;  // [n]
  const void* residual;
  void* y;
  int64_t y_stride;     // the residual's too
  const float* addend;  // [n], of dynamic quantization; else null
};

// c [rows, panel] = start + a [rows, 4 * steps bytes] * b [steps, panel, 4 bytes], exactly modulo 2^32. c's rows follow each
// other, a's are a_stride bytes apart, those of start start_stride elements; start may be c.
using Multiply = void (*)(int64_t rows, int64_t steps, const void* a, int64_t a_stride, const void* b, const int32_t* start,
                          int64_t start_stride, int32_t* c);

// The same, and step i meets the four bytes of a row that begin at order[i].
using MultiplyOrdered = void (*)(int64_t rows, int64_t steps, const void* a, int64_t a_stride, const int32_t* order,
                                 const void* b, const int32_t* start, int64_t start_stride, int32_t* c);

constexpr int safe = 128;  // 255 * 128 < 2^15

struct Kernels {
  const char* name;
  int panel;  // columns of c
  // Four u8 times four s8 a step. Exactly one of the two is there: the second one where sums of products pass through 16 bits.
  // It takes an even number of steps, two together, and weights that are safe: of a column, the first two weights of both
  // steps, and so the last two, add up to at most `safe` where they are above 0, and to at least -safe where they are below.
  Multiply multiply_bytes;
  MultiplyOrdered multiply_safe_bytes;
  // Two s16 times two s16 a step, an even number of steps, by Winograd's inner product ("A New Algorithm for Inner Product",
  // IEEE Transactions on Computers, 1968), which halves the multiplications: for steps i and j = i + 1, with . for the sum of
  // both products,
  //   a_i . b_i + a_j . b_j = (a_i + b_j) . (a_j + b_i) - a_i . a_j - b_i . b_j
  // Only the first term is summed here. The second is a number for each row, the third one for each column, which the caller
  // subtracts. Sums a + b must fit in 16 bits. Null where there are no vectors.
  Multiply multiply_pairs;
  int pair_rows;  // of its tile in registers
  // Rows of y, of n elements each.
  void (*finish)(const Finish& how, int64_t rows, int64_t n, const Rows& of);
  // The most that products can reach: runs the instructions of a step on registers alone, and returns how many multiplications
  // that was.
  int64_t (*spin)(int64_t rounds);
  // q = clamp(rint(x / scale), low, high), n codes: u8 where low is 0, else s8. Ties to even; NaN becomes low.
  void (*encode)(int64_t n, const float* x, float scale, float low, float high, void* q);
};

const Kernels& plain_kernels();
#if defined(__x86_64__)
const Kernels& avx2_kernels();
const Kernels& avxvnni_kernels();
const Kernels& avx512_kernels();
const Kernels& avx512_short_kernels();  // avxvnni's, encoded for AVX-512: panels of 16 columns, not 64
#endif

// The best this machine can run for so many columns; the environment variable SHRIKE_CPU_ISA = plain, avx2, avxvnni or avx512
// asks for a lesser one.
const Kernels& kernels(int64_t columns = 64);

}  // namespace shrike::int8
