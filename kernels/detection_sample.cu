// Sampling of candidates by the smallest random keys, the very choice of the CPU: key(i) = philox(seed, stream and index, i),
// of equal keys the lower number.
//
// First all keys are computed, one thread a candidate (8 bytes read and written, 10 rounds of philox). Then one block finds,
// for each kind, the key of the last candidate taken, by radix selection: four histograms of 8 bits, the two kinds side by
// side. Last it goes through the candidates once more, in order, and writes those at or below it; a prefix sum over the block
// gives their places, so the result is in ascending order without a sort. Five passes over 8 bytes a candidate that lie in L2:
// 17,100 candidates are 17 steps of the block a pass, so the block's latency bounds it, not memory.
#include "kernels/boxes.cuh"
#include "shrike/detection/targets.hpp"

namespace shrike::kernels {
namespace {

constexpr unsigned key_threads = 256;
constexpr unsigned threads = 1024;
constexpr int digits = 256;
constexpr int warps = static_cast<int>(threads) / 32;

__global__ void __launch_bounds__(key_threads) sample_keys_kernel(SampleSizes s, std::uint32_t* __restrict__ keys) {
  for (std::int64_t i = first_index(); i < s.candidates; i += index_step()) {
    std::uint32_t words[4];
    philox(s.key, s.counter_high, static_cast<std::uint64_t>(i), words);
    keys[i] = words[0];
  }
}

// Of one kind: how many are taken, and which: those of a key below `limit`, and the first `ties` of those equal to it.
struct Taken {
  std::int32_t count;
  std::uint32_t limit;
  std::int32_t ties;
};

// Places of the block's flagged threads among them, and their number. totals [warps] is shared; all threads take part.
__device__ __forceinline__ int block_rank(bool flag, int* totals, int& all) {
  const unsigned votes = __ballot_sync(0xffffffffu, flag);
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  if (lane == 0) totals[warp] = __popc(votes);
  __syncthreads();
  int before = 0;
  all = 0;
  for (int w = 0; w < warps; ++w) {
    if (w < warp) before += totals[w];
    all += totals[w];
  }
  __syncthreads();
  return before + __popc(votes & ((1u << lane) - 1));
}

__global__ void __launch_bounds__(threads)
    sample_balanced_kernel(SampleSizes s, const std::int32_t* __restrict__ labels, const std::uint32_t* __restrict__ keys,
                           std::int32_t* __restrict__ selected, std::int32_t* __restrict__ counts) {
  SHRIKE_SHARED(int, histogram, [2][digits]);
  SHRIKE_SHARED(int, totals, [warps]);
  SHRIKE_SHARED(Taken, taken, [2]);  // while selecting, ties is the number still to find among keys that begin like limit
  if (threadIdx.x < 2) taken[threadIdx.x] = {0, 0, 0};
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int i = static_cast<int>(threadIdx.x); i < 2 * digits; i += static_cast<int>(threads))
      histogram[i / digits][i % digits] = 0;
    __syncthreads();
    for (std::int64_t i = threadIdx.x; i < s.candidates; i += threads) {
      const std::int32_t label = labels[i];
      if (label < 0) continue;
      const int kind = label > 0 ? 0 : 1;
      const std::uint32_t key = keys[i];
      const bool like_limit = shift == 24 || key >> (shift + 8) == taken[kind].limit >> (shift + 8);
      if (like_limit) atomicAdd(&histogram[kind][key >> shift & (digits - 1)], 1);
    }
    __syncthreads();
    if (threadIdx.x == 0 && shift == 24) {
      int found[2] = {0, 0};
      for (int digit = 0; digit < digits; ++digit) {
        found[0] += histogram[0][digit];
        found[1] += histogram[1][digit];
      }
      std::int64_t room = s.max_positive;
      for (int kind = 0; kind < 2; ++kind) {
        taken[kind].count = taken[kind].ties = static_cast<std::int32_t>(room < found[kind] ? room : found[kind]);
        room = s.batch - taken[0].count;
      }
    }
    __syncthreads();
    if (threadIdx.x < 2 && taken[threadIdx.x].count > 0) {
      Taken& t = taken[threadIdx.x];
      int digit = 0;
      for (; histogram[threadIdx.x][digit] < t.ties; ++digit) t.ties -= histogram[threadIdx.x][digit];
      t.limit |= static_cast<std::uint32_t>(digit) << shift;
    }
    __syncthreads();
  }
  const Taken positive = taken[0], negative = taken[1];
  int ties[2] = {0, 0};  // seen in the steps before
  int written = 0;
  for (std::int64_t first = 0; first < s.candidates; first += threads) {
    const std::int64_t i = first + threadIdx.x;
    const std::int32_t label = i < s.candidates ? labels[i] : -1;
    const std::uint32_t key = i < s.candidates ? keys[i] : 0;
    bool take = false;
    for (int kind = 0; kind < 2; ++kind) {
      const Taken& t = kind == 0 ? positive : negative;
      if (t.count == 0) continue;  // alike in all threads
      const bool mine = kind == 0 ? label > 0 : label == 0;
      const bool tie = mine && key == t.limit;
      int all;
      const int rank = ties[kind] + block_rank(tie, totals, all);
      ties[kind] += all;
      take = take || (mine && key < t.limit) || (tie && rank < t.ties);
    }
    int all;
    const int place = written + block_rank(take, totals, all);
    written += all;
    if (take) selected[place] = static_cast<std::int32_t>(i);
  }
  for (std::int64_t row = positive.count + negative.count + static_cast<std::int64_t>(threadIdx.x); row < s.batch;
       row += threads) {
    selected[row] = -1;
  }
  if (threadIdx.x < 2) counts[threadIdx.x] = threadIdx.x == 0 ? positive.count : negative.count;
}

}  // namespace

void sample_balanced(Cuda, SampleSizes sizes, const std::int32_t* labels, std::int32_t* selected, std::int32_t* counts) {
  const cuda::Scratch keys(static_cast<std::size_t>(std::max<std::int64_t>(sizes.candidates, 1)) * sizeof(std::uint32_t));
  cuda::launch(sample_keys_kernel, cuda::blocks_for(sizes.candidates, key_threads), key_threads, 0, sizes,
               keys.data<std::uint32_t>());
  cuda::launch(sample_balanced_kernel, 1, threads, 0, sizes, labels, keys.data<std::uint32_t>(), selected, counts);
}

}  // namespace shrike::kernels
