// Winograd's convolution F(4x4, 3x3) on int8 codes, exact: a quarter of the multiplications, in 16 bits.
#pragma once

#include "int8_kernels.hpp"
#include "shrike/ops/quantized_conv.hpp"

namespace shrike::int8::winograd {

// Whether these kernels do this convolution exactly: 3x3, stride and dilation 1, one group, inputs in multiples of 32, outputs
// of 16, and no sum of products that can leave 26 bits.
bool fits(const Kernels& isa, const kernels::Conv2dSizes& sizes, Dtype x, const std::int8_t* weight);

// As quantized_conv2d_forward in ops/quantized_conv.hpp.
void convolve(const Kernels& isa, const Finish& how, const kernels::Conv2dSizes& sizes, Dtype x,
              const kernels::QuantizedOperands& operands);

}  // namespace shrike::int8::winograd
