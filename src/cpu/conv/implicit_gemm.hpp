// Convolutions of any shape as matrix products: pixels are rows, gathered a block at a time, channels are columns.
#pragma once

#include "../gemm/gemm.hpp"
#include "shrike/ops/conv.hpp"

namespace shrike::cpu::implicit_gemm {

// Of the weights of one group, for forward().
PackedRight pack(const kernels::Conv2dSizes& sizes, const float* weight);

// As the kernels of ops/conv.hpp. packed: of the only group's weights, or null. dy counts only where y > 0 if y is not null.
void forward(const kernels::Conv2dSizes& sizes, const float* x, const float* weight, const PackedRight* packed,
             const float* bias, const float* residual, float* y);
void backward_data(const kernels::Conv2dSizes& sizes, const float* weight, const float* y, const float* dy, float* dx);
// dweight and dbias may be null.
void backward_weight(const kernels::Conv2dSizes& sizes, const float* x, const float* y, const float* dy, float* dweight,
                     float* dbias);

}  // namespace shrike::cpu::implicit_gemm
