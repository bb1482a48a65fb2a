// Stochastic gradient descent over all parameters in one launch, guarded on the device by the gradients' norm.
//
//   norm = sqrt(sum g^2)            4 bytes read per parameter
//   m = momentum m + s g + decay w  12 bytes read and 8 written per parameter, for 6 operations: bandwidth is the bound
//   w -= lr m
//
// The slices travel as the kernel's argument: there is no table to copy, so nothing waits for the host. A block owns one chunk
// of one slice and finds it by bisection over the slices' first chunks. Sums: each thread adds its elements of the chunk in
// double, the block its threads in a tree, one last block the chunks, all in an order that the sizes fix.
#include "kernels/reduce.cuh"
#include "shrike/nn/optim.hpp"

namespace shrike::kernels {
namespace {

// How a kernel takes a table of 30 KiB: a GPU's threads share it where it is; on the host each would copy it.
#if SHRIKE_CUDA_HOST
#define SHRIKE_IN_PLACE &
#else
#define SHRIKE_IN_PLACE __grid_constant__
#endif

constexpr int threads = 256;
constexpr std::int64_t chunk = 4096;  // elements: four float4 a thread

// At most N slices; those of the whole network where they fit. 48 bytes each: 768 are past the 4 KiB that arguments once had,
// within the 32,764 bytes of CUDA 12.1 and later.
template <int N> struct SliceTable {
  int count;
  std::int64_t first_chunk[N + 1];  // of each slice; then the number of all
  SgdSlice slices[N];
};

struct Chunk {
  int slice;
  std::int64_t begin, end;  // elements of the slice
};

template <int N> __device__ __forceinline__ Chunk chunk_of_block(const SliceTable<N>& table) {
  const std::int64_t block = blockIdx.x;
  int low = 0, high = table.count;  // first_chunk[low] <= block < first_chunk[high]
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (table.first_chunk[middle] <= block) {
      low = middle;
    } else {
      high = middle;
    }
  }
  const std::int64_t begin = (block - table.first_chunk[low]) * chunk;
  const std::int64_t n = table.slices[low].n;
  return {low, begin, begin + chunk < n ? begin + chunk : n};
}

// sums[block] = the sum of the squares of the block's chunk.
template <int N> __global__ void __launch_bounds__(threads)
    sum_of_squares_kernel(const SliceTable<N> SHRIKE_IN_PLACE table, double* __restrict__ sums) {
  SHRIKE_SHARED(double, slots, [32]);
  const Chunk part = chunk_of_block(table);
  const float* __restrict__ grad = table.slices[part.slice].grad;
  const std::int64_t vectors_end = part.begin + (part.end - part.begin) / 4 * 4;
  double sum = 0;
  for (std::int64_t i = part.begin + 4 * threadIdx.x; i < vectors_end; i += 4 * threads) {
    const auto g = cuda::load<4>(grad + i);
#pragma unroll
    for (int k = 0; k < 4; ++k) sum += static_cast<double>(g.v[k]) * static_cast<double>(g.v[k]);
  }
  const std::int64_t rest = vectors_end + threadIdx.x;
  if (rest < part.end) sum += static_cast<double>(grad[rest]) * static_cast<double>(grad[rest]);
  sum = cuda::block_sum(sum, slots);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// norm = sqrt of all chunks' sums; one block.
__global__ void __launch_bounds__(1024)
    finish_norm_kernel(std::int64_t count, const double* __restrict__ sums, const float* loss, float* norm) {
  SHRIKE_SHARED(double, slots, [32]);
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < count; i += blockDim.x) sum += sums[i];
  sum = cuda::block_sum(sum, slots);
  if (threadIdx.x != 0) return;
  const bool good = loss == nullptr || isfinite(*loss);
  *norm = good ? static_cast<float>(sqrt(sum)) : __int_as_float(0x7fffffff);
}

__device__ __forceinline__ void update(float& w, float& m, float g, const SgdSlice& slice, float momentum, float scale) {
  m = momentum * m + (scale * g + slice.weight_decay * w);
  w -= slice.lr * m;
}

template <int N> __global__ void __launch_bounds__(threads)
    sgd_step_kernel(const SliceTable<N> SHRIKE_IN_PLACE table, float momentum, float clip_norm, const float* norm_at) {
  const float norm = *norm_at;
  if (!isfinite(norm)) return;
  const bool clipped = clip_norm > 0.0f && norm > clip_norm;
  const float scale = clipped ? static_cast<float>(static_cast<double>(clip_norm) / static_cast<double>(norm)) : 1.0f;
  const Chunk part = chunk_of_block(table);
  const SgdSlice& slice = table.slices[part.slice];
  const std::int64_t vectors_end = part.begin + (part.end - part.begin) / 4 * 4;
  for (std::int64_t i = part.begin + 4 * threadIdx.x; i < vectors_end; i += 4 * threads) {
    auto w = cuda::load<4>(slice.weight + i);
    auto m = cuda::load<4>(slice.momentum + i);
    const auto g = cuda::load<4>(slice.grad + i);
#pragma unroll
    for (int k = 0; k < 4; ++k) update(w.v[k], m.v[k], g.v[k], slice, momentum, scale);
    cuda::store<4>(slice.momentum + i, m);
    cuda::store<4>(slice.weight + i, w);
  }
  const std::int64_t rest = vectors_end + threadIdx.x;
  if (rest < part.end) update(slice.weight[rest], slice.momentum[rest], slice.grad[rest], slice, momentum, scale);
}

// average += lr (value - average): 8 bytes read and 4 written per element.
template <int N> __global__ void __launch_bounds__(threads) moving_average_kernel(const SliceTable<N> SHRIKE_IN_PLACE table) {
  const Chunk part = chunk_of_block(table);
  const SgdSlice& slice = table.slices[part.slice];
  const std::int64_t vectors_end = part.begin + (part.end - part.begin) / 4 * 4;
  for (std::int64_t i = part.begin + 4 * threadIdx.x; i < vectors_end; i += 4 * threads) {
    auto average = cuda::load<4>(slice.weight + i);
    const auto value = cuda::load<4>(slice.grad + i);
#pragma unroll
    for (int k = 0; k < 4; ++k) average.v[k] += slice.lr * (value.v[k] - average.v[k]);
    cuda::store<4>(slice.weight + i, average);
  }
  const std::int64_t rest = vectors_end + threadIdx.x;
  if (rest < part.end) slice.weight[rest] += slice.lr * (slice.grad[rest] - slice.weight[rest]);
}

// Calls f(table, chunks) for the slices that are not empty, N of them at a time.
template <int N, class F> void for_tables_of(const SgdSlice* slices, std::size_t count, const F& f) {
  SliceTable<N> table{};
  const auto flush = [&] {
    if (table.count > 0) f(table, table.first_chunk[table.count]);
    table.count = 0;
  };
  for (std::size_t s = 0; s < count; ++s) {
    if (slices[s].n == 0) continue;
    if (table.count == N) flush();
    table.slices[table.count] = slices[s];
    table.first_chunk[table.count + 1] = table.first_chunk[table.count] + (slices[s].n + chunk - 1) / chunk;
    ++table.count;
  }
  flush();
}

// The same in tables of 64 where they fit into one, else of 640.
template <class F> void for_tables(const SgdSlice* slices, std::size_t count, const F& f) {
  count <= 64 ? for_tables_of<64>(slices, count, f) : for_tables_of<640>(slices, count, f);
}

}  // namespace

void gradient_norm(Cuda, const SgdSlice* slices, std::size_t count, const float* loss, float* norm) {
  std::int64_t chunks = 0;
  for (std::size_t s = 0; s < count; ++s) chunks += (slices[s].n + chunk - 1) / chunk;
  const cuda::Scratch sums(static_cast<std::size_t>(chunks + 1) * sizeof(double));
  double* next = sums.data<double>();
  for_tables(slices, count, [&]<int N>(const SliceTable<N>& table, std::int64_t blocks) {
    cuda::launch(sum_of_squares_kernel<N>, static_cast<unsigned>(blocks), threads, 0, table, next);
    next += blocks;
  });
  cuda::launch(finish_norm_kernel, 1, 1024, 0, chunks, sums.data<double>(), loss, norm);
}

void sgd_step(Cuda, const SgdSlice* slices, std::size_t count, float momentum, float clip_norm, const float* norm) {
  for_tables(slices, count, [&]<int N>(const SliceTable<N>& table, std::int64_t blocks) {
    cuda::launch(sgd_step_kernel<N>, static_cast<unsigned>(blocks), threads, 0, table, momentum, clip_norm, norm);
  });
}

void moving_average_step(Cuda, const SgdSlice* slices, std::size_t count) {
  for_tables(slices, count, [&]<int N>(const SliceTable<N>& table, std::int64_t blocks) {
    cuda::launch(moving_average_kernel<N>, static_cast<unsigned>(blocks), threads, 0, table);
  });
}

}  // namespace shrike::kernels
