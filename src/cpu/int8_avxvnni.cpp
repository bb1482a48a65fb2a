// AVX2 with VNNI, which many desktop processors have in place of AVX-512.
#if defined(__x86_64__)
#include "int8_ymm.hpp"

namespace shrike::int8 {

const Kernels& avxvnni_kernels() {
  static constexpr Kernels table = ymm_kernels("avx vnni");
  return table;
}

}  // namespace shrike::int8
#endif
