// Where a program computes, and by whose kernels.
#pragma once

#include <string>

#include "shrike/core/cuda.hpp"

namespace shrike::apps {

// A visitor is called as v(name, value, help) for each setting.
struct DeviceSettings {
  std::string device = "cpu";
  std::string provider = "auto";
  bool tf32 = true;
  bool graphs = true;

  template <class Visitor> void visit(Visitor& v) {
    v("device", device, "cpu or cuda");
    v("provider", provider,
      "kernels of convolutions and matrix products on cuda: native, vendor (cuDNN, cuBLAS) or auto (the fastest)");
    v("tf32", tf32, "let those round their factors to TF32's 10 bits of mantissa on cuda, for speed");
    v("cuda-graphs", graphs, "on cuda, detect in images of a size that comes again by one launch of a CUDA graph");
  }
};

// Puts the settings into force and gives the device: the CPU, after one line that says why, where there is no GPU. Throws Error
// for a device or provider that is none.
inline Device use(const DeviceSettings& settings) {
  using Provider = CudaSettings::Provider;
  SHRIKE_CHECK(settings.provider == "native" || settings.provider == "vendor" || settings.provider == "auto", "provider '",
               settings.provider, "': expected native, vendor or auto");
  cuda_settings().provider = settings.provider == "native"   ? Provider::native
                             : settings.provider == "vendor" ? Provider::vendor
                                                             : Provider::automatic;
  cuda_settings().tf32 = settings.tf32;
  cuda_settings().graphs = settings.graphs;
  return usable_device(parse_device(settings.device));
}

}  // namespace shrike::apps
