// Convolution on the device: which kernel computes a pass, and the pass over dy that precedes the gradients.
#include "kernels/conv.hpp"

#include <optional>
#include <string>
#include <vector>

#include "shrike/core/cuda.hpp"
#include "shrike/ops/elementwise.hpp"
#include "src/cuda/providers.hpp"

namespace shrike::kernels {

std::span<const ConvCandidate> fprop_candidates();
std::span<const ConvCandidate> dgrad_candidates();
std::span<const ConvCandidate> wgrad_candidates();

namespace {

constexpr int sum_columns = 32, sum_lanes = 8;

// Where masked is not null: masked = dy where y > 0 (everywhere if y is null), else 0. Where part is not null:
// part[blockIdx.y][column] = the sum of that over the block's rows. Thread (x, y) owns column blockIdx.x * 32 + x and every
// eighth row of the block's; the eight sums are added in order. Bound by bandwidth: reads dy and y, writes masked, 4 bytes an
// element each.
__global__ void __launch_bounds__(sum_columns* sum_lanes)
    mask_and_sum_kernel(std::int64_t rows, std::int64_t columns, std::int64_t rows_per_block, const float* __restrict__ y,
                        const float* __restrict__ dy, float* __restrict__ masked, float* __restrict__ part) {
  SHRIKE_SHARED(float, sums, [sum_lanes][sum_columns]);
  const std::int64_t column = std::int64_t{blockIdx.x} * sum_columns + threadIdx.x;
  const std::int64_t begin = std::int64_t{blockIdx.y} * rows_per_block;
  const std::int64_t end = begin + rows_per_block < rows ? begin + rows_per_block : rows;
  float sum = 0;
  if (column < columns) {
#pragma unroll 4
    for (std::int64_t row = begin + threadIdx.y; row < end; row += sum_lanes) {
      const std::int64_t at = row * columns + column;
      const float value = y == nullptr || y[at] > 0.0f ? dy[at] : 0.0f;
      if (masked != nullptr) masked[at] = value;
      sum += value;
    }
  }
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (part != nullptr && threadIdx.y == 0 && column < columns) {
    for (int lane = 1; lane < sum_lanes; ++lane) sum += sums[lane][threadIdx.x];
    part[std::int64_t{blockIdx.y} * columns + column] = sum;
  }
}

// dbias[column] = the sum of the parts, in order. Thread i owns column i.
__global__ void sum_parts_kernel(int parts, std::int64_t columns, const float* __restrict__ part, float* __restrict__ dbias) {
  const std::int64_t column = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (column >= columns) return;
  float sum = 0;
  for (int i = 0; i < parts; ++i) sum += part[i * columns + column];
  dbias[column] = sum;
}

void mask_and_sum(std::int64_t rows, std::int64_t columns, const float* y, const float* dy, float* masked, float* dbias) {
  const std::int64_t groups = (columns + sum_columns - 1) / sum_columns;
  const std::int64_t wanted = std::clamp<std::int64_t>(2048 / groups, 1, 512);
  const std::int64_t rows_per_block = std::max<std::int64_t>((rows + wanted - 1) / wanted, 32);
  const std::int64_t parts = std::max<std::int64_t>((rows + rows_per_block - 1) / rows_per_block, 1);
  std::optional<cuda::Scratch> part;
  if (dbias != nullptr) part.emplace(static_cast<std::size_t>(parts * columns) * sizeof(float));
  cuda::launch(mask_and_sum_kernel, dim3(static_cast<unsigned>(groups), static_cast<unsigned>(parts)),
               dim3(sum_columns, sum_lanes), 0, rows, columns, rows_per_block, y, dy, masked,
               part ? part->data<float>() : nullptr);
  if (dbias == nullptr) return;
  cuda::launch(sum_parts_kernel, cuda::blocks_for(columns, 128), 128, 0, static_cast<int>(parts), columns, part->data<float>(),
               dbias);
}

}  // namespace

std::span<const ConvCandidate> conv_candidates(ConvPass pass) {
  return pass == ConvPass::fprop ? fprop_candidates() : pass == ConvPass::dgrad ? dgrad_candidates() : wgrad_candidates();
}

const ConvCandidate& predicted_conv(ConvPass pass, const Conv2dSizes& sizes, const cuda::Properties& device) {
  const auto candidates = conv_candidates(pass);
  const ConvCandidate* best = &candidates.back();
  double least = 0;
  for (const ConvCandidate& candidate : candidates) {
    if ((candidate.tf32 && !cuda_settings().tf32) || !candidate.supported(sizes, device)) continue;
    const double seconds = candidate.predict(sizes, device);
    if (least == 0 || seconds < least) {
      best = &candidate;
      least = seconds;
    }
  }
  return *best;
}

namespace {

bool is_product(const Conv2dSizes& z) {
  return z.h == 1 && z.w == 1 && z.r == 1 && z.s == 1 && z.padding == 0 && z.groups == 1;
}

// What the vendor has for the pass. Neither library adds a residual: a kernel after it does.
void add_vendor(std::vector<cuda::Way>& ways, ConvPass pass, const Conv2dSizes& z, const ConvPointers& at) {
  if (z.n == 0) return;
  if (at.residual != nullptr) {
    Conv2dSizes sum = z;
    sum.relu = false;
    ConvPointers terms = at;
    terms.residual = nullptr;
    const std::size_t ours = ways.size();
    add_vendor(ways, pass, sum, terms);
    for (std::size_t i = ours; i < ways.size(); ++i) {
      ways[i].run = [run = std::move(ways[i].run), z, at] {
        run();
        add_forward(Cuda{}, z.n * z.p * z.q * z.k, at.out, at.residual, z.relu, at.out);
      };
    }
    return;
  }
  const bool product = is_product(z);
  if (pass == ConvPass::fprop) {
    if (!product) return cuda::add_vendor_forward(ways, z, at.x, at.weight, at.bias, at.out);
    cuda::add_vendor_product(ways, false, true, z.n, z.k, z.c, at.x, at.weight, at.bias, z.relu, at.out);
  } else if (pass == ConvPass::dgrad) {
    if (!product) return cuda::add_vendor_backward_data(ways, z, at.weight, at.dy, at.out);
    cuda::add_vendor_product(ways, false, false, z.n, z.c, z.k, at.dy, at.weight, nullptr, false, at.out);
  } else {
    if (!product) return cuda::add_vendor_backward_weight(ways, z, at.x, at.dy, at.out);
    cuda::add_vendor_product(ways, true, false, z.k, z.c, z.n, at.dy, at.x, nullptr, false, at.out);
  }
}

}  // namespace

void run_conv(ConvPass pass, const Conv2dSizes& sizes, const ConvPointers& at) {
  const ConvCandidate& best = predicted_conv(pass, sizes);
  const auto candidates = conv_candidates(pass);
  std::vector<cuda::Way> ways{{best.name, [&] { best.run(sizes, at); }}};
  for (const ConvCandidate& candidate : candidates) {
    const bool other = &candidate != &best && &candidate != &candidates.back();
    if (!other || (candidate.tf32 && !cuda_settings().tf32) || !candidate.supported(sizes, cuda::properties())) continue;
    ways.push_back({candidate.name, [&] { candidate.run(sizes, at); }});
  }
  add_vendor(ways, pass, sizes, at);
  const bool bias = at.bias != nullptr, residual = at.residual != nullptr;
  const char* const name = pass == ConvPass::fprop   ? "conv2d_forward"
                           : pass == ConvPass::dgrad ? "conv2d_backward_data"
                                                     : "conv2d_backward_weight";
  const char* const product = pass == ConvPass::fprop   ? "linear_forward"
                              : pass == ConvPass::dgrad ? "linear_backward_data"
                                                        : "linear_backward_weight";
  cuda::run_best(is_product(sizes) ? cuda::product_key(product, sizes.n, sizes.k, sizes.c, bias, residual, sizes.relu)
                                   : cuda::conv_key(name, sizes, bias, residual),
                 ways);
}

void conv_gradients(const Conv2dSizes& sizes, const ConvPointers& pointers, const float* y, float* dx, float* dweight,
                    float* dbias) {
  const std::int64_t rows = sizes.n * sizes.p * sizes.q;
  const bool mask = sizes.relu && rows > 0 && (dx != nullptr || dweight != nullptr);
  ConvPointers at = pointers;
  std::optional<cuda::Scratch> masked;
  if (mask) masked.emplace(static_cast<std::size_t>(rows * sizes.k) * sizeof(float));
  if (mask || dbias != nullptr) {
    mask_and_sum(rows, sizes.k, sizes.relu ? y : nullptr, at.dy, mask ? masked->data<float>() : nullptr, dbias);
    if (mask) at.dy = masked->data<float>();
  }
  at.out = dx;
  if (dx != nullptr) run_conv(ConvPass::dgrad, sizes, at);
  at.out = dweight;
  if (dweight != nullptr) run_conv(ConvPass::wgrad, sizes, at);
}

void conv2d_forward(Cuda, const Conv2dSizes& sizes, const float* x, const float* weight, const float* bias,
                    const float* residual, Companion*, float* y) {
  run_conv(ConvPass::fprop, sizes, {.x = x, .weight = weight, .bias = bias, .residual = residual, .out = y});
}

void conv2d_backward(Cuda, const Conv2dSizes& sizes, const float* x, const float* weight, const float* y, const float* dy,
                     float* dx, float* dweight, float* dbias) {
  conv_gradients(sizes, {.x = x, .weight = weight, .dy = dy}, y, dx, dweight, dbias);
}

}  // namespace shrike::kernels
