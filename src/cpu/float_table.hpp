// The table of float kernels of the instruction set that this is compiled for.
#pragma once

#include "conv/winograd_transforms.hpp"
#include "gemm/tile.hpp"
#include "weighted_sum.hpp"

namespace shrike::cpu {
inline namespace SHRIKE_SIMD {

inline constexpr FloatKernels float_kernels(const char* name) {
  return {name,
          lanes,
          tile_rows,
          panel,
          multiply<Step::along_rows>,
          multiply<Step::along_columns>,
          pack_transposed,
          pack_tiles,
          pack_rows,
          weighted_sum,
          &winograd_kernels};
}

}  // namespace SHRIKE_SIMD
}  // namespace shrike::cpu
