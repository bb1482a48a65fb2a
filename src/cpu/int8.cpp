// Implicit matrix products: y's pixels are rows, gathered from x a block at a time into rows of R * S * C codes; output
// channels are columns, in panels as wide as a tile in registers. Four codes (bytes) or two (words, where the machine has no
// exact instruction on bytes) make a step of 32 bits. s8 inputs meet a u8 x s8 instruction as x + 128, and the sums start at
// -128 * sum w to make up for it: exact modulo 2^32, as the result fits in 32 bits.
#include "int8.hpp"

#include <algorithm>
#include <cstring>

#include "int8_kernels.hpp"
#include "int8_winograd.hpp"
#include "onednn.hpp"
#include "shrike/core/parallel.hpp"

namespace shrike::int8 {
namespace {

using onednn::Scratch;

Scratch bytes(std::int64_t count) { return Scratch(static_cast<std::size_t>(count)); }

// One group of a convolution.
struct Product {
  const kernels::Conv2dSizes& z;
  const Kernels& isa;
  Dtype x_type;
  const std::uint8_t* x;      // of image 0, first channel of the group
  const std::int8_t* weight;  // [columns, depth]
  const std::int32_t* bias;
  std::int64_t channels, columns;

  std::int64_t rows() const { return z.n * z.p * z.q; }
  std::int64_t depth() const { return z.r * z.s * channels; }
  bool words() const { return isa.multiply_bytes == nullptr; }
  std::int64_t codes() const { return words() ? 2 : 4; }  // a step
  std::int64_t steps() const { return (depth() + codes() - 1) / codes(); }
  std::int64_t panels() const { return (columns + isa.panel - 1) / isa.panel; }
  bool shifted() const { return x_type == Dtype::s8 && !words(); }
  Multiply multiply() const { return words() ? isa.multiply_words : isa.multiply_bytes; }

  void pack_rows(std::int64_t first, std::int64_t count, char* to) const;
  void pack_weights(std::int64_t panel, std::int64_t first_step, std::int64_t count, char* to) const;
  void start_sums(std::int64_t panel, std::int64_t count, std::int32_t* c) const;
};

// Codes as the product wants them: n from `from` (null: zeros).
void put_codes(const Product& m, std::int64_t n, const std::uint8_t* __restrict from, std::uint8_t* __restrict to) {
  if (m.words()) {
    auto* __restrict wide = reinterpret_cast<std::int16_t*>(to);
    if (from == nullptr) {
      std::fill_n(wide, n, std::int16_t{0});
    } else if (m.x_type == Dtype::u8) {
      for (std::int64_t i = 0; i < n; ++i) wide[i] = from[i];
    } else {
      for (std::int64_t i = 0; i < n; ++i) wide[i] = static_cast<std::int8_t>(from[i]);
    }
  } else if (from == nullptr) {
    std::fill_n(to, n, static_cast<std::uint8_t>(m.shifted() ? 128 : 0));
  } else if (m.shifted()) {
    for (std::int64_t i = 0; i < n; ++i) to[i] = from[i] ^ 128;
  } else {
    std::memcpy(to, from, static_cast<std::size_t>(n));
  }
}

// Rows first .. first + count - 1, one after another; what is past the depth meets weights of 0.
void Product::pack_rows(std::int64_t first, std::int64_t count, char* to) const {
  const std::int64_t size = 4 / codes();
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
    std::fill(at, reinterpret_cast<std::uint8_t*>(to) + 4 * steps(), std::uint8_t{0});
    to += 4 * steps();
  }
}

// Steps of one panel as [step][column][4 bytes]; zeros past the last column and the depth.
void Product::pack_weights(std::int64_t panel, std::int64_t first_step, std::int64_t count, char* to) const {
  const std::int64_t width = isa.panel, n = codes();
  const std::int64_t used = std::min<std::int64_t>(width, columns - panel * width);
  if (used < width) std::memset(to, 0, static_cast<std::size_t>(count * width * 4));
  const auto put = [&](std::int64_t column, std::int64_t step, const std::int8_t* four) {
    char* at = to + (step * width + column) * 4;
    if (n == 2) {
      const std::int16_t two[2] = {four[0], four[1]};
      std::memcpy(at, two, 4);
    } else {
      std::memcpy(at, four, 4);
    }
  };
  constexpr std::int64_t block = 16;  // steps at a time, so that what is written stays in the first-level cache
  for (std::int64_t first = 0; first < count; first += block) {
    const std::int64_t last = std::min(first + block, count);
    const std::int64_t whole = std::clamp(depth() / n - first_step, first, last);  // the last step may be cut off
    for (std::int64_t column = 0; column < used; ++column) {
      const std::int8_t* from = weight + (panel * width + column) * depth() + first_step * n;
      for (std::int64_t step = first; step < whole; ++step) put(column, step, from + step * n);
      if (whole < last) {
        std::int8_t four[4] = {};
        for (std::int64_t i = 0; i < depth() % n; ++i) four[i] = from[whole * n + i];
        put(column, whole, four);
      }
    }
  }
}

// The values that `count` rows of sums begin with.
void Product::start_sums(std::int64_t panel, std::int64_t count, std::int32_t* c) const {
  const std::int64_t width = isa.panel;
  for (std::int64_t column = 0; column < width; ++column) {
    const std::int64_t k = panel * width + column;
    std::uint32_t start = k < columns ? static_cast<std::uint32_t>(bias[k]) : 0;
    if (k < columns && shifted()) {
      std::int32_t sum = 0;
      for (std::int64_t i = 0; i < depth(); ++i) sum += weight[k * depth() + i];
      start -= 128u * static_cast<std::uint32_t>(sum);
    }
    c[column] = static_cast<std::int32_t>(start);
  }
  for (std::int64_t row = 1; row < count; ++row) std::memcpy(c + row * width, c, static_cast<std::size_t>(width) * 4);
}

// Where finished rows go.
struct Target {
  Finish how;
  std::int64_t stride;  // elements from row to row
  std::int64_t y_size;
  const float* multiplier;
  const char* residual;
  char* y;  // of row 0, first column of the group

  void put(const Product& m, std::int64_t panel, std::int64_t first, std::int64_t count, const std::int32_t* c) const {
    const std::int64_t k = panel * m.isa.panel, n = std::min<std::int64_t>(m.isa.panel, m.columns - k);
    for (std::int64_t row = 0; row < count; ++row) {
      const std::int64_t at = (first + row) * stride + k;
      m.isa.finish(how, n, c + row * m.isa.panel, multiplier + k, residual != nullptr ? residual + at : nullptr,
                   y + at * y_size);
    }
  }
};

// Few weights: packed once, then every thread gathers blocks of rows that stay in its cache beside a panel of weights.
void by_rows(const Product& m, const Target& target) {
  const std::int64_t steps = m.steps(), panel_bytes = steps * m.isa.panel * 4, width = m.isa.panel;
  const Scratch weights = bytes(m.panels() * panel_bytes);
  const Scratch starts = bytes(m.panels() * width * 4);
  auto* const packed = reinterpret_cast<char*>(weights.data());
  auto* const start = reinterpret_cast<std::int32_t*>(starts.data());
  parallel_for(m.panels(), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t panel = begin; panel < end; ++panel) {
      m.pack_weights(panel, 0, steps, packed + panel * panel_bytes);
      m.start_sums(panel, 1, start + panel * width);
    }
  });
  const std::int64_t most = std::clamp<std::int64_t>((384 << 10) / (4 * steps), 12, 192);
  const std::int64_t threads = num_threads(), rounds = (m.rows() + threads * most - 1) / (threads * most);
  const std::int64_t blocks = std::min(m.rows(), rounds * threads), block = (m.rows() + blocks - 1) / blocks;
  const std::int64_t left_bytes = (block * 4 * steps + 63) / 64 * 64, each = left_bytes + block * width * 4;
  const Scratch scratch = bytes(threads * each);
  parallel_for(threads, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t part = begin; part < end; ++part) {
      char* const left = reinterpret_cast<char*>(scratch.data()) + part * each;
      auto* const c = reinterpret_cast<std::int32_t*>(left + left_bytes);
      for (std::int64_t b = blocks * part / threads; b < blocks * (part + 1) / threads; ++b) {
        const std::int64_t first = m.rows() * b / blocks, count = m.rows() * (b + 1) / blocks - first;
        m.pack_rows(first, count, left);
        for (std::int64_t panel = 0; panel < m.panels(); ++panel) {
          for (std::int64_t row = 0; row < count; ++row) {
            std::memcpy(c + row * width, start + panel * width, static_cast<std::size_t>(width) * 4);
          }
          m.multiply()(count, steps, left, 4 * steps, packed + panel * panel_bytes, c);
          target.put(m, panel, first, count, c);
        }
      }
    }
  });
}

// Many weights and few rows: rows are packed once, and every thread packs the panels it owns, a part that stays in its cache at
// a time, so that the weights are read from memory once.
void by_panels(const Product& m, const Target& target) {
  const std::int64_t steps = m.steps(), rows = m.rows(), width = m.isa.panel;
  const std::int64_t part_steps = (256 << 10) / (width * 4);
  const Scratch rows_scratch = bytes(rows * steps * 4);
  auto* const left = reinterpret_cast<char*>(rows_scratch.data());
  parallel_for(rows, 8,
               [&](std::int64_t begin, std::int64_t end) { m.pack_rows(begin, end - begin, left + begin * steps * 4); });
  const std::int64_t threads = num_threads(), each = part_steps * width * 4 + rows * width * 4;
  const Scratch scratch = bytes(threads * each);
  parallel_for(threads, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t part = begin; part < end; ++part) {
      char* const weights = reinterpret_cast<char*>(scratch.data()) + part * each;
      auto* const c = reinterpret_cast<std::int32_t*>(weights + part_steps * width * 4);
      for (std::int64_t panel = m.panels() * part / threads; panel < m.panels() * (part + 1) / threads; ++panel) {
        m.start_sums(panel, rows, c);
        for (std::int64_t step = 0; step < steps; step += part_steps) {
          const std::int64_t count = std::min(part_steps, steps - step);
          m.pack_weights(panel, step, count, weights);
          m.multiply()(rows, count, left + 4 * step, 4 * steps, weights, c);
        }
        target.put(m, panel, 0, rows, c);
      }
    }
  });
}

}  // namespace

void convolve(const kernels::Conv2dSizes& z, const kernels::Requantize& to, const kernels::QuantizedOperands& o) {
  const auto code = [](Dtype dtype) { return dtype == Dtype::u8 ? 0 : dtype == Dtype::s8 ? 1 : 2; };
  const Finish how{code(to.y), code(to.residual), to.low(), to.high(), to.residual_multiplier};
  const Kernels& isa = kernels();
  if (winograd::fits(isa, z, to.x, o.weight)) return winograd::convolve(isa, how, z, to.x, o);
  const auto y_size = static_cast<std::int64_t>(size_of(to.y));
  const std::int64_t channels = z.c / z.groups, columns = z.k / z.groups;
  for (std::int64_t group = 0; group < z.groups; ++group) {
    const std::int64_t k = group * columns;
    const Product m{z,
                    isa,
                    to.x,
                    static_cast<const std::uint8_t*>(o.x) + group * channels,
                    o.weight + k * z.r * z.s * channels,
                    o.bias + k,
                    channels,
                    columns};
    const Target target{how,
                        z.k,
                        y_size,
                        o.multiplier + k,
                        o.residual != nullptr ? static_cast<const char*>(o.residual) + k : nullptr,
                        static_cast<char*>(o.y) + k * y_size};
    const bool few_rows = z.r * z.s == 1 && m.rows() <= 2048 && m.depth() * columns > 1 << 20;
    few_rows ? by_panels(m, target) : by_rows(m, target);
  }
}

}  // namespace shrike::int8
