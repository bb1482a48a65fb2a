// Convolution of few channels, such as the first of a network, on NHWC: oneDNN spends more on its layouts than on the work.
#pragma once

#include "shrike/ops/conv.hpp"

namespace shrike::few_channels {

// Whether these kernels do this convolution: fewer than 16 input channels, outputs in multiples of 16, no dilation, one group.
bool fits(const kernels::Conv2dSizes& sizes);
// The same for the forward pass, where with AVX-512 oneDNN is the faster.
bool forward_fits(const kernels::Conv2dSizes& sizes);

// As the kernels of ops/conv.hpp.
void forward(const kernels::Conv2dSizes& sizes, const float* x, const float* weight, const float* bias, float* y);
// dy counts only where y > 0 if y is not null.
void backward_data(const kernels::Conv2dSizes& sizes, const float* weight, const float* y, const float* dy, float* dx);
void backward_weight(const kernels::Conv2dSizes& sizes, const float* x, const float* y, const float* dy, float* dweight,
                     float* dbias);

}  // namespace shrike::few_channels
