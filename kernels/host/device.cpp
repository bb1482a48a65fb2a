// The device that the host plays: its memory is the heap.
#include <sys/sysinfo.h>

#include <cstdlib>
#include <cstring>

#include "kernels/cuda.hpp"
#include "shrike/core/replay.hpp"
#include "shrike/core/tensor.hpp"
#include "src/cuda/graph.hpp"

namespace shrike {
namespace {

class HostCudaAllocator : public CachingAllocator {
 public:
  HostCudaAllocator() : CachingAllocator(/*host_memory=*/true) {}

 protected:
  void* raw_allocate(std::size_t bytes) override {
    void* block = nullptr;
    return posix_memalign(&block, 256, bytes) == 0 ? block : nullptr;
  }
  void raw_deallocate(void* block, std::size_t) noexcept override { std::free(block); }

  bool reclaim() override { return Replay::release_all(); }

  std::string describe_memory() const override {
    struct sysinfo host {};
    sysinfo(&host);
    return message(", ", static_cast<std::size_t>(host.freeram) * host.mem_unit, " of the host's ",
                   static_cast<std::size_t>(host.totalram) * host.mem_unit, " free");
  }
};

}  // namespace

const CudaStatus& cuda_status() {
  static const CudaStatus status{true, "kernels run on the CPU (SHRIKE_CUDA=HOST)"};
  return status;
}

CachingAllocator& allocator(Cuda) {
  static auto* instance = new HostCudaAllocator;  // never destroyed: static tensors may outlive any static allocator
  return *instance;
}

namespace cuda {

const Properties& properties() {
  static const Properties host{"host", 90, 4, 227 * 1024};
  return host;
}

cudaStream_t stream() { return nullptr; }

void synchronize() { check_not_capturing("waiting for the device"); }

}  // namespace cuda

namespace kernels {

// A graph would use the host's memory at every launch, long after it has gone.
void copy_bytes(Cuda, void* to, Device to_device, const void* from, Device from_device, std::size_t bytes) {
  if (to_device == Device::cpu) cuda::check_not_capturing("copy to the host");
  if (from_device == Device::cpu) cuda::check_not_capturing("copy from the host");
  cuda::host::submit([=] { std::memcpy(to, from, bytes); });
}

void fill_bytes(Cuda, void* to, int value, std::size_t bytes) {
  cuda::host::submit([=] { std::memset(to, value, bytes); });
}

}  // namespace kernels
}  // namespace shrike
