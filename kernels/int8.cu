// Which kernel multiplies int8 codes, and the naive one that the others are tested against.
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
    const tiles::RowPlace place = tiles::row_place(p.map, row);
    const std::int8_t* const weight = p.weight + static_cast<std::int64_t>(column) * p.map.length;
    int sum = 0;
    for (int k = 0; k < p.map.length; ++k) {
      const std::uint8_t* const from = tiles::byte_at(p.map, place, k);
      if (from == nullptr) continue;
      const int code = p.to.x == Dtype::u8 ? static_cast<int>(*from) : static_cast<int>(static_cast<std::int8_t>(*from));
      sum += code * weight[k];
    }
    tiles::put(p, i, sum);
  }
}

__global__ void int8_add_parts_kernel(Product p) { tiles::add_parts(p); }

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
  Product p{};
  p.map = tiles::byte_map("a quantized layer", z, operands.x, 1);
  p.weight = operands.weight;
  p.filters = static_cast<int>(z.k);
  p.bias = operands.bias;
  p.multiplier = operands.multiplier;
  p.residual = operands.residual;
  p.y = operands.y;
  p.to = to;
  p.low = to.low();
  p.high = to.high();
  p.x_scale = operands.x_scale;
  p.addend = operands.addend;
  p.splits = 1;
  p.turns = (p.map.length + depth - 1) / depth;
  return p;
}

void multiply_naive(const Product& p) { cuda::launch(int8_naive_kernel, blocks(p), threads, 0, p); }

namespace {

// By one of our tiled kernels, K in so many parts.
void multiply_tiled(const Product& product, Path path, int tile, int splits) {
  const auto run = [&](const Product& p) {
    if (path == Path::dp4a) {
      multiply_dp4a(p, tile);
    } else if (path == Path::tensor16) {
      multiply_tensor16(p, tile);
    } else {
      multiply_tensor32(p, tile);
    }
  };
  tiles::in_parts(product, splits, run,
                  [](const Product& p) { cuda::launch(int8_add_parts_kernel, blocks(p), threads, 0, p); });
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
