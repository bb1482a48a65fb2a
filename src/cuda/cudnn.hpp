// Convolutions by cuDNN: an alternative to our own, only in builds by nvcc.
#pragma once

#include <string>
#include <vector>

#include "shrike/ops/conv.hpp"

namespace shrike::cuda::cudnn {

enum class Pass { forward, backward_data, backward_weight };

// One of cuDNN's algorithms for a pass, as its heuristics list it for a shape.
struct Algorithm {
  int number = 0;             // in cuDNN's enumeration of the pass
  int math = 0;               // a cudnnMathType_t
  std::size_t workspace = 0;  // bytes

  std::string name() const;  // "cudnn 1"; "cudnn 1 tf32" with tensor cores
};

// The algorithms that fit the shape, most promising first by cuDNN's heuristics. Only those that give equal bits in every run,
// and that need no more than 256 MiB of workspace. Without `tf32`, only those that compute in float32 throughout. Remembered
// for each shape. Empty when cuDNN has none (some combinations of groups and dilation).
const std::vector<Algorithm>& algorithms(Pass pass, const kernels::Conv2dSizes& sizes, bool tf32);

// y = conv(x, weight) + bias, clamped below at 0 with sizes.relu; bias may be null. All of these run on cuda::stream() and
// throw Error naming the call and the sizes when cuDNN fails.
void forward(const kernels::Conv2dSizes& sizes, const Algorithm& algorithm, const float* x, const float* weight,
             const float* bias, float* y);
// dx and dweight are overwritten; sizes.relu is not looked at.
void backward_data(const kernels::Conv2dSizes& sizes, const Algorithm& algorithm, const float* weight, const float* dy,
                   float* dx);
void backward_weight(const kernels::Conv2dSizes& sizes, const Algorithm& algorithm, const float* x, const float* dy,
                     float* dweight);

// "cuDNN 9.19.0"
std::string version();

}  // namespace shrike::cuda::cudnn
