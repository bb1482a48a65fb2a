// How loops over rows or tiles are cut into blocks: by the problem alone, never by the number of threads.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

namespace shrike::cpu {

inline std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// The number of blocks of at most `most` units each. Where there are few, a multiple of eight, so that two, four or eight
// threads that nothing disturbs end together; but no block has fewer than `least` units, unless there are no more.
inline std::int64_t even_blocks(std::int64_t units, std::int64_t most, std::int64_t least) {
  const std::int64_t blocks = std::max<std::int64_t>((units + most - 1) / most, 1);
  if (blocks >= 64) return blocks;
  const auto allowed = static_cast<std::uint64_t>(std::max<std::int64_t>(units / std::max<std::int64_t>(least, 1), 1));
  const std::uint64_t even = static_cast<std::uint64_t>(blocks + 7) / 8 * 8;
  return std::max(blocks, static_cast<std::int64_t>(even <= allowed ? even : std::bit_floor(allowed)));
}

}  // namespace shrike::cpu
