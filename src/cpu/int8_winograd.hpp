// Winograd's convolution F(4x4, 3x3) on int8 codes, exact: a quarter of the multiplications, in 16 bits.
#pragma once

#include "int8_packed.hpp"

namespace shrike::int8::winograd {

// Whether these kernels do convolutions of this shape: 3x3, stride and dilation 1, one group, channels in vectors: with
// AVX-512, inputs in multiples of 16 and outputs of 8.
bool fits(const Kernels& isa, const kernels::Conv2dSizes& sizes);

// Whether they are exact with these weights: no sum of products can leave 26 bits.
bool exact(const Packing& how, const std::int8_t* weight);

// Transformed weights.
Packed pack(const Packing& how, const std::int8_t* weight);

// As quantized_conv2d_forward in ops/quantized_conv.hpp.
void convolve(const Packed& packed, const Finish& how, const kernels::Conv2dSizes& sizes,
              const kernels::QuantizedOperands& operands);

}  // namespace shrike::int8::winograd
