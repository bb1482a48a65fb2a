// The CUDA backend's state and settings, as seen by programs. Declared in every build, with CUDA or without.
#pragma once

#include <string>

#include "shrike/core/device.hpp"

// Defined to 1 by the build when the CUDA backend's kernels run on the CPU.
#ifndef SHRIKE_CUDA_HOST
#define SHRIKE_CUDA_HOST 0
#endif

namespace shrike {

struct CudaSettings {
  enum class Provider { automatic, native, vendor };  // timed and the fastest; Shrike's own kernels; cuBLAS and cuDNN

  bool tf32 = true;  // matrix products and convolutions may round their f32 inputs to TF32's 10 bits of mantissa
  Provider provider = Provider::automatic;
  bool graphs = true;  // what comes again with the same shapes is launched as a whole (core/replay.hpp)
};

// Those of the whole process; change them before the first operation on the device.
CudaSettings& cuda_settings();

struct CudaStatus {
  bool usable = false;
  std::string text;  // one line: the device's name, or why there is none
};

// Whether Device::cuda can be used here. Never throws; asks the driver once.
const CudaStatus& cuda_status();

// `wanted`, or Device::cpu where CUDA cannot be used; then says why, in one line on standard error, once.
Device usable_device(Device wanted);

}  // namespace shrike
