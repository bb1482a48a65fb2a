// Convolution of few channels, such as the first of a network.
#pragma once

#include "shrike/ops/conv.hpp"

namespace shrike::cpu::few_channels {

// Whether forward() does this convolution: what a line of the kernel meets is short, not dilated, and all of one group.
bool fits(const kernels::Conv2dSizes& sizes);

// As conv2d_forward of ops/conv.hpp.
void forward(const kernels::Conv2dSizes& sizes, const float* x, const float* weight, const float* bias, const float* residual,
             float* y);

}  // namespace shrike::cpu::few_channels
