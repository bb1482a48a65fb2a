// Gradients of a convolution of few channels, such as the first of a network: what oneDNN is slow at.
#pragma once

#include "shrike/ops/conv.hpp"

namespace shrike::few_channels {

// Whether these kernels do this convolution: fewer than 16 input channels, outputs in multiples of 16, no dilation, one group.
bool fits(const kernels::Conv2dSizes& sizes);

// As the kernels of ops/conv.hpp; dy counts only where y > 0 if y is not null.
void backward_data(const kernels::Conv2dSizes& sizes, const float* weight, const float* y, const float* dy, float* dx);
void backward_weight(const kernels::Conv2dSizes& sizes, const float* x, const float* y, const float* dy, float* dweight,
                     float* dbias);

}  // namespace shrike::few_channels
