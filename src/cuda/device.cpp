// The GPU in use, its one stream, and what its errors say.
#include "graph.hpp"
#include "kernels/cuda.hpp"

#ifndef SHRIKE_CUDA_ARCHITECTURES
#error "the build defines SHRIKE_CUDA_ARCHITECTURES, the list that the kernels were compiled for"
#endif

namespace shrike {

namespace {

std::string lacking_code(const cudaDeviceProp& device) {
  return message("the build has kernels for " SHRIKE_CUDA_ARCHITECTURES ", and ", device.name, " is sm_", device.major,
                 device.minor, ": configure with SHRIKE_CUDA_ARCHITECTURES=", device.major, device.minor);
}

CudaStatus ask_driver() {
  int driver = 0, devices = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) return {false, "no NVIDIA driver is installed"};
  if (const cudaError_t error = cudaGetDeviceCount(&devices); error != cudaSuccess) return {false, cudaGetErrorString(error)};
  if (devices == 0) return {false, "the NVIDIA driver finds no GPU"};
  cudaDeviceProp device;
  if (const cudaError_t error = cudaGetDeviceProperties(&device, 0); error != cudaSuccess) {
    return {false, message("the GPU does not answer: ", cudaGetErrorString(error))};
  }
  const cudaError_t error = cuda::find_code();
  if (error == cudaErrorNoKernelImageForDevice || error == cudaErrorInvalidDeviceFunction) return {false, lacking_code(device)};
  if (error != cudaSuccess) return {false, message(device.name, " cannot run kernels: ", cudaGetErrorString(error))};
  return {true, device.name};
}

}  // namespace

const CudaStatus& cuda_status() {
  static const CudaStatus status = [] {
    CudaStatus found = ask_driver();
    static_cast<void>(cudaGetLastError());  // or the next call would report it
    return found;
  }();
  return status;
}

namespace cuda {

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) [[likely]]
    return;
  static_cast<void>(cudaGetLastError());
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
  const cudaStream_t capture = capture_stream();
  return capture != nullptr ? capture : the_stream;
}

void synchronize() {
  check_not_capturing("waiting for the device");
  check(cudaStreamSynchronize(stream()), "work on the device");
}

void allow_shared(const void* kernel, std::size_t bytes) {
  SHRIKE_CHECK(bytes <= properties().shared_per_block_optin, "CUDA launch: ", bytes,
               " bytes of shared memory a block: ", properties().shared_per_block_optin, " are possible on ",
               properties().name);
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
        "shared memory of a kernel");
}

}  // namespace cuda
}  // namespace shrike
