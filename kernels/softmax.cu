// Softmax over the last dimension: y = exp(x - max) / sum, sums in double.
//
// A row of at most 1024 columns belongs to a group of G lanes, G the power of two at or above the columns, at most 32; a longer
// row to a block. 8 bytes moved per element forward and 12 backward: the later passes over a row find it in the cache. NaN
// anywhere, or +infinity, makes the whole row NaN, through the sum.
#include "kernels/reduce.cuh"
#include "shrike/ops/softmax.hpp"

namespace shrike::kernels {
namespace {

constexpr int threads = 256;
constexpr std::int64_t group_columns = 1024;

// Who reduces a row: a group of G lanes or, G = 0, the block.
template <int G> struct Team {
  double* slots;
  __device__ int lane() const { return static_cast<int>(G > 0 ? threadIdx.x % (G > 0 ? G : 1) : threadIdx.x); }
  __device__ int size() const { return G > 0 ? G : threads; }
  __device__ double sum(double value) const {
    if constexpr (G > 0) {
      return cuda::group_sum<G>(value);
    } else {
      return cuda::block_sum(value, slots);
    }
  }
  __device__ float max(float value) const {
    if constexpr (G > 0) {
      return cuda::group_max<G>(value);
    } else {
      value = cuda::group_max<32>(value);
      if (threadIdx.x % 32 == 0) slots[threadIdx.x / 32] = static_cast<double>(value);
      __syncthreads();
      const int at = static_cast<int>(threadIdx.x) % (threads / 32);
      value = cuda::group_max<32>(static_cast<float>(slots[at]));
      __syncthreads();
      return value;
    }
  }
};

// Rows are the same number of turns for every team of a block, since all lanes of a warp take part in its shuffles.
template <int G> struct Rows {
  static constexpr int per_block = G > 0 ? threads / (G > 0 ? G : 1) : 1;
  __device__ static std::int64_t first() { return std::int64_t{blockIdx.x} * per_block; }
  __device__ static std::int64_t stride() { return std::int64_t{gridDim.x} * per_block; }
  __device__ static std::int64_t own(std::int64_t base) { return base + (G > 0 ? threadIdx.x / (G > 0 ? G : 1) : 0); }
};

template <int G> __global__ void __launch_bounds__(threads)
    softmax_forward_kernel(std::int64_t rows, std::int64_t columns, const float* __restrict__ x, float* __restrict__ y) {
  SHRIKE_SHARED(double, slots, [32]);
  const Team<G> team{slots};
  for (std::int64_t base = Rows<G>::first(); base < rows; base += Rows<G>::stride()) {
    const std::int64_t row = Rows<G>::own(base);
    const std::int64_t width = row < rows ? columns : 0;
    const float* in = x + row * columns;
    float* out = y + row * columns;
    float top = -INFINITY;
    for (std::int64_t i = team.lane(); i < width; i += team.size()) top = in[i] > top ? in[i] : top;
    top = team.max(top);
    double sum = 0;
    for (std::int64_t i = team.lane(); i < width; i += team.size()) sum += static_cast<double>(expf(in[i] - top));
    const auto scale = static_cast<float>(1.0 / team.sum(sum));
    for (std::int64_t i = team.lane(); i < width; i += team.size()) out[i] = expf(in[i] - top) * scale;
  }
}

// dx = y (dy - sum of y dy)
template <int G> __global__ void __launch_bounds__(threads)
    softmax_backward_kernel(std::int64_t rows, std::int64_t columns, const float* __restrict__ y, const float* __restrict__ dy,
                            float* __restrict__ dx) {
  SHRIKE_SHARED(double, slots, [32]);
  const Team<G> team{slots};
  for (std::int64_t base = Rows<G>::first(); base < rows; base += Rows<G>::stride()) {
    const std::int64_t row = Rows<G>::own(base);
    const std::int64_t width = row < rows ? columns : 0;
    const std::int64_t at = row * columns;
    double sum = 0;
    for (std::int64_t i = team.lane(); i < width; i += team.size()) {
      sum += static_cast<double>(y[at + i]) * static_cast<double>(dy[at + i]);
    }
    const auto total = static_cast<float>(team.sum(sum));
    for (std::int64_t i = team.lane(); i < width; i += team.size()) dx[at + i] = y[at + i] * (dy[at + i] - total);
  }
}

// Calls f with the group size of `columns` as a constant.
template <class F> void with_group(std::int64_t columns, const F& f) {
  if (columns > group_columns) return f(std::integral_constant<int, 0>{});
  if (columns > 16) return f(std::integral_constant<int, 32>{});
  if (columns > 8) return f(std::integral_constant<int, 16>{});
  if (columns > 4) return f(std::integral_constant<int, 8>{});
  if (columns > 2) return f(std::integral_constant<int, 4>{});
  return f(std::integral_constant<int, 2>{});
}

}  // namespace

void softmax_forward(Cuda, std::int64_t rows, std::int64_t columns, const float* x, float* y) {
  with_group(columns, [&](auto g) {
    constexpr int G = decltype(g)::value;
    cuda::launch(softmax_forward_kernel<G>, cuda::loop_blocks(rows, Rows<G>::per_block), threads, 0, rows, columns, x, y);
  });
}

void softmax_backward(Cuda, std::int64_t rows, std::int64_t columns, const float* y, const float* dy, float* dx) {
  with_group(columns, [&](auto g) {
    constexpr int G = decltype(g)::value;
    cuda::launch(softmax_backward_kernel<G>, cuda::loop_blocks(rows, Rows<G>::per_block), threads, 0, rows, columns, y, dy, dx);
  });
}

}  // namespace shrike::kernels
