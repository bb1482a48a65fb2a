#include "int8_packed.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "int8_winograd.hpp"
#include "shrike/core/parallel.hpp"

namespace shrike::int8 {
namespace {

using onednn::Scratch;

// One panel; `weight` is the group's.
void pack_panel(const Packing& how, const std::int8_t* weight, std::int64_t panel, char* to) {
  const std::int64_t width = how.isa->panel, n = how.codes(), depth = how.depth(), steps = how.steps();
  const std::int64_t used = std::min<std::int64_t>(width, how.columns() - panel * width);
  if (used < width) std::memset(to, 0, static_cast<std::size_t>(how.panel_bytes()));
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
  for (std::int64_t first = 0; first < steps; first += block) {
    const std::int64_t last = std::min(first + block, steps);
    const std::int64_t whole = std::clamp(depth / n, first, last);  // what follows may be cut off
    for (std::int64_t column = 0; column < used; ++column) {
      const std::int8_t* from = weight + (panel * width + column) * depth;
      for (std::int64_t step = first; step < whole; ++step) put(column, step, from + step * n);
      for (std::int64_t step = whole; step < last; ++step) {
        std::int8_t four[4] = {};
        for (std::int64_t i = step * n; i < depth && i < step * n + n; ++i) four[i - step * n] = from[i];
        put(column, step, four);
      }
    }
  }
}

// Modulo 2^32: sums of x + 128 begin at -128 * sum w, those by pairs of steps at minus the products of the weights among
// themselves.
std::int32_t start_of(const Packing& how, const std::int8_t* weight) {
  const std::int64_t depth = how.depth();
  std::int32_t sum = 0;
  if (how.words()) {
    for (std::int64_t i = 0; i + 2 < depth; i += 4) {
      sum -= weight[i] * weight[i + 2];
      if (i + 3 < depth) sum -= weight[i + 1] * weight[i + 3];
    }
  } else if (how.shifted()) {
    for (std::int64_t i = 0; i < depth; ++i) sum += weight[i];
    sum = static_cast<std::int32_t>(-128u * static_cast<std::uint32_t>(sum));
  }
  return sum;
}

Packed pack(const Packing& how, const std::int8_t* weight) {
  const std::int64_t panels = how.panels(), width = how.isa->panel, columns = how.columns();
  if (how.tiles && winograd::exact(how, weight)) return winograd::pack(how, weight);
  Packed result{how, 0, false, Scratch(static_cast<std::size_t>(how.groups * panels * how.panel_bytes())),
                Scratch(static_cast<std::size_t>(how.groups * panels * width * 4))};
  parallel_for(how.groups * panels, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t panel = i % panels;
      const std::int8_t* const of_group = weight + i / panels * columns * how.depth();
      pack_panel(how, of_group, panel, const_cast<char*>(result.panel(i / panels, panel)));
      auto* const start = const_cast<std::int32_t*>(result.start(i / panels, panel));
      for (std::int64_t column = 0; column < width; ++column) {
        const std::int64_t k = panel * width + column;
        start[column] = k < columns ? start_of(how, of_group + k * how.depth()) : 0;
      }
    }
  });
  return result;
}

}  // namespace

std::shared_ptr<const Packed> packed_weights(const Packing& how, const kernels::QuantizedOperands& o) {
  if (o.beside_weight == nullptr) return std::make_shared<const Packed>(pack(how, o.weight));
  const std::uint64_t print = fingerprint(o.weight, how.k * how.depth());
  auto kept = std::static_pointer_cast<const Packed>(o.beside_weight->get());
  if (kept != nullptr && kept->fingerprint == print && kept->how == how) return kept;
  kept.reset();
  o.beside_weight->set(nullptr);  // before the new ones need memory
  Packed made = pack(how, o.weight);
  made.fingerprint = print;
  kept = std::make_shared<const Packed>(std::move(made));
  o.beside_weight->set(kept);
  return kept;
}

// 64 chains of 32 bits, each word mixed in by steps that lose nothing: a single change always shows. Blocks of 1 MiB, so that
// the result does not depend on the number of threads.
std::uint64_t fingerprint(const void* data, std::int64_t bytes) {
  typedef std::uint32_t Lanes __attribute__((vector_size(64)));
  constexpr std::int64_t block = 1 << 20;
  constexpr int chains = 4;
  const std::int64_t blocks = (bytes + block - 1) / block;
  const auto mix = [](Lanes& lanes, const Lanes& words) {
    lanes = (lanes ^ words) * 0x9E3779B1u;
    lanes = (lanes << 13) | (lanes >> 19);
  };
  std::vector<std::uint64_t> parts(static_cast<std::size_t>(blocks));
  parallel_for(blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) {
      const char* from = static_cast<const char*>(data) + b * block;
      std::int64_t left = std::min(block, bytes - b * block);
      Lanes lanes[chains] = {};
      for (; left >= chains * 64; left -= chains * 64, from += chains * 64) {
        for (int i = 0; i < chains; ++i) {
          Lanes words;
          std::memcpy(&words, from + i * 64, 64);
          mix(lanes[i], words);
        }
      }
      for (int i = 0; left > 0; left -= 64, from += 64, ++i) {
        Lanes words{};
        std::memcpy(&words, from, static_cast<std::size_t>(std::min<std::int64_t>(left, 64)));
        mix(lanes[i], words);
      }
      std::uint64_t part = 0;
      for (const Lanes& chain : lanes) {
        for (int i = 0; i < 16; ++i) part = std::rotl((part ^ chain[i]) * 0x9E3779B97F4A7C15u, 29);
      }
      parts[static_cast<std::size_t>(b)] = part;
    }
  });
  auto result = static_cast<std::uint64_t>(bytes);
  for (const std::uint64_t part : parts) result = std::rotl((result ^ part) * 0x9E3779B97F4A7C15u, 29);
  return result;
}

}  // namespace shrike::int8
