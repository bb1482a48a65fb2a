// The second pass of a product whose K is split.
#include "kernels/gemm.cuh"

namespace shrike::kernels::gemm {
namespace {

// out = the sum over splits, in order, finished. Thread i owns group i of four columns, i + threads of the grid, ... Bound by
// bandwidth: 4 (splits + 1) bytes an element.
__global__ void sum_splits_kernel(int splits, Epilogue epilogue) {
  const int groups = (epilogue.columns + 3) / 4;
  const std::int64_t count = std::int64_t{epilogue.rows} * groups;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count;
       i += std::int64_t{gridDim.x} * blockDim.x) {
    const int row = static_cast<int>(i / groups), column = static_cast<int>(i % groups) * 4;
    float sum[4] = {};
    for (int split = 0; split < splits; ++split) {
      const float* from = epilogue.part(static_cast<unsigned>(split)) + std::int64_t{row} * epilogue.columns + column;
      if (epilogue.vectors) {
        const float4 v = *reinterpret_cast<const float4*>(from);
        sum[0] += v.x, sum[1] += v.y, sum[2] += v.z, sum[3] += v.w;
      } else {
        for (int e = 0; e < 4 && column + e < epilogue.columns; ++e) sum[e] += from[e];
      }
    }
    epilogue.store(row, column, make_float4(sum[0], sum[1], sum[2], sum[3]), nullptr);
  }
}

}  // namespace

void sum_splits(int splits, const Epilogue& epilogue) {
  const std::int64_t groups = std::int64_t{epilogue.rows} * ((epilogue.columns + 3) / 4);
  cuda::launch(sum_splits_kernel, std::min(cuda::blocks_for(groups, 256), 4096u), 256, 0, splits, epilogue);
}

}  // namespace shrike::kernels::gemm
