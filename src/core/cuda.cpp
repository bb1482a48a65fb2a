#include "shrike/core/cuda.hpp"

#include <iostream>

namespace shrike {

CudaSettings& cuda_settings() {
  static CudaSettings settings;
  return settings;
}

#if !SHRIKE_HAS_CUDA
const CudaStatus& cuda_status() {
  static const CudaStatus status{false, "this build of Shrike has no CUDA backend (configure with SHRIKE_CUDA=ON or HOST)"};
  return status;
}
#endif

Device usable_device(Device wanted) {
  if (wanted != Device::cuda || cuda_status().usable) return wanted;
  static const bool said = [] {
    std::cerr << "device cuda: " << cuda_status().text << "; using the CPU\n";
    return true;
  }();
  static_cast<void>(said);
  return Device::cpu;
}

}  // namespace shrike
