// Which kernel multiplies int8 codes, and the naive one that the others are tested against.
#include "kernels/int8.cuh"
#include "shrike/core/last_kernel.hpp"

namespace shrike::kernels::int8 {
namespace {

// A thread computes output i, i + threads of the grid, ...: every product by itself.
__global__ void int8_naive_kernel(Product p) {
  const std::int64_t all = static_cast<std::int64_t>(p.map.pixels) * p.filters;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < all; i += step) {
    const int row = static_cast<int>(i / p.filters), column = static_cast<int>(i - static_cast<std::int64_t>(row) * p.filters);
    const RowPlace place = row_place(p.map, row);
    const std::int8_t* const weight = p.weight + static_cast<std::int64_t>(column) * p.map.length;
    int sum = 0;
    for (int k = 0; k < p.map.length; ++k) {
      const std::uint8_t* const from = code_at(p.map, place, k);
      if (from == nullptr) continue;
      const int code = p.to.x == Dtype::u8 ? static_cast<int>(*from) : static_cast<int>(static_cast<std::int8_t>(*from));
      sum += code * weight[k];
    }
    const float y = requantize(p, sum, row, column);
    if (p.to.y == Dtype::f32) {
      static_cast<float*>(p.y)[i] = y;
    } else {
      static_cast<std::uint8_t*>(p.y)[i] = code_byte(y);
    }
  }
}

}  // namespace

Choice& choice() {
  static Choice the_choice;
  return the_choice;
}

Product product(const Conv2dSizes& z, const Requantize& to, const QuantizedOperands& operands) {
  constexpr std::int64_t most = std::int64_t{1} << 31;
  SHRIKE_CHECK(z.n * z.h * z.w < most && z.n * z.p * z.q < most && z.k < most, "a quantized layer of ", z.n * z.p * z.q,
               " output and ", z.n * z.h * z.w, " input pixels: fewer than 2^31 are supported");
  const auto narrow = [](std::int64_t value) { return static_cast<int>(value); };
  Product p{};
  p.map = {static_cast<const std::uint8_t*>(operands.x),
           narrow(z.h),
           narrow(z.w),
           narrow(z.c),
           narrow(z.s),
           narrow(z.stride),
           narrow(z.padding),
           narrow(z.dilation),
           narrow(z.p),
           narrow(z.q),
           narrow(z.n * z.p * z.q),
           narrow(z.r * z.s * z.c)};
  p.weight = operands.weight;
  p.filters = narrow(z.k);
  p.bias = operands.bias;
  p.multiplier = operands.multiplier;
  p.residual = operands.residual;
  p.y = operands.y;
  p.to = to;
  p.low = to.low();
  p.high = to.high();
  return p;
}

void multiply_naive(const Product& p) {
  constexpr int threads = 256;
  const std::int64_t all = std::int64_t{p.map.pixels} * p.filters;
  cuda::launch(int8_naive_kernel, std::min(cuda::blocks_for(all, threads), 65536u), threads, 0, p);
}

void multiply(const Product& p) {
  if (p.map.pixels == 0) return;
  const cuda::Properties& device = cuda::properties();
  const int tile = choice().tile != 0 ? choice().tile : tile_of(p.map.pixels, p.filters, device);
  Path path = choice().path;
  if (path == Path::automatic) {
    path = device.compute_capability >= 80 ? Path::tensor32 : device.compute_capability >= 75 ? Path::tensor16 : Path::dp4a;
  }
  last_kernel() = path == Path::naive      ? "naive"
                  : path == Path::dp4a     ? "dp4a"
                  : path == Path::tensor16 ? "mma m8n8k16"
                                           : "mma m16n8k32";
  if (path != Path::naive) last_kernel() += tile == 128 ? " 128x128" : " 64x64";
  if (path == Path::naive) return multiply_naive(p);
  if (path == Path::dp4a) return multiply_dp4a(p, tile);
  if (path == Path::tensor16) return multiply_tensor16(p, tile);
  multiply_tensor32(p, tile);
}

}  // namespace shrike::kernels::int8
