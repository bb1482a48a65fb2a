// The matrix product of halves behind half convolutions and linear layers, and which kernel computes it.
#pragma once

#include "kernels/conv_plan.hpp"
#include "kernels/tiles.hpp"
#include "shrike/ops/half.hpp"

namespace shrike::kernels::half {

// C [pixels, filters] = A [pixels, length] B [length, filters], of which filter n is row n of weight [filters, length]; then
// y = C + bias + residual, or 0 where that is negative and relu (ops/half.hpp). Halves by their bits.
struct Product {
  using Element = std::uint16_t;
  tiles::ByteMap map;
  const std::uint16_t* weight;
  int filters;
  const float* bias;              // or null
  const std::uint16_t* residual;  // or null
  void* y;
  bool to_float;  // y is f32, not f16
  bool relu;

  // K in parts: each leaves its sums in partial [splits, pixels, filters], and who adds them up, in their order, finishes.
  float* partial;  // null where there is one part
  int splits;
  int turns;  // of each, of 32 halves

  SHRIKE_HOST_DEVICE bool floats() const { return to_float; }
};

// naive: a thread an output. tensor8: mma.sync m16n8k8, from sm_75. tensor16: m16n8k16, from sm_80.
enum class Path { automatic, naive, tensor8, tensor16 };

// What runs next, on every thread: for tests and benchmarks. tile 0 and splits 0: by plan_of(); else 64 or 128, 1 or more.
struct Choice {
  Path path = Path::automatic;
  int tile = 0;
  int splits = 0;
};
Choice& choice();

// Clocks of a turn of 32 halves along K: 0.6 of tensor cores' 2,048 multiply-adds, or shared memory's 128 bytes, whichever is
// longer. The bytes are those of int8 (kernels/int8.hpp), at half as many products.
inline gemm::TileModel tile_model(int tile) {
  const int part = tile / 2;  // of a warp, of four
  const double shared = (4 * (part + part) + 2 * tile) * 64 / 128.0;
  return {tile, tile, 32, std::max(static_cast<double>(tile) * tile * 32 / (0.6 * 2048), shared)};
}

struct Plan {
  int tile, splits;
  double seconds;
};

// Of the two tiles and all splits what should take the least time.
inline Plan plan_of(const gemm::Product& product, const cuda::Properties& device) {
  Plan best{};
  for (const int tile : {64, 128}) {
    const gemm::Plan plan = gemm::plan(product, tile_model(tile), device);
    if (best.tile == 0 || plan.seconds < best.seconds) best = {tile, plan.splits, plan.seconds};
  }
  return best;
}

// By tensor cores, in a file of their own.
void multiply_tensor8(const Product& product, int tile);
void multiply_tensor16(const Product& product, int tile);

}  // namespace shrike::kernels::half
