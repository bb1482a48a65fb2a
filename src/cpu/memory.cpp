// Host memory, and the kernels that copy and fill it.
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "shrike/core/allocator.hpp"
#include "shrike/core/tensor.hpp"
#include "shrike/core/threads.hpp"

namespace shrike {
namespace {

class HostAllocator : public CachingAllocator {
 protected:
  void* raw_allocate(std::size_t bytes) override {
    const std::size_t alignment = bytes >= huge_page ? huge_page : 64;
    void* block = nullptr;
    if (posix_memalign(&block, alignment, bytes) != 0) return nullptr;
    if (bytes >= huge_page) madvise(block, bytes, MADV_HUGEPAGE);  // fewer page faults and TLB misses; advice only
    return block;
  }
  void raw_deallocate(void* block, std::size_t) noexcept override { std::free(block); }

 private:
  static constexpr std::size_t huge_page = std::size_t{2} << 20;
};

}  // namespace

CachingAllocator& allocator(Cpu) {
  static auto* instance = new HostAllocator;  // never destroyed: static tensors may outlive any static allocator
  return *instance;
}

namespace kernels {

void copy_bytes(Cpu, void* to, Device, const void* from, Device, std::size_t bytes) {
  parallel_for(static_cast<std::int64_t>(bytes), 1 << 20, [&](std::int64_t begin, std::int64_t end) {
    std::memcpy(static_cast<char*>(to) + begin, static_cast<const char*>(from) + begin, static_cast<std::size_t>(end - begin));
  });
}

void fill_bytes(Cpu, void* to, int value, std::size_t bytes) {
  parallel_for(static_cast<std::int64_t>(bytes), 1 << 20, [&](std::int64_t begin, std::int64_t end) {
    std::memset(static_cast<char*>(to) + begin, value, static_cast<std::size_t>(end - begin));
  });
}

void fill_f32(Cpu, std::int64_t n, float value, float* y) {
  parallel_for(n, 1 << 16, [&](std::int64_t begin, std::int64_t end) { std::fill(y + begin, y + end, value); });
}

void accumulate_f32(Cpu, std::int64_t n, const float* x, float* y) {
  parallel_for(n, 1 << 15, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) y[i] += x[i];
  });
}

}  // namespace kernels
}  // namespace shrike
