// Elementwise operations. Thread i owns elements i, i + threads of the grid, ...; all are `=` but accumulate, which is `+=`.
// Each reads its inputs once and writes its output once, 8 to 12 bytes an element for one or two operations: bandwidth is the
// bound.
#include "kernels/cuda.hpp"
#include "shrike/ops/elementwise.hpp"

namespace shrike::kernels {
namespace {

constexpr int threads = 256;

__device__ __forceinline__ std::int64_t first() { return std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; }
__device__ __forceinline__ std::int64_t stride() { return std::int64_t{gridDim.x} * blockDim.x; }

// y[i] = f(i) for all i < n. Vectors of four where all pointers are aligned to 16 bytes would save instructions, not bytes: a
// warp's 32 neighbouring floats are whole 128-byte lines already.
__global__ void relu_forward_kernel(std::int64_t n, const float* __restrict__ x, float* __restrict__ y) {
  for (std::int64_t i = first(); i < n; i += stride()) y[i] = x[i] < 0.0f ? 0.0f : x[i];  // NaN stays
}

__global__ void relu_backward_kernel(std::int64_t n, const float* __restrict__ y, const float* __restrict__ dy,
                                     float* __restrict__ dx) {
  for (std::int64_t i = first(); i < n; i += stride()) dx[i] = y[i] > 0.0f ? dy[i] : 0.0f;
}

// a and b may be the same array.
__global__ void add_forward_kernel(std::int64_t n, const float* a, const float* b, bool relu, float* y) {
  for (std::int64_t i = first(); i < n; i += stride()) {
    const float sum = a[i] + b[i];
    y[i] = relu && sum < 0.0f ? 0.0f : sum;
  }
}

__global__ void scale_forward_kernel(std::int64_t n, const float* __restrict__ x, float factor, float* __restrict__ y) {
  for (std::int64_t i = first(); i < n; i += stride()) y[i] = factor * x[i];
}

__global__ void fill_kernel(std::int64_t n, float value, float* __restrict__ y) {
  for (std::int64_t i = first(); i < n; i += stride()) y[i] = value;
}

// x and y may be the same array.
__global__ void accumulate_kernel(std::int64_t n, const float* x, float* y) {
  for (std::int64_t i = first(); i < n; i += stride()) y[i] += x[i];
}

// Enough blocks to fill any GPU; what is left, the loops' strides take. None for no elements.
unsigned blocks(std::int64_t n) { return n == 0 ? 0 : std::min(cuda::blocks_for(n, threads), 4096u); }

}  // namespace

void relu_forward(Cuda, std::int64_t n, const float* x, float* y) {
  cuda::launch(relu_forward_kernel, blocks(n), threads, 0, n, x, y);
}

void relu_backward(Cuda, std::int64_t n, const float* y, const float* dy, float* dx) {
  cuda::launch(relu_backward_kernel, blocks(n), threads, 0, n, y, dy, dx);
}

void add_forward(Cuda, std::int64_t n, const float* a, const float* b, bool relu, float* y) {
  cuda::launch(add_forward_kernel, blocks(n), threads, 0, n, a, b, relu, y);
}

void scale_forward(Cuda, std::int64_t n, const float* x, float factor, float* y) {
  cuda::launch(scale_forward_kernel, blocks(n), threads, 0, n, x, factor, y);
}

void fill_f32(Cuda, std::int64_t n, float value, float* y) { cuda::launch(fill_kernel, blocks(n), threads, 0, n, value, y); }

void accumulate_f32(Cuda, std::int64_t n, const float* x, float* y) {
  cuda::launch(accumulate_kernel, blocks(n), threads, 0, n, x, y);
}

}  // namespace shrike::kernels
