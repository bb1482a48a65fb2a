#if defined(__x86_64__)
#include "int8_ymm.hpp"

namespace shrike::int8 {

const Kernels& avx2_kernels() {
  static constexpr Kernels table = ymm_kernels("avx2");
  return table;
}

}  // namespace shrike::int8
#endif
