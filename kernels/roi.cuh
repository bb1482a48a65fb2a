// What RoIPool and RoIAlign share.
#pragma once

#include "kernels/cuda.hpp"
#include "shrike/ops/roi.hpp"

namespace shrike::kernels {

// Kernels ask for room for 4 of their blocks on a multiprocessor (128 registers a thread): left to itself ptxas goes for more
// blocks and spills.
constexpr unsigned roi_threads = 128;

// V neighbouring channels: 16 bytes when V is 4. Starts at zero.
template <int V> struct RoiVector {
  float v[V] = {};

  static __device__ __forceinline__ RoiVector load(const float* from) {
    RoiVector result;
    if constexpr (V == 4) {
      const float4 value = *reinterpret_cast<const float4*>(from);
      result.v[0] = value.x;
      result.v[1] = value.y;
      result.v[2] = value.z;
      result.v[3] = value.w;
    } else {
      result.v[0] = *from;
    }
    return result;
  }
  __device__ __forceinline__ void store(float* to) const {
    if constexpr (V == 4) {
      *reinterpret_cast<float4*>(to) = make_float4(v[0], v[1], v[2], v[3]);
    } else {
      *to = v[0];
    }
  }
  __device__ __forceinline__ void add_scaled(float weight, const RoiVector& other) {
#pragma unroll
    for (int k = 0; k < V; ++k) v[k] += weight * other.v[k];
  }
};

template <int V> __device__ __forceinline__ void load_places(const std::int32_t* from, std::int32_t (&place)[V]) {
  if constexpr (V == 4) {
    const int4 value = *reinterpret_cast<const int4*>(from);
    place[0] = value.x;
    place[1] = value.y;
    place[2] = value.z;
    place[3] = value.w;
  } else {
    place[0] = *from;
  }
}

template <int V> __device__ __forceinline__ void store_places(const std::int32_t (&place)[V], std::int32_t* to) {
  if constexpr (V == 4) {
    *reinterpret_cast<int4*>(to) = make_int4(place[0], place[1], place[2], place[3]);
  } else {
    *to = place[0];
  }
}

// The image of a region, or -1.
__device__ __forceinline__ std::int64_t image_of(const RoiSizes& s, const float* roi) {
  return roi[0] >= 0.0f && roi[0] < static_cast<float>(s.images) ? static_cast<std::int64_t>(roi[0]) : -1;
}

// RoiPool: pixels begin .. end-1 of each bin along one axis.
struct RoiBins {
  std::int64_t start;
  float size;
  std::int64_t extent;

  __device__ __forceinline__ std::int64_t begin(std::int64_t bin) const { return clip(floorf(static_cast<float>(bin) * size)); }
  __device__ __forceinline__ std::int64_t end(std::int64_t bin) const {
    return clip(ceilf(static_cast<float>(bin + 1) * size));
  }

 private:
  __device__ __forceinline__ std::int64_t clip(float offset) const {
    const std::int64_t at = static_cast<std::int64_t>(offset) + start;
    return at < 0 ? 0 : at > extent ? extent : at;
  }
};

// A scaled corner as a whole pixel, ties away from zero. Far outside any map (or NaN) is as good as a million pixels away.
__device__ __forceinline__ std::int64_t to_pixel(float corner, float scale) {
  constexpr float far = 1 << 20;
  const float pixel = roundf(corner * scale);
  return static_cast<std::int64_t>(pixel > -far ? (pixel < far ? pixel : far) : -far);
}

__device__ __forceinline__ RoiBins roi_bins(float low, float high, float scale, std::int64_t count, std::int64_t extent) {
  const std::int64_t start = to_pixel(low, scale);
  const std::int64_t length = to_pixel(high, scale) - start + 1;
  return {start, static_cast<float>(length > 1 ? length : 1) / static_cast<float>(count), extent};
}

// list = the entries of the block's threads with `wanted`, in order of the threads; returns their number. totals has a place
// for each warp. All threads take part; the list is there for all of them on return.
template <class Entry> __device__ __forceinline__ int list_in_order(bool wanted, const Entry& mine, Entry* list, int* totals) {
  const unsigned votes = __ballot_sync(0xffffffffu, wanted);
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  if (lane == 0) totals[warp] = __popc(votes);
  __syncthreads();
  int before = 0, all = 0;
  for (int w = 0; w < static_cast<int>(roi_threads) / 32; ++w) {
    if (w < warp) before += totals[w];
    all += totals[w];
  }
  if (wanted) list[before + __popc(votes & ((1u << lane) - 1))] = mine;
  __syncthreads();
  return all;
}

// Blocks along x; throws Error where a grid cannot have as many.
inline unsigned roi_blocks(const char* op, std::int64_t blocks) {
  SHRIKE_CHECK(blocks < (std::int64_t{1} << 31), op, ": ", blocks, " bins or pixels, more than a grid has blocks");
  return static_cast<unsigned>(blocks);
}

// RoIAlign counts the pixels and samples of an axis in 32 bits.
inline void check_axes(const char* op, const RoiSizes& s) {
  constexpr std::int64_t most = std::int64_t{1} << 30;
  SHRIKE_CHECK(s.height <= most && s.width <= most && s.sampling_ratio <= most, op, ": a map of ", s.height, " by ", s.width,
               " with ", s.sampling_ratio, " samples a bin and axis; 2^30 are the most");
}

// A block for every pixel of every image (x) and every roi_threads vectors of channels (y).
inline dim3 pixel_grid(const char* op, const RoiSizes& s) {
  const std::int64_t vectors = s.channels % 4 == 0 ? s.channels / 4 : s.channels;
  return {roi_blocks(op, s.images * s.height * s.width), static_cast<unsigned>((vectors + roi_threads - 1) / roi_threads), 1};
}

}  // namespace shrike::kernels
