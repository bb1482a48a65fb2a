#include "shrike/ops/quantized_linear.hpp"

#include "int8.hpp"

namespace shrike::kernels {

void quantized_linear_forward(Cpu, const LinearSizes& sizes, const Requantize& to, const QuantizedOperands& operands) {
  int8::convolve({sizes.rows, 1, 1, sizes.in, sizes.out, 1, 1, 1, 1, 1, 0, 1, 1, sizes.relu}, to, operands);
}

}  // namespace shrike::kernels
