// Products over the rows of two matrices: gradients of weights.
#include <algorithm>
#include <vector>

#include "gemm.hpp"
#include "shrike/core/threads.hpp"

namespace shrike::cpu {
namespace {

constexpr std::int64_t pixel_block = 256;

std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// How the product is cut: blocks of filters and columns, and parts of the pixels, each with sums of its own.
struct Cut {
  std::int64_t filters, columns, parts;  // blocks
  Cut(const FloatKernels& isa, const OuterProduct& z) {
    filters = divide_up(z.filters, 36 * isa.rows);
    columns = divide_up(z.columns, 4 * isa.panel);
    constexpr std::int64_t enough = 16, most_bytes = 32 << 20;
    parts = std::min({enough / (filters * columns), z.pixels / (4 * pixel_block), most_bytes / (z.filters * z.columns * 4)});
    parts = std::max<std::int64_t>(parts, 1);
  }
  std::int64_t chunks() const { return filters * columns * parts; }
};

// Sums over a chunk's pixels.
class Outer {
 public:
  Outer(const FloatKernels& isa, const OuterProduct& z, const LeftOperand& x, const Cut& cut)
      : isa_(isa), z_(z), x_(x), cut_(cut),
        filters_(divide_up(divide_up(z.filters, isa.rows), cut.filters) * isa.rows),
        columns_(divide_up(divide_up(z.columns, isa.panel), cut.columns) * isa.panel),
        zeros_(scratch_floats(isa.panel)) {
    std::fill_n(zeros_.data(), isa.panel, 0.0f);
  }

  std::int64_t scratch_size() const {
    return pixel_block * (copy_stride(columns_) + copy_stride(filters_)) + filters_;
  }

  // to [filters, columns], rows to_stride apart; bias [filters] or null.
  void sum(std::int64_t chunk, float* scratch, float* to, std::int64_t to_stride, double* bias) const;

 private:
  Located gradients(std::int64_t pixel, std::int64_t count, std::int64_t k0, std::int64_t filters, float* copy) const;
  void multiply(std::int64_t count, std::int64_t filters, std::int64_t columns, const Located& dy, const Located& x, bool first,
                float* to, std::int64_t to_stride) const;

  const FloatKernels& isa_;
  const OuterProduct& z_;
  const LeftOperand& x_;
  const Cut& cut_;
  std::int64_t filters_, columns_;  // the most of a chunk
  Scratch zeros_;
};

// Some rows of dy, with zeros where y is not positive. They are copied: rows as they lie may share a cache's sets.
Located Outer::gradients(std::int64_t pixel, std::int64_t count, std::int64_t k0, std::int64_t filters, float* copy) const {
  const std::int64_t width = copy_stride(filters);
  for (std::int64_t i = 0; i < count; ++i) {
    const float* __restrict from = z_.dy + (pixel + i) * z_.dy_stride + k0;
    float* __restrict to = copy + i * width;
    if (z_.y == nullptr) {
      std::copy_n(from, filters, to);
    } else {
      const float* __restrict y = z_.y + (pixel + i) * z_.dy_stride + k0;
      for (std::int64_t k = 0; k < filters; ++k) to[k] = y[k] > 0.0f ? from[k] : 0.0f;
    }
  }
  return {copy, width};
}

// bias [filters] += the sums of dy's rows; sums [filters] is working memory.
void add_rows(std::int64_t count, std::int64_t filters, const Located& dy, float* __restrict sums, double* bias) {
  std::fill_n(sums, filters, 0.0f);
  for (std::int64_t i = 0; i < count; ++i) {
    const float* __restrict from = dy.data + i * dy.stride;
    for (std::int64_t k = 0; k < filters; ++k) sums[k] += from[k];
  }
  for (std::int64_t k = 0; k < filters; ++k) bias[k] += static_cast<double>(sums[k]);
}

void Outer::multiply(std::int64_t count, std::int64_t filters, std::int64_t columns, const Located& dy, const Located& x,
                     bool first, float* to, std::int64_t to_stride) const {
  for (std::int64_t n = 0; n < columns; n += isa_.panel) {
    Product p{.depth = count, .a = dy.data, .a_row = 1, .a_step = dy.stride, .b = x.data + n, .b_step = x.stride, .c = to + n,
              .c_row = to_stride};
    if (first) p.start = zeros_.data();
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
  for (std::int64_t pixel = begin; pixel < end; pixel += pixel_block) {
    const std::int64_t count = std::min(pixel_block, end - pixel);
    const Located dy = gradients(pixel, count, k0, k1 - k0, copy);
    if (bias != nullptr && j == 0) add_rows(count, k1 - k0, dy, sums, bias + part * z_.filters + k0);
    if (to == nullptr) continue;
    Located x = x_.rows(pixel, count, n0, n1, columns);
    if (x.data != columns) {  // rows as they lie may share a cache's sets, and end before a vector does
      const std::int64_t stride = copy_stride(n1 - n0);
      for (std::int64_t row = 0; row < count; ++row) std::copy_n(x.data + row * x.stride, n1 - n0, columns + row * stride);
      x = {columns, stride};
    }
    multiply(count, k1 - k0, n1 - n0, dy, x, pixel == begin, to + k0 * to_stride + n0, to_stride);
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

}  // namespace

void multiply_outer(const FloatKernels& isa, const OuterProduct& z, const LeftOperand& x) {
  const Cut cut(isa, z);
  const Outer outer(isa, z, x, cut);
  const bool own = cut.parts > 1 && z.dw != nullptr;
  const std::int64_t size = z.filters * z.columns, each = outer.scratch_size(), chunks = cut.chunks();
  const int slots = thread_slots(chunks);
  const Scratch sums = scratch_floats(own ? cut.parts * size : 0), scratch = scratch_floats(slots * each);
  std::vector<double> bias(z.dbias != nullptr ? static_cast<std::size_t>(cut.parts * z.filters) : 0);
  parallel_chunks(chunks, slots, [&](std::int64_t chunk, int slot) {
    float* const to = own ? sums.data() + chunk / (cut.filters * cut.columns) * size : z.dw;
    outer.sum(chunk, scratch.data() + slot * each, to, own ? z.columns : z.dw_stride, z.dbias != nullptr ? bias.data() : nullptr);
  });
  if (own) add_parts(z, cut.parts, sums.data());
  for (std::int64_t k = 0; z.dbias != nullptr && k < z.filters; ++k) {
    double total = 0;
    for (std::int64_t part = 0; part < cut.parts; ++part) total += bias[static_cast<std::size_t>(part * z.filters + k)];
    z.dbias[k] = static_cast<float>(total);
  }
}

}  // namespace shrike::cpu
