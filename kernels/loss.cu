// Losses and sums. Each thread adds its elements of a tile in double, the block its threads in a tree, one last block the
// tiles: the order depends on the sizes alone, and nothing is added by atomics.
//
// Bytes per element: the elementwise losses read 8 (12 with weights) and write 4; cross entropy reads and writes 4 per logit,
// its second pass finding the row in the cache; sum reads 4; scale_by moves 8. Bandwidth is the bound where double arithmetic
// is not crippled, and launches are for the few thousand elements of a detector.
#include "kernels/reduce.cuh"
#include "shrike/ops/loss.hpp"

namespace shrike::kernels {
namespace {

constexpr int threads = 256;
constexpr std::int64_t tile = 4096;  // elements a block adds up

std::int64_t tiles(std::int64_t n, std::int64_t size) { return (n + size - 1) / size; }

// result = the sum of sums[0 .. count-1], divided by n > 0 in double; one block.
__global__ void __launch_bounds__(1024)
    finish_sum_kernel(std::int64_t count, const double* __restrict__ sums, std::int64_t n, float* result) {
  SHRIKE_SHARED(double, slots, [32]);
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < count; i += blockDim.x) sum += sums[i];
  sum = cuda::block_sum(sum, slots);
  if (threadIdx.x == 0) *result = static_cast<float>(sum / static_cast<double>(n));
}

struct Bce {
  const float* logits;
  const float* target;
  __device__ double operator()(std::int64_t i, float& dx) const {
    const float x = logits[i];
    const float t = target[i];
    const float small = expf(-fabsf(x));  // at most 1: never overflows
    dx = (x >= 0.0f ? 1.0f : small) / (1.0f + small) - t;
    const float positive = x < 0.0f ? 0.0f : x;  // NaN stays
    return static_cast<double>(positive) - static_cast<double>(x) * static_cast<double>(t) + static_cast<double>(log1pf(small));
  }
};

struct SmoothL1Term {
  const float* prediction;
  const float* target;
  float beta;
  __device__ double operator()(std::int64_t i, float& dx) const {
    const float d = prediction[i] - target[i];
    const double size = static_cast<double>(fabsf(d));
    const double b = static_cast<double>(beta);
    if (size < b) {
      dx = d / beta;
      return 0.5 * size * size / b;
    }
    dx = d > 0.0f ? 1.0f : d < 0.0f ? -1.0f : d;  // NaN stays
    return size - 0.5 * b;
  }
};

// sums[block] = the weighted sum of term(i, gradient) over the block's tile; gradient[i] = that of i times its weight, `even`
// without weights.
template <class Term> __global__ void __launch_bounds__(threads)
    weighted_loss_kernel(std::int64_t n, const Term term, const float* __restrict__ weight, float even,
                         double* __restrict__ sums, float* __restrict__ gradient) {
  SHRIKE_SHARED(double, slots, [32]);
  const std::int64_t begin = std::int64_t{blockIdx.x} * tile;
  const std::int64_t end = begin + tile < n ? begin + tile : n;
  double sum = 0;
  for (std::int64_t i = begin + threadIdx.x; i < end; i += threads) {
    const float w = weight != nullptr ? weight[i] : 1.0f;
    float dx = 0;
    if (w != 0.0f) {
      sum += term(i, dx) * static_cast<double>(w);
      dx *= weight != nullptr ? w : even;
    }
    gradient[i] = dx;
  }
  sum = cuda::block_sum(sum, slots);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

template <class Term> void weighted_loss(std::int64_t n, const Term& term, const float* weight, float* loss, float* gradient) {
  const float even = n > 0 ? static_cast<float>(1.0 / static_cast<double>(n)) : 0.0f;
  const std::int64_t count = tiles(n, tile);
  const cuda::Scratch sums(static_cast<std::size_t>(count + 1) * sizeof(double));
  cuda::launch(weighted_loss_kernel<Term>, static_cast<unsigned>(count), threads, 0, n, term, weight, even, sums.data<double>(),
               gradient);
  cuda::launch(finish_sum_kernel, 1, 1024, 0, count, sums.data<double>(), weight != nullptr || n == 0 ? 1 : n, loss);
}

// counts[0] = the rows that are not ignored, counts[1] = those among them whose label is none; one block. Integers: any order.
__global__ void __launch_bounds__(1024)
    count_labels_kernel(const CrossEntropySizes s, const std::int32_t* __restrict__ labels, unsigned long long* counts) {
  SHRIKE_SHARED(unsigned long long, total, [2]);
  if (threadIdx.x < 2) total[threadIdx.x] = 0;
  __syncthreads();
  unsigned long long used = 0, bad = 0;
  for (std::int64_t row = threadIdx.x; row < s.rows; row += blockDim.x) {
    if (labels[row] == s.ignore_index) continue;
    ++used;
    bad += labels[row] < 0 || labels[row] >= s.classes;
  }
  if (used > 0) atomicAdd(&total[0], used);
  if (bad > 0) atomicAdd(&total[1], bad);
  __syncthreads();
  if (threadIdx.x < 2) counts[threadIdx.x] = total[threadIdx.x];
}

// A warp owns a row: sums[block] = the loss of the block's rows, gradient = (softmax - onehot) / rows used. A row whose label
// is no class gets a gradient of NaN.
constexpr int rows_per_block = threads / 32;
__global__ void __launch_bounds__(threads)
    cross_entropy_kernel(const CrossEntropySizes s, const float* __restrict__ logits, const std::int32_t* __restrict__ labels,
                         const unsigned long long* __restrict__ counts, double* __restrict__ sums,
                         float* __restrict__ gradient) {
  SHRIKE_SHARED(double, slots, [32]);
  const std::int64_t row = std::int64_t{blockIdx.x} * rows_per_block + threadIdx.x / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const bool inside = row < s.rows;
  const std::int64_t label = inside ? std::int64_t{labels[row]} : s.ignore_index;
  const bool used = inside && label != s.ignore_index;
  const bool good = label >= 0 && label < s.classes;
  const std::int64_t width = used ? s.classes : 0;
  const float* x = logits + row * s.classes;
  float top = -INFINITY;
  for (std::int64_t i = lane; i < width; i += 32) top = x[i] > top ? x[i] : top;
  top = cuda::group_max<32>(top);
  double denominator = 0;
  for (std::int64_t i = lane; i < width; i += 32) denominator += static_cast<double>(expf(x[i] - top));
  denominator = cuda::group_sum<32>(denominator);
  const auto scale = static_cast<float>(1.0 / static_cast<double>(counts[0] > 0 ? counts[0] : 1));
  const float factor = good ? static_cast<float>(static_cast<double>(scale) / denominator) : __int_as_float(0x7fffffff);
  if (inside) {
    float* dx = gradient + row * s.classes;
    for (std::int64_t i = lane; i < s.classes; i += 32) {
      dx[i] = used ? expf(x[i] - top) * factor - (i == label ? scale : 0.0f) : 0.0f;
    }
  }
  double loss = 0;
  if (lane == 0 && used && good) loss = log(denominator) - (static_cast<double>(x[label]) - static_cast<double>(top));
  loss = cuda::block_sum(loss, slots);
  if (threadIdx.x == 0) sums[blockIdx.x] = loss;
}

// loss = the sum of sums over the rows used; 0 without any, NaN with a label that is none. One block.
__global__ void __launch_bounds__(1024)
    finish_cross_entropy_kernel(std::int64_t count, const double* __restrict__ sums,
                                const unsigned long long* __restrict__ counts, float* loss) {
  SHRIKE_SHARED(double, slots, [32]);
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < count; i += blockDim.x) sum += sums[i];
  sum = cuda::block_sum(sum, slots);
  if (threadIdx.x != 0) return;
  const float mean = counts[0] > 0 ? static_cast<float>(sum / static_cast<double>(counts[0])) : 0.0f;
  *loss = counts[1] > 0 ? __int_as_float(0x7fffffff) : mean;
}

// sums[block] = the sum of the block's tile.
__global__ void __launch_bounds__(threads)
    sum_forward_kernel(std::int64_t n, const float* __restrict__ x, double* __restrict__ sums) {
  SHRIKE_SHARED(double, slots, [32]);
  const std::int64_t begin = std::int64_t{blockIdx.x} * tile;
  const std::int64_t end = begin + tile < n ? begin + tile : n;
  double sum = 0;
  for (std::int64_t i = begin + threadIdx.x; i < end; i += threads) sum += static_cast<double>(x[i]);
  sum = cuda::block_sum(sum, slots);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(threads)
    sum_backward_kernel(std::int64_t n, const float* __restrict__ dy, float* __restrict__ dx) {
  const float value = *dy;
  for (std::int64_t i = cuda::first_index(); i < n; i += cuda::index_stride()) dx[i] = value;
}

// y = x scale[0], four at a time while there are four.
__global__ void __launch_bounds__(threads)
    scale_by_kernel(std::int64_t n, const float* __restrict__ scale, const float* __restrict__ x, float* __restrict__ y) {
  const float factor = *scale;
  for (std::int64_t i = cuda::first_index(); 4 * i < n; i += cuda::index_stride()) {
    if (4 * i + 4 <= n) {
      auto value = cuda::load<4>(x + 4 * i);
#pragma unroll
      for (int k = 0; k < 4; ++k) value.v[k] *= factor;
      cuda::store<4>(y + 4 * i, value);
    } else {
      for (std::int64_t k = 4 * i; k < n; ++k) y[k] = x[k] * factor;
    }
  }
}

}  // namespace

void softmax_cross_entropy_forward(Cuda, const CrossEntropySizes& s, const float* logits, const std::int32_t* labels,
                                   float* loss, float* gradient) {
  const std::int64_t count = tiles(s.rows, rows_per_block);
  const cuda::Scratch scratch(static_cast<std::size_t>(count + 2) * sizeof(double));
  auto* counts = scratch.data<unsigned long long>();
  double* sums = scratch.data<double>() + 2;
  cuda::launch(count_labels_kernel, 1, 1024, 0, s, labels, counts);
  cuda::launch(cross_entropy_kernel, static_cast<unsigned>(count), threads, 0, s, logits, labels, counts, sums, gradient);
  cuda::launch(finish_cross_entropy_kernel, 1, 1024, 0, count, sums, counts, loss);
}

void bce_with_logits_forward(Cuda, std::int64_t n, const float* logits, const float* target, const float* weight, float* loss,
                             float* gradient) {
  weighted_loss(n, Bce{logits, target}, weight, loss, gradient);
}

void smooth_l1_forward(Cuda, std::int64_t n, float beta, const float* prediction, const float* target, const float* weight,
                       float* loss, float* gradient) {
  weighted_loss(n, SmoothL1Term{prediction, target, beta}, weight, loss, gradient);
}

void sum_forward(Cuda, std::int64_t n, const float* x, float* y) {
  const std::int64_t count = tiles(n, tile);
  const cuda::Scratch sums(static_cast<std::size_t>(count + 1) * sizeof(double));
  cuda::launch(sum_forward_kernel, static_cast<unsigned>(count), threads, 0, n, x, sums.data<double>());
  cuda::launch(finish_sum_kernel, 1, 1024, 0, count, sums.data<double>(), 1, y);
}

void sum_backward(Cuda, std::int64_t n, const float* dy, float* dx) {
  cuda::launch(sum_backward_kernel, cuda::loop_blocks(n, threads), threads, 0, n, dy, dx);
}

void scale_by(Cuda, std::int64_t n, const float* scale, const float* x, float* y) {
  cuda::launch(scale_by_kernel, cuda::loop_blocks((n + 3) / 4, threads), threads, 0, n, scale, x, y);
}

}  // namespace shrike::kernels
