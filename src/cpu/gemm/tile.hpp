// Matrix products whose sums stay in registers, for the instruction set that this is compiled for.
//
// A full tile of c is 6 rows of 4 vectors with AVX-512 (24 of 32 registers) and 6 of 2 with AVX2 (12 of 16). Each step loads a
// row of b and multiplies it by one number of every row of a, broadcast from memory: 24 FMAs for 10 loads, so the FMAs are the
// bound as long as a and b come from the first two levels of the cache. Narrower tiles have more rows.
#pragma once

#include "../float_kernels.hpp"
#include "../simd.hpp"

namespace shrike::cpu {
inline namespace SHRIKE_SIMD {

using namespace simd;

#if defined(__AVX512F__)
constexpr int tile_vectors = 4;
constexpr int tile_rows_of[] = {0, 14, 14, 8, 6};  // by the vectors of a row
#else
constexpr int tile_vectors = 2;
constexpr int tile_rows_of[] = {0, 6, 6};
#endif
constexpr int tile_rows = tile_rows_of[tile_vectors];
constexpr int panel = tile_vectors * lanes;
constexpr int64_t cache_line = 64 / sizeof(float);

enum class Step { along_rows, along_columns };  // which of a_step and a_row is 1

// sums += a b for some steps.
template <Step step, int R, int N>
inline void add_products(int64_t depth, const Product& p, const float*& a, const float*& b, Vector (&sums)[R][N]) {
  const int64_t row_stride = step == Step::along_rows ? p.a_row : 1, next = step == Step::along_rows ? 1 : p.a_step;
#pragma GCC unroll 4
  for (int64_t i = 0; i < depth; ++i, a += next, b += p.b_step) {
    Vector row[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) row[n] = load(b + n * lanes);
#pragma GCC unroll 14
    for (int r = 0; r < R; ++r) {
      const Vector left = splat(a[r * row_stride]);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) sums[r][n] = multiply_add(left, row[n], sums[r][n]);
    }
  }
}

inline void fetch_lines(Fetch& fetch) {
  for (int64_t n = 0; n < fetch.lines && fetch.rows > 0; ++n) {
    __builtin_prefetch(fetch.row + fetch.at, 0, 2);
    fetch.at += cache_line;
    if (fetch.at < fetch.width) continue;
    fetch.at = 0;
    fetch.row += fetch.stride;
    --fetch.rows;
  }
}

// The same, 16 steps at a time, while what the next tile needs is fetched: its part of c, and what was asked for or, without
// that, its rows of a.
template <Step step, int R, int N>
inline void add_products_ahead(const Product& p, const float*& a, const float*& b, Vector (&sums)[R][N]) {
  const int64_t rows_at_once = (R * cache_line + p.depth - 1) / p.depth;
  const float* c = p.next_c;
  int64_t i = 0;
  for (int64_t row = 0; i + cache_line <= p.depth; i += cache_line) {
    if (p.fetch != nullptr) {
      fetch_lines(*p.fetch);
    } else if constexpr (step == Step::along_rows) {
#pragma GCC unroll 14
      for (int r = 0; r < R; ++r) __builtin_prefetch(a + (R + r) * p.a_row, 0, 2);
    }
    for (int64_t last = row + rows_at_once; row < last && row < R; ++row, c += p.c_row) {
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) __builtin_prefetch(c + n * lanes, 1);
    }
    add_products<step, R, N>(cache_line, p, a, b, sums);
  }
  add_products<step, R, N>(p.depth - i, p, a, b, sums);
}

// What sums begin with.
template <int R, int N> inline void start_sums(const Product& p, Vector (&sums)[R][N]) {
  if (p.start == nullptr && !p.add) {
    for (auto& row : sums) {
      for (Vector& sum : row) sum = Vector{};
    }
    return;
  }
  const float* const from = p.start != nullptr ? p.start : p.c;
  const int64_t stride = p.start != nullptr ? 0 : p.c_row;
#pragma GCC unroll 14
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) sums[r][n] = load(from + r * stride + n * lanes);
  }
}

// ahead: whether to fetch what comes next.
template <Step step, int R, int N, bool ahead> inline void multiply_tile(const Product& p) {
  Vector sums[R][N];
  start_sums<R, N>(p, sums);
  if (!ahead && (p.add || p.segments > 1)) {  // c is in memory, not in working memory that stays in a cache
#pragma GCC unroll 14
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) __builtin_prefetch(p.next_c + r * p.c_row + n * lanes, 1);
    }
  }
  const float* b = p.b;
  for (int64_t s = 0; s < p.segments; ++s) {
    const float* a = p.a + s * p.a_segment;
    if constexpr (ahead) {
      add_products_ahead<step, R, N>(p, a, b, sums);
    } else {
      add_products<step, R, N>(p.depth, p, a, b, sums);
    }
  }
  if (p.residual != nullptr) {
#pragma GCC unroll 14
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) sums[r][n] += load(p.residual + r * p.c_row + n * lanes);
    }
  }
  if (p.relu) {
#pragma GCC unroll 14
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) sums[r][n] = sums[r][n] < 0.0f ? Vector{} : sums[r][n];  // NaN stays
    }
  }
#pragma GCC unroll 14
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) store(p.c + r * p.c_row + n * lanes, sums[r][n]);
  }
}

template <Step step, int N, bool ahead, int R = tile_rows_of[N]> inline void multiply_any(int64_t rows, const Product& p) {
  if constexpr (R > 0) {
    if (rows == R) {
      multiply_tile<step, R, N, ahead>(p);
    } else {
      multiply_any<step, N, ahead, R - 1>(rows, p);
    }
  }
}

// Where the columns are no whole vectors, the tile is computed beside c.
template <Step step, int N> inline void multiply_partial(int64_t rows, int columns, const Product& p) {
  constexpr int width = N * lanes;
  alignas(64) float tile[tile_rows_of[N] * width] = {}, residual[tile_rows_of[N] * width] = {};
  const size_t bytes = static_cast<size_t>(columns) * sizeof(float);
  for (int64_t r = 0; r < rows; ++r) {
    if (p.add) memcpy(tile + r * width, p.c + r * p.c_row, bytes);
    if (p.residual != nullptr) memcpy(residual + r * width, p.residual + r * p.c_row, bytes);
  }
  Product beside = p;
  beside.c = tile;
  beside.c_row = width;
  beside.next_c = tile;
  if (p.residual != nullptr) beside.residual = residual;
  multiply_any<step, N, false>(rows, beside);
  for (int64_t r = 0; r < rows; ++r) memcpy(p.c + r * p.c_row, tile + r * width, bytes);
}

// Rows are spread evenly over the tiles: 7 are 4 and 3 rather than 6 and 1.
template <Step step, int N> inline void multiply_tiles(int64_t rows, int columns, const Product& of) {
  const int64_t tiles = (rows + tile_rows_of[N] - 1) / tile_rows_of[N], least = rows / tiles, larger = rows % tiles;
  const bool ahead = of.depth >= 4 * cache_line || of.fetch != nullptr;  // else too short to pay
  Product part = of;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t count = tile < larger ? least + 1 : least;
    part.next_c = tile + 1 == tiles && of.next_c != nullptr ? of.next_c : part.c + count * of.c_row;
    if (columns != N * lanes) {
      multiply_partial<step, N>(count, columns, part);
    } else if (ahead) {
      multiply_any<step, N, true>(count, part);
    } else {
      multiply_any<step, N, false>(count, part);
    }
    part.a += count * of.a_row;
    part.c += count * of.c_row;
    if (of.residual != nullptr) part.residual += count * of.c_row;
  }
}

template <Step step> inline void multiply(int64_t rows, int columns, const Product& of) {
  if (columns <= lanes) return multiply_tiles<step, 1>(rows, columns, of);
  if constexpr (tile_vectors > 2) {
    if (columns > 3 * lanes) return multiply_tiles<step, 4>(rows, columns, of);
    if (columns > 2 * lanes) return multiply_tiles<step, 3>(rows, columns, of);
  }
  multiply_tiles<step, 2>(rows, columns, of);
}

// One of the log2(lanes) steps of a transposition: the lanes of a whose number has bit D change places with those of b whose
// number has not.
template <int D, class Lanes> struct Exchange;
template <int... I> struct Numbers {};
template <int N, int... I> struct MakeNumbers : MakeNumbers<N - 1, N - 1, I...> {};
template <int... I> struct MakeNumbers<0, I...> { using type = Numbers<I...>; };
template <int D, int... I> struct Exchange<D, Numbers<I...>> {
  static void apply(Vector& a, Vector& b) {
    const Vector low = __builtin_shufflevector(a, b, ((I & D) != 0 ? lanes + I - D : I)...);
    b = __builtin_shufflevector(a, b, ((I & D) != 0 ? lanes + I : I + D)...);
    a = low;
  }
};

template <int D = 1> inline void transpose(Vector* rows) {
  if constexpr (D < lanes) {
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) {
      if ((i & D) == 0) Exchange<D, typename MakeNumbers<lanes>::type>::apply(rows[i], rows[i + D]);
    }
    transpose<2 * D>(rows);
  }
}

inline void pack_transposed(int columns, int64_t depth, const float* from, int64_t stride, float* to) {
  for (int first = 0; first < panel; first += lanes) {
    const int used = columns - first < 0 ? 0 : columns - first < lanes ? columns - first : lanes;
    int64_t i = 0;
    for (; i + lanes <= depth; i += lanes) {
      Vector block[lanes];
      if (used == lanes) {
#pragma GCC unroll 16
        for (int column = 0; column < lanes; ++column) block[column] = load(from + (first + column) * stride + i);
        transpose(block);
      } else {
        for (int column = 0; column < lanes; ++column) {
          block[column] = column < used ? load(from + (first + column) * stride + i) : Vector{};
        }
        transpose(block);
      }
#pragma GCC unroll 16
      for (int k = 0; k < lanes; ++k) store(to + (i + k) * panel + first, block[k]);
    }
    for (; i < depth; ++i) {
      for (int column = 0; column < lanes; ++column) {
        to[i * panel + first + column] = column < used ? from[(first + column) * stride + i] : 0.0f;
      }
    }
  }
}

inline void pack_tiles(int64_t columns, int64_t depth, const float* from, int64_t stride, float* to, int64_t to_tile) {
  for (int64_t i = 0; i < depth; ++i, from += stride, to += tile_rows) {
    int64_t column = 0;
    float* tile = to;
    for (; column + tile_rows <= columns; column += tile_rows, tile += to_tile) {
      memcpy(tile, from + column, tile_rows * sizeof(float));
    }
    memcpy(tile, from + column, static_cast<size_t>(columns - column) * sizeof(float));
  }
}

inline void pack_rows(int columns, int64_t depth, const float* from, int64_t stride, float* to) {
  if (columns == panel) {
    for (int64_t i = 0; i < depth; ++i, from += stride, to += panel) {
#pragma GCC unroll 4
      for (int n = 0; n < tile_vectors; ++n) store(to + n * lanes, load(from + n * lanes));
    }
    return;
  }
  for (int64_t i = 0; i < depth; ++i, from += stride, to += panel) {
    int column = 0;
    for (; column + lanes <= columns; column += lanes) store(to + column, load(from + column));
    for (; column < columns; ++column) to[column] = from[column];
    for (; column < panel; ++column) to[column] = 0.0f;
  }
}

}  // namespace SHRIKE_SIMD
}  // namespace shrike::cpu
