// Copies to the device where the host plays it: they are made as late as they may be.
#include "src/cuda/transfer.hpp"

#include <cstdlib>
#include <cstring>
#include <vector>

#include "src/cuda/graph.hpp"

namespace shrike::cuda {
namespace {

class HostPinnedAllocator : public CachingAllocator {
 public:
  HostPinnedAllocator() : CachingAllocator(/*host_memory=*/true) {}

 protected:
  void* raw_allocate(std::size_t bytes) override {
    void* block = nullptr;
    return posix_memalign(&block, 256, bytes) == 0 ? block : nullptr;
  }
  void raw_deallocate(void* block, std::size_t) noexcept override { std::free(block); }
};

}  // namespace

struct Transfer::State {
  struct Copy {
    void* to;
    const void* from;
    std::size_t bytes;
  };
  mutable std::mutex mutex;
  std::vector<Copy> under_way;
};

Transfer::Transfer() : state_(std::make_unique<State>()) {}
Transfer::~Transfer() = default;

// The destination is undefined (all bits set: NaN) until somebody waits, who then gets what the source holds at that time.
void Transfer::add(void* to, const void* from, std::size_t bytes) {
  check_not_capturing("copy from the host");
  std::memset(to, 0xff, bytes);
  const std::lock_guard lock(state_->mutex);
  state_->under_way.push_back({to, from, bytes});
}

void Transfer::join() {
  check_not_capturing("waiting for a copy");
  const std::lock_guard lock(state_->mutex);
  for (const auto& [to, from, bytes] : state_->under_way) std::memcpy(to, from, bytes);
  state_->under_way.clear();
}

bool Transfer::done() const {
  const std::lock_guard lock(state_->mutex);
  return state_->under_way.empty();
}

void Transfer::follow_stream() {}  // what the stream was given is done

CachingAllocator& pinned_memory() {
  static auto* instance = new HostPinnedAllocator;  // never destroyed: static tensors may outlive any static allocator
  return *instance;
}

}  // namespace shrike::cuda
