// The device that the host plays: its memory is the heap.
#include <sys/sysinfo.h>

#include <cstdlib>
#include <cstring>

#include "kernels/cuda.hpp"
#include "shrike/core/tensor.hpp"

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

void synchronize() {}

}  // namespace cuda

namespace kernels {

void copy_bytes(Cuda, void* to, Device, const void* from, Device, std::size_t bytes) { std::memcpy(to, from, bytes); }

void fill_bytes(Cuda, void* to, int value, std::size_t bytes) { std::memset(to, value, bytes); }

}  // namespace kernels
}  // namespace shrike
