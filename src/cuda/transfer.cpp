#include "transfer.hpp"

#include "graph.hpp"

#if !SHRIKE_CUDA_HOST

namespace shrike::cuda {
namespace {

cudaStream_t copy_stream() {
  static cudaStream_t the_stream = [] {
    cudaStream_t made = nullptr;
    check(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking), "a stream for copies");
    return made;
  }();
  return the_stream;
}

// Mapping memory for the device takes it some milliseconds, so blocks are kept.
class PinnedAllocator : public CachingAllocator {
 protected:
  void* raw_allocate(std::size_t bytes) override {
    static_cast<void>(stream());  // throws, naming the reason, where there is no device
    const RelaxedCapture relaxed;
    void* block = nullptr;
    const cudaError_t error = cudaHostAlloc(&block, bytes, cudaHostAllocDefault);
    if (error == cudaErrorMemoryAllocation) {
      static_cast<void>(cudaGetLastError());
      return nullptr;
    }
    check(error, "pinned memory");
    return block;
  }
  void raw_deallocate(void* block, std::size_t) noexcept override { static_cast<void>(cudaFreeHost(block)); }
  std::string describe_memory() const override { return ", pinned on the host"; }
};

}  // namespace

struct Transfer::State {
  cudaEvent_t computed = nullptr, copied = nullptr;
};

Transfer::Transfer() : state_(std::make_unique<State>()) {
  for (cudaEvent_t* event : {&state_->computed, &state_->copied}) {
    check(cudaEventCreateWithFlags(event, cudaEventDisableTiming), "cudaEventCreate");
  }
}

Transfer::~Transfer() {
  cudaEventDestroy(state_->computed);
  cudaEventDestroy(state_->copied);
}

void Transfer::add(void* to, const void* from, std::size_t bytes) {
  check_not_capturing("copy from the host");
  check(cudaEventRecord(state_->computed, stream()), "cudaEventRecord");
  check(cudaStreamWaitEvent(copy_stream(), state_->computed, 0), "cudaStreamWaitEvent");
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, copy_stream()), "copy from pinned memory");
  check(cudaEventRecord(state_->copied, copy_stream()), "cudaEventRecord");
}

void Transfer::join() {
  check_not_capturing("waiting for a copy");
  check(cudaStreamWaitEvent(stream(), state_->copied, 0), "cudaStreamWaitEvent");
}

bool Transfer::done() const {
  const cudaError_t error = cudaEventQuery(state_->copied);
  if (error == cudaSuccess) return true;
  static_cast<void>(cudaGetLastError());  // of a device that is lost too: nothing is complete any more
  return false;
}

void Transfer::follow_stream() { check(cudaEventRecord(state_->copied, stream()), "cudaEventRecord"); }

CachingAllocator& pinned_memory() {
  static auto* instance = new PinnedAllocator;  // never destroyed: static tensors may outlive any static allocator
  return *instance;
}

}  // namespace shrike::cuda
#endif
