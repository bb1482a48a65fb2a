// Convolutions of s8 codes by cuDNN, only in builds by nvcc.
//
// By its graph API, whose sums leave as s32: exact, whatever the weights are. The older cudnnConvolutionForward, deprecated
// since cuDNN 9, gives them as float, which is exact below 2^24 only. The types are those of NVIDIA's cudnn-frontend,
// samples/cpp/convolution/int8_fprop.cpp: x and weight INT8, the arithmetic and y INT32, channels innermost. cuDNN 9.19 has
// compiled engines for them from sm_75 on.
#pragma once

#include "shrike/ops/conv.hpp"

namespace shrike::cuda::cudnn {

// How many engines there are to choose from: what cuDNN's heuristics propose first and second.
constexpr int code_choices = 2;

// y [n, p, q, k] = conv(x [n, h, w, c], weight [k, r, s, c]), without groups, on cuda::stream(), by the engine proposed first
// (choice 0) or second (1; the first again where it is alone). Which that is depends on the shape. Plans are remembered for
// each shape. Throws Error naming the call and the sizes when cuDNN has no engine, fails, or wants more than 256 MiB of
// workspace.
void convolve_codes(const kernels::Conv2dSizes& sizes, int choice, const std::int8_t* x, const std::int8_t* weight,
                    std::int32_t* y);

}  // namespace shrike::cuda::cudnn
