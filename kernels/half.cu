// Halves: to and from float, which kernel multiplies them, and the naive one that the others are tested against.
#include "kernels/half.cuh"
#include "kernels/reduce.cuh"
#include "shrike/core/last_kernel.hpp"
#include "src/cuda/providers.hpp"

namespace shrike::kernels {
namespace half {
namespace {

constexpr int threads = 256;

// Thread i converts elements i, i + threads of the grid, ...; `=`. 6 bytes an element: bandwidth is the bound.
__global__ void widen_kernel(std::int64_t n, const std::uint16_t* __restrict__ x, float* __restrict__ y) {
  for (std::int64_t i = cuda::first_index(); i < n; i += cuda::index_stride()) y[i] = cuda::half_value(x[i]);
}
__global__ void narrow_kernel(std::int64_t n, const float* __restrict__ x, std::uint16_t* __restrict__ y) {
  for (std::int64_t i = cuda::first_index(); i < n; i += cuda::index_stride()) y[i] = cuda::half_bits(x[i]);
}

// A thread computes output i, i + threads of the grid, ...: every product by itself. The only one that knows groups.
__global__ void half_naive_kernel(Product p, int groups) {
  const std::int64_t all = static_cast<std::int64_t>(p.map.pixels) * p.filters;
  const int taps = p.map.length / p.map.channels, bytes = p.map.channels / groups, channels = bytes / 2;
  for (std::int64_t i = cuda::first_index(); i < all; i += cuda::index_stride()) {
    const int row = static_cast<int>(i / p.filters), column = static_cast<int>(i - static_cast<std::int64_t>(row) * p.filters);
    const tiles::RowPlace place = tiles::row_place(p.map, row);
    const int first = column / (p.filters / groups) * bytes;
    const std::uint16_t* const weight = p.weight + static_cast<std::int64_t>(column) * taps * channels;
    float sum = 0.0f;
    for (int tap = 0; tap < taps; ++tap) {
      const auto* const from =
          reinterpret_cast<const std::uint16_t*>(tiles::byte_at(p.map, place, tap * p.map.channels + first));
      if (from == nullptr) continue;
      for (int c = 0; c < channels; ++c) {
        sum = fmaf(cuda::half_value(from[c]), cuda::half_value(weight[tap * channels + c]), sum);
      }
    }
    tiles::put(p, i, sum);
  }
}

__global__ void half_add_parts_kernel(Product p) { tiles::add_parts(p); }

unsigned blocks(const Product& p) { return cuda::loop_blocks(std::int64_t{p.map.pixels} * p.filters, threads); }

void multiply_naive(const Product& p, int groups) {
  last_kernel() = "f16 naive";
  cuda::launch(half_naive_kernel, blocks(p), threads, 0, p, groups);
}

void multiply_tiled(const Product& product, Path path, int tile, int splits) {
  const auto run = [&](const Product& p) { path == Path::tensor8 ? multiply_tensor8(p, tile) : multiply_tensor16(p, tile); };
  tiles::in_parts(product, splits, run,
                  [](const Product& p) { cuda::launch(half_add_parts_kernel, blocks(p), threads, 0, p); });
}

std::string name(Path path, int tile, int splits) {
  return message("f16 mma ", path == Path::tensor8 ? "m16n8k8 " : "m16n8k16 ", tile, 'x', tile,
                 splits > 1 ? message(" split ", splits) : "");
}

void multiply(const Product& product, int groups) {
  const cuda::Properties& device = cuda::properties();
  const Choice& asked = choice();
  Path path = asked.path;
  if (path == Path::automatic) {
    const int capability = device.compute_capability;
    path = capability >= 80 ? Path::tensor16 : capability >= 75 ? Path::tensor8 : Path::naive;
  }
  if (path == Path::naive || groups > 1) return multiply_naive(product, groups);
  const tiles::ByteMap& map = product.map;
  const gemm::Product sizes{map.pixels, product.filters, map.length / 2};
  const Plan plan = plan_of(sizes, device);
  if (asked.path != Path::automatic) {
    const int tile = asked.tile != 0 ? asked.tile : plan.tile, splits = asked.splits != 0 ? asked.splits : plan.splits;
    last_kernel() = name(path, tile, splits);
    return multiply_tiled(product, path, tile, splits);
  }
  std::vector<cuda::Way> ways;
  const auto add = [&](int tile, int splits) {
    ways.push_back({name(path, tile, splits), [&product, path, tile, splits] { multiply_tiled(product, path, tile, splits); }});
  };
  add(plan.tile, plan.splits);
  if (cuda::looks_further()) add(192 - plan.tile, gemm::plan(sizes, tile_model(192 - plan.tile), device).splits);
  cuda::run_best({"half_product",
                  {map.length, map.taps_w, map.channels, map.stride, map.padding, map.dilation, product.filters,
                   product.to_float, product.residual != nullptr},
                  {sizes.m, 1}},
                 ways);
}

const std::uint16_t* bits(const Half* halves) {
  static_assert(sizeof(Half) == sizeof(std::uint16_t));
  return reinterpret_cast<const std::uint16_t*>(halves);
}

}  // namespace

Choice& choice() {
  static Choice the_choice;
  return the_choice;
}

}  // namespace half

void widen_forward(Cuda, std::int64_t n, const Half* x, float* y) {
  cuda::launch(half::widen_kernel, cuda::loop_blocks(n, half::threads), half::threads, 0, n, half::bits(x), y);
}

void narrow_forward(Cuda, std::int64_t n, const float* x, Half* y) {
  cuda::launch(half::narrow_kernel, cuda::loop_blocks(n, half::threads), half::threads, 0, n, x,
               reinterpret_cast<std::uint16_t*>(y));
}

void half_conv2d_forward(Cuda, const Conv2dSizes& z, const HalfOperands& operands) {
  half::Product p{};
  p.map = tiles::byte_map("a layer of halves", z, operands.x, sizeof(Half));
  p.weight = half::bits(operands.weight);
  p.filters = static_cast<int>(z.k);
  p.bias = operands.bias;
  p.residual = half::bits(operands.residual);
  p.y = operands.y;
  p.to_float = operands.y_type == Dtype::f32;
  p.relu = z.relu;
  p.splits = 1;
  p.turns = (p.map.length + tiles::depth - 1) / tiles::depth;
  half::multiply(p, static_cast<int>(z.groups));
}

}  // namespace shrike::kernels
