// Anchors of a feature map: base anchor + (x stride + offset). One thread a box; 16 bytes written (`=`), the base anchors stay
// in cache.
#include "kernels/cuda.hpp"
#include "shrike/detection/anchors.hpp"

namespace shrike::kernels {
namespace {

constexpr unsigned threads = 256;

__global__ void __launch_bounds__(threads)
    anchors_kernel(AnchorSizes s, const float4* __restrict__ base, float4* __restrict__ boxes) {
  const std::int64_t n = s.map_height * s.map_width * s.per_cell;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += step) {
    const std::int64_t cell = i / s.per_cell;
    const float x = static_cast<float>(cell % s.map_width) * s.stride_x + s.offset_x;
    const float y = static_cast<float>(cell / s.map_width) * s.stride_y + s.offset_y;
    const float4 b = base[i % s.per_cell];
    boxes[i] = make_float4(b.x + x, b.y + y, b.z + x, b.w + y);
  }
}

}  // namespace

void anchors(Cuda, AnchorSizes sizes, const float* base, float* boxes) {
  cuda::launch(anchors_kernel, cuda::blocks_for(sizes.map_height * sizes.map_width * sizes.per_cell, threads), threads, 0,
               sizes, reinterpret_cast<const float4*>(base), reinterpret_cast<float4*>(boxes));
}

}  // namespace shrike::kernels
