// The algorithm is described in int8_winograd_lines.hpp.
#include "int8_winograd.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "blocks.hpp"
#include "conv/winograd_tiles.hpp"
#include "int8_winograd_lines.hpp"
#include "scratch.hpp"
#include "shrike/core/threads.hpp"

namespace shrike::int8::winograd {
namespace {

using shrike::winograd::Tiles;

constexpr int points = 36;

std::int64_t panel_bytes(const Packing& how) { return how.channels / 2 * how.isa->panel * 4; }

// The weights of one panel as [point][step][column][2 words], and what the sums of [point][column] begin with.
template <class V>
void pack_panel(const Packing& how, std::int64_t panel, const std::int8_t* weight, char* u, std::int32_t* start) {
  constexpr int chunk = V::chunk;
  using Words = typename V::Words;
  const std::int64_t width = how.isa->panel, c = how.channels, used = std::min<std::int64_t>(width, how.k - panel * width);
  if (used < width) std::memset(u, 0, static_cast<std::size_t>(points * panel_bytes(how)));
  std::fill_n(start, points * width, 0);
  for (std::int64_t column = 0; column < used; ++column) {
    const std::int8_t* from = weight + (panel * width + column) * 9 * c;
    for (std::int64_t i = 0; i < c; i += chunk) {
      Words g[9], half[18], result[6];
      for (int tap = 0; tap < 9; ++tap)
        g[tap] = __builtin_convertvector(load_as<typename V::SignedCodes>(from + tap * c + i), Words);
      for (int s = 0; s < 3; ++s) weight_line<3, 3>(g + s, half + s);
      for (int r = 0; r < 6; ++r) {
        weight_line<1, 1>(half + 3 * r, result);
        for (int s = 0; s < 6; ++s) {
          char* to = u + (6 * r + s) * panel_bytes(how) + (i / 2 * width + column) * 4;
          const char* pairs = reinterpret_cast<const char*>(result + s);
          for (int pair = 0; pair < chunk / 2; ++pair) std::memcpy(to + pair * width * 4, pairs + 4 * pair, 4);
          auto& sum = start[(6 * r + s) * width + column];
          sum = static_cast<std::int32_t>(static_cast<std::uint32_t>(sum) - sum_of_pairs(pair_products<V>(result[s])));
        }
      }
    }
  }
}

struct Job {
  const Packed& packed;
  const Kernels& isa;
  const Finish& how;
  const kernels::Conv2dSizes& z;
  const kernels::QuantizedOperands& o;
  Tiles in, out;

  std::int64_t v_row() const { return z.c * 2 + 64; }  // bytes; apart, so that points do not share a cache's sets

  template <class V, class Code>
  void transform_input(std::int64_t tile, const std::uint8_t* zeros, char* v, std::int64_t stride, std::uint32_t* excess) const;
  template <class V> void transform_back(std::int64_t tile, std::int64_t panel, const std::int32_t* m, std::int64_t stride,
                                         const std::uint32_t* excess) const;
  template <class V> void transform(std::int64_t first, std::int64_t count, const std::uint8_t* zeros, char* v,
                                    std::int64_t v_stride, std::uint32_t* excess) const;
  template <class V> void multiply(std::int64_t panel, std::int64_t first, std::int64_t count, const char* v,
                                   std::int64_t v_stride, const std::uint32_t* excess, std::int32_t* m) const;
  std::int64_t most_tiles() const;
  bool weights_in_cache() const { return points * z.c * z.k * 2 <= 3 << 19; }  // of a core
  template <class V> void by_blocks(const std::uint8_t* zeros) const;
  template <class V> void by_panels(const std::uint8_t* zeros) const;
};

// B^T d B of one tile; points are `stride` bytes apart. excess [16]: A^T P A, where P are the products of the inputs by pairs.
template <class V, class Code> void Job::transform_input(std::int64_t tile, const std::uint8_t* zeros, char* v,
                                                         std::int64_t stride, std::uint32_t* excess) const {
  constexpr int chunk = V::chunk;
  using Words = typename V::Words;
  using Sums = typename V::Sums;
  const std::uint8_t* pixels[points];
  in.pixels<6>(tile, -z.padding, static_cast<const std::uint8_t*>(o.x), zeros, pixels);
  Sums products[points] = {};
  for (std::int64_t c = 0; c < z.c; c += chunk) {
    Words line[6], half[points], result[6];
    for (int j = 0; j < 6; ++j) {
#pragma GCC unroll 6
      for (int i = 0; i < 6; ++i) line[i] = __builtin_convertvector(load_as<Code>(pixels[6 * i + j] + c), Words);
      input_line<1, 6>(line, half + j);
    }
    for (int i = 0; i < 6; ++i) {
      input_line<1, 1>(half + 6 * i, result);
#pragma GCC unroll 6
      for (int j = 0; j < 6; ++j) {
        std::memcpy(v + (6 * i + j) * stride + c * 2, result + j, sizeof(Words));
        products[6 * i + j] += pair_products<V>(result[j]);
      }
    }
  }
  Sums half[24], result[4];
  for (int j = 0; j < 6; ++j) output_line<6, 6>(products + j, half + j);
  for (int i = 0; i < 4; ++i) {
    output_line<1, 1>(half + 6 * i, result);
    for (int j = 0; j < 4; ++j) excess[4 * i + j] = sum_of_pairs(result[j]);
  }
}

// From the 36 sums of a tile, m [point][panel] at `stride`, to y.
template <class V> void Job::transform_back(std::int64_t tile, std::int64_t panel, const std::int32_t* m, std::int64_t stride,
                                            const std::uint32_t* excess) const {
  constexpr int group = V::group;
  using Sums = typename V::Sums;
  using SignedSums = typename V::SignedSums;
  alignas(64) std::int32_t acc[16][64];
  const std::int64_t k = panel * isa.panel, used = std::min<std::int64_t>(isa.panel, z.k - k);
  for (std::int64_t c = 0; c < used; c += group) {
    Sums line[6], half[24], result[4];
    for (int j = 0; j < 6; ++j) {
#pragma GCC unroll 6
      for (int i = 0; i < 6; ++i) line[i] = load_as<Sums>(m + (6 * i + j) * stride + c);
      output_line<1, 6>(line, half + j);
    }
    const auto bias = load_as<SignedSums>(o.bias + k + c);
    for (int i = 0; i < 4; ++i) {
      output_line<1, 1>(half + 6 * i, result);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        const auto sum = reinterpret_cast<SignedSums>((result[j] - excess[4 * i + j]) * ninth);  // 64 y
        const SignedSums y = (sum >> 6) + bias;
        std::memcpy(&acc[4 * i + j][c], &y, sizeof(y));
      }
    }
  }
  const std::int64_t tx = tile % out.columns, ty = tile / out.columns % out.rows, image = tile / out.columns / out.rows;
  const std::int64_t y_size = how.y_type == 2 ? 4 : 1, residual_size = how.residual_type == 2 ? 4 : 1;
  const std::int64_t q = 4 * tx, pixels = std::min<std::int64_t>(4, z.q - q);
  for (std::int64_t i = 0; i < std::min<std::int64_t>(4, z.p - 4 * ty); ++i) {
    const std::int64_t at = ((image * z.p + 4 * ty + i) * z.q + q) * z.k + k;
    const char* const residual = o.residual != nullptr ? static_cast<const char*>(o.residual) + at * residual_size : nullptr;
    const float* const addend = o.addend != nullptr ? o.addend + k : nullptr;
    char* const y = static_cast<char*>(o.y) + at * y_size;
    isa.finish(how, pixels, used, {acc[4 * i], 64, nullptr, o.multiplier + k, residual, y, z.k, addend});
  }
}

// Tiles first .. first + count - 1 to v, one after another.
template <class V> void Job::transform(std::int64_t first, std::int64_t count, const std::uint8_t* zeros, char* v,
                                       std::int64_t v_stride, std::uint32_t* excess) const {
  for (std::int64_t t = 0; t < count; ++t) {
    if (packed.how.x == Dtype::u8) {
      transform_input<V, typename V::Codes>(first + t, zeros, v + t * v_row(), v_stride, excess + 16 * t);
    } else {
      transform_input<V, typename V::SignedCodes>(first + t, zeros, v + t * v_row(), v_stride, excess + 16 * t);
    }
  }
}

// One panel of the results of these tiles: 36 products, and the transform back.
template <class V> void Job::multiply(std::int64_t panel, std::int64_t first, std::int64_t count, const char* v,
                                      std::int64_t v_stride, const std::uint32_t* excess, std::int32_t* m) const {
  const std::int64_t m_stride = count * isa.panel + 16;
  const char* u = reinterpret_cast<const char*>(packed.winograd.data()) + panel * points * panel_bytes(packed.how);
  const auto* start = reinterpret_cast<const std::int32_t*>(packed.starts.data()) + panel * points * isa.panel;
  for (int point = 0; point < points; ++point, u += panel_bytes(packed.how), start += isa.panel) {
    isa.multiply_pairs(count, z.c / 2, v + point * v_stride, v_row(), u, start, 0, m + point * m_stride);
  }
  for (std::int64_t t = 0; t < count; ++t) transform_back<V>(first + t, panel, m + t * isa.panel, m_stride, excess + 16 * t);
}

// Tiles that are multiplied together, full tiles in registers: the more, the less often the weights are read, but the
// transformed input and the sums are to stay in a core's share of the caches.
std::int64_t Job::most_tiles() const {
  const std::int64_t unit = isa.pair_rows;
  return std::clamp<std::int64_t>((2000 << 10) / (points * (2 * z.c + 4 * isa.panel)), 18, 64) / unit * unit;
}

// A chunk is a block of tiles, which it takes through all steps.
template <class V> void Job::by_blocks(const std::uint8_t* zeros) const {
  const std::int64_t tiles = out.count(), unit = isa.pair_rows, units = (tiles + unit - 1) / unit;
  const std::int64_t work = points * z.c * z.k * unit, most = most_tiles() / unit;
  const std::int64_t least = weights_in_cache() ? (2 << 20) / work : 2 * most / 3;
  const std::int64_t blocks = cpu::even_blocks(units, most, least);
  const std::int64_t block = (units + blocks - 1) / blocks * unit, v_stride = block * v_row() + 64;
  const std::int64_t v_bytes = points * v_stride, m_bytes = points * (block * isa.panel + 16) * 4;
  const std::int64_t each = v_bytes + m_bytes + block * 16 * 4;
  const int slots = thread_slots(blocks);
  const Scratch scratch = scratch_bytes(slots * each);
  parallel_chunks(blocks, slots, [&](std::int64_t b, int slot) {
    char* const v = reinterpret_cast<char*>(scratch.data()) + slot * each;
    auto* const m = reinterpret_cast<std::int32_t*>(v + v_bytes);
    auto* const excess = reinterpret_cast<std::uint32_t*>(v + v_bytes + m_bytes);
    const std::int64_t first = units * b / blocks * unit, count = std::min(units * (b + 1) / blocks * unit, tiles) - first;
    transform<V>(first, count, zeros, v, v_stride, excess);
    for (std::int64_t panel = 0; panel < packed.how.panels(); ++panel) multiply<V>(panel, first, count, v, v_stride, excess, m);
  });
}

// Many weights and no more than one block of tiles: all are transformed, then a chunk is a panel, so that they, too, are work
// for several threads, and each weight is read once.
template <class V> void Job::by_panels(const std::uint8_t* zeros) const {
  const std::int64_t tiles = out.count(), panels = packed.how.panels();
  const std::int64_t v_stride = tiles * v_row() + 64, v_bytes = points * v_stride;
  const std::int64_t excess_bytes = tiles * 16 * 4, each = points * (tiles * isa.panel + 16) * 4;
  const int slots = thread_slots(panels);
  const Scratch scratch = scratch_bytes(v_bytes + excess_bytes + slots * each);
  char* const v = reinterpret_cast<char*>(scratch.data());
  auto* const excess = reinterpret_cast<std::uint32_t*>(v + v_bytes);
  parallel_for(tiles, 4, [&](std::int64_t begin, std::int64_t end) {
    transform<V>(begin, end - begin, zeros, v + begin * v_row(), v_stride, excess + 16 * begin);
  });
  parallel_chunks(panels, slots, [&](std::int64_t panel, int slot) {
    auto* const m = reinterpret_cast<std::int32_t*>(v + v_bytes + excess_bytes + slot * each);
    multiply<V>(panel, 0, tiles, v, v_stride, excess, m);
  });
}

}  // namespace

bool fits(const Kernels& isa, const kernels::Conv2dSizes& z) {
  return isa.multiply_pairs != nullptr && z.r == 3 && z.s == 3 && z.stride == 1 && z.dilation == 1 && z.groups == 1 &&
         z.padding <= 2 && (Wide::fit(z.c, z.k) || Narrow::fit(z.c, z.k));
}

bool exact(const Packing& how, const std::int8_t* weight) {
  std::atomic<bool> result = true;
  parallel_for(how.k, 8, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t k = begin; k < end; ++k) {
      std::int32_t sum = 0, size = 0;
      for (std::int64_t i = 0; i < how.depth(); ++i) {
        const std::int32_t w = weight[k * how.depth() + i];
        sum += w;
        size += w < 0 ? -w : w;
      }
      // The greatest |y|: u8 codes go with the weights of one sign, s8 codes with all.
      const std::int64_t most =
          how.x == Dtype::u8 ? std::int64_t{255} * ((size + (sum < 0 ? -sum : sum)) / 2) : std::int64_t{128} * size;
      if (most >= std::int64_t{1} << 25) result = false;
    }
  });
  return result;
}

Packed pack(const Packing& how, const std::int8_t* weight) {
  const std::int64_t size = points * panel_bytes(how), starts = points * how.isa->panel;
  Packed result{how, 0, Form::winograd, {}, scratch_bytes(how.panels() * size), scratch_bytes(how.panels() * starts * 4)};
  auto* const u = reinterpret_cast<char*>(result.winograd.data());
  auto* const start = reinterpret_cast<std::int32_t*>(result.starts.data());
  parallel_for(how.panels(), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const auto pack = Wide::fit(how.channels, how.k) ? pack_panel<Wide> : pack_panel<Narrow>;
      pack(how, i, weight, u + i * size, start + i * starts);
    }
  });
  return result;
}

void convolve(const Packed& packed, const Finish& how, const kernels::Conv2dSizes& z, const kernels::QuantizedOperands& o) {
  using shrike::winograd::tiles_of;
  const Kernels& isa = *packed.how.isa;
  const Job job{packed, isa, how, z, o, tiles_of(z.n, z.h, z.w, z.c, z.p, z.q), tiles_of(z.n, z.p, z.q, z.k, z.p, z.q)};
  const Scratch none = scratch_bytes(z.c);
  auto* const zeros = reinterpret_cast<std::uint8_t*>(none.data());
  std::fill_n(zeros, z.c, std::uint8_t{0});
  const auto run = [&]<class V>(V) {
    !job.weights_in_cache() && job.out.count() <= job.most_tiles() ? job.by_panels<V>(zeros) : job.by_blocks<V>(zeros);
  };
  Wide::fit(z.c, z.k) ? run(Wide{}) : run(Narrow{});
}

}  // namespace shrike::int8::winograd
