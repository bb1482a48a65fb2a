// Device memory, and copies between it and the host's.
#include "graph.hpp"
#include "kernels/cuda.hpp"
#include "shrike/core/replay.hpp"
#include "shrike/core/tensor.hpp"
#include "staging.hpp"

namespace shrike {
namespace {

class CudaAllocator : public CachingAllocator {
 protected:
  void* raw_allocate(std::size_t bytes) override {
    static_cast<void>(cuda::stream());  // throws, naming the reason, where there is no device
    const cuda::RelaxedCapture relaxed;
    void* block = nullptr;
    const cudaError_t error = cudaMalloc(&block, bytes);
    if (error == cudaErrorMemoryAllocation) {
      static_cast<void>(cudaGetLastError());
      return nullptr;
    }
    cuda::check(error, "memory");
    return block;
  }
  // Kernels that use the block may still be running; cudaFree waits for them.
  void raw_deallocate(void* block, std::size_t) noexcept override { static_cast<void>(cudaFree(block)); }

  bool reclaim() override { return Replay::release_all(); }

  std::string describe_memory() const override {
    std::size_t free_bytes = 0, total = 0;
    if (cudaMemGetInfo(&free_bytes, &total) != cudaSuccess) return {};
    return message(", ", free_bytes, " of the device's ", total, " free");
  }
};

}  // namespace

CachingAllocator& allocator(Cuda) {
  static auto* instance = new CudaAllocator;  // never destroyed: static tensors may outlive any static allocator
  return *instance;
}

namespace kernels {

// To the host: waits until the bytes are there. From the host's pageable memory: CUDA has read it all on return, for
// which it may wait too; from staging memory it only begins. Neither can be part of a graph, which would use the host's memory
// at every launch, long after it has gone.
void copy_bytes(Cuda, void* to, Device to_device, const void* from, Device from_device, std::size_t bytes) {
  const cudaMemcpyKind kind = to_device == Device::cpu     ? cudaMemcpyDeviceToHost
                              : from_device == Device::cpu ? cudaMemcpyHostToDevice
                                                           : cudaMemcpyDeviceToDevice;
  if (kind != cudaMemcpyDeviceToDevice) {
    cuda::check_not_capturing(kind == cudaMemcpyDeviceToHost ? "copy to the host" : "copy from the host");
  }
  cuda::check(cudaMemcpyAsync(to, from, bytes, kind, cuda::stream()), "copy");
  if (to_device == Device::cpu) cuda::synchronize();
  if (from_device == Device::cpu) cuda::read_by_stream(from);
}

void fill_bytes(Cuda, void* to, int value, std::size_t bytes) {
  cuda::check(cudaMemsetAsync(to, value, bytes, cuda::stream()), "fill");
}

}  // namespace kernels
}  // namespace shrike
