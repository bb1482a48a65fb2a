// Convolution of few channels, such as the first of a network.
#pragma once

#include "../gemm/gemm.hpp"
#include "shrike/ops/conv.hpp"

namespace shrike::cpu::few_channels {

// Whether these kernels do this convolution: what a line of the kernel meets is short, not dilated, and all of one group.
bool fits(const kernels::Conv2dSizes& sizes);

// As conv2d_forward of ops/conv.hpp. packed: what implicit_gemm::pack() made of the weights, or null.
void forward(const kernels::Conv2dSizes& sizes, const float* x, const float* weight, const PackedRight* packed,
             const float* bias, const float* residual, float* y);
// The gradients of weight and bias; either may be null. dy counts only where y > 0 if y is not null.
void backward_weight(const kernels::Conv2dSizes& sizes, const float* x, const float* y, const float* dy, float* dweight,
                     float* dbias);

}  // namespace shrike::cpu::few_channels
