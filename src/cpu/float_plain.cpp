// Float kernels for any processor.
#include "float_table.hpp"

namespace shrike::cpu {

const FloatKernels& plain_float_kernels() {
  static constexpr FloatKernels table = float_kernels("plain");
  return table;
}

}  // namespace shrike::cpu
