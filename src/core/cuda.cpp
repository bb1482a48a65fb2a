#include "shrike/core/cuda.hpp"

#include <iostream>

#include "shrike/core/replay.hpp"

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

Replay::Counts Replay::counts() const { return {}; }
std::size_t Replay::graphs() const { return 0; }
bool Replay::release_all() { return false; }
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
