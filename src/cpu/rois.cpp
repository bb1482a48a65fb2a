#include "shrike/detection/rois.hpp"

#include "shrike/core/threads.hpp"

namespace shrike::kernels {

void boxes_to_rois(Cpu, std::int64_t n, const float* boxes, float image, float* rois) {
  for (std::int64_t i = 0; i < n; ++i) {
    rois[5 * i] = image;
    std::copy_n(boxes + 4 * i, 4, rois + 5 * i + 1);
  }
}

}  // namespace shrike::kernels
