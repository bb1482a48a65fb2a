// Implicit matrix products: y's pixels are rows, gathered from x a block at a time into rows of R * S * C codes; output
// channels are columns, in panels as wide as a tile in registers. Four codes (bytes) or two (words) make a step of
// 32 bits; which, see Form in int8_packed.hpp. s8 inputs meet a u8 x
// s8 instruction as x + 128, and the sums start at -128 * sum w to make up for it: exact modulo 2^32, as the result fits in 32
// bits.
#include "int8.hpp"

#include <algorithm>
#include <cstring>

#include "blocks.hpp"
#include "int8_packed.hpp"
#include "int8_winograd.hpp"
#include "shrike/core/last_kernel.hpp"
#include "shrike/core/threads.hpp"

namespace shrike::int8 {
namespace {

// One group of a convolution.
struct Product {
  const kernels::Conv2dSizes& z;
  const Packed& packed;
  const Packing& how;
  std::int64_t group;
  const std::uint8_t* x;  // of image 0, first channel of the group
  const std::int32_t* bias;

  std::int64_t rows() const { return z.n * z.p * z.q; }
  std::int64_t channels() const { return how.channels; }
  std::int64_t row_bytes() const { return packed.steps() * 4; }
  bool words() const { return packed.form == Form::words; }
  const Panel& panel(std::int64_t number) const {
    return packed.panels[static_cast<std::size_t>(group * how.panels() + number)];
  }

  // c [rows, panel] = start + the products of rows and a panel's steps [begin, end).
  void multiply(const Panel& panel, std::int64_t begin, std::int64_t end, std::int64_t rows, const char* left,
                const std::int32_t* start, std::int64_t start_stride, std::int32_t* c) const {
    const char* const right = reinterpret_cast<const char*>(panel.weights.data()) + begin * how.isa->panel * 4;
    if (packed.form == Form::safe_bytes) {
      how.isa->multiply_safe_bytes(rows, end - begin, left, row_bytes(), panel.order.data() + begin, right, start, start_stride,
                                   c);
    } else {
      const auto by = words() ? how.isa->multiply_pairs : how.isa->multiply_bytes;
      by(rows, end - begin, left + 4 * begin, row_bytes(), right, start, start_stride, c);
    }
  }

  // Rows first .. first + count - 1, one after another, `slack` bytes may be written after them; and what their sums lack.
  void pack_rows(std::int64_t first, std::int64_t count, char* to, std::int32_t* offsets) const;
  void pack_short_rows(std::int64_t first, std::int64_t count, char* to) const;
  void pack_long_rows(std::int64_t first, std::int64_t count, char* to) const;
  void start_sums(std::int64_t panel, std::int32_t* start) const;
};

// Codes as the product wants them: n from `from` (null: zeros).
void put_codes(const Product& m, std::int64_t n, const std::uint8_t* __restrict from, std::uint8_t* __restrict to) {
  if (m.words()) {
    auto* __restrict wide = reinterpret_cast<std::int16_t*>(to);
    if (from == nullptr) {
      std::fill_n(wide, n, std::int16_t{0});
    } else if (m.how.x == Dtype::u8) {
      for (std::int64_t i = 0; i < n; ++i) wide[i] = from[i];
    } else {
      for (std::int64_t i = 0; i < n; ++i) wide[i] = static_cast<std::int8_t>(from[i]);
    }
  } else if (from == nullptr) {
    std::fill_n(to, n, static_cast<std::uint8_t>(m.packed.shifted() ? 128 : 0));
  } else if (m.packed.shifted()) {
    for (std::int64_t i = 0; i < n; ++i) to[i] = from[i] ^ 128;
  } else {
    std::memcpy(to, from, static_cast<std::size_t>(n));
  }
}

constexpr std::int64_t slack = 64;

// Copies 16 bytes at a time: up to 15 more than asked for.
void copy_piece(const char* from, std::int64_t n, char* to) {
  for (std::int64_t i = 0; i < n; i += 16) std::memcpy(to + i, from + i, 16);
}

// Few channels: of the outputs that lie side by side, the lines of inputs that they meet are put down once, with their padding;
// what an output meets of a line is a few bytes further on each time.
void Product::pack_short_rows(std::int64_t first, std::int64_t count, char* to) const {
  const std::int64_t pixel = z.c * 4 / packed.codes(), piece = z.s * pixel;
  const std::int64_t line_bytes = ((std::min(count, z.q) - 1) * z.stride + z.s) * pixel + slack;
  const Scratch scratch = scratch_bytes(z.r * line_bytes);
  auto* const lines = reinterpret_cast<char*>(scratch.data());
  for (std::int64_t row = first, run = 0; row < first + count; row += run) {
    const std::int64_t q = row % z.q, p = row / z.q % z.p, image = row / z.q / z.p;
    run = std::min(z.q - q, first + count - row);
    const std::int64_t w = q * z.stride - z.padding, columns = (run - 1) * z.stride + z.s;
    const std::int64_t begin = std::clamp<std::int64_t>(-w, 0, columns),
                       end = std::clamp<std::int64_t>(z.w - w, begin, columns);
    for (std::int64_t r = 0; r < z.r; ++r) {
      const std::int64_t h = p * z.stride - z.padding + r;
      auto* const line = reinterpret_cast<std::uint8_t*>(lines + r * line_bytes);
      const bool inside = h >= 0 && h < z.h && begin < end;
      put_codes(*this, (inside ? begin : columns) * z.c, nullptr, line);
      if (!inside) continue;
      put_codes(*this, (end - begin) * z.c, x + ((image * z.h + h) * z.w + w + begin) * z.c, line + begin * pixel);
      put_codes(*this, (columns - end) * z.c, nullptr, line + end * pixel);
    }
    for (std::int64_t i = 0; i < run; ++i, to += row_bytes()) {
      for (std::int64_t r = 0; r < z.r; ++r) copy_piece(lines + r * line_bytes + i * z.stride * pixel, piece, to + r * piece);
      for (std::int64_t at = z.r * piece; at < row_bytes(); ++at) to[at] = 0;
    }
  }
}

void Product::pack_long_rows(std::int64_t first, std::int64_t count, char* to) const {
  const std::int64_t size = 4 / packed.codes();
  const std::int64_t channels = how.channels;
  for (std::int64_t row = first; row < first + count; ++row) {
    auto* at = reinterpret_cast<std::uint8_t*>(to);
    const std::int64_t q = row % z.q, p = row / z.q % z.p, image = row / z.q / z.p;
    for (std::int64_t r = 0; r < z.r; ++r) {
      const std::int64_t h = p * z.stride - z.padding + r * z.dilation;
      const std::int64_t w = q * z.stride - z.padding;
      const std::uint8_t* line = x + (image * z.h + std::clamp<std::int64_t>(h, 0, z.h - 1)) * z.w * z.c;
      if (h < 0 || h >= z.h) {
        put_codes(*this, z.s * channels, nullptr, at);
      } else if (z.groups == 1 && z.dilation == 1) {  // neighbours in x are neighbours in the row
        const std::int64_t begin = std::clamp<std::int64_t>(-w, 0, z.s), end = std::clamp<std::int64_t>(z.w - w, begin, z.s);
        if (begin > 0) put_codes(*this, begin * channels, nullptr, at);
        if (end > begin) put_codes(*this, (end - begin) * channels, line + (w + begin) * z.c, at + begin * channels * size);
        if (end < z.s) put_codes(*this, (z.s - end) * channels, nullptr, at + end * channels * size);
      } else {
        for (std::int64_t s = 0; s < z.s; ++s) {
          const std::int64_t column = w + s * z.dilation;
          const bool inside = column >= 0 && column < z.w;
          put_codes(*this, channels, inside ? line + column * z.c : nullptr, at + s * channels * size);
        }
      }
      at += z.s * channels * size;
    }
    std::fill(at, reinterpret_cast<std::uint8_t*>(to) + row_bytes(), std::uint8_t{0});
    to += row_bytes();
  }
}

// What is past the depth meets weights of 0.
void Product::pack_rows(std::int64_t first, std::int64_t count, char* to, std::int32_t* offsets) const {
  const bool few = z.r * z.s > 1 && how.groups == 1 && z.dilation == 1 && z.s * z.c * 4 / packed.codes() <= slack;
  few ? pack_short_rows(first, count, to) : pack_long_rows(first, count, to);
  for (std::int64_t row = 0; row < count; ++row) {
    std::uint32_t sum = 0;
    if (words()) {
      const auto* from = reinterpret_cast<const std::int16_t*>(to + row * row_bytes());
      for (std::int64_t i = 0; i < 2 * packed.steps(); i += 4) {
        sum += static_cast<std::uint32_t>(from[i] * from[i + 2] + from[i + 1] * from[i + 3]);
      }
    }
    offsets[row] = static_cast<std::int32_t>(0 - sum);
  }
}

// The values that a panel's sums begin with.
void Product::start_sums(std::int64_t panel, std::int32_t* start) const {
  const std::int64_t width = how.isa->panel, first = panel * width;
  const std::int32_t* const own = packed.start(group * how.panels() + panel);
  for (std::int64_t i = 0; i < width; ++i) {
    const std::uint32_t added = first + i < how.columns() ? static_cast<std::uint32_t>(bias[first + i]) : 0;
    start[i] = static_cast<std::int32_t>(static_cast<std::uint32_t>(own[i]) + added);
  }
}

// Where finished rows go.
struct Target {
  Finish how;
  std::int64_t stride;  // elements from row to row
  std::int64_t y_size;
  std::int64_t residual_size;
  const float* multiplier;
  const float* addend;
  const char* residual;
  char* y;  // of row 0, first column of the group

  void put(const Product& m, std::int64_t panel, std::int64_t first, std::int64_t count, const std::int32_t* c,
           const std::int32_t* offsets) const {
    const std::int64_t width = m.how.isa->panel, k = panel * width, n = std::min(width, m.how.columns() - k);
    const std::int64_t at = first * stride + k;
    m.how.isa->finish(how, count, n,
                      {c, width, offsets, multiplier + k, residual != nullptr ? residual + at * residual_size : nullptr,
                       y + at * y_size, stride, addend != nullptr ? addend + k : nullptr});
  }
};

// What a chunk of a loop is to have at most, and at least, unless there is no more: multiplications, of which a core does some
// 100 to 200 in a nanosecond. A thread that the machine delays holds up little, and claiming chunks costs nothing beside them.
constexpr std::int64_t chunk_work = 24 << 20, least_work = 3 << 20;

// What a row costs, in multiplications: also to gather it and to finish its sums.
std::int64_t row_work(std::int64_t depth, std::int64_t columns) { return (depth + 32) * (columns + 32); }

// Few weights: chunks of rows, gathered in blocks that stay in a core's cache beside a panel of weights.
void by_rows(const Product& m, const Target& target) {
  const std::int64_t width = m.how.isa->panel, panels = m.how.panels();
  const Scratch starts = scratch_bytes(panels * width * 4);
  auto* const start = reinterpret_cast<std::int32_t*>(starts.data());
  for (std::int64_t panel = 0; panel < panels; ++panel) m.start_sums(panel, start + panel * width);
  constexpr std::int64_t unit = 12;  // rows: full tiles in registers
  const std::int64_t units = (m.rows() + unit - 1) / unit, work = unit * row_work(m.how.depth(), m.how.columns());
  // The weights are read once for each block.
  const std::int64_t chunks = cpu::even_blocks(units, std::max(chunk_work / work, 48 / unit), least_work / work);
  const std::int64_t longest = (units + chunks - 1) / chunks * unit;
  const std::int64_t block = std::min(longest, std::clamp<std::int64_t>((384 << 10) / m.row_bytes(), 12, 192) / unit * unit);
  const std::int64_t left_bytes = (block * m.row_bytes() + slack + 63) / 64 * 64, each = left_bytes + block * (width + 1) * 4;
  const int slots = thread_slots(chunks);
  const Scratch scratch = scratch_bytes(slots * each);
  parallel_chunks(chunks, slots, [&](std::int64_t chunk, int slot) {
    char* const left = reinterpret_cast<char*>(scratch.data()) + slot * each;
    auto* const c = reinterpret_cast<std::int32_t*>(left + left_bytes);
    auto* const offsets = c + block * width;
    const std::int64_t end = std::min(units * (chunk + 1) / chunks * unit, m.rows());
    for (std::int64_t first = units * chunk / chunks * unit; first < end; first += block) {
      const std::int64_t count = std::min(block, end - first);
      m.pack_rows(first, count, left, offsets);
      for (std::int64_t panel = 0; panel < panels; ++panel) {
        m.multiply(m.panel(panel), 0, m.panel(panel).steps, count, left, start + panel * width, 0, c);
        target.put(m, panel, first, count, c, offsets);
      }
    }
  });
}

// Many weights and few rows: rows are packed once; a chunk is a block of them and a panel, a part of the steps that stays in a
// core's cache at a time. The chunks of a panel follow each other, so that its weights are read from memory once.
void by_panels(const Product& m, const Target& target) {
  const std::int64_t rows = m.rows(), width = m.how.isa->panel, panels = m.how.panels();
  const std::int64_t part_steps = (256 << 10) / (width * 4);
  const Scratch rows_scratch = scratch_bytes(rows * (m.row_bytes() + 4));
  auto* const left = reinterpret_cast<char*>(rows_scratch.data());
  auto* const offsets = reinterpret_cast<std::int32_t*>(left + rows * m.row_bytes());
  const std::int64_t rows_of_chunk = std::max<std::int64_t>((64 << 10) / m.row_bytes(), 1);
  parallel_for(rows, rows_of_chunk, [&](std::int64_t begin, std::int64_t end) {
    m.pack_rows(begin, end - begin, left + begin * m.row_bytes(), offsets + begin);
  });
  const std::int64_t most = std::max<std::int64_t>(chunk_work / row_work(m.how.depth(), width), 96);
  const std::int64_t blocks = (rows + most - 1) / most, each = ((rows + blocks - 1) / blocks + 1) * width * 4;
  const std::int64_t chunks = panels * blocks;
  const int slots = thread_slots(chunks);
  const Scratch scratch = scratch_bytes(slots * each);
  parallel_chunks(chunks, slots, [&](std::int64_t chunk, int slot) {
    auto* const start = reinterpret_cast<std::int32_t*>(reinterpret_cast<char*>(scratch.data()) + slot * each);
    auto* const c = start + width;
    const std::int64_t panel = chunk / blocks, block = chunk % blocks;
    const std::int64_t first = rows * block / blocks, count = rows * (block + 1) / blocks - first;
    m.start_sums(panel, start);
    const Panel& right = m.panel(panel);
    for (std::int64_t step = 0; step < right.steps; step += part_steps) {
      m.multiply(right, step, std::min(step + part_steps, right.steps), count, left + first * m.row_bytes(),
                 step == 0 ? start : c, step == 0 ? 0 : width, c);
    }
    target.put(m, panel, first, count, c, offsets + first);
  });
}

// The operands of dynamic quantization as the kernels take them, [3, k] in `scratch`: no quantized bias, multipliers at x's
// scale, and a bias in float, -0 where there is none, which changes no number.
kernels::QuantizedOperands at_scale(const kernels::QuantizedOperands& o, std::int64_t k, const Scratch& scratch) {
  auto* const bias = reinterpret_cast<std::int32_t*>(scratch.data());
  float *const multiplier = scratch.data() + k, *const addend = multiplier + k;
  for (std::int64_t i = 0; i < k; ++i) {
    bias[i] = 0;
    multiplier[i] = o.multiplier[i] * *o.x_scale;
    addend[i] = o.addend != nullptr ? o.addend[i] : -0.0f;
  }
  kernels::QuantizedOperands result = o;
  result.bias = bias;
  result.multiplier = multiplier;
  result.addend = addend;
  result.x_scale = nullptr;
  return result;
}

}  // namespace

void convolve(const kernels::Conv2dSizes& z, const kernels::Requantize& to, const kernels::QuantizedOperands& o) {
  if (o.x_scale != nullptr) {
    const Scratch own = scratch_floats(3 * z.k);
    return convolve(z, to, at_scale(o, z.k, own));
  }
  const auto code = [](Dtype dtype) { return dtype == Dtype::u8 ? 0 : dtype == Dtype::s8 ? 1 : 2; };
  const Finish how{code(to.y), code(to.residual), to.low(), to.high(), to.residual_multiplier};
  const Kernels& isa = kernels(z.k / z.groups);
  const Packing packing{&isa, to.x, z.k, z.r * z.s, z.c / z.groups, z.groups, winograd::fits(isa, z)};
  const auto packed = packed_weights(packing, o);
  last_kernel() = std::string(packed->form == Form::winograd ? "winograd 4x4 " : "direct ") + isa.name;
  if (packed->form == Form::winograd) return winograd::convolve(*packed, how, z, o);
  const auto y_size = static_cast<std::int64_t>(size_of(to.y)), residual_size = static_cast<std::int64_t>(size_of(to.residual));
  for (std::int64_t group = 0; group < z.groups; ++group) {
    const std::int64_t k = group * packing.columns();
    const Product m{z, *packed, packing, group, static_cast<const std::uint8_t*>(o.x) + group * packing.channels, o.bias + k};
    const Target target{how,
                        z.k,
                        y_size,
                        residual_size,
                        o.multiplier + k,
                        o.addend != nullptr ? o.addend + k : nullptr,
                        o.residual != nullptr ? static_cast<const char*>(o.residual) + k * residual_size : nullptr,
                        static_cast<char*>(o.y) + k * y_size};
    const bool few_rows = z.r * z.s == 1 && m.rows() <= 2048 && packing.depth() * packing.columns() > 1 << 20;
    few_rows ? by_panels(m, target) : by_rows(m, target);
  }
}

}  // namespace shrike::int8
