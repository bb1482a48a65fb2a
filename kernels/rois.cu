// Boxes with the number of their image in front. Thread i writes (`=`) word i of the result. 36 bytes a box.
#include "kernels/cuda.hpp"
#include "shrike/detection/rois.hpp"

namespace shrike::kernels {
namespace {

constexpr unsigned threads = 256;

__global__ void __launch_bounds__(threads)
    boxes_to_rois_kernel(std::int64_t n, const float* __restrict__ boxes, float image, float* __restrict__ rois) {
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < 5 * n; i += step) {
    rois[i] = i % 5 == 0 ? image : boxes[i / 5 * 4 + i % 5 - 1];
  }
}

}  // namespace

void boxes_to_rois(Cuda, std::int64_t n, const float* boxes, float image, float* rois) {
  cuda::launch(boxes_to_rois_kernel, cuda::blocks_for(5 * n, threads), threads, 0, n, boxes, image, rois);
}

}  // namespace shrike::kernels
