// Sums that come out the same to the bit on every run, and what kernels over channels share.
#pragma once

#include "kernels/cuda.hpp"

namespace shrike::cuda {

// V elements that one thread moves at once; 16 bytes for four floats.
template <class T, int V> struct alignas(sizeof(T) * V) Pack { T v[V]; };

template <int V, class T> __device__ __forceinline__ Pack<T, V> load(const T* from) {
  return *reinterpret_cast<const Pack<T, V>*>(from);
}
template <int V, class T> __device__ __forceinline__ void store(T* to, const Pack<T, V>& value) {
  *reinterpret_cast<Pack<T, V>*>(to) = value;
}

inline bool aligned(const void* pointer, std::size_t bytes) { return reinterpret_cast<std::uintptr_t>(pointer) % bytes == 0; }

__device__ __forceinline__ std::int64_t first_index() { return std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; }
__device__ __forceinline__ std::int64_t index_stride() { return std::int64_t{gridDim.x} * blockDim.x; }

// Blocks for grid-stride loops over n elements: none for none, enough to fill any GPU otherwise.
inline unsigned loop_blocks(std::int64_t n, int threads) { return n <= 0 ? 0 : std::min(blocks_for(n, threads), 1u << 14); }

// Into how many stretches a row is cut, each a block's: enough for every multiprocessor, of at least 4096 elements.
inline std::int64_t stretches(std::int64_t rows, std::int64_t inner) {
  return std::clamp<std::int64_t>(std::min<std::int64_t>(inner / 4096, 1024 / std::max<std::int64_t>(rows, 1)), 1, 1024);
}

// The sum over groups of G neighbouring lanes, in all of them; all lanes of the warp take part. Each lane adds the same pairs,
// so the order is fixed.
template <int G> __device__ __forceinline__ double group_sum(double value) {
#pragma unroll
  for (int step = G / 2; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step, G);
  return value;
}

// The greatest; NaN loses to everything.
template <int G> __device__ __forceinline__ float group_max(float value) {
#pragma unroll
  for (int step = G / 2; step > 0; step /= 2) {
    const float other = __shfl_xor_sync(0xffffffffu, value, step, G);
    value = other > value ? other : value;
  }
  return value;
}

// The sum over a block of whole warps, at most 32, in all threads; `slots` is shared memory for 32 doubles, free for reuse
// after.
__device__ __forceinline__ double block_sum(double value, double* slots) {
  const int warps = static_cast<int>(blockDim.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  value = group_sum<32>(value);
  if (lane == 0) slots[threadIdx.x / 32] = value;
  __syncthreads();
  value = group_sum<32>(lane < warps ? slots[lane] : 0.0);
  __syncthreads();
  return value;
}

}  // namespace shrike::cuda
