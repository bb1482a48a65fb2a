// Boxes in device memory, moved as 16 bytes.
#pragma once

#include "kernels/cuda.hpp"
#include "shrike/detection/boxes.hpp"

namespace shrike::kernels {

__device__ __forceinline__ Box load_box4(const float* boxes, std::int64_t i) {
  const float4 v = reinterpret_cast<const float4*>(boxes)[i];
  return {v.x, v.y, v.z, v.w};
}

__device__ __forceinline__ BoxDelta load_delta4(const float* deltas, std::int64_t i) {
  const float4 v = reinterpret_cast<const float4*>(deltas)[i];
  return {v.x, v.y, v.z, v.w};
}

__device__ __forceinline__ void store_box4(const Box& box, float* boxes, std::int64_t i) {
  reinterpret_cast<float4*>(boxes)[i] = make_float4(box.x1, box.y1, box.x2, box.y2);
}

// Elements first_index(), first_index() + index_step(), ... are this thread's.
__device__ __forceinline__ std::int64_t first_index() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ __forceinline__ std::int64_t index_step() { return static_cast<std::int64_t>(gridDim.x) * blockDim.x; }

}  // namespace shrike::kernels
