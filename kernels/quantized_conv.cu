// Convolutions of int8 codes. Without groups: a matrix product (kernels/int8.cuh). With groups, which a detector has none of: a
// thread an output.
#include "kernels/int8.cuh"

namespace shrike::kernels {
namespace {

// Thread i computes outputs i, i + threads of the grid, ... (=). `p` is the product of one group, of channels and filters each.
__global__ void quantized_groups_kernel(int8::Product p, int channels, int filters, int groups) {
  const int all_filters = filters * groups;
  const std::int64_t all = static_cast<std::int64_t>(p.map.pixels) * all_filters;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < all; i += step) {
    const int row = static_cast<int>(i / all_filters), k = static_cast<int>(i - static_cast<std::int64_t>(row) * all_filters);
    const tiles::RowPlace place = tiles::row_place(p.map, row);
    const int taps = p.map.length / p.map.channels, first = k / filters * channels;
    const std::int8_t* const weight = p.weight + static_cast<std::int64_t>(k) * taps * channels;
    int sum = 0;
    for (int tap = 0; tap < taps; ++tap) {
      const std::uint8_t* const from = tiles::byte_at(p.map, place, tap * p.map.channels + first);
      if (from == nullptr) continue;
      for (int c = 0; c < channels; ++c) {
        const int code = p.to.x == Dtype::u8 ? static_cast<int>(from[c]) : static_cast<int>(static_cast<std::int8_t>(from[c]));
        sum += code * weight[tap * channels + c];
      }
    }
    tiles::put(p, i, sum);
  }
}

}  // namespace

void quantized_conv2d_forward(Cuda, const Conv2dSizes& z, const Requantize& to, const QuantizedOperands& operands) {
  const int8::Product p = int8::product(z, to, operands);
  if (z.groups == 1) return int8::multiply(p);
  constexpr int threads = 256;
  const auto blocks = std::min(cuda::blocks_for(std::int64_t{p.map.pixels} * p.filters, threads), 65536u);
  cuda::launch(quantized_groups_kernel, blocks, threads, 0, p, static_cast<int>(z.c / z.groups),
               static_cast<int>(z.k / z.groups), static_cast<int>(z.groups));
}

}  // namespace shrike::kernels
