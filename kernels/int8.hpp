// The matrix product of int8 codes behind quantized convolutions and linear layers, and which kernel computes it.
#pragma once

#include "kernels/cuda.hpp"
#include "shrike/ops/quantized_conv.hpp"

namespace shrike::kernels::int8 {

// A: row m is output pixel m, column k = (tap, channel); found in a feature map while it is loaded, 0 outside of it.
struct CodeMap {
  const std::uint8_t* data;  // [images, height, width, channels], u8 or s8
  int height, width, channels;
  int taps_w;
  int stride, padding, dilation;
  int rows, columns;  // of output pixels in an image
  int pixels;         // in all images
  int length;         // taps * channels
};

// C [pixels, filters] = A [pixels, length] B [length, filters], of which filter n is row n of weight [filters, length]; then
// requantized (ops/requantize.hpp) to y.
struct Product {
  CodeMap map;
  const std::int8_t* weight;
  int filters;
  const std::int32_t* bias;
  const float* multiplier;
  const void* residual;  // or null
  void* y;
  Requantize to;
  float low, high;  // to.low(), to.high()
};

Product product(const Conv2dSizes& sizes, const Requantize& to, const QuantizedOperands& operands);

// naive: a thread an output. dp4a: four products an instruction. tensor16: mma.sync m8n8k16, from sm_75. tensor32: mma.sync
// m16n8k32, from sm_80.
enum class Path { automatic, naive, dp4a, tensor16, tensor32 };

// What runs next, on every thread: for tests and benchmarks. tile 0: by the size of the product, else 64 or 128.
struct Choice {
  Path path = Path::automatic;
  int tile = 0;
};
Choice& choice();

// The tile where nothing is asked for: large ones read less; small ones, where large ones would leave multiprocessors idle,
// make more blocks.
inline int tile_of(std::int64_t pixels, std::int64_t filters, const cuda::Properties& device) {
  return filters > 64 && (pixels + 127) / 128 * ((filters + 127) / 128) >= device.multiprocessors ? 128 : 64;
}

void multiply(const Product& product);

// One for each path, in a file of its own.
void multiply_naive(const Product& product);
void multiply_dp4a(const Product& product, int tile);
void multiply_tensor16(const Product& product, int tile);
void multiply_tensor32(const Product& product, int tile);

}  // namespace shrike::kernels::int8
