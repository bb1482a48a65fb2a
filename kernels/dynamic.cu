// The scale of a tensor that is about to become codes: by the kernels that observers use, with nothing read back.
#include "kernels/cuda.hpp"
#include "shrike/ops/dynamic.hpp"

namespace shrike::kernels {

void dynamic_scale(Cuda, std::int64_t n, int low, int high, const float* x, float* scale) {
  const cuda::Scratch range(2 * sizeof(float)), not_finite(sizeof(std::int64_t));
  min_max_rows(Cuda{}, 1, n, x, range.data<float>(), not_finite.data<std::int64_t>());
  range_scales(Cuda{}, 1, 2, low, high, range.data<float>(), scale);
}

}  // namespace shrike::kernels
