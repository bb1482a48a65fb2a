// Int8 layers by somebody else's product or convolution of s8 codes: what comes before it and after it.
//
// cuBLAS and cuDNN multiply s8 by s8. Codes x of u8 are handed over as x - 128, which is x ^ 128, and
//   sum x w = sum (x - 128) w - sum (0 - 128) w,
// exactly in int32: what is taken off is what the filter makes of codes that are all 0. It is computed anew in each call, as
// part of the product or from weights that the product reads anyway, so that there is nothing to keep beside the weights, and
// nothing that they could be changed without.
#pragma once

#include <vector>

#include "kernels/int8.hpp"
#include "src/cuda/providers.hpp"

namespace shrike::kernels::int8 {

// Whether the rows of A are the input's pixels as they lie in memory.
bool is_matrix(const Product& product);

// Whether sizes and addresses are such that the layer can be handed over: channels and filters in fours.
bool can_hand_over(const Product& product);

// The layer by a matrix product, of those that is_matrix().
void multiply_by(const cuda::CodeProduct& multiply, const Product& product);

// The layer by a convolution, whose sizes are convolution_sizes(): of u8 codes, of a map that is padded with codes 0.
void convolve_by(const cuda::CodeConvolution& convolve, const Product& product);
Conv2dSizes convolution_sizes(const Product& product);

// Adds what cuBLAS and cuDNN have for the layer, which must be there as long as `ways`.
void add_vendor_ways(std::vector<cuda::Way>& ways, const Product& product);

}  // namespace shrike::kernels::int8
