// Convolution by its definition: what the tuned kernels are tested against, and the kernel for groups and extreme sizes.
//
//   y[n, p, q, k] = sum over r, s, c of x[n, p stride - padding + r dilation, q stride - padding + s dilation, c] weight[k, r,
//   s, c]
//
// and its derivatives. Thread i owns output elements i, i + threads of the grid, ..., all `=`, and reads everything it needs
// from memory: two loads a multiply-add, with neighbouring threads at neighbouring channels. Operations 2 n p q k r s c /
// groups.
#include "kernels/conv.hpp"

namespace shrike::kernels {
namespace {

__device__ __forceinline__ std::int64_t first() { return std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; }
__device__ __forceinline__ std::int64_t stride() { return std::int64_t{gridDim.x} * blockDim.x; }

__global__ void naive_fprop_kernel(Conv2dSizes z, const float* __restrict__ x, const float* __restrict__ weight,
                                   const float* bias, const float* residual, float* __restrict__ y) {
  const std::int64_t channels = z.c / z.groups, filters = z.k / z.groups;
  for (std::int64_t i = first(); i < z.n * z.p * z.q * z.k; i += stride()) {
    const std::int64_t k = i % z.k, q = i / z.k % z.q, p = i / z.k / z.q % z.p, n = i / z.k / z.q / z.p;
    float sum = 0;
    for (std::int64_t r = 0; r < z.r; ++r) {
      const std::int64_t h = p * z.stride - z.padding + r * z.dilation;
      if (h < 0 || h >= z.h) continue;
      for (std::int64_t s = 0; s < z.s; ++s) {
        const std::int64_t w = q * z.stride - z.padding + s * z.dilation;
        if (w < 0 || w >= z.w) continue;
        const float* from = x + ((n * z.h + h) * z.w + w) * z.c + k / filters * channels;
        const float* by = weight + ((k * z.r + r) * z.s + s) * channels;
        for (std::int64_t c = 0; c < channels; ++c) sum = fmaf(from[c], by[c], sum);
      }
    }
    if (bias != nullptr) sum += bias[k];
    if (residual != nullptr) sum += residual[i];
    y[i] = z.relu && sum < 0.0f ? 0.0f : sum;
  }
}

__global__ void naive_dgrad_kernel(Conv2dSizes z, const float* __restrict__ dy, const float* __restrict__ weight,
                                   float* __restrict__ dx) {
  const std::int64_t channels = z.c / z.groups, filters = z.k / z.groups;
  for (std::int64_t i = first(); i < z.n * z.h * z.w * z.c; i += stride()) {
    const std::int64_t c = i % z.c, w = i / z.c % z.w, h = i / z.c / z.w % z.h, n = i / z.c / z.w / z.h;
    const std::int64_t group = c / channels;
    float sum = 0;
    for (std::int64_t r = 0; r < z.r; ++r) {
      const std::int64_t down = h + z.padding - r * z.dilation, p = down / z.stride;
      if (down < 0 || down % z.stride != 0 || p >= z.p) continue;
      for (std::int64_t s = 0; s < z.s; ++s) {
        const std::int64_t right = w + z.padding - s * z.dilation, q = right / z.stride;
        if (right < 0 || right % z.stride != 0 || q >= z.q) continue;
        const float* from = dy + ((n * z.p + p) * z.q + q) * z.k;
        for (std::int64_t k = group * filters; k < (group + 1) * filters; ++k) {
          sum = fmaf(from[k], weight[((k * z.r + r) * z.s + s) * channels + c % channels], sum);
        }
      }
    }
    dx[i] = sum;
  }
}

__global__ void naive_wgrad_kernel(Conv2dSizes z, const float* __restrict__ dy, const float* __restrict__ x,
                                   float* __restrict__ dweight) {
  const std::int64_t channels = z.c / z.groups, filters = z.k / z.groups;
  for (std::int64_t i = first(); i < z.k * z.r * z.s * channels; i += stride()) {
    const std::int64_t c = i % channels, s = i / channels % z.s, r = i / channels / z.s % z.r, k = i / channels / z.s / z.r;
    float sum = 0;
    for (std::int64_t n = 0; n < z.n; ++n) {
      for (std::int64_t p = 0; p < z.p; ++p) {
        const std::int64_t h = p * z.stride - z.padding + r * z.dilation;
        if (h < 0 || h >= z.h) continue;
        for (std::int64_t q = 0; q < z.q; ++q) {
          const std::int64_t w = q * z.stride - z.padding + s * z.dilation;
          if (w < 0 || w >= z.w) continue;
          sum = fmaf(dy[((n * z.p + p) * z.q + q) * z.k + k], x[((n * z.h + h) * z.w + w) * z.c + k / filters * channels + c],
                     sum);
        }
      }
    }
    dweight[i] = sum;
  }
}

}  // namespace

void naive_conv(ConvPass pass, const Conv2dSizes& z, const ConvPointers& at) {
  constexpr int threads = 256;
  if (pass == ConvPass::fprop) {
    const std::int64_t count = z.n * z.p * z.q * z.k;
    if (count == 0) return;
    cuda::launch(naive_fprop_kernel, cuda::blocks_for(count, threads), threads, 0, z, at.x, at.weight, at.bias, at.residual,
                 at.out);
  } else if (pass == ConvPass::dgrad) {
    const std::int64_t count = z.n * z.h * z.w * z.c;
    if (count == 0) return;
    cuda::launch(naive_dgrad_kernel, cuda::blocks_for(count, threads), threads, 0, z, at.dy, at.weight, at.out);
  } else {
    const std::int64_t count = z.k * z.r * z.s * (z.c / z.groups);
    cuda::launch(naive_wgrad_kernel, cuda::blocks_for(count, threads), threads, 0, z, at.dy, at.x, at.out);
  }
}

}  // namespace shrike::kernels
