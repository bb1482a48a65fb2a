// Fake-quantize, quantize, dequantize.
//
//   q = clamp(rint(x / s), low, high)    y = q * s
//
// Element i belongs to channel i / inner. Divisions are IEEE divisions, as on the CPU: codes are the same on every device. All
// kernels are `=`. Each element is read and written once, 5 to 12 bytes for some ten operations: bandwidth is the bound.
#include <cmath>

#include "kernels/reduce.cuh"
#include "shrike/ops/quantize.hpp"

namespace shrike::kernels {
namespace {

constexpr int threads = 256;

// Thread i owns elements i, i + threads of the grid, ... in the elementwise kernels.
__global__ void fake_quantize_forward_kernel(QuantizeSizes sizes, const float* __restrict__ x, const float* __restrict__ scale,
                                             float* __restrict__ y) {
  const auto low = static_cast<float>(sizes.low), high = static_cast<float>(sizes.high);
  for (std::int64_t i = cuda::first_index(); i < sizes.channels * sizes.inner; i += cuda::index_stride()) {
    const float s = fabsf(scale[i / sizes.inner]);
    const float q = rintf(x[i] / s);
    y[i] = s == 0.0f ? x[i] : (q < low ? low : q > high ? high : q) * s;  // NaN stays
  }
}

__global__ void fake_quantize_input_gradient_kernel(QuantizeSizes sizes, const float* __restrict__ x,
                                                    const float* __restrict__ scale, const float* __restrict__ dy,
                                                    float* __restrict__ dx) {
  const auto low = static_cast<float>(sizes.low), high = static_cast<float>(sizes.high);
  for (std::int64_t i = cuda::first_index(); i < sizes.channels * sizes.inner; i += cuda::index_stride()) {
    const float s = fabsf(scale[i / sizes.inner]);
    const float q = rintf(x[i] / s);
    dx[i] = s == 0.0f || (q >= low && q <= high) ? dy[i] : 0.0f;
  }
}

// Block b of row `channel` sums its stretch of the channel: parts [channels, parts]. Thread t owns elements t, t + 256, ... of
// it.
__global__ void scale_gradient_parts_kernel(QuantizeSizes sizes, std::int64_t parts, const float* __restrict__ x,
                                            const float* __restrict__ scale, const float* __restrict__ dy,
                                            double* __restrict__ sums) {
  const std::int64_t channel = blockIdx.x / parts, part = blockIdx.x % parts;
  const std::int64_t begin = sizes.inner * part / parts, end = sizes.inner * (part + 1) / parts;
  const auto low = static_cast<float>(sizes.low), high = static_cast<float>(sizes.high);
  const float s = fabsf(scale[channel]);
  double sum = 0;
  for (std::int64_t i = begin + threadIdx.x; i < end && s != 0.0f; i += threads) {
    const float v = x[channel * sizes.inner + i] / s;
    const float q = rintf(v);
    sum += static_cast<double>(dy[channel * sizes.inner + i]) * (q < low ? low : q > high ? high : q - v);
  }
  SHRIKE_SHARED(double, slots, [32]);
  sum = cuda::block_sum(sum, slots);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// Thread c owns channel c and adds up its parts in order.
__global__ void scale_gradient_kernel(std::int64_t channels, std::int64_t parts, float factor, const float* __restrict__ scale,
                                      const double* __restrict__ sums, float* __restrict__ dscale) {
  for (std::int64_t c = cuda::first_index(); c < channels; c += cuda::index_stride()) {
    double sum = 0;
    for (std::int64_t p = 0; p < parts; ++p) sum += sums[c * parts + p];
    dscale[c] = static_cast<float>(sum * (scale[c] < 0.0f ? -factor : factor));
  }
}

template <class Q> __global__ void quantize_kernel(QuantizeSizes sizes, const float* __restrict__ x,
                                                   const float* __restrict__ scale, Q* __restrict__ q) {
  const auto low = static_cast<float>(sizes.low), high = static_cast<float>(sizes.high);
  for (std::int64_t i = cuda::first_index(); i < sizes.channels * sizes.inner; i += cuda::index_stride()) {
    const float code = rintf(x[i] / fabsf(scale[i / sizes.inner]));
    q[i] = static_cast<Q>(static_cast<int>(code > low ? (code < high ? code : high) : low));
  }
}

template <class Q> __global__ void dequantize_kernel(QuantizeSizes sizes, const Q* __restrict__ q,
                                                     const float* __restrict__ scale, float* __restrict__ y) {
  for (std::int64_t i = cuda::first_index(); i < sizes.channels * sizes.inner; i += cuda::index_stride()) {
    y[i] = static_cast<float>(q[i]) * fabsf(scale[i / sizes.inner]);
  }
}

}  // namespace

void fake_quantize_forward(Cuda, const QuantizeSizes& sizes, const float* x, const float* scale, float* y) {
  cuda::launch(fake_quantize_forward_kernel, cuda::loop_blocks(sizes.channels * sizes.inner, threads), threads, 0, sizes, x,
               scale, y);
}

void fake_quantize_backward(Cuda, const QuantizeSizes& sizes, float factor, const float* x, const float* scale, const float* dy,
                            float* dx, float* dscale) {
  const std::int64_t n = sizes.channels * sizes.inner;
  if (dx != nullptr)
    cuda::launch(fake_quantize_input_gradient_kernel, cuda::loop_blocks(n, threads), threads, 0, sizes, x, scale, dy, dx);
  if (dscale == nullptr || sizes.channels == 0) return;
  const std::int64_t parts = cuda::stretches(sizes.channels, sizes.inner);
  const cuda::Scratch sums(static_cast<std::size_t>(sizes.channels * parts) * sizeof(double));
  cuda::launch(scale_gradient_parts_kernel, static_cast<unsigned>(sizes.channels * parts), threads, 0, sizes, parts, x, scale,
               dy, sums.data<double>());
  cuda::launch(scale_gradient_kernel, cuda::loop_blocks(sizes.channels, threads), threads, 0, sizes.channels, parts, factor,
               scale, static_cast<const double*>(sums.data<double>()), dscale);
}

void quantize_forward(Cuda, const QuantizeSizes& sizes, const float* x, const float* scale, void* q) {
  const unsigned grid = cuda::loop_blocks(sizes.channels * sizes.inner, threads);
  if (sizes.low < 0) {
    cuda::launch(quantize_kernel<std::int8_t>, grid, threads, 0, sizes, x, scale, static_cast<std::int8_t*>(q));
  } else {
    cuda::launch(quantize_kernel<std::uint8_t>, grid, threads, 0, sizes, x, scale, static_cast<std::uint8_t*>(q));
  }
}

void dequantize_forward(Cuda, const QuantizeSizes& sizes, const void* q, const float* scale, float* y) {
  const unsigned grid = cuda::loop_blocks(sizes.channels * sizes.inner, threads);
  if (sizes.low < 0) {
    cuda::launch(dequantize_kernel<std::int8_t>, grid, threads, 0, sizes, static_cast<const std::int8_t*>(q), scale, y);
  } else {
    cuda::launch(dequantize_kernel<std::uint8_t>, grid, threads, 0, sizes, static_cast<const std::uint8_t*>(q), scale, y);
  }
}

}  // namespace shrike::kernels
