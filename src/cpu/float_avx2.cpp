// Float kernels for AVX2 with FMA.
#if defined(__x86_64__)
#include "float_table.hpp"

namespace shrike::cpu {

const FloatKernels& avx2_float_kernels() {
  static constexpr FloatKernels table = float_kernels("avx2");
  return table;
}

}  // namespace shrike::cpu
#endif
