// Fake-quantize, quantize, dequantize, and what observers ask of a tensor.
//
//   q = clamp(rint(x / s), low, high)    y = q * s
//
// Element i belongs to channel i / inner. Divisions are IEEE divisions, as on the CPU: codes are the same on every device. All
// kernels are `=` but histogram_abs, which is `+=` on integers. Each element is read and written once, 5 to 12 bytes for some
// ten operations: bandwidth is the bound.
#include <cmath>

#include "kernels/cuda.hpp"
#include "shrike/ops/quantize.hpp"

namespace shrike::kernels {
namespace {

constexpr int threads = 256;

__device__ __forceinline__ std::int64_t first() { return std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; }
__device__ __forceinline__ std::int64_t stride() { return std::int64_t{gridDim.x} * blockDim.x; }
unsigned blocks(std::int64_t n) { return n == 0 ? 0 : std::min(cuda::blocks_for(n, threads), 4096u); }

// Thread i owns elements i, i + threads of the grid, ... in the elementwise kernels.
__global__ void fake_quantize_forward_kernel(QuantizeSizes sizes, const float* __restrict__ x, const float* __restrict__ scale,
                                             float* __restrict__ y) {
  const auto low = static_cast<float>(sizes.low), high = static_cast<float>(sizes.high);
  for (std::int64_t i = first(); i < sizes.channels * sizes.inner; i += stride()) {
    const float s = fabsf(scale[i / sizes.inner]);
    const float q = rintf(x[i] / s);
    y[i] = s == 0.0f ? x[i] : (q < low ? low : q > high ? high : q) * s;  // NaN stays
  }
}

__global__ void fake_quantize_input_gradient_kernel(QuantizeSizes sizes, const float* __restrict__ x,
                                                    const float* __restrict__ scale, const float* __restrict__ dy,
                                                    float* __restrict__ dx) {
  const auto low = static_cast<float>(sizes.low), high = static_cast<float>(sizes.high);
  for (std::int64_t i = first(); i < sizes.channels * sizes.inner; i += stride()) {
    const float s = fabsf(scale[i / sizes.inner]);
    const float q = rintf(x[i] / s);
    dx[i] = s == 0.0f || (q >= low && q <= high) ? dy[i] : 0.0f;
  }
}

// Adds up a block's values in shared memory, always in the same tree; thread 0 gets the sum.
__device__ double block_sum(double value) {
  SHRIKE_SHARED(double, sums, [threads]);
  sums[threadIdx.x] = value;
  __syncthreads();
  for (int half = threads / 2; half > 0; half /= 2) {
    if (static_cast<int>(threadIdx.x) < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    __syncthreads();
  }
  return sums[0];
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
  sum = block_sum(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// Thread c owns channel c and adds up its parts in order.
__global__ void scale_gradient_kernel(std::int64_t channels, std::int64_t parts, float factor, const float* __restrict__ scale,
                                      const double* __restrict__ sums, float* __restrict__ dscale) {
  for (std::int64_t c = first(); c < channels; c += stride()) {
    double sum = 0;
    for (std::int64_t p = 0; p < parts; ++p) sum += sums[c * parts + p];
    dscale[c] = static_cast<float>(sum * (scale[c] < 0.0f ? -factor : factor));
  }
}

template <class Q> __global__ void quantize_kernel(QuantizeSizes sizes, const float* __restrict__ x,
                                                   const float* __restrict__ scale, Q* __restrict__ q) {
  const auto low = static_cast<float>(sizes.low), high = static_cast<float>(sizes.high);
  for (std::int64_t i = first(); i < sizes.channels * sizes.inner; i += stride()) {
    const float code = rintf(x[i] / fabsf(scale[i / sizes.inner]));
    q[i] = static_cast<Q>(static_cast<int>(code > low ? (code < high ? code : high) : low));
  }
}

template <class Q> __global__ void dequantize_kernel(QuantizeSizes sizes, const Q* __restrict__ q,
                                                     const float* __restrict__ scale, float* __restrict__ y) {
  for (std::int64_t i = first(); i < sizes.channels * sizes.inner; i += stride()) {
    y[i] = static_cast<float>(q[i]) * fabsf(scale[i / sizes.inner]);
  }
}

// IEEE binary16 by its bits: nothing here depends on the host's or the device's half type.
__global__ void widen_kernel(std::int64_t n, const std::uint16_t* __restrict__ x, float* __restrict__ y) {
  for (std::int64_t i = first(); i < n; i += stride()) {
    const unsigned bits = x[i];
    const unsigned sign = (bits & 0x8000u) << 16, exponent = (bits >> 10) & 0x1fu, mantissa = bits & 0x3ffu;
    const float small = static_cast<float>(mantissa) * 0x1p-24f;
    const unsigned wide = exponent == 31u ? 255u : exponent + 112u;
    const float normal = __uint_as_float(sign | (wide << 23) | (mantissa << 13));
    y[i] = exponent != 0u ? normal : sign ? -small : small;
  }
}

// Block (row, part) finds the extremes and the number of values that are not finite in its stretch of the row.
__global__ void min_max_parts_kernel(std::int64_t inner, std::int64_t parts, const float* __restrict__ x,
                                     float* __restrict__ ranges, std::int64_t* __restrict__ odd_parts) {
  SHRIKE_SHARED(float, lows, [threads]);
  SHRIKE_SHARED(float, highs, [threads]);
  SHRIKE_SHARED(int, odds, [threads]);
  const std::int64_t row = blockIdx.x / parts, part = blockIdx.x % parts;
  const std::int64_t begin = inner * part / parts, end = inner * (part + 1) / parts;
  float low = INFINITY, high = -INFINITY;
  int odd = 0;
  for (std::int64_t i = begin + threadIdx.x; i < end; i += threads) {
    const float v = x[row * inner + i];
    const bool finite = fabsf(v) < INFINITY;
    odd += !finite;
    low = finite && v < low ? v : low;
    high = finite && v > high ? v : high;
  }
  lows[threadIdx.x] = low;
  highs[threadIdx.x] = high;
  odds[threadIdx.x] = odd;
  __syncthreads();
  for (int half = threads / 2; half > 0; half /= 2) {
    if (static_cast<int>(threadIdx.x) < half) {
      lows[threadIdx.x] = fminf(lows[threadIdx.x], lows[threadIdx.x + half]);
      highs[threadIdx.x] = fmaxf(highs[threadIdx.x], highs[threadIdx.x + half]);
      odds[threadIdx.x] += odds[threadIdx.x + half];
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) {
    ranges[2 * blockIdx.x] = lows[0];
    ranges[2 * blockIdx.x + 1] = highs[0];
    odd_parts[blockIdx.x] = odds[0];
  }
}

// Thread r owns row r; thread 0 adds up all that is not finite.
__global__ void min_max_kernel(std::int64_t rows, std::int64_t parts, const float* __restrict__ ranges,
                               const std::int64_t* __restrict__ odd_parts, float* __restrict__ range,
                               std::int64_t* __restrict__ not_finite) {
  for (std::int64_t r = first(); r < rows; r += stride()) {
    float low = INFINITY, high = -INFINITY;
    for (std::int64_t p = r * parts; p < (r + 1) * parts; ++p) {
      low = fminf(low, ranges[2 * p]);
      high = fmaxf(high, ranges[2 * p + 1]);
    }
    range[2 * r] = low <= high ? low : 0.0f;
    range[2 * r + 1] = low <= high ? high : 0.0f;
  }
  if (first() == 0) {
    std::int64_t odd = 0;
    for (std::int64_t p = 0; p < rows * parts; ++p) odd += odd_parts[p];
    *not_finite = odd;
  }
}

// A block counts in shared memory, then adds its counts to the whole: integer atomics, the same sum in any order.
__global__ void histogram_kernel(std::int64_t n, std::int64_t bins, float width, const float* __restrict__ x,
                                 unsigned long long* counts) {
  SHRIKE_DYNAMIC_SHARED(unsigned, own);
  for (std::int64_t b = threadIdx.x; b < bins; b += threads) own[b] = 0;
  __syncthreads();
  const auto last = static_cast<float>(bins - 1);
  for (std::int64_t i = first(); i < n; i += stride()) atomicAdd(&own[static_cast<int>(fminf(fabsf(x[i]) / width, last))], 1u);
  __syncthreads();
  for (std::int64_t b = threadIdx.x; b < bins; b += threads) {
    if (own[b] != 0) atomicAdd(&counts[b], static_cast<unsigned long long>(own[b]));
  }
}

// Into how many stretches a row is cut: enough for every multiprocessor, of at least 4096 elements.
std::int64_t parts_of(std::int64_t rows, std::int64_t inner) {
  return std::clamp<std::int64_t>(std::min<std::int64_t>(inner / 4096, 1024 / std::max<std::int64_t>(rows, 1)), 1, 1024);
}

}  // namespace

void fake_quantize_forward(Cuda, const QuantizeSizes& sizes, const float* x, const float* scale, float* y) {
  cuda::launch(fake_quantize_forward_kernel, blocks(sizes.channels * sizes.inner), threads, 0, sizes, x, scale, y);
}

void fake_quantize_backward(Cuda, const QuantizeSizes& sizes, float factor, const float* x, const float* scale, const float* dy,
                            float* dx, float* dscale) {
  const std::int64_t n = sizes.channels * sizes.inner;
  if (dx != nullptr) cuda::launch(fake_quantize_input_gradient_kernel, blocks(n), threads, 0, sizes, x, scale, dy, dx);
  if (dscale == nullptr || sizes.channels == 0) return;
  const std::int64_t parts = parts_of(sizes.channels, sizes.inner);
  const cuda::Scratch sums(static_cast<std::size_t>(sizes.channels * parts) * sizeof(double));
  cuda::launch(scale_gradient_parts_kernel, static_cast<unsigned>(sizes.channels * parts), threads, 0, sizes, parts, x, scale,
               dy, sums.data<double>());
  cuda::launch(scale_gradient_kernel, blocks(sizes.channels), threads, 0, sizes.channels, parts, factor, scale,
               static_cast<const double*>(sums.data<double>()), dscale);
}

void quantize_forward(Cuda, const QuantizeSizes& sizes, const float* x, const float* scale, void* q) {
  const unsigned grid = blocks(sizes.channels * sizes.inner);
  if (sizes.low < 0) {
    cuda::launch(quantize_kernel<std::int8_t>, grid, threads, 0, sizes, x, scale, static_cast<std::int8_t*>(q));
  } else {
    cuda::launch(quantize_kernel<std::uint8_t>, grid, threads, 0, sizes, x, scale, static_cast<std::uint8_t*>(q));
  }
}

void dequantize_forward(Cuda, const QuantizeSizes& sizes, const void* q, const float* scale, float* y) {
  const unsigned grid = blocks(sizes.channels * sizes.inner);
  if (sizes.low < 0) {
    cuda::launch(dequantize_kernel<std::int8_t>, grid, threads, 0, sizes, static_cast<const std::int8_t*>(q), scale, y);
  } else {
    cuda::launch(dequantize_kernel<std::uint8_t>, grid, threads, 0, sizes, static_cast<const std::uint8_t*>(q), scale, y);
  }
}

void widen_forward(Cuda, std::int64_t n, const Half* x, float* y) {
  static_assert(sizeof(Half) == sizeof(std::uint16_t));
  cuda::launch(widen_kernel, blocks(n), threads, 0, n, reinterpret_cast<const std::uint16_t*>(x), y);
}

void min_max_rows(Cuda, std::int64_t rows, std::int64_t inner, const float* x, float* range, std::int64_t* not_finite) {
  const std::int64_t parts = parts_of(rows, inner);
  const cuda::Scratch ranges(static_cast<std::size_t>(2 * rows * parts) * sizeof(float));
  const cuda::Scratch odd(static_cast<std::size_t>(rows * parts) * sizeof(std::int64_t));
  cuda::launch(min_max_parts_kernel, static_cast<unsigned>(rows * parts), threads, 0, inner, parts, x, ranges.data<float>(),
               odd.data<std::int64_t>());
  cuda::launch(min_max_kernel, cuda::blocks_for(rows, threads), threads, 0, rows, parts,
               static_cast<const float*>(ranges.data<float>()), static_cast<const std::int64_t*>(odd.data<std::int64_t>()),
               range, not_finite);
}

void histogram_abs(Cuda, std::int64_t n, std::int64_t bins, float width, const float* x, std::int64_t* counts) {
  SHRIKE_CHECK(bins > 0 && bins <= 8192, "histogram: ", bins, " bins: expected 1 to 8192");
  const auto bytes = static_cast<std::size_t>(bins) * sizeof(unsigned);
  const unsigned grid = n == 0 ? 0 : std::min(cuda::blocks_for(n, 16 * threads), 512u);
  cuda::launch(histogram_kernel, grid, threads, bytes, n, bins, width, x, reinterpret_cast<unsigned long long*>(counts));
}

}  // namespace shrike::kernels
