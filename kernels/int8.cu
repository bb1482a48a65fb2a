// Which kernel multiplies int8 codes, and the naive one that the others are tested against.
#include <optional>

#include "kernels/int8.cuh"
#include "kernels/int8_vendor.hpp"
#include "shrike/core/last_kernel.hpp"
#include "src/cuda/providers.hpp"

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
    put(p, i, sum);
  }
}

// A thread adds up the parts of output i, i + threads of the grid, ...: integers, the same in any order. Reads 4 bytes a part.
__global__ void int8_add_parts_kernel(Product p) {
  const std::int64_t all = static_cast<std::int64_t>(p.map.pixels) * p.filters;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < all; i += step) {
    int sum = 0;
    for (int part = 0; part < p.splits; ++part) sum += p.partial[part * all + i];
    put(p, i, sum);
  }
}

constexpr int threads = 256;

unsigned blocks(const Product& p) {
  return std::min(cuda::blocks_for(std::int64_t{p.map.pixels} * p.filters, threads), 65536u);
}

const char* name(Path path) {
  switch (path) {
    case Path::naive: return "naive";
    case Path::dp4a: return "dp4a";
    case Path::tensor16: return "mma m8n8k16";
    default: return "mma m16n8k32";
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
  p.splits = 1;
  p.turns = (p.map.length + 63) / 64;
  return p;
}

void multiply_naive(const Product& p) { cuda::launch(int8_naive_kernel, blocks(p), threads, 0, p); }

namespace {

// By one of our tiled kernels, K in so many parts.
void multiply_tiled(const Product& product, Path path, int tile, int splits) {
  Product p = product;
  p.turns = (product.turns + splits - 1) / std::max(splits, 1);
  p.splits = p.turns > 0 ? (product.turns + p.turns - 1) / p.turns : 1;  // none of them empty
  std::optional<cuda::Scratch> partial;
  if (p.splits > 1) {
    partial.emplace(static_cast<std::size_t>(p.splits) * static_cast<std::size_t>(p.map.pixels) *
                    static_cast<std::size_t>(p.filters) * sizeof(std::int32_t));
    p.partial = partial->data<std::int32_t>();
  }
  if (path == Path::dp4a) {
    multiply_dp4a(p, tile);
  } else if (path == Path::tensor16) {
    multiply_tensor16(p, tile);
  } else {
    multiply_tensor32(p, tile);
  }
  if (p.splits > 1) cuda::launch(int8_add_parts_kernel, blocks(p), threads, 0, p);
}

std::string name(Path path, int tile, int splits) {
  return message(name(path), ' ', tile, 'x', tile, splits > 1 ? message(" split ", splits) : "");
}

}  // namespace

void multiply(const Product& product) {
  if (product.map.pixels == 0) return;
  const cuda::Properties& device = cuda::properties();
  const Choice& asked = choice();
  Path path = asked.path;
  if (path == Path::automatic) {
    path = device.compute_capability >= 80 ? Path::tensor32 : device.compute_capability >= 75 ? Path::tensor16 : Path::dp4a;
  }
  last_kernel() = name(path);
  if (path == Path::naive) return multiply_naive(product);
  const gemm::Product sizes{product.map.pixels, product.filters, product.map.length};
  const Plan plan = plan_of(path, sizes, device);
  if (asked.path != Path::automatic) {
    const int tile = asked.tile != 0 ? asked.tile : plan.tile, splits = asked.splits != 0 ? asked.splits : plan.splits;
    last_kernel() = name(path, tile, splits);
    return multiply_tiled(product, path, tile, splits);
  }

  std::vector<cuda::Way> ways;
  const auto add = [&](Path by, int tile, int splits) {
    ways.push_back({name(by, tile, splits), [&product, by, tile, splits] { multiply_tiled(product, by, tile, splits); }});
  };
  add(path, plan.tile, plan.splits);
  if (cuda::looks_further()) {
    const int other = 192 - plan.tile;
    add(path, other, gemm::plan(sizes, tile_model(path, other), device).splits);
    if (path != Path::dp4a) {
      const Plan scalar = plan_of(Path::dp4a, sizes, device);
      add(Path::dp4a, scalar.tile, scalar.splits);
    }
    add_vendor_ways(ways, product);
  }
  const auto& map = product.map;
  cuda::run_best({"int8_product",
                  {map.length, map.taps_w, map.channels, map.stride, map.padding, map.dilation, product.filters,
                   product.to.x == Dtype::s8, product.to.y == Dtype::f32, product.residual != nullptr},
                  {sizes.m, 1}},
                 ways);
}

}  // namespace shrike::kernels::int8
