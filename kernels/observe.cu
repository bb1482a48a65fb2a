// What observers ask of a tensor, and what they make of it: all on the device, so that training does not wait.
//
// min_max_rows and histogram_abs read each element once, 4 bytes for some five operations: bandwidth is the bound. The others
// are a thread a row. All kernels are `=` but histogram_abs, which is `+=` on integers.
#include <cmath>

#include "kernels/reduce.cuh"
#include "shrike/ops/quantize.hpp"

namespace shrike::kernels {
namespace {

constexpr int threads = 256;

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
  for (std::int64_t r = cuda::first_index(); r < rows; r += cuda::index_stride()) {
    float low = INFINITY, high = -INFINITY;
    for (std::int64_t p = r * parts; p < (r + 1) * parts; ++p) {
      low = fminf(low, ranges[2 * p]);
      high = fmaxf(high, ranges[2 * p + 1]);
    }
    range[2 * r] = low <= high ? low : 0.0f;
    range[2 * r + 1] = low <= high ? high : 0.0f;
  }
  if (cuda::first_index() == 0) {
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
  for (std::int64_t i = cuda::first_index(); i < n; i += cuda::index_stride())
    atomicAdd(&own[static_cast<int>(fminf(fabsf(x[i]) / width, last))], 1u);
  __syncthreads();
  for (std::int64_t b = threadIdx.x; b < bins; b += threads) {
    if (own[b] != 0) atomicAdd(&counts[b], static_cast<unsigned long long>(own[b]));
  }
}

// Thread r owns row r; thread 0 counts.
__global__ void track_range_kernel(std::int64_t rows, float share, bool start, const float* __restrict__ range,
                                   const std::int64_t* __restrict__ odd, const float* __restrict__ before,
                                   const std::int64_t* __restrict__ odd_before, float* __restrict__ after,
                                   std::int64_t* __restrict__ odd_after) {
  for (std::int64_t r = cuda::first_index(); r < rows; r += cuda::index_stride()) {
    const float low = range[2 * r], high = range[2 * r + 1];
    after[4 * r] = start ? low : fminf(before[4 * r], low);
    after[4 * r + 1] = start ? high : fmaxf(before[4 * r + 1], high);
    after[4 * r + 2] = start ? low : fmaf(share, low - before[4 * r + 2], before[4 * r + 2]);
    after[4 * r + 3] = start ? high : fmaf(share, high - before[4 * r + 3], before[4 * r + 3]);
  }
  if (cuda::first_index() == 0) *odd_after = *odd + (start ? 0 : *odd_before);
}

// Thread r owns row r.
__global__ void range_scales_kernel(std::int64_t rows, std::int64_t pitch, int low, int high, const float* __restrict__ range,
                                    float* __restrict__ scale) {
  for (std::int64_t r = cuda::first_index(); r < rows; r += cuda::index_stride()) {
    const float least = range[pitch * r], greatest = range[pitch * r + 1];
    const float reach = low < 0 ? fmaxf(-least, greatest) : greatest;
    scale[r] = fmaxf(reach, 0x1p-24f) / static_cast<float>(high);
  }
}

}  // namespace

void min_max_rows(Cuda, std::int64_t rows, std::int64_t inner, const float* x, float* range, std::int64_t* not_finite) {
  const std::int64_t parts = cuda::stretches(rows, inner);
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

void track_range(Cuda, std::int64_t rows, float share, bool start, const float* range, const std::int64_t* odd,
                 const float* before, const std::int64_t* odd_before, float* after, std::int64_t* odd_after) {
  cuda::launch(track_range_kernel, cuda::blocks_for(rows, threads), threads, 0, rows, share, start, range, odd, before,
               odd_before, after, odd_after);
}

void range_scales(Cuda, std::int64_t rows, std::int64_t pitch, int low, int high, const float* range, float* scale) {
  cuda::launch(range_scales_kernel, cuda::blocks_for(rows, threads), threads, 0, rows, pitch, low, high, range, scale);
}

}  // namespace shrike::kernels
