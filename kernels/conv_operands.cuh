// How a matrix product finds its operands in feature maps and filters. An operand owns what one thread copies of every tile of
// `Depth` by `Extent` elements (Depth along K, Extent rows of A or columns of B), by pieces of 4 floats (Vector) or 1:
//   tile(put)        calls put(piece, source, valid) for each; what is not valid counts as zero and its source is not read
//   line(piece), depth(piece)   where it goes in the tile
//   advance()        to the next tile along K
// Those with `along_k` are contiguous in memory along K, the others along rows or columns. A warp reads whole 128-byte lines
// wherever the channels allow.
#pragma once

#include "kernels/gemm.cuh"

namespace shrike::kernels::gemm {

// Pixels of a map that meet the taps of a filter: the one of tap (r, s) for output pixel (i, j) of image n is
// (i * stride + origin_h + r * step_h, j * stride + origin_w + s * step_w), zero outside.
struct PixelMap {
  const float* data;  // [images, height, width, channels]
  int height, width, channels;
  int taps_h, taps_w;  // at most 16 and 15
  int stride, origin_h, origin_w, step_h, step_w;
  Divisor rows, columns;  // of output pixels in an image
  int pixels;             // images * rows * columns
  int length;             // taps_h * taps_w * channels
};

struct Pixel {
  int n, h, w;  // of tap (0, 0)
};

__device__ __forceinline__ Pixel first_pixel(const PixelMap& map, int m) {
  const int line = map.columns.quotient(m), j = m - line * map.columns.divisor;
  const int image = map.rows.quotient(line), i = line - image * map.rows.divisor;
  return {image, i * map.stride + map.origin_h, j * map.stride + map.origin_w};
}

// A of fprop and dgrad: row m is output pixel m, k = (tap, channel).
template <int Extent, int Depth, int Threads, bool Vector> class PixelRows {
 public:
  using Source = PixelMap;
  static constexpr bool along_k = true;
  static constexpr bool vector = Vector;
  static constexpr int extent = Extent;
  static constexpr int width = Vector ? 4 : 1;
  static constexpr int across = Depth / width;
  static constexpr int apart = Threads / across;
  static constexpr int pieces = Extent / apart;
  // By single elements a thread has too many rows to keep; they lie in a table: first pixel, and which taps are inside.
  static constexpr int table_ints = Vector ? 0 : 2 * Extent;
  static_assert(Extent % apart == 0);

  __device__ PixelRows(const PixelMap& map, int first_row, int first_k, int* table) : map_(map), table_(table) {
    row_ = static_cast<int>(threadIdx.x) / across;
    depth_ = static_cast<int>(threadIdx.x) % across * width;
    k_ = first_k + depth_;
    const int tap = k_ / map.channels;
    c_ = k_ - tap * map.channels;
    r_ = tap / map.taps_w;
    s_ = tap - r_ * map.taps_w;
    if constexpr (Vector) {
#pragma unroll
      for (int i = 0; i < pieces; ++i) locate(first_row + row_ + i * apart, pixel_[i], inside_[i]);
    } else {
      for (int i = static_cast<int>(threadIdx.x); i < Extent; i += Threads) {
        unsigned inside = 0;
        locate(first_row + i, table[2 * i], inside);
        table[2 * i + 1] = static_cast<int>(inside);
      }
    }
  }

  template <class Put> __device__ __forceinline__ void tile(Put&& put) const {
    const int shift = r_ * map_.step_h * map_.width + s_ * map_.step_w;
    const int tap_r = k_ < map_.length ? r_ : 31;  // bit 31 of `inside` is never set
    const int tap_s = 16 + (k_ < map_.length ? s_ : 15);
    const float* from = map_.data + c_;
#pragma unroll
    for (int i = 0; i < pieces; ++i) {
      int pixel = 0;
      unsigned inside = 0;
      if constexpr (Vector) {
        pixel = pixel_[i];
        inside = inside_[i];
      } else {
        pixel = table_[2 * (row_ + i * apart)];
        inside = static_cast<unsigned>(table_[2 * (row_ + i * apart) + 1]);
      }
      const bool valid = ((inside >> tap_r) & (inside >> tap_s) & 1u) != 0;
      put(i, from + static_cast<std::int64_t>(pixel + shift) * map_.channels, valid);
    }
  }
  __device__ __forceinline__ int line(int piece) const { return row_ + piece * apart; }
  __device__ __forceinline__ int depth(int) const { return depth_; }
  __device__ __forceinline__ void advance() {
    k_ += Depth;
    c_ += Depth;
    while (c_ >= map_.channels) {
      c_ -= map_.channels;
      if (++s_ == map_.taps_w) s_ = 0, ++r_;
    }
  }

 private:
  // Bit r of `inside`: tap row r is in the map; bit 16 + s: tap column s is.
  __device__ __forceinline__ void locate(int m, int& pixel, unsigned& inside) const {
    pixel = 0;
    inside = 0;
    if (m >= map_.pixels) return;
    const Pixel at = first_pixel(map_, m);
    pixel = (at.n * map_.height + at.h) * map_.width + at.w;
    for (int r = 0; r < map_.taps_h; ++r) {
      const int h = at.h + r * map_.step_h;
      inside |= h >= 0 && h < map_.height ? 1u << r : 0u;
    }
    for (int s = 0; s < map_.taps_w; ++s) {
      const int w = at.w + s * map_.step_w;
      inside |= w >= 0 && w < map_.width ? 1u << (16 + s) : 0u;
    }
  }

  const PixelMap& map_;
  const int* table_;
  int row_, depth_, k_, c_, r_, s_;
  int pixel_[Vector ? pieces : 1];
  unsigned inside_[Vector ? pieces : 1];
};

struct Matrix {
  const float* data;  // [rows, columns]
  int rows, columns;
};

// B of fprop: column n is row n of the matrix of filters [k, taps * c].
template <int Extent, int Depth, int Threads, bool Vector> class MatrixRows {
 public:
  using Source = Matrix;
  static constexpr bool along_k = true;
  static constexpr bool vector = Vector;
  static constexpr int extent = Extent;
  static constexpr int width = Vector ? 4 : 1;
  static constexpr int across = Depth / width;
  static constexpr int apart = Threads / across;
  static constexpr int pieces = Extent / apart;
  static constexpr int table_ints = 0;
  static_assert(Extent % apart == 0);

  __device__ MatrixRows(const Matrix& matrix, int first_row, int first_k, int*) : matrix_(matrix) {
    row_ = static_cast<int>(threadIdx.x) / across;
    depth_ = static_cast<int>(threadIdx.x) % across * width;
    k_ = first_k + depth_;
    left_ = matrix.rows - first_row - row_;
    from_ = matrix.data + static_cast<std::int64_t>(first_row + row_) * matrix.columns + k_;
  }

  template <class Put> __device__ __forceinline__ void tile(Put&& put) const {
    const int left = k_ < matrix_.columns ? left_ : 0;
#pragma unroll
    for (int i = 0; i < pieces; ++i) {
      put(i, from_ + static_cast<std::int64_t>(i * apart) * matrix_.columns, i * apart < left);
    }
  }
  __device__ __forceinline__ int line(int piece) const { return row_ + piece * apart; }
  __device__ __forceinline__ int depth(int) const { return depth_; }
  __device__ __forceinline__ void advance() {
    k_ += Depth;
    from_ += Depth;
  }

 private:
  const Matrix& matrix_;
  const float* from_;
  int row_, depth_, k_, left_;
};

// How operands that are not contiguous along K share out a tile: thread to a row of K and every so many columns of it, so that
// what a row costs to find is paid once.
template <int Extent, int Depth, int Threads, bool Vector> struct ColumnPieces {
  static constexpr bool along_k = false;
  static constexpr bool vector = Vector;
  static constexpr int extent = Extent;
  static constexpr int width = Vector ? 4 : 1;
  static constexpr int across = Vector ? (Threads / Depth > 8 ? Threads / Depth : 8) : 32;
  static constexpr int apart = Threads / across;  // rows of K
  static constexpr int deep = Depth / apart;
  static constexpr int wide = Extent / (across * width);
  static constexpr int pieces = deep * wide;
  static constexpr int table_ints = 0;
  static_assert(Depth % apart == 0 && Extent % (across * width) == 0);

  __device__ ColumnPieces() {
    row_ = static_cast<int>(threadIdx.x) / across;
    column_ = static_cast<int>(threadIdx.x) % across * width;
  }
  __device__ __forceinline__ int line(int piece) const { return column_ + piece % wide * across * width; }
  __device__ __forceinline__ int depth(int piece) const { return row_ + piece / wide * apart; }

  int row_, column_;
};

// A of wgrad: dy [pixels, k], whose rows are K.
template <int Extent, int Depth, int Threads, bool Vector> class MatrixColumns
    : public ColumnPieces<Extent, Depth, Threads, Vector> {
 public:
  using Base = ColumnPieces<Extent, Depth, Threads, Vector>;
  using Source = Matrix;

  __device__ MatrixColumns(const Matrix& matrix, int first_column, int first_k, int*) : matrix_(matrix) {
    k_ = first_k + this->row_;
    left_ = matrix.columns - first_column - this->column_;
    from_ = matrix.data + static_cast<std::int64_t>(k_) * matrix.columns + first_column + this->column_;
  }
  template <class Put> __device__ __forceinline__ void tile(Put&& put) const {
#pragma unroll
    for (int i = 0; i < Base::deep; ++i) {
      const int left = k_ + i * Base::apart < matrix_.rows ? left_ : 0;
#pragma unroll
      for (int j = 0; j < Base::wide; ++j) {
        const int to = j * Base::across * Base::width;
        put(i * Base::wide + j, from_ + static_cast<std::int64_t>(i * Base::apart) * matrix_.columns + to, to < left);
      }
    }
  }
  __device__ __forceinline__ void advance() {
    k_ += Depth;
    from_ += static_cast<std::int64_t>(Depth) * matrix_.columns;
  }

 private:
  const Matrix& matrix_;
  const float* from_;
  int k_, left_;
};

// B of wgrad: row k is output pixel k, column = (tap, channel).
template <int Extent, int Depth, int Threads, bool Vector> class PixelColumns
    : public ColumnPieces<Extent, Depth, Threads, Vector> {
 public:
  using Base = ColumnPieces<Extent, Depth, Threads, Vector>;
  using Source = PixelMap;

  __device__ PixelColumns(const PixelMap& map, int first_column, int first_k, int*) : map_(map) {
    k_ = first_k + this->row_;
#pragma unroll
    for (int j = 0; j < Base::wide; ++j) {
      const int column = first_column + this->column_ + j * Base::across * Base::width;
      const int tap = column / map.channels, r = tap / map.taps_w, s = tap - r * map.taps_w;
      tap_h_[j] = column < map.length ? r * map.step_h : outside;
      tap_w_[j] = s * map.step_w;
      shift_[j] = (r * map.step_h * map.width + tap_w_[j]) * map.channels + column - tap * map.channels;
    }
  }
  template <class Put> __device__ __forceinline__ void tile(Put&& put) const {
#pragma unroll
    for (int i = 0; i < Base::deep; ++i) {
      const int m = k_ + i * Base::apart;
      Pixel at{0, outside, 0};
      if (m < map_.pixels) at = first_pixel(map_, m);
      const float* from =
          map_.data + (static_cast<std::int64_t>(at.n * map_.height + at.h) * map_.width + at.w) * map_.channels;
#pragma unroll
      for (int j = 0; j < Base::wide; ++j) {
        const bool valid = static_cast<unsigned>(at.h + tap_h_[j]) < static_cast<unsigned>(map_.height) &&
                           static_cast<unsigned>(at.w + tap_w_[j]) < static_cast<unsigned>(map_.width);
        put(i * Base::wide + j, from + shift_[j], valid);
      }
    }
  }
  __device__ __forceinline__ void advance() { k_ += Depth; }

 private:
  static constexpr int outside = -(1 << 29);  // and twice that is outside too

  const PixelMap& map_;
  int k_;
  int tap_h_[Base::wide], tap_w_[Base::wide], shift_[Base::wide];
};

// Filters [k, r, s, c], of which the taps (first_r + i * step_r, first_s + j * step_s) are used.
struct TapMap {
  const float* data;
  int taps_w;               // used
  Divisor filters, across;  // k, and taps_w again
  int first;                // offset of the first tap
  int step_h, step_w;       // offsets between taps
  int per_filter;           // r * s * c
  int columns;              // c
  int length;               // taps used * k
};

// B of dgrad: k = (tap, filter), column = channel.
template <int Extent, int Depth, int Threads, bool Vector> class TapColumns
    : public ColumnPieces<Extent, Depth, Threads, Vector> {
 public:
  using Base = ColumnPieces<Extent, Depth, Threads, Vector>;
  using Source = TapMap;

  __device__ TapColumns(const TapMap& map, int first_column, int first_k, int*) : map_(map) {
    k_ = first_k + this->row_;
    left_ = map.columns - first_column - this->column_;
    from_ = map.data + map.first + first_column + this->column_;
  }
  template <class Put> __device__ __forceinline__ void tile(Put&& put) const {
#pragma unroll
    for (int i = 0; i < Base::deep; ++i) {
      const int k = k_ + i * Base::apart;
      const int tap = map_.filters.quotient(k), filter = k - tap * map_.filters.divisor;
      const int r = map_.across.quotient(tap), s = tap - r * map_.across.divisor;
      const float* from = from_ + static_cast<std::int64_t>(filter) * map_.per_filter + r * map_.step_h + s * map_.step_w;
      const int left = k < map_.length ? left_ : 0;
#pragma unroll
      for (int j = 0; j < Base::wide; ++j) {
        const int to = j * Base::across * Base::width;
        put(i * Base::wide + j, from + to, to < left);
      }
    }
  }
  __device__ __forceinline__ void advance() { k_ += Depth; }

 private:
  const TapMap& map_;
  const float* from_;
  int k_, left_;
};

}  // namespace shrike::kernels::gemm
