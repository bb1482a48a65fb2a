// Winograd's convolution F(4x4, 3x3) on NHWC: a quarter of the multiplications of the plain one, no copies in another layout.
#pragma once

#include "../scratch.hpp"
#include "shrike/ops/conv.hpp"

namespace shrike::cpu::winograd {

// Whether these kernels do this convolution: 3x3, stride and dilation 1, one group, channels in multiples of 16.
bool fits(const kernels::Conv2dSizes& sizes);

// Transformed weights, for forward().
Scratch pack(const kernels::Conv2dSizes& sizes, const float* weight);

// As the kernels of ops/conv.hpp. packed: what pack() made of the weights, or null. Against exact arithmetic the error is that
// of float sums times about ten.
void forward(const kernels::Conv2dSizes& sizes, const float* x, const float* weight, const float* packed, const float* bias,
             const float* residual, float* y);
// dy counts only where y > 0 if y is not null.
void backward_data(const kernels::Conv2dSizes& sizes, const float* weight, const float* y, const float* dy, float* dx);
void backward_weight(const kernels::Conv2dSizes& sizes, const float* x, const float* y, const float* dy, float* dweight,
                     float* dbias);

}  // namespace shrike::cpu::winograd
