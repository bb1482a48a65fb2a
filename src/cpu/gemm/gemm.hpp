// Matrix products of any shape: packed panels of the right operand, blocks of rows of the left one that stay in a core's cache,
// and the tiles in registers of float_kernels.hpp. After Goto and van de Geijn, "Anatomy of High-Performance Matrix
// Multiplication" (2008), except that rows of the left operand are read where they lie or from a plain copy: broadcasts need no
// panels.
//
// How work is cut depends on the sizes alone, and every sum is made in the order of the depth, so results do not depend on the
// number of threads.
#pragma once

#include <cstdint>
#include <vector>

#include "../float_kernels.hpp"
#include "../scratch.hpp"

namespace shrike::cpu {

// Some rows, where they were asked for or elsewhere.
struct Located {
  const float* data;
  std::int64_t stride;  // floats from row to row
};

// Rows first .. first + count - 1 of the left operand, and as many columns of it as were asked for: in segments of whole
// pieces, if they are more than one piece.
struct Run {
  std::int64_t first, count;
  const float* data;
  std::int64_t stride;       // floats from row to row
  std::int64_t segment = 0;  // and from a piece to the next
};

// The left operand, [rows, depth].
struct LeftOperand {
  virtual ~LeftOperand() = default;
  // Columns [k0, k1) of `count` rows, from row `first` on: in place, or written to `to`, which has copy_stride(k1 - k0) * count
  // floats.
  virtual Located rows(std::int64_t first, std::int64_t count, std::int64_t k0, std::int64_t k1, float* to) const = 0;
  virtual bool in_place() const { return false; }  // whether `to` is never needed

  // The same rows in runs, of which as many as possible are in place; a tile has up to `tile` rows. k0 and k1 are multiples of
  // the piece, or of one piece.
  virtual std::int64_t piece() const { return 0; }  // columns that lie side by side, if not all
  virtual void runs(std::int64_t first, std::int64_t count, std::int64_t k0, std::int64_t k1, std::int64_t tile, float* to,
                    std::vector<Run>& result) const {
    static_cast<void>(tile);
    const Located where = rows(first, count, k0, k1, to);
    result.assign(1, {first, count, where.data, where.stride, piece()});
  }
};

// Rows of copies are padded, so that they do not share a cache's sets, and may be overwritten by up to a vector at their end.
inline std::int64_t copy_stride(std::int64_t width) { return (width + 15) / 16 * 16 + 16; }

// The right operand, [depth, columns].
struct RightOperand {
  virtual ~RightOperand() = default;
  // to [k1 - k0, panel] = rows [k0, k1) of `columns` <= panel columns from column `first` on, with zeros past them.
  virtual void pack(const FloatKernels& isa, std::int64_t first, int columns, std::int64_t k0, std::int64_t k1,
                    float* to) const = 0;
  // Row k0 from column `first` on, where a full panel lies there as a product reads it; else null.
  virtual Located panel_in_place(std::int64_t first, std::int64_t k0) const {
    static_cast<void>(first), static_cast<void>(k0);
    return {nullptr, 0};
  }
  // The first column where columns lie in memory, each in one piece; else null.
  virtual Located columns_in_place() const { return {nullptr, 0}; }
  // Where rows [k0, k1) of some columns lie, for them to be fetched in time; `lines` is not set. No rows: not in one matrix.
  virtual Fetch region(std::int64_t first, std::int64_t columns, std::int64_t k0, std::int64_t k1) const {
    static_cast<void>(first), static_cast<void>(columns), static_cast<void>(k0), static_cast<void>(k1);
    return {nullptr, 0, 0, 0, 0};
  }
  // Panels that are best packed together, so that memory is read in long pieces.
  virtual std::int64_t least_panels() const { return 8; }
};

// A matrix in memory, or its transpose.
struct MatrixLeft : LeftOperand {
  MatrixLeft(const float* data_, std::int64_t stride_) : data(data_), stride(stride_) {}
  Located rows(std::int64_t first, std::int64_t, std::int64_t k0, std::int64_t, float*) const override {
    return {data + first * stride + k0, stride};
  }
  bool in_place() const override { return true; }
  const float* data;
  std::int64_t stride;
};

struct MatrixRight : RightOperand {
  MatrixRight(const float* data_, std::int64_t stride_, bool transposed_)
      : data(data_), stride(stride_), transposed(transposed_) {}
  void pack(const FloatKernels& isa, std::int64_t first, int columns, std::int64_t k0, std::int64_t k1,
            float* to) const override {
    if (transposed) return isa.pack_transposed(columns, k1 - k0, data + first * stride + k0, stride, to);
    isa.pack_rows(columns, k1 - k0, data + k0 * stride + first, stride, to);
  }
  Located panel_in_place(std::int64_t first, std::int64_t k0) const override {
    if (transposed) return {nullptr, 0};
    return {data + k0 * stride + first, stride};
  }
  Located columns_in_place() const override { return {transposed ? data : nullptr, stride}; }
  Fetch region(std::int64_t first, std::int64_t columns, std::int64_t k0, std::int64_t k1) const override {
    if (transposed) return {data + first * stride + k0, columns, k1 - k0, stride, 0};
    return {data + k0 * stride + first, k1 - k0, columns, stride, 0};
  }
  std::int64_t least_panels() const override { return transposed ? 2 : 8; }
  const float* data;
  std::int64_t stride;
  bool transposed;  // column by column: element [k, n] is at data[n * stride + k]
};

// What becomes of the sums: c = sums + bias + residual, clamped below at 0 with relu.
struct Epilogue {
  const float* bias = nullptr;      // [columns]
  const float* residual = nullptr;  // with c's rows
  bool relu = false;
};

// Where rows of c go: in a matrix or, beside each other only within lines, to places of their own.
struct Target {
  float* c;
  std::int64_t stride;                             // of a row
  std::int64_t line = 0;                           // rows of c in a line, or 0: there are no lines
  std::int64_t lines = 1;                          // of an image
  std::int64_t line_stride = 0, image_stride = 0;  // floats
  float* row(std::int64_t number) const {
    if (line == 0) return c + number * stride;
    return c + number / line / lines * image_stride + number / line % lines * line_stride + number % line * stride;
  }
};

// The right operand as a product reads it: [panel][depth][panel columns].
class PackedRight {
 public:
  PackedRight() = default;
  PackedRight(const FloatKernels& isa, std::int64_t columns, std::int64_t depth, const RightOperand& right);
  const float* data() const { return data_.data(); }

 private:
  Scratch data_;
};

struct ProductSizes {
  std::int64_t rows, columns, depth;
};

// c [rows, columns] = left * right and what the epilogue says. packed: the right operand's, or null.
void multiply(const FloatKernels& isa, const ProductSizes& sizes, const LeftOperand& left, const RightOperand& right,
              const PackedRight* packed, const Epilogue& epilogue, const Target& target);

// dw [filters, columns] = dy^T x and dbias [filters] = the sums of dy over its rows; each only if it is not null. dy is
// [pixels, filters] with rows dy_stride apart, and counts only where y, laid out alike, is positive, if that is not null. x is
// [pixels, columns]; rows of dw are dw_stride apart.
struct OuterProduct {
  std::int64_t pixels, filters, columns;
  const float* dy;
  const float* y;
  std::int64_t dy_stride;
  float* dw;
  std::int64_t dw_stride;
  float* dbias;
};
void multiply_outer(const FloatKernels& isa, const OuterProduct& of, const LeftOperand& x);

}  // namespace shrike::cpu
