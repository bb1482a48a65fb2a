// How long a tile shape should take for a product, and into how many parts K is split.
#pragma once

#include <algorithm>

#include "kernels/cuda.hpp"

namespace shrike::kernels::gemm {

struct Product {
  std::int64_t m, n, k;
};

struct TileModel {
  int m, n, depth;
  double clocks;  // of a multiprocessor for one turn of one tile
};

struct Plan {
  int splits;
  double seconds;
};

// A multiprocessor does its share of the tiles one after another, in effect, whether or not they overlap; starting and storing
// a tile costs about 4 turns more. A split K costs memory traffic, splits + 1 times the output, and a second launch. The clock
// and bandwidth are those of an H100; on another device they scale all candidates alike, nearly, and only the order matters.
inline double predicted_seconds(const Product& product, const TileModel& tile, std::int64_t splits,
                                const cuda::Properties& device) {
  constexpr double clock = 1.7e9, bandwidth = 2.5e12, launch = 3e-6;
  const std::int64_t tiles = (product.m + tile.m - 1) / tile.m * ((product.n + tile.n - 1) / tile.n);
  const std::int64_t turns = (product.k + tile.depth - 1) / tile.depth;
  const std::int64_t share = (tiles * splits + device.multiprocessors - 1) / device.multiprocessors;
  const double seconds = static_cast<double>(share * ((turns + splits - 1) / splits + 4)) * tile.clocks / clock + launch;
  if (splits == 1) return seconds;
  return seconds + static_cast<double>((splits + 1) * product.m * product.n * 4) / bandwidth + launch;
}

inline Plan plan(const Product& product, const TileModel& tile, const cuda::Properties& device) {
  constexpr std::int64_t most_bytes = 128 << 20;
  const std::int64_t turns = (product.k + tile.depth - 1) / tile.depth;
  const std::int64_t bytes = std::max<std::int64_t>(product.m * product.n * 4, 1);
  const std::int64_t most = std::min<std::int64_t>({turns / 8, 256, most_bytes / bytes});
  Plan best{1, predicted_seconds(product, tile, 1, device)};
  for (std::int64_t splits = 2; splits <= most; ++splits) {
    const double seconds = predicted_seconds(product, tile, splits, device);
    if (seconds < best.seconds) best = {static_cast<int>(splits), seconds};
  }
  return best;
}

}  // namespace shrike::kernels::gemm
