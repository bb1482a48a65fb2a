// Float kernels for AVX-512.
#if defined(__x86_64__)
#include "float_table.hpp"

namespace shrike::cpu {

const FloatKernels& avx512_float_kernels() {
  static constexpr FloatKernels table = float_kernels("avx512");
  return table;
}

}  // namespace shrike::cpu
#endif
