// The matrix product of int8 codes behind quantized convolutions and linear layers, and which kernel computes it.
#pragma once

#include "kernels/conv_plan.hpp"
#include "kernels/tiles.hpp"
#include "shrike/ops/quantized_conv.hpp"

namespace shrike::kernels::int8 {

// C [pixels, filters] = A [pixels, length] B [length, filters], of which filter n is row n of weight [filters, length]; then
// requantized (ops/requantize.hpp) to y.
struct Product {
  using Element = std::uint8_t;
  tiles::ByteMap map;  // of codes, u8 or s8
  const std::int8_t* weight;
  int filters;
  const std::int32_t* bias;
  const float* multiplier;
  const void* residual;  // or null
  void* y;
  Requantize to;
  float low, high;       // to.low(), to.high()
  const float* x_scale;  // of dynamic quantization, which has no `bias`; else null
  const float* addend;   // [filters], or null

  // K in parts: each leaves its sums in partial [splits, pixels, filters], and who adds them up requantizes.
  std::int32_t* partial;  // null where there is one part
  int splits;
  int turns;  // of each, of 64 bytes

  SHRIKE_HOST_DEVICE bool floats() const { return to.y == Dtype::f32; }
};

Product product(const Conv2dSizes& sizes, const Requantize& to, const QuantizedOperands& operands);

// naive: a thread an output. dp4a: four products an instruction. tensor16: mma.sync m8n8k16, from sm_75. tensor32: mma.sync
// m16n8k32, from sm_80.
enum class Path { automatic, naive, dp4a, tensor16, tensor32 };

// What runs next, on every thread: for tests and benchmarks. tile 0 and splits 0: by plan_of(); else 64 or 128, 1 or more.
struct Choice {
  Path path = Path::automatic;
  int tile = 0;
  int splits = 0;
};
Choice& choice();

// Clocks of a turn of 64 bytes along K. Tensor cores: 0.6 of their 4,096 multiply-adds, or shared memory's 128 bytes, whichever
// is longer (kernels/int8_mma.cu). dp4a: 64 lanes of four multiply-adds, at the part of the rate that fp32 products are given.
inline gemm::TileModel tile_model(Path path, int tile) {
  const double products = static_cast<double>(tile) * tile * 64;
  if (path == Path::dp4a) return {tile, tile, 64, products / (256 * (tile == 128 ? 0.85 : 0.6))};
  const int part = tile / 2;  // of a warp, of four
  const double shared = (4 * (part + part) + 2 * tile) * 64 / 128.0;
  return {tile, tile, 64, std::max(products / (0.6 * 4096), shared)};
}

struct Plan {
  int tile, splits;
  double seconds;
};

// Of the two tiles and all splits what should take the least time.
inline Plan plan_of(Path path, const gemm::Product& product, const cuda::Properties& device) {
  Plan best{};
  for (const int tile : {64, 128}) {
    const gemm::Plan plan = gemm::plan(product, tile_model(path, tile), device);
    if (best.tile == 0 || plan.seconds < best.seconds) best = {tile, plan.splits, plan.seconds};
  }
  return best;
}

void multiply(const Product& product);

// One for each path, in a file of its own.
void multiply_naive(const Product& product);
void multiply_dp4a(const Product& product, int tile);
void multiply_tensor16(const Product& product, int tile);
void multiply_tensor32(const Product& product, int tile);

}  // namespace shrike::kernels::int8
