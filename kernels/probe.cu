// An empty kernel, by which the CUDA runtime is asked whether the build has code for the GPU: all kernels are compiled for the
// same architectures. The host has code for itself.
#include "kernels/cuda.hpp"

#if !SHRIKE_CUDA_HOST
namespace shrike::cuda {

__global__ void probe_kernel() {}

cudaError_t find_code() {
  cudaFuncAttributes attributes;
  return cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(probe_kernel));
}

}  // namespace shrike::cuda
#endif
