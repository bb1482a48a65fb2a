// The GPU in use, its one stream, and what its errors say.
#include <sstream>

#include "kernels/cuda.hpp"

#ifndef SHRIKE_CUDA_ARCHITECTURES
#error "the build defines SHRIKE_CUDA_ARCHITECTURES, the list that the kernels were compiled for"
#endif

namespace shrike {

const CudaStatus& cuda_status() {
  static const CudaStatus status = [] {
    int driver = 0, devices = 0;
    if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
      static_cast<void>(cudaGetLastError());
      return CudaStatus{false, "no NVIDIA driver is installed"};
    }
    const cudaError_t error = cudaGetDeviceCount(&devices);
    static_cast<void>(cudaGetLastError());
    if (error != cudaSuccess) return CudaStatus{false, cudaGetErrorString(error)};
    if (devices == 0) return CudaStatus{false, "the NVIDIA driver finds no GPU"};
    cudaDeviceProp device;
    if (cudaGetDeviceProperties(&device, 0) != cudaSuccess) return CudaStatus{false, "the GPU does not answer"};
    return CudaStatus{true, device.name};
  }();
  return status;
}

namespace cuda {

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) [[likely]]
    return;
  static_cast<void>(cudaGetLastError());
  if (error == cudaErrorNoKernelImageForDevice || error == cudaErrorInvalidDeviceFunction) {
    fail("CUDA: this build has kernels for sm_" SHRIKE_CUDA_ARCHITECTURES ", and ", properties().name, " is sm_",
         properties().compute_capability, ": configure with SHRIKE_CUDA_ARCHITECTURES=", properties().compute_capability);
  }
  fail("CUDA: ", what, ": ", cudaGetErrorString(error), " (", cudaGetErrorName(error), ")");
}

const Properties& properties() {
  static const Properties properties = [] {
    SHRIKE_CHECK(cuda_status().usable, "device cuda: ", cuda_status().text);
    cudaDeviceProp device;
    check(cudaGetDeviceProperties(&device, 0), "properties of the device");
    return Properties{device.name, device.major * 10 + device.minor, device.multiProcessorCount, device.sharedMemPerBlockOptin};
  }();
  return properties;
}

cudaStream_t stream() {
  static cudaStream_t the_stream = [] {
    SHRIKE_CHECK(cuda_status().usable, "device cuda: ", cuda_status().text);
    cudaStream_t made = nullptr;
    check(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking), "a stream");
    return made;
  }();
  return the_stream;
}

void synchronize() { check(cudaStreamSynchronize(stream()), "work on the device"); }

void allow_shared(const void* kernel, std::size_t bytes) {
  SHRIKE_CHECK(bytes <= properties().shared_per_block_optin, "CUDA launch: ", bytes,
               " bytes of shared memory a block: ", properties().shared_per_block_optin, " are possible on ",
               properties().name);
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
        "shared memory of a kernel");
}

}  // namespace cuda
}  // namespace shrike
