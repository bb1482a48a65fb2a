// What the instruction sets share: a product's tiles in registers, and the epilogue. Everything is local to the including file.
#pragma once

#include "int8_kernels.hpp"

namespace shrike::int8 {
namespace {

// One tile: R rows by I::vectors vectors of int32. I::add adds the products of I::together steps to the sums of a row; of
// ordered steps, `order` tells where in a row they are.
template <class I, int R> void multiply_tile(int64_t steps, const char* __restrict a, int64_t a_stride, const int32_t* order,
                                             const char* __restrict b, const int32_t* start, int64_t start_stride, int32_t* c) {
  constexpr int vectors = I::vectors, width = I::width;
  typename I::Vector sums[R][vectors];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) sums[r][v] = I::load(start + r * start_stride + v * width);
  }
  for (int64_t step = 0; step < steps; step += I::together) {
    const auto columns = I::columns(b + step * vectors * width * 4);
    if constexpr (I::ordered) {
      const char *const first = a + order[step], *const second = a + order[step + 1];
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) I::add(sums[r], first + r * a_stride, second + r * a_stride, columns);
    } else {
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) I::add(sums[r], a + r * a_stride + step * 4, columns);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) I::store(c + (r * vectors + v) * width, sums[r][v]);
  }
}

template <class I, int R> void multiply_rest(int64_t rows, int64_t steps, const char* a, int64_t a_stride, const int32_t* order,
                                             const char* b, const int32_t* start, int64_t start_stride, int32_t* c) {
  if constexpr (R > 0) {
    if (rows == R) return multiply_tile<I, R>(steps, a, a_stride, order, b, start, start_stride, c);
    multiply_rest<I, R - 1>(rows, steps, a, a_stride, order, b, start, start_stride, c);
  }
}

// Rows are spread evenly over the tiles: 7 are 4 and 3 rather than 6 and 1.
template <class I> void multiply_ordered(int64_t rows, int64_t steps, const void* a, int64_t a_stride, const int32_t* order,
                                         const void* b, const int32_t* start, int64_t start_stride, int32_t* c) {
  constexpr int most = I::rows;
  const int64_t tiles = (rows + most - 1) / most;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t begin = rows * tile / tiles, end = rows * (tile + 1) / tiles;
    multiply_rest<I, most>(end - begin, steps, static_cast<const char*>(a) + begin * a_stride, a_stride, order,
                           static_cast<const char*>(b), start + begin * start_stride, start_stride,
                           c + begin * I::vectors * I::width);
  }
}

template <class I> void multiply(int64_t rows, int64_t steps, const void* a, int64_t a_stride, const void* b,
                                 const int32_t* start, int64_t start_stride, int32_t* c) {
  multiply_ordered<I>(rows, steps, a, a_stride, nullptr, b, start, start_stride, c);
}

// I::spin, the instructions of I::add without loads: I::products of a column each time. keep() makes the compiler believe that
// values change, so that it repeats the products.
template <class I> int64_t spin(int64_t rounds) {
  constexpr int count = 12;
  const int32_t code = 1;
  auto a = I::broadcast(reinterpret_cast<const char*>(&code)), b = a;
  typename I::Vector sums[count];
#pragma GCC unroll 12
  for (int i = 0; i < count; ++i) {
    sums[i] = a;
    I::keep(sums[i]);
  }
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < count; ++i) {
      sums[i] = I::spin(sums[i], a, b);
      I::keep(b);
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < count; ++i) I::keep(sums[i]);
  return rounds * count * I::width * I::products;
}

template <class Y, class R, bool added> void finish_row(const Finish& how, int64_t n, const int32_t* __restrict acc,
                                                        int32_t offset, const float* __restrict multiplier,
                                                        const R* __restrict residual, Y* __restrict y) {
  const float low = how.low, high = how.high, scale = how.residual_multiplier;
  for (int64_t i = 0; i < n; ++i) {
    float t =
        static_cast<float>(static_cast<int32_t>(static_cast<uint32_t>(acc[i]) + static_cast<uint32_t>(offset))) * multiplier[i];
    if constexpr (added) t = __builtin_fmaf(static_cast<float>(residual[i]), scale, t);
    t = t > low ? t : low;
    t = t < high ? t : high;
    if constexpr (sizeof(Y) == 1) {
      y[i] = static_cast<Y>(static_cast<int32_t>(__builtin_rintf(t)));
    } else {
      y[i] = t;
    }
  }
}

// Of dynamic quantization.
template <bool added> void finish_float_row(float low, int64_t n, const int32_t* __restrict acc, int32_t offset,
                                            const float* __restrict multiplier, const float* __restrict addend,
                                            const float* __restrict residual, float* __restrict y) {
  for (int64_t i = 0; i < n; ++i) {
    const auto sum = static_cast<int32_t>(static_cast<uint32_t>(acc[i]) + static_cast<uint32_t>(offset));
    float t = static_cast<float>(sum) * multiplier[i];
    t += addend[i];
    if constexpr (added) t += residual[i];
    y[i] = t < low ? low : t;  // NaN stays
  }
}

template <bool added> void finish_float_rows(const Finish& how, int64_t rows, int64_t n, const Rows& of) {
  for (int64_t row = 0; row < rows; ++row) {
    const int32_t* const acc = of.acc + row * of.acc_stride;
    const int32_t offset = of.offsets != nullptr ? of.offsets[row] : 0;
    const float* const residual = added ? static_cast<const float*>(of.residual) + row * of.y_stride : nullptr;
    float* const y = static_cast<float*>(of.y) + row * of.y_stride;
    finish_float_row<added>(how.low, n, acc, offset, of.multiplier, of.addend, residual, y);
  }
}

template <class Y, class R, bool added> void finish_rows(const Finish& how, int64_t rows, int64_t n, const Rows& of) {
  for (int64_t row = 0; row < rows; ++row) {
    const int32_t* const acc = of.acc + row * of.acc_stride;
    const int32_t offset = of.offsets != nullptr ? of.offsets[row] : 0;
    const R* const residual = added ? static_cast<const R*>(of.residual) + row * of.y_stride : nullptr;
    Y* const y = static_cast<Y*>(of.y) + row * of.y_stride;
    if (n == 16) {  // a loop whose length the compiler knows
      finish_row<Y, R, added>(how, 16, acc, offset, of.multiplier, residual, y);
    } else {
      finish_row<Y, R, added>(how, n, acc, offset, of.multiplier, residual, y);
    }
  }
}

template <class Y> void finish_as(const Finish& how, int64_t rows, int64_t n, const Rows& of) {
  if (of.residual == nullptr) {
    finish_rows<Y, uint8_t, false>(how, rows, n, of);
  } else if (how.residual_type == 0) {
    finish_rows<Y, uint8_t, true>(how, rows, n, of);
  } else {
    finish_rows<Y, int8_t, true>(how, rows, n, of);
  }
}

void finish(const Finish& how, int64_t rows, int64_t n, const Rows& of) {
  if (of.addend != nullptr) {
    return of.residual == nullptr ? finish_float_rows<false>(how, rows, n, of) : finish_float_rows<true>(how, rows, n, of);
  }
  if (how.y_type == 0) return finish_as<uint8_t>(how, rows, n, of);
  if (how.y_type == 1) return finish_as<int8_t>(how, rows, n, of);
  finish_as<float>(how, rows, n, of);
}

// What is clamped before it is rounded comes out the same: the ends are whole numbers.
template <class Q> void encode_as(int64_t n, const float* __restrict x, float scale, float low, float high, Q* __restrict q) {
  for (int64_t i = 0; i < n; ++i) {
    float t = x[i] / scale;
    t = t > low ? t : low;
    t = t < high ? t : high;
    q[i] = static_cast<Q>(static_cast<int32_t>(__builtin_rintf(t)));
  }
}

void encode(int64_t n, const float* x, float scale, float low, float high, void* q) {
  if (low < 0) return encode_as(n, x, scale, low, high, static_cast<int8_t*>(q));
  encode_as(n, x, scale, low, high, static_cast<uint8_t*>(q));
}

}  // namespace
}  // namespace shrike::int8
