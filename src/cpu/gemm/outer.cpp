// Products over the rows of two matrices: gradients of weights.
#include <algorithm>
#include <vector>

#include "../blocks.hpp"
#include "gemm.hpp"
#include "gradients.hpp"
#include "shrike/core/threads.hpp"

namespace shrike::cpu {
namespace {

constexpr std::int64_t pixel_block = 128;

// How the product is cut: blocks of filters and columns, and parts of the pixels, each with sums of its own.
struct Cut {
  std::int64_t filters, columns, parts;  // blocks
  Cut(const FloatKernels& isa, const OuterProduct& z) {
    filters = divide_up(z.filters, 36 * isa.rows);
    columns = divide_up(z.columns, 8 * isa.panel);
    constexpr std::int64_t enough = 16, most_bytes = 32 << 20;
    parts = std::min({enough / (filters * columns), z.pixels / (4 * pixel_block), most_bytes / (z.filters * z.columns * 4)});
    parts = std::max<std::int64_t>(parts, 1);
  }
  std::int64_t chunks() const { return filters * columns * parts; }
};

// Some columns of x: b [pixel][panel columns], a panel after the other.
struct Right {
  const float* data;
  std::int64_t stride, panel;  // floats from row to row, and from a panel to the next
};

// Sums over a chunk's pixels.
class Outer {
 public:
  Outer(const FloatKernels& isa, const OuterProduct& z, const LeftOperand& x, const Cut& cut)
      : isa_(isa),
        z_(z),
        x_(x),
        cut_(cut),
        filters_(divide_up(divide_up(z.filters, isa.rows), cut.filters) * isa.rows),
        columns_(divide_up(divide_up(z.columns, isa.panel), cut.columns) * isa.panel) {}

  std::int64_t scratch_size() const {
    return pixel_block * (copy_stride(columns_) + copy_stride(filters_)) + copy_stride(filters_);
  }

  // to [filters, columns], rows to_stride apart; bias [filters] or null.
  void sum(std::int64_t chunk, float* scratch, float* to, std::int64_t to_stride, double* bias) const;

 private:
  Located gradients(std::int64_t pixel, std::int64_t count, std::int64_t k0, std::int64_t filters, float* copy) const;
  Right columns(std::int64_t pixel, std::int64_t count, std::int64_t n0, std::int64_t n1, float* copy) const;
  void multiply(const Located& dy, const Right& x, std::int64_t count, std::int64_t filters, std::int64_t columns, bool first,
                float* to, std::int64_t to_stride, Fetch (&ahead)[2]) const;

  const FloatKernels& isa_;
  const OuterProduct& z_;
  const LeftOperand& x_;
  const Cut& cut_;
  std::int64_t filters_, columns_;  // the most of a chunk
};

// Some rows of dy, with zeros where y is not positive. They are copied where rows as they lie would share a cache's sets.
Located Outer::gradients(std::int64_t pixel, std::int64_t count, std::int64_t k0, std::int64_t filters, float* copy) const {
  const std::int64_t width = copy_stride(filters);
  const float* const dy = z_.dy + pixel * z_.dy_stride + k0;
  if (z_.y == nullptr && z_.dy_stride <= 64) return {dy, z_.dy_stride};
  const float* const y = z_.y != nullptr ? z_.y + pixel * z_.dy_stride + k0 : nullptr;
  copy_gradient_rows(count, filters, dy, y, z_.dy_stride, copy, width);
  return {copy, width};
}

// Rows that lie in memory are copied panel by panel where they are far apart: they would share a cache's sets.
Right Outer::columns(std::int64_t pixel, std::int64_t count, std::int64_t n0, std::int64_t n1, float* copy) const {
  const Located x = x_.rows(pixel, count, n0, n1, copy);
  if (x.data == copy) return {x.data, x.stride, isa_.panel};
  constexpr std::int64_t close = 512;
  if ((n1 - n0) % isa_.lanes == 0 && x.stride <= close) return {x.data, x.stride, isa_.panel};
  for (std::int64_t n = n0; n < n1; n += isa_.panel) {
    const auto used = static_cast<int>(std::min<std::int64_t>(isa_.panel, n1 - n));
    isa_.pack_rows(used, count, x.data + n - n0, x.stride, copy + (n - n0) * count);
  }
  return {copy, isa_.panel, isa_.panel * count};
}

// ahead: the next block's dy and x, fetched meanwhile.
void Outer::multiply(const Located& dy, const Right& x, std::int64_t count, std::int64_t filters, std::int64_t columns,
                     bool first, float* to, std::int64_t to_stride, Fetch (&ahead)[2]) const {
  for (std::int64_t n = 0; n < columns; n += isa_.panel) {
    Product p{.depth = count,
              .a = dy.data,
              .a_row = 1,
              .a_step = dy.stride,
              .b = x.data + n / isa_.panel * x.panel,
              .b_step = x.stride,
              .c = to + n,
              .c_row = to_stride,
              .add = !first};
    p.fetch = ahead[0].rows > 0 ? &ahead[0] : ahead[1].rows > 0 ? &ahead[1] : nullptr;
    isa_.multiply_columns(filters, static_cast<int>(std::min<std::int64_t>(isa_.panel, columns - n)), p);
  }
}

void Outer::sum(std::int64_t chunk, float* scratch, float* to, std::int64_t to_stride, double* bias) const {
  const std::int64_t part = chunk / (cut_.filters * cut_.columns), i = chunk / cut_.columns % cut_.filters,
                     j = chunk % cut_.columns;
  const std::int64_t tiles_of_all = divide_up(z_.filters, isa_.rows), panels = divide_up(z_.columns, isa_.panel);
  const std::int64_t k0 = tiles_of_all * i / cut_.filters * isa_.rows,
                     k1 = std::min(tiles_of_all * (i + 1) / cut_.filters * isa_.rows, z_.filters);
  const std::int64_t n0 = panels * j / cut_.columns * isa_.panel,
                     n1 = std::min(panels * (j + 1) / cut_.columns * isa_.panel, z_.columns);
  const std::int64_t begin = z_.pixels * part / cut_.parts, end = z_.pixels * (part + 1) / cut_.parts;
  float* const columns = scratch;
  float* const copy = columns + pixel_block * copy_stride(columns_);
  float* const sums = copy + pixel_block * copy_stride(filters_);
  // Lines to fetch for every 16 steps of a tile, so that all are when the last tile is done.
  const std::int64_t calls = divide_up(k1 - k0, isa_.rows) * divide_up(n1 - n0, isa_.panel) * (pixel_block / 16);
  const std::int64_t lines = divide_up(pixel_block * (divide_up(k1 - k0, 16) + divide_up(n1 - n0, 16)), calls) + 1;
  for (std::int64_t pixel = begin; pixel < end; pixel += pixel_block) {
    const std::int64_t count = std::min(pixel_block, end - pixel);
    const Located dy = gradients(pixel, count, k0, k1 - k0, copy);
    if (bias != nullptr && j == 0) add_row_sums(count, k1 - k0, dy, sums, bias + part * z_.filters + k0);
    if (to == nullptr) continue;
    const Right x = this->columns(pixel, count, n0, n1, columns);
    const std::int64_t next = pixel + count, next_count = std::min(pixel_block, end - next);
    Fetch ahead[2] = {{z_.dy + next * z_.dy_stride + k0, next_count, k1 - k0, z_.dy_stride, lines}, {nullptr, 0, 0, 0, lines}};
    if (x_.in_place() && next_count > 0) {
      const Located where = x_.rows(next, next_count, n0, n1, nullptr);
      ahead[1] = {where.data, next_count, n1 - n0, where.stride, lines};
    }
    multiply(dy, x, count, k1 - k0, n1 - n0, pixel == begin, to + k0 * to_stride + n0, to_stride, ahead);
  }
}

// to [filters, columns] = the sum of the parts, in their order.
void add_parts(const OuterProduct& z, std::int64_t parts, const float* sums) {
  const std::int64_t size = z.filters * z.columns;
  parallel_for(z.filters, std::max<std::int64_t>(1, (1 << 14) / z.columns), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t k = begin; k < end; ++k) {
      float* __restrict to = z.dw + k * z.dw_stride;
      std::copy_n(sums + k * z.columns, z.columns, to);
      for (std::int64_t part = 1; part < parts; ++part) {
        const float* __restrict from = sums + part * size + k * z.columns;
        for (std::int64_t i = 0; i < z.columns; ++i) to[i] += from[i];
      }
    }
  });
}

// Few pixels: both operands are prepared once, and each block of dw is computed in one go.
void multiply_few_pixels(const FloatKernels& isa, const OuterProduct& z, const Located& x) {
  const std::int64_t tiles = divide_up(z.filters, isa.rows), panels = divide_up(z.columns, isa.panel);
  // dy where y is positive, and its tiles [tile][pixel][filter].
  const Scratch masked = scratch_floats(z.y != nullptr ? z.pixels * z.filters : 0);
  const Scratch copy = scratch_floats(tiles * z.pixels * isa.rows);
  const float* const dy = z.y != nullptr ? masked.data() : z.dy;
  const std::int64_t stride = z.y != nullptr ? z.filters : z.dy_stride;
  if (z.y != nullptr) {
    parallel_for(z.pixels, std::max<std::int64_t>(1, (1 << 14) / z.filters), [&](std::int64_t begin, std::int64_t end) {
      const std::int64_t at = begin * z.dy_stride;
      copy_gradient_rows(end - begin, z.filters, z.dy + at, z.y + at, z.dy_stride, masked.data() + begin * stride, stride);
    });
  }
  if (z.dbias != nullptr) {
    const Scratch sums = scratch_floats(z.filters);
    std::vector<double> bias(static_cast<std::size_t>(z.filters));
    parallel_for(z.filters, 256, [&](std::int64_t begin, std::int64_t end) {
      add_row_sums(z.pixels, end - begin, {dy + begin, stride}, sums.data() + begin, bias.data() + begin);
    });
    sum_bias_parts(1, z.filters, bias.data(), z.dbias);
  }
  if (z.dw == nullptr) return;
  parallel_for(z.pixels, std::max<std::int64_t>(1, (1 << 14) / z.filters), [&](std::int64_t begin, std::int64_t end) {
    isa.pack_tiles(z.filters, end - begin, dy + begin * stride, stride, copy.data() + begin * isa.rows, z.pixels * isa.rows);
  });
  const PackedRight right(isa, z.columns, z.pixels, MatrixRight(x.data, x.stride, false));
  const std::int64_t columns = divide_up(panels, 8);  // blocks
  const std::int64_t rows = std::max(divide_up(tiles, 36), std::min(divide_up(16, columns), divide_up(tiles, 4)));
  parallel_for(rows * columns, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t job = begin; job < end; ++job) {
      const std::int64_t i = job / columns, j = job % columns;
      const std::int64_t k0 = tiles * i / rows * isa.rows, k1 = std::min(tiles * (i + 1) / rows * isa.rows, z.filters);
      // A tile of rows after the other: dw is written in long pieces.
      for (std::int64_t k = k0; k < k1; k += isa.rows) {
        for (std::int64_t panel = panels * j / columns; panel < panels * (j + 1) / columns; ++panel) {
          const std::int64_t n = panel * isa.panel;
          float* const c = z.dw + k * z.dw_stride + n;
          isa.multiply_columns(std::min<std::int64_t>(isa.rows, k1 - k),
                               static_cast<int>(std::min<std::int64_t>(isa.panel, z.columns - n)),
                               {.depth = z.pixels,
                                .a = copy.data() + k * z.pixels,
                                .a_row = 1,
                                .a_step = isa.rows,
                                .b = right.data() + panel * z.pixels * isa.panel,
                                .b_step = isa.panel,
                                .c = c,
                                .c_row = z.dw_stride,
                                .next_c = panel + 1 < panels * (j + 1) / columns ? c + isa.panel : nullptr});
        }
      }
    }
  });
}

}  // namespace

void multiply_outer(const FloatKernels& isa, const OuterProduct& z, const LeftOperand& x) {
  constexpr std::int64_t few_pixels = 512;
  if (x.in_place() && z.pixels <= few_pixels) {
    return multiply_few_pixels(isa, z, x.rows(0, z.pixels, 0, z.columns, nullptr));
  }
  const Cut cut(isa, z);
  const Outer outer(isa, z, x, cut);
  const bool own = cut.parts > 1 && z.dw != nullptr;
  const std::int64_t size = z.filters * z.columns, each = outer.scratch_size(), chunks = cut.chunks();
  const int slots = thread_slots(chunks);
  const Scratch sums = scratch_floats(own ? cut.parts * size : 0), scratch = scratch_floats(slots * each);
  std::vector<double> bias(z.dbias != nullptr ? static_cast<std::size_t>(cut.parts * z.filters) : 0);
  parallel_chunks(chunks, slots, [&](std::int64_t chunk, int slot) {
    float* const to = own ? sums.data() + chunk / (cut.filters * cut.columns) * size : z.dw;
    outer.sum(chunk, scratch.data() + slot * each, to, own ? z.columns : z.dw_stride,
              z.dbias != nullptr ? bias.data() : nullptr);
  });
  if (own) add_parts(z, cut.parts, sums.data());
  sum_bias_parts(cut.parts, z.filters, bias.data(), z.dbias);
}

}  // namespace shrike::cpu
