#include "shrike/ops/quantized_conv.hpp"

#include "int8.hpp"

namespace shrike::kernels {

void quantized_conv2d_forward(Cpu, const Conv2dSizes& sizes, const Requantize& to, const QuantizedOperands& operands) {
  int8::convolve(sizes, to, operands);
}

}  // namespace shrike::kernels
