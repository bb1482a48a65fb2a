// Batch normalization over rows of C channels. A block is `lanes` channel vectors wide and 256 / lanes rows high; a thread
// keeps its channels and strides over rows.
//
// Statistics: each block adds up one slab of rows (float over runs of 16 rows, then double, then its threads in order), shifted
// by the first row so that little cancels; a second kernel adds the slabs in order and finishes. Slabs depend on the sizes
// alone. Bytes per element: statistics 4, forward 8, backward 8 (sums) + 12, each 4 more with the ReLU's y. Bandwidth is the
// bound.
#include "kernels/reduce.cuh"
#include "shrike/ops/batch_norm.hpp"

namespace shrike::kernels {
namespace {

constexpr int threads = 256;
constexpr std::int64_t run = 16;         // rows added in float
constexpr std::int64_t max_slabs = 512;  // enough blocks for any GPU, few enough to add up quickly

// How blocks lie over [rows, c] in vectors of V.
struct Layout {
  dim3 grid, block;
  std::int64_t slab;  // rows of a block

  Layout(const BatchNormSizes& z, int V, std::int64_t most) {
    const std::int64_t vectors = z.c / V;
    unsigned lanes = 1;
    while (lanes < 32 && lanes < vectors) lanes *= 2;
    block = dim3(lanes, threads / lanes);
    const std::int64_t columns = (vectors + lanes - 1) / lanes;
    const std::int64_t least = 4 * block.y;
    slab = std::max(least, (z.rows + most - 1) / most);
    grid = dim3(static_cast<unsigned>(columns), static_cast<unsigned>((z.rows + slab - 1) / slab));
  }
};

// What the sums are of, for V channels of one row.
template <int V> struct Moments {  // x - first row, and its square
  const float* x;
  __device__ void operator()(std::int64_t at, std::int64_t channel, float (&a)[V], float (&b)[V]) const {
    const auto value = cuda::load<V>(x + at);
    const auto shift = cuda::load<V>(x + channel);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const float shifted = value.v[k] - shift.v[k];
      a[k] += shifted;
      b[k] += shifted * shifted;
    }
  }
};

// dy where y > 0 or there is no y.
template <int V> __device__ __forceinline__ cuda::Pack<float, V> gradient_at(const float* y, const float* dy, std::int64_t at) {
  auto gradient = cuda::load<V>(dy + at);
  if (y != nullptr) {
    const auto out = cuda::load<V>(y + at);
#pragma unroll
    for (int k = 0; k < V; ++k) gradient.v[k] = out.v[k] > 0.0f ? gradient.v[k] : 0.0f;
  }
  return gradient;
}

template <int V> struct Gradients {  // dy, and dy (x - mean)
  const float* x;
  const float* mean;
  const float* y;
  const float* dy;
  __device__ void operator()(std::int64_t at, std::int64_t channel, float (&a)[V], float (&b)[V]) const {
    const auto gradient = gradient_at<V>(y, dy, at);
    const auto from = cuda::load<V>(x + at);
    const auto middle = cuda::load<V>(mean + channel);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      a[k] += gradient.v[k];
      b[k] += gradient.v[k] * (from.v[k] - middle.v[k]);
    }
  }
};

// partial [slabs, 2, c] = the two sums of `terms` over each slab.
template <int V, class Terms> __global__ void __launch_bounds__(threads)
    column_sums_kernel(std::int64_t rows, std::int64_t c, std::int64_t slab, const Terms terms, double* __restrict__ partial) {
  SHRIKE_SHARED(double, sums, [2 * V * threads]);
  const std::int64_t channel = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * V;
  const std::int64_t begin = std::int64_t{blockIdx.y} * slab;
  const std::int64_t end = channel >= c ? begin : begin + slab < rows ? begin + slab : rows;
  double total[2][V] = {};
  for (std::int64_t first = begin + threadIdx.y; first < end; first += run * blockDim.y) {
    float a[V] = {}, b[V] = {};
#pragma unroll 4
    for (std::int64_t j = 0; j < run; ++j) {
      const std::int64_t row = first + j * blockDim.y;
      if (row < end) terms(row * c + channel, channel, a, b);
    }
#pragma unroll
    for (int k = 0; k < V; ++k) {
      total[0][k] += static_cast<double>(a[k]);
      total[1][k] += static_cast<double>(b[k]);
    }
  }
  const int thread = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
#pragma unroll
  for (int k = 0; k < 2 * V; ++k) sums[k * threads + thread] = total[k / V][k % V];
  __syncthreads();
  if (threadIdx.y != 0 || channel >= c) return;
#pragma unroll
  for (int k = 0; k < 2 * V; ++k) {
    double sum = 0;
    for (unsigned j = 0; j < blockDim.y; ++j) sum += sums[k * threads + static_cast<int>(j * blockDim.x + threadIdx.x)];
    partial[(blockIdx.y * 2 + k / V) * c + channel + k % V] = sum;
  }
}

// Sum number `which` of channel i over all slabs, in order. Called by blocks of (32, 8); the result is in row 0's threads.
__device__ __forceinline__ double add_slabs(std::int64_t slabs, std::int64_t c, const double* partial, int which,
                                            std::int64_t i, double* slots) {
  double sum = 0;
  for (std::int64_t slab = threadIdx.y; i < c && slab < slabs; slab += 8) sum += partial[(slab * 2 + which) * c + i];
  slots[threadIdx.y * 32 + threadIdx.x] = sum;
  __syncthreads();
  sum = 0;
  for (int j = 0; j < 8; ++j) sum += slots[j * 32 + static_cast<int>(threadIdx.x)];
  __syncthreads();
  return sum;
}

// Thread (i, 0) of a block owns a channel.
__global__ void __launch_bounds__(threads)
    finish_statistics_kernel(const BatchNormSizes z, double momentum, std::int64_t slabs, const double* __restrict__ partial,
                             const float* __restrict__ x, float* mean, float* inv_std, float* running_mean,
                             float* running_var) {
  SHRIKE_SHARED(double, slots, [threads]);
  const std::int64_t i = std::int64_t{blockIdx.x} * 32 + threadIdx.x;
  const double sum = add_slabs(slabs, z.c, partial, 0, i, slots);
  const double squares = add_slabs(slabs, z.c, partial, 1, i, slots);
  if (threadIdx.y != 0 || i >= z.c) return;
  const auto n = static_cast<double>(z.rows > 0 ? z.rows : 1);
  const double shifted = sum / n;
  const double m = z.rows > 0 ? static_cast<double>(x[i]) + shifted : 0.0;
  const double spread = squares / n - shifted * shifted;
  const double var = spread < 0.0 ? 0.0 : spread;  // NaN stays
  mean[i] = static_cast<float>(m);
  inv_std[i] = static_cast<float>(1.0 / sqrt(var + z.eps));
  if (z.rows == 0) return;
  const double unbiased = var * n / (n > 2.0 ? n - 1.0 : 1.0);
  if (running_mean != nullptr) running_mean[i] += static_cast<float>(momentum * (m - static_cast<double>(running_mean[i])));
  if (running_var != nullptr) {
    running_var[i] += static_cast<float>(momentum * (unbiased - static_cast<double>(running_var[i])));
  }
}

__global__ void __launch_bounds__(threads)
    batch_norm_inv_std_kernel(const BatchNormSizes z, const float* __restrict__ var, float* __restrict__ inv_std) {
  for (std::int64_t i = cuda::first_index(); i < z.c; i += cuda::index_stride()) {
    inv_std[i] = static_cast<float>(1.0 / sqrt(static_cast<double>(var[i]) + z.eps));
  }
}

// y = x scale + shift
template <int V> __global__ void __launch_bounds__(threads)
    batch_norm_forward_kernel(const BatchNormSizes z, std::int64_t slab, const float* __restrict__ x,
                              const float* __restrict__ weight, const float* __restrict__ bias, const float* __restrict__ mean,
                              const float* __restrict__ inv_std, float* __restrict__ y) {
  const std::int64_t channel = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * V;
  if (channel >= z.c) return;
  float scale[V], shift[V];
#pragma unroll
  for (int k = 0; k < V; ++k) {
    scale[k] = weight[channel + k] * inv_std[channel + k];
    shift[k] = bias[channel + k] - mean[channel + k] * scale[k];
  }
  const std::int64_t begin = std::int64_t{blockIdx.y} * slab;
  const std::int64_t end = begin + slab < z.rows ? begin + slab : z.rows;
#pragma unroll 4
  for (std::int64_t row = begin + threadIdx.y; row < end; row += blockDim.y) {
    auto value = cuda::load<V>(x + row * z.c + channel);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const float out = value.v[k] * scale[k] + shift[k];
      value.v[k] = z.relu && out < 0.0f ? 0.0f : out;
    }
    cuda::store<V>(y + row * z.c + channel, value);
  }
}

// The gradients of weight and bias, and coefficients [3, c] with dx = a dy + (b x + d). Thread (i, 0) of a block owns a
// channel.
__global__ void __launch_bounds__(threads)
    finish_gradients_kernel(const BatchNormSizes z, bool training, std::int64_t slabs, const double* __restrict__ partial,
                            const float* __restrict__ weight, const float* __restrict__ mean, const float* __restrict__ inv_std,
                            float* dweight, float* dbias, float* __restrict__ coefficients) {
  SHRIKE_SHARED(double, slots, [threads]);
  const std::int64_t i = std::int64_t{blockIdx.x} * 32 + threadIdx.x;
  const double sum = add_slabs(slabs, z.c, partial, 0, i, slots);
  const double raw_product = add_slabs(slabs, z.c, partial, 1, i, slots);
  if (threadIdx.y != 0 || i >= z.c) return;
  const double product = raw_product * static_cast<double>(inv_std[i]);
  const auto n = static_cast<double>(z.rows > 0 ? z.rows : 1);
  if (dbias != nullptr) dbias[i] = static_cast<float>(sum);
  if (dweight != nullptr) dweight[i] = static_cast<float>(product);
  const float a = weight[i] * inv_std[i];
  const float b = training ? -a * inv_std[i] * static_cast<float>(product / n) : 0.0f;
  coefficients[i] = a;
  coefficients[z.c + i] = b;
  coefficients[2 * z.c + i] = training ? -a * static_cast<float>(sum / n) - b * mean[i] : 0.0f;
}

// dx =
template <int V> __global__ void __launch_bounds__(threads)
    batch_norm_backward_kernel(const BatchNormSizes z, std::int64_t slab, const float* __restrict__ coefficients,
                               const float* __restrict__ x, const float* __restrict__ y, const float* __restrict__ dy,
                               float* __restrict__ dx) {
  const std::int64_t channel = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * V;
  if (channel >= z.c) return;
  float a[V], b[V], d[V];
#pragma unroll
  for (int k = 0; k < V; ++k) {
    a[k] = coefficients[channel + k];
    b[k] = coefficients[z.c + channel + k];
    d[k] = coefficients[2 * z.c + channel + k];
  }
  const std::int64_t begin = std::int64_t{blockIdx.y} * slab;
  const std::int64_t end = begin + slab < z.rows ? begin + slab : z.rows;
#pragma unroll 2
  for (std::int64_t row = begin + threadIdx.y; row < end; row += blockDim.y) {
    const std::int64_t at = row * z.c + channel;
    auto value = gradient_at<V>(y, dy, at);
    const auto from = cuda::load<V>(x + at);
#pragma unroll
    for (int k = 0; k < V; ++k) value.v[k] = a[k] * value.v[k] + (b[k] * from.v[k] + d[k]);
    cuda::store<V>(dx + at, value);
  }
}

constexpr std::int64_t many_slabs = 16384;  // for what is not added up
unsigned channel_blocks(const BatchNormSizes& z) { return z.c == 0 ? 0 : cuda::blocks_for(z.c, 32); }

std::size_t partial_bytes(const BatchNormSizes& z, const Layout& layout) {
  return (static_cast<std::size_t>(layout.grid.y) * 2 * static_cast<std::size_t>(z.c) + 1) * sizeof(double);
}

template <int V> void statistics(const BatchNormSizes& z, double momentum, const float* x, float* mean, float* inv_std,
                                 float* running_mean, float* running_var) {
  const Layout layout(z, V, max_slabs);
  const cuda::Scratch partial(partial_bytes(z, layout));
  cuda::launch(column_sums_kernel<V, Moments<V>>, layout.grid, layout.block, 0, z.rows, z.c, layout.slab, Moments<V>{x},
               partial.data<double>());
  cuda::launch(finish_statistics_kernel, channel_blocks(z), dim3(32, 8), 0, z, momentum, layout.grid.y, partial.data<double>(),
               x, mean, inv_std, running_mean, running_var);
}

template <int V> void forward(const BatchNormSizes& z, const float* x, const float* weight, const float* bias,
                              const float* mean, const float* inv_std, float* y) {
  const Layout layout(z, V, many_slabs);
  cuda::launch(batch_norm_forward_kernel<V>, layout.grid, layout.block, 0, z, layout.slab, x, weight, bias, mean, inv_std, y);
}

template <int V> void backward(const BatchNormSizes& z, bool training, const float* x, const float* weight, const float* mean,
                               const float* inv_std, const float* y, const float* dy, float* dx, float* dweight, float* dbias) {
  const Layout sums(z, V, max_slabs);
  const bool summed = dweight != nullptr || dbias != nullptr || (training && dx != nullptr);
  const cuda::Scratch partial(partial_bytes(z, sums));
  const cuda::Scratch coefficients((3 * static_cast<std::size_t>(z.c) + 1) * sizeof(float));
  if (summed) {
    cuda::launch(column_sums_kernel<V, Gradients<V>>, sums.grid, sums.block, 0, z.rows, z.c, sums.slab,
                 Gradients<V>{x, mean, y, dy}, partial.data<double>());
  }
  cuda::launch(finish_gradients_kernel, channel_blocks(z), dim3(32, 8), 0, z, training,
               summed ? std::int64_t{sums.grid.y} : std::int64_t{0}, partial.data<double>(), weight, mean, inv_std, dweight,
               dbias, coefficients.data<float>());
  if (dx == nullptr) return;
  const Layout layout(z, V, many_slabs);
  cuda::launch(batch_norm_backward_kernel<V>, layout.grid, layout.block, 0, z, layout.slab, coefficients.data<float>(), x, y,
               dy, dx);
}

}  // namespace

void batch_norm_statistics(Cuda, const BatchNormSizes& z, double momentum, const float* x, float* mean, float* inv_std,
                           float* running_mean, float* running_var) {
  if (z.c % 4 == 0) return statistics<4>(z, momentum, x, mean, inv_std, running_mean, running_var);
  statistics<1>(z, momentum, x, mean, inv_std, running_mean, running_var);
}

void batch_norm_inv_std(Cuda, const BatchNormSizes& z, const float* var, float* inv_std) {
  cuda::launch(batch_norm_inv_std_kernel, cuda::loop_blocks(z.c, threads), threads, 0, z, var, inv_std);
}

void batch_norm_forward(Cuda, const BatchNormSizes& z, const float* x, const float* weight, const float* bias,
                        const float* mean, const float* inv_std, float* y) {
  if (z.c % 4 == 0) return forward<4>(z, x, weight, bias, mean, inv_std, y);
  forward<1>(z, x, weight, bias, mean, inv_std, y);
}

void batch_norm_backward(Cuda, const BatchNormSizes& z, bool training, const float* x, const float* weight, const float* mean,
                         const float* inv_std, const float* y, const float* dy, float* dx, float* dweight, float* dbias) {
  if (z.c % 4 == 0) return backward<4>(z, training, x, weight, mean, inv_std, y, dy, dx, dweight, dbias);
  backward<1>(z, training, x, weight, mean, inv_std, y, dy, dx, dweight, dbias);
}

}  // namespace shrike::kernels
