// Sorting by score, and greedy non-maximum suppression finished on the device.
//
// Suppression in two kernels. The first compares every pair of candidates once, in tiles of 64 x 64: bit j of word (i, t) says
// that candidate i removes candidate 64 t + j. n^2 / 2 pairs of about 15 operations and n^2 / 8 bytes of mask: for 6000
// candidates 0.27 GFLOP and 4.5 MB, on an H100 about 5 us. The second, one block, walks the tiles in order; within a tile only
// the candidates that are kept cost a step, and a kept one's row of the mask is joined to what is removed. Its time is the
// number of tiles until max_keep are kept times a microsecond's latency.
//
// Each operation of the IoU is rounded by itself: the file is compiled without contraction.
#include "kernels/cuda.hpp"
#include "shrike/core/tensor.hpp"
#include "shrike/ops/nms.hpp"

#if SHRIKE_CUDA_HOST
#include <algorithm>
#include <numeric>
#else
#include <cub/device/device_radix_sort.cuh>
#endif

namespace shrike::kernels {
namespace {

using Mask = unsigned long long;

constexpr int tile = 64;
constexpr unsigned sort_threads = 256;
constexpr unsigned keep_threads = 256;

// A key whose ascending order is that of descending scores, NaN last.
__device__ __forceinline__ std::uint32_t sort_key(float score) {
  const std::uint32_t bits = __float_as_uint(score == 0.0f ? 0.0f : score);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0xffffffffu;
  return bits >> 31 ? bits : ~bits & 0x7fffffffu;
}

__global__ void __launch_bounds__(sort_threads)
    top_k_keys_kernel(std::int64_t n, const float* __restrict__ scores, std::uint32_t* __restrict__ keys,
                      std::int32_t* __restrict__ places) {
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += step) {
    keys[i] = sort_key(scores[i]);
    places[i] = static_cast<std::int32_t>(i);
  }
}

// sorted [n] = places in ascending order of their keys, stable.
void sort_by_key(std::int64_t n, std::uint32_t* keys, std::int32_t* places, std::uint32_t* sorted_keys, std::int32_t* sorted) {
#if SHRIKE_CUDA_HOST
  (void)sorted_keys;
  cuda::host::submit([=] {
    std::copy_n(places, n, sorted);
    std::stable_sort(sorted, sorted + n, [&](std::int32_t a, std::int32_t b) { return keys[a] < keys[b]; });
  });
#else
  std::size_t bytes = 0;
  cuda::check(cub::DeviceRadixSort::SortPairs(nullptr, bytes, keys, sorted_keys, places, sorted, n, 0, 32, cuda::stream()),
              "size of a sort");
  const cuda::Scratch temporary(std::max<std::size_t>(bytes, 1));
  cuda::check(cub::DeviceRadixSort::SortPairs(temporary.data<void>(), bytes, keys, sorted_keys, places, sorted, n, 0, 32,
                                              cuda::stream()),
              "sort");
#endif
}

struct Candidate {
  float x1, y1, x2, y2, area;
  std::int32_t label;
  bool valid;
};

__device__ __forceinline__ Candidate load_candidate(std::int64_t place, const NmsSizes& s, const float4* __restrict__ boxes,
                                                    const std::int32_t* __restrict__ order,
                                                    const std::int32_t* __restrict__ labels) {
  const std::int32_t i = place < s.candidates ? order[place] : -1;
  if (i < 0) return {0, 0, 0, 0, 0, 0, false};
  const float4 b = boxes[i];
  return {b.x, b.y, b.z, b.w, (b.z - b.x) * (b.w - b.y), labels != nullptr ? labels[i] : 0, true};
}

__device__ __forceinline__ bool removes(const Candidate& a, const Candidate& b, float threshold) {
  const float x1 = a.x1 > b.x1 ? a.x1 : b.x1;
  const float y1 = a.y1 > b.y1 ? a.y1 : b.y1;
  const float x2 = a.x2 < b.x2 ? a.x2 : b.x2;
  const float y2 = a.y2 < b.y2 ? a.y2 : b.y2;
  const float width = x2 - x1 > 0.0f ? x2 - x1 : 0.0f;
  const float height = y2 - y1 > 0.0f ? y2 - y1 : 0.0f;
  const float inter = width * height;
  if (!(inter > 0.0f)) return false;  // 0 / x is not above a threshold >= 0; most pairs end here, without a division
  return inter / (a.area + b.area - inter) > threshold;
}

// Block (t, r) writes (`=`) word t of the rows of tile r <= t, thread i that of row i.
__global__ void __launch_bounds__(tile)
    nms_mask_kernel(NmsSizes s, std::int64_t words, const float4* __restrict__ boxes, const std::int32_t* __restrict__ order,
                    const std::int32_t* __restrict__ labels, Mask* __restrict__ mask) {
  SHRIKE_SHARED(Candidate, columns, [tile]);
  const std::int64_t first_row = static_cast<std::int64_t>(blockIdx.y) * tile;
  const std::int64_t first_column = static_cast<std::int64_t>(blockIdx.x) * tile;
  if (first_column < first_row) return;  // the whole block
  const Candidate row = load_candidate(first_row + threadIdx.x, s, boxes, order, labels);
  columns[threadIdx.x] = load_candidate(first_column + threadIdx.x, s, boxes, order, labels);
  __syncthreads();
  if (!row.valid) return;  // never read
  const int first = first_column == first_row ? static_cast<int>(threadIdx.x) + 1 : 0;
  Mask bits = 0;
  for (int j = first; j < tile; ++j) {
    const Candidate& column = columns[j];
    if (column.valid && column.label == row.label && removes(row, column, s.threshold)) bits |= Mask{1} << j;
  }
  mask[(first_row + threadIdx.x) * words + blockIdx.x] = bits;
}

// One block. Thread w owns words w, w + threads, ... of what is removed; keep and count are written `=`.
__global__ void __launch_bounds__(keep_threads)
    nms_keep_kernel(NmsSizes s, std::int64_t words, const std::int32_t* __restrict__ order, const Mask* __restrict__ mask,
                    std::int32_t* __restrict__ keep, std::int32_t* __restrict__ count) {
  SHRIKE_DYNAMIC_SHARED(Mask, removed);  // [words]
  SHRIKE_SHARED(Mask, diagonal, [2][tile]);
  SHRIKE_SHARED(unsigned, valid, [2][2]);  // of 32 candidates each
  const int thread = static_cast<int>(threadIdx.x);
  for (std::int64_t w = thread; w < words; w += keep_threads) removed[w] = 0;
  std::int64_t found = 0;
  for (std::int64_t t = 0; t < words && found < s.max_keep; ++t) {
    const std::int64_t first = t * tile;
    const int buffer = static_cast<int>(t % 2);  // a thread may be a tile ahead of others, not two
    std::int32_t mine = -1;
    if (thread < tile) {  // two whole warps
      mine = first + thread < s.candidates ? order[first + thread] : -1;
      diagonal[buffer][thread] = mine >= 0 ? mask[(first + thread) * words + t] : 0;
      const unsigned votes = __ballot_sync(0xffffffffu, mine >= 0);
      if (thread % 32 == 0) valid[buffer][thread / 32] = votes;
    }
    __syncthreads();
    // Every thread takes the same decisions.
    Mask alive = (static_cast<Mask>(valid[buffer][1]) << 32 | valid[buffer][0]) & ~removed[t];
    Mask kept = 0;
    for (std::int64_t room = s.max_keep - found; alive != 0 && room > 0; --room) {
      const int i = __ffsll(static_cast<long long>(alive)) - 1;
      kept |= Mask{1} << i;
      alive &= ~(diagonal[buffer][i] | Mask{1} << i);
    }
    if (thread < tile && (kept >> thread & 1) != 0) keep[found + __popcll(kept & ((Mask{1} << thread) - 1))] = mine;
    found += __popcll(kept);
    if (found < s.max_keep) {
      for (std::int64_t w = t + 1 + thread; w < words; w += keep_threads) {
        Mask gone = 0;
        for (Mask rest = kept; rest != 0; rest &= rest - 1) {
          gone |= mask[(first + __ffsll(static_cast<long long>(rest)) - 1) * words + w];
        }
        removed[w] |= gone;
      }
    }
    __syncthreads();
  }
  for (std::int64_t i = found + thread; i < s.max_keep; i += keep_threads) keep[i] = -1;
  if (thread == 0) *count = static_cast<std::int32_t>(found);
}

}  // namespace

void top_k_forward(Cuda d, std::int64_t n, std::int64_t k, const float* scores, std::int32_t* index) {
  if (k == 0) return;
  const auto size = static_cast<std::size_t>(n);
  const cuda::Scratch keys(size * sizeof(std::uint32_t)), places(size * sizeof(std::int32_t));
  const cuda::Scratch sorted_keys(size * sizeof(std::uint32_t)), sorted(size * sizeof(std::int32_t));
  cuda::launch(top_k_keys_kernel, cuda::blocks_for(n, sort_threads), sort_threads, 0, n, scores, keys.data<std::uint32_t>(),
               places.data<std::int32_t>());
  sort_by_key(n, keys.data<std::uint32_t>(), places.data<std::int32_t>(), sorted_keys.data<std::uint32_t>(),
              sorted.data<std::int32_t>());
  copy_bytes(d, index, Device::cuda, sorted.data<std::int32_t>(), Device::cuda,
             static_cast<std::size_t>(k) * sizeof(std::int32_t));
}

void nms_forward(Cuda, const NmsSizes& s, const float* boxes, const std::int32_t* order, const std::int32_t* labels,
                 std::int32_t* keep, std::int32_t* count) {
  const std::int64_t words = (s.candidates + tile - 1) / tile;
  SHRIKE_CHECK(words <= 65535 / 16, "nms: ", s.candidates, " candidates on a device, which takes at most ", 65535 / 16 * tile);
  const cuda::Scratch mask(static_cast<std::size_t>(std::max<std::int64_t>(words * words * tile, 1)) * sizeof(Mask));
  if (words > 0) {
    const dim3 grid(static_cast<unsigned>(words), static_cast<unsigned>(words));
    cuda::launch(nms_mask_kernel, grid, tile, 0, s, words, reinterpret_cast<const float4*>(boxes), order, labels,
                 mask.data<Mask>());
  }
  cuda::launch(nms_keep_kernel, 1, keep_threads, static_cast<std::size_t>(words) * sizeof(Mask), s, words, order,
               mask.data<Mask>(), keep, count);
}

}  // namespace shrike::kernels
