#include "shrike/core/allocator.hpp"

#include <algorithm>
#include <bit>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace shrike {
namespace {

constexpr std::size_t slack = std::size_t{64} << 20;

// Tells the address sanitizer that the first `used` of a block's bytes may be touched, and no others.
void mark_used([[maybe_unused]] void* block, [[maybe_unused]] std::size_t used, [[maybe_unused]] std::size_t size) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(block, used);
  __asan_poison_memory_region(static_cast<char*>(block) + used, size - used);
#endif
}

}  // namespace

std::size_t CachingAllocator::size_class(std::size_t bytes) {
  if (bytes <= 512) return (std::max<std::size_t>(bytes, 1) + 63) / 64 * 64;
  const std::size_t step = std::bit_floor(bytes) / 8;  // eight classes to each doubling
  return (bytes + step - 1) / step * step;
}

void* CachingAllocator::allocate(std::size_t bytes) {
  std::size_t size = size_class(bytes);
  const std::lock_guard lock(mutex_);
  void* block = nullptr;
  if (const auto found = free_.lower_bound(size); found != free_.end() && found->first <= size + size / 4) {
    size = found->first;
    block = found->second;
    free_.erase(found);
    stats_.cached -= size;
  } else {
    const std::size_t needed = std::max(peak_in_use_, stats_.in_use + size);
    const std::size_t allowed = needed + needed / 4 + slack;
    const std::size_t total = stats_.in_use + stats_.cached + size;
    if (total > allowed) trim(total - allowed);
    block = raw_allocate(size);
    if (block == nullptr) {
      trim(stats_.cached);
      block = raw_allocate(size);
    }
    SHRIKE_CHECK(block != nullptr, "out of memory: ", size, " bytes asked for, ", stats_.in_use, " bytes held by live tensors",
                 describe_memory());
  }
  if (host_memory_) mark_used(block, bytes, size);
  live_[block] = size;
  stats_.in_use += size;
  peak_in_use_ = std::max(peak_in_use_, stats_.in_use);
  stats_.peak = std::max(stats_.peak, stats_.in_use + stats_.cached);
  return block;
}

void CachingAllocator::deallocate(void* block) noexcept {
  const std::lock_guard lock(mutex_);
  const auto found = live_.find(block);
  const std::size_t size = found->second;
  live_.erase(found);
  stats_.in_use -= size;
  stats_.cached += size;
  if (host_memory_) mark_used(block, 0, size);
  free_.emplace(size, block);
}

// Gives back cached blocks, largest first, until `room` bytes were freed.
void CachingAllocator::trim(std::size_t room) noexcept {
  std::size_t freed = 0;
  while (freed < room && !free_.empty()) {
    const auto last = std::prev(free_.end());
    if (host_memory_) mark_used(last->second, last->first, last->first);
    raw_deallocate(last->second, last->first);
    stats_.cached -= last->first;
    freed += last->first;
    free_.erase(last);
  }
}

void CachingAllocator::release_cache() noexcept {
  const std::lock_guard lock(mutex_);
  trim(stats_.cached);
}

MemoryStats CachingAllocator::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

void CachingAllocator::reset_peak() {
  const std::lock_guard lock(mutex_);
  peak_in_use_ = stats_.in_use;
  stats_.peak = stats_.in_use + stats_.cached;
}

Storage::Storage(std::size_t bytes, Device device)
    : bytes_(bytes), device_(device), data_(dispatch(device, [&](auto d) { return allocator(d).allocate(bytes); })) {}

Storage::~Storage() {
  dispatch(device_, [&](auto d) { allocator(d).deallocate(data_); });
}

}  // namespace shrike
