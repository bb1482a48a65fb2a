// The exact integer product behind quantized convolutions and linear layers.
#pragma once

#include "shrike/ops/quantized_conv.hpp"

namespace shrike::int8 {

// As quantized_conv2d_forward in ops/quantized_conv.hpp. A linear layer is a 1x1 convolution of maps of one pixel.
void convolve(const kernels::Conv2dSizes& sizes, const kernels::Requantize& to, const kernels::QuantizedOperands& operands);

}  // namespace shrike::int8
