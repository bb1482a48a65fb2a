// Products of rows with packed panels.
#include "gemm.hpp"

#include <algorithm>
#include <vector>

#include "../blocks.hpp"
#include "shrike/core/threads.hpp"

namespace shrike::cpu {
namespace {

constexpr std::int64_t depth_block = 512;  // terms of sums at a time: a panel of the right operand is then 128 KiB with AVX-512

// What one call computes: some rows and columns of c, terms [k0, k1) of their sums. b is the first panel's, from row k0 on.
struct Block {
  std::int64_t first, count;     // rows
  std::int64_t column, columns;  // of c
  const float* b;
  std::int64_t b_panel;  // floats from a panel to the next
  std::int64_t k0, k1;
  std::vector<Run> runs;
  bool in_place = false;   // full panels of the right operand are
  Fetch* ahead = nullptr;  // what the next part of the depth will read
};

class Multiplication {
 public:
  Multiplication(const FloatKernels& isa, const ProductSizes& sizes, const LeftOperand& left, const RightOperand& right,
                 const Epilogue& epilogue, const Target& target)
      : isa_(isa), sizes_(sizes), left_(left), right_(right), epilogue_(epilogue), target_(target), piece_(left.piece()) {
    const std::int64_t depth = sizes.depth;
    // Whole pieces, or equal parts of one.
    step_ = piece_ == 0             ? std::min(depth, depth_block)
            : piece_ <= depth_block ? depth_block / piece_ * piece_
                                    : divide_up(piece_, divide_up(piece_, depth_block));
    if (epilogue.bias == nullptr) return;
    start_ = scratch_floats(panels() * isa.panel);
    std::fill_n(start_.data(), panels() * isa.panel, 0.0f);
    std::copy_n(epilogue.bias, sizes.columns, start_.data());
  }

  void by_rows(const float* packed) const;
  void by_columns() const;

 private:
  std::int64_t panels() const { return divide_up(sizes_.columns, isa_.panel); }
  std::int64_t end_of(std::int64_t k) const {  // of the part of the depth that begins at k
    const std::int64_t end = std::min(k + step_, sizes_.depth);
    return piece_ > depth_block ? std::min(end, (k / piece_ + 1) * piece_) : end;
  }
  void multiply(const Block& block, float* beside) const;
  void multiply_panel(const Block& block, const Run& run, std::int64_t begin, std::int64_t end, std::int64_t n,
                      float* beside) const;
  void scatter(const Block& block, const float* from) const;

  const FloatKernels& isa_;
  const ProductSizes& sizes_;
  const LeftOperand& left_;
  const RightOperand& right_;
  const Epilogue& epilogue_;
  const Target& target_;
  std::int64_t piece_, step_;  // of the depth
  Scratch start_;              // the bias, and zeros past the columns
};

// beside: [rows, columns] where the target's rows are no matrix. Where the part of the right operand stays in the second-level
// cache, rows of c are finished one tile after the other, which suits memory; else a panel meets all rows before the next.
void Multiplication::multiply(const Block& block, float* beside) const {
  constexpr std::int64_t cached = 256 << 10;
  if ((block.k1 - block.k0) * block.columns * 4 > cached) {
    for (std::int64_t n = 0; n < block.columns; n += isa_.panel) {
      for (const Run& run : block.runs) multiply_panel(block, run, 0, run.count, n, beside);
    }
    return;
  }
  for (const Run& run : block.runs) {
    const std::int64_t tiles = divide_up(run.count, isa_.rows);
    for (std::int64_t tile = 0; tile < tiles; ++tile) {
      const std::int64_t begin = run.count * tile / tiles, end = run.count * (tile + 1) / tiles;
      for (std::int64_t n = 0; n < block.columns; n += isa_.panel) multiply_panel(block, run, begin, end, n, beside);
    }
  }
}

// Rows [begin, end) of a run by the panel at the block's column n.
void Multiplication::multiply_panel(const Block& block, const Run& run, std::int64_t begin, std::int64_t end, std::int64_t n,
                                    float* beside) const {
  const std::int64_t row = run.first + begin, column = block.column + n, depth = block.k1 - block.k0;
  const bool whole = piece_ > 0 && depth > piece_;
  Product p{
      .segments = whole ? depth / piece_ : 1,
      .depth = whole ? piece_ : depth,
      .a = run.data + begin * run.stride,
      .a_row = run.stride,
      .a_segment = run.segment,
      .b = block.b + n / isa_.panel * block.b_panel,
      .b_step = isa_.panel,
      .c = beside != nullptr ? beside + (row - block.first) * block.columns + n : target_.c + row * target_.stride + column,
      .c_row = beside != nullptr ? block.columns : target_.stride};
  if (block.in_place && n + isa_.panel <= block.columns) {
    const Located b = right_.panel_in_place(column, block.k0);
    p.b = b.data;
    p.b_step = b.stride;
  }
  if (end - begin < run.count && n + isa_.panel < block.columns) p.next_c = p.c + isa_.panel;
  if (block.ahead != nullptr && block.ahead->rows > 0) p.fetch = block.ahead;
  p.add = block.k0 > 0;
  if (!p.add && epilogue_.bias != nullptr) p.start = start_.data() + column;
  if (block.k1 == sizes_.depth) {
    p.relu = epilogue_.relu;
    if (epilogue_.residual != nullptr) p.residual = epilogue_.residual + row * target_.stride + column;
  }
  isa_.multiply_rows(end - begin, static_cast<int>(std::min<std::int64_t>(isa_.panel, block.columns - n)), p);
}

void Multiplication::scatter(const Block& block, const float* from) const {
  for (std::int64_t row = 0; row < block.count; ++row) {
    std::copy_n(from + row * block.columns, block.columns, target_.row(block.first + row) + block.column);
  }
}

// Many rows: all of the right operand is packed; a chunk is a block of rows, gathered a part of the depth at a time, by some
// panels.
void Multiplication::by_rows(const float* packed) const {
  const auto [rows, columns, depth] = sizes_;
  const std::int64_t most_rows = 16 * isa_.rows;
  const std::int64_t wide = std::clamp<std::int64_t>((128 << 20) / (2 * most_rows * depth) / isa_.panel, 4, 16);  // panels
  const std::int64_t column_blocks = divide_up(panels(), wide);
  // Small products have smaller blocks, so that there are several for each thread.
  const std::int64_t several = std::min(divide_up(16, column_blocks), divide_up(rows, 4 * isa_.rows));
  const std::int64_t row_blocks = std::max(divide_up(rows, most_rows), several);
  const std::int64_t chunks = row_blocks * column_blocks;
  const int slots = thread_slots(chunks);
  const std::int64_t block_rows = divide_up(rows, row_blocks);
  const bool scattered = target_.line != 0;
  const std::int64_t a_size = left_.in_place() ? 0 : block_rows * copy_stride(std::min(depth, step_));
  const std::int64_t c_size = scattered ? block_rows * std::min(divide_up(panels(), column_blocks) * isa_.panel, columns) : 0;
  const Scratch scratch = scratch_floats(slots * (a_size + c_size));
  parallel_chunks(chunks, slots, [&](std::int64_t chunk, int slot) {
    float* const a = scratch.data() + slot * (a_size + c_size);
    float* const c = scattered ? a + a_size : nullptr;
    const std::int64_t i = chunk / column_blocks, j = chunk % column_blocks;
    Block block{};
    block.first = rows * i / row_blocks;
    block.count = rows * (i + 1) / row_blocks - block.first;
    const std::int64_t panel = panels() * j / column_blocks;
    block.column = panel * isa_.panel;
    block.columns = std::min(panels() * (j + 1) / column_blocks * isa_.panel, columns) - block.column;
    block.b_panel = depth * isa_.panel;
    for (std::int64_t k = 0; k < depth; k = block.k1) {
      block.k0 = k;
      block.k1 = end_of(k);
      left_.runs(block.first, block.count, k, block.k1, isa_.rows, a, block.runs);
      block.b = packed + panel * block.b_panel + k * isa_.panel;
      multiply(block, c);
    }
    if (scattered) scatter(block, c);
  });
}

// Few rows, or a right operand too large for a copy: a chunk is some columns, whose panels are packed when they are needed, by
// all rows.
void Multiplication::by_columns() const {
  const auto [rows, columns, depth] = sizes_;
  const std::int64_t wide = std::clamp<std::int64_t>((24 << 20) / (2 * rows * depth) / isa_.panel, right_.least_panels(), 8);
  const std::int64_t chunks = divide_up(panels(), wide);
  const int slots = thread_slots(chunks);
  const bool scattered = target_.line != 0;
  const std::int64_t step = std::min(depth, step_), most_columns = divide_up(panels(), chunks) * isa_.panel;
  const std::int64_t a_size = left_.in_place() ? 0 : rows * copy_stride(step);
  const std::int64_t b_size = step * most_columns, c_size = scattered ? rows * std::min(most_columns, columns) : 0;
  const std::int64_t each = a_size + b_size + c_size;
  const Scratch scratch = scratch_floats(slots * each);
  parallel_chunks(chunks, slots, [&](std::int64_t chunk, int slot) {
    float* const b = scratch.data() + slot * each;
    float* const a = b + b_size;
    float* const c = scattered ? a + a_size : nullptr;
    Block block{};
    block.count = rows;
    block.column = panels() * chunk / chunks * isa_.panel;
    block.columns = std::min(panels() * (chunk + 1) / chunks * isa_.panel, columns) - block.column;
    block.b = b;
    block.in_place = rows <= isa_.rows && right_.panel_in_place(0, 0).data != nullptr;
    for (std::int64_t k = 0; k < depth; k = block.k1) {
      block.k0 = k;
      block.k1 = end_of(k);
      block.b_panel = (block.k1 - k) * isa_.panel;
      for (std::int64_t n = 0; n < block.columns; n += isa_.panel) {
        const auto used = static_cast<int>(std::min<std::int64_t>(isa_.panel, block.columns - n));
        if (block.in_place && used == isa_.panel) continue;
        right_.pack(isa_, block.column + n, used, block.k0, block.k1, b + n / isa_.panel * block.b_panel);
      }
      left_.runs(0, rows, k, block.k1, isa_.rows, a, block.runs);
      Fetch ahead = right_.region(block.column, block.columns, block.k1, end_of(block.k1));
      if (block.k1 < depth && ahead.rows > 0 && rows > 2 * isa_.rows) {
        const std::int64_t tiles = divide_up(rows, isa_.rows) * divide_up(block.columns, isa_.panel);
        ahead.lines =
            divide_up(ahead.rows * divide_up(ahead.width, 16), tiles * std::max<std::int64_t>((block.k1 - k) / 16, 1));
        block.ahead = &ahead;
      } else {
        block.ahead = nullptr;
      }
      multiply(block, c);
    }
    if (scattered) scatter(block, c);
  });
}

// Rows that are fewer than the columns, where columns lie in one piece: the left operand is packed in place of the right one,
// which is read where it lies, and what is computed is c's transpose. A chunk is some columns of c.
void multiply_transposed(const FloatKernels& isa, const ProductSizes& sizes, const Located& left, const Located& right,
                         const Epilogue& epilogue, const Target& target) {
  const auto [rows, columns, depth] = sizes;
  const PackedRight packed(isa, rows, depth, MatrixRight(left.data, left.stride, true));
  const std::int64_t chunks = divide_up(columns, 8 * isa.rows), width = divide_up(rows, isa.panel) * isa.panel;
  const std::int64_t each = divide_up(columns, chunks) * width;
  const int slots = thread_slots(chunks);
  const Scratch scratch = scratch_floats(slots * each);
  parallel_chunks(chunks, slots, [&](std::int64_t chunk, int slot) {
    const std::int64_t first = columns * chunk / chunks, count = columns * (chunk + 1) / chunks - first;
    float* const sums = scratch.data() + slot * each;
    for (std::int64_t n = 0; n < count; ++n) {
      std::fill_n(sums + n * width, width, epilogue.bias != nullptr ? epilogue.bias[first + n] : 0.0f);
    }
    for (std::int64_t k = 0; k < depth; k += depth_block) {
      for (std::int64_t row = 0; row < rows; row += isa.panel) {
        const Product p{.depth = std::min(depth_block, depth - k),
                        .a = right.data + first * right.stride + k,
                        .a_row = right.stride,
                        .b = packed.data() + row * depth + k * isa.panel,
                        .b_step = isa.panel,
                        .c = sums + row,
                        .c_row = width,
                        .add = true};
        const std::int64_t whole_vectors = divide_up(rows - row, isa.lanes) * isa.lanes;
        isa.multiply_rows(count, static_cast<int>(std::min<std::int64_t>(isa.panel, whole_vectors)), p);
      }
    }
    for (std::int64_t row = 0; row < rows; ++row) {
      const std::int64_t at = row * target.stride + first;
      for (std::int64_t n = 0; n < count; ++n) {
        const float sum = sums[n * width + row] + (epilogue.residual != nullptr ? epilogue.residual[at + n] : 0.0f);
        target.c[at + n] = epilogue.relu && sum < 0.0f ? 0.0f : sum;
      }
    }
  });
}

}  // namespace

// A part of the depth for several panels at a time: rows of a matrix are then read in long pieces.
PackedRight::PackedRight(const FloatKernels& isa, std::int64_t columns, std::int64_t depth, const RightOperand& right)
    : data_(scratch_floats(divide_up(columns, isa.panel) * depth * isa.panel)) {
  constexpr std::int64_t most_depth = 128, most_panels = 8;
  const std::int64_t panels = divide_up(columns, isa.panel), parts = divide_up(depth, most_depth),
                     groups = divide_up(panels, most_panels);
  parallel_for(parts * groups, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t job = begin; job < end; ++job) {
      const std::int64_t part = job / groups, group = job % groups;
      const std::int64_t k0 = depth * part / parts, k1 = depth * (part + 1) / parts;
      for (std::int64_t panel = panels * group / groups; panel < panels * (group + 1) / groups; ++panel) {
        const auto used = static_cast<int>(std::min<std::int64_t>(isa.panel, columns - panel * isa.panel));
        right.pack(isa, panel * isa.panel, used, k0, k1, data_.data() + (panel * depth + k0) * isa.panel);
      }
    }
  });
}

void multiply(const FloatKernels& isa, const ProductSizes& sizes, const LeftOperand& left, const RightOperand& right,
              const PackedRight* packed, const Epilogue& epilogue, const Target& target) {
  const Multiplication product(isa, sizes, left, right, epilogue, target);
  if (packed != nullptr) return product.by_rows(packed->data());
  constexpr std::int64_t most_transposed = 192;
  const std::int64_t rows = sizes.rows;
  if (const Located columns = right.columns_in_place(); columns.data != nullptr && left.in_place() && target.line == 0 &&
                                                        rows > 1 && rows <= std::min(sizes.columns, most_transposed)) {
    return multiply_transposed(isa, sizes, left.rows(0, rows, 0, sizes.depth, nullptr), columns, epilogue, target);
  }
  constexpr std::int64_t most_packed = std::int64_t{16} << 20, few_rows = 192, many_rows = 1024, many_panels = 16;
  const bool by_columns = sizes.rows <= few_rows && sizes.columns >= many_panels * isa.panel;
  const bool too_large = sizes.columns * sizes.depth * 4 > (sizes.rows < many_rows ? most_packed : 4 * most_packed);
  if (by_columns || too_large) return product.by_columns();
  const PackedRight made(isa, sizes.columns, sizes.depth, right);
  product.by_rows(made.data());
}

}  // namespace shrike::cpu
