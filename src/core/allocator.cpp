#include "shrike/core/allocator.hpp"

#include <algorithm>
#include <bit>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace shrike {
namespace {

constexpr std::size_t slack = std::size_t{64} << 20;

thread_local CachingAllocator::Recording* recording_of_thread = nullptr;

}  // namespace

std::size_t CachingAllocator::size_class(std::size_t bytes) {
  if (bytes <= 512) return (std::max<std::size_t>(bytes, 1) + 63) / 64 * 64;
  const std::size_t step = std::bit_floor(bytes) / 8;  // eight classes to each doubling
  return (bytes + step - 1) / step * step;
}

void CachingAllocator::mark_used([[maybe_unused]] void* block, [[maybe_unused]] std::size_t used,
                                 [[maybe_unused]] std::size_t size) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(block, used);
  __asan_poison_memory_region(static_cast<char*>(block) + used, size - used);
#endif
}

// The smallest block that fits, if it is not much too large; `size` becomes its size.
void* CachingAllocator::take(BySize& from, std::size_t& size) {
  const auto found = from.lower_bound(size);
  if (found == from.end() || found->first > size + size / 4) return nullptr;
  void* const block = found->second;
  size = found->first;
  from.erase(found);
  return block;
}

// A block from the source, or nullptr. While this thread records nothing is given back to the source: that would wait for the
// device, which a capture forbids.
void* CachingAllocator::fresh(std::size_t size, bool recording) {
  if (!recording) {
    const std::size_t needed = std::max(peak_in_use_, stats_.in_use + size);
    const std::size_t allowed = needed + needed / 4 + slack;
    const std::size_t total = stats_.in_use + stats_.cached + size;
    if (total > allowed) trim(total - allowed);
  }
  void* block = raw_allocate(size);
  if (block == nullptr && !recording) {
    trim(stats_.cached);
    block = raw_allocate(size);
  }
  return block;
}

void* CachingAllocator::allocate(std::size_t bytes) {
  std::size_t size = size_class(bytes);
  Recording* const recording = Recording::of_this_thread(*this);
  std::unique_lock lock(mutex_);
  void* block = recording != nullptr ? take(idle_, size) : nullptr;
  if (block == nullptr) {
    block = take(free_, size);
    if (block != nullptr) {
      stats_.cached -= size;
    } else {
      block = fresh(size, recording != nullptr);
    }
    if (block == nullptr && recording == nullptr) {
      lock.unlock();
      const bool more = reclaim();
      lock.lock();
      if (more) block = fresh(size, false);
    }
    SHRIKE_CHECK(block != nullptr, "out of memory: ", size, " bytes asked for, ", stats_.in_use, " bytes held by live tensors",
                 describe_memory());
    stats_.in_use += size;
  }
  if (host_memory_) mark_used(block, bytes, size);
  live_[block] = size;
  if (recording != nullptr) {
    if (recording->blocks_.emplace(block, size).second) {
      recording->bytes_ += size;
      reserved_[block].size = size;
      ++reserved_[block].recordings;
    }
    if (recording->on_use_) recording->on_use_(block, bytes, size);
  }
  peak_in_use_ = std::max(peak_in_use_, stats_.in_use);
  stats_.peak = std::max(stats_.peak, stats_.in_use + stats_.cached);
  return block;
}

void CachingAllocator::deallocate(void* block) noexcept {
  Recording* const recording = Recording::of_this_thread(*this);
  const std::lock_guard lock(mutex_);
  const auto found = live_.find(block);
  const std::size_t size = found->second;
  live_.erase(found);
  if (host_memory_) mark_used(block, 0, size);
  if (reserved_.contains(block)) {
    idle_.emplace(size, block);
    if (recording != nullptr && recording->on_use_ && recording->blocks_.contains(block)) recording->on_use_(block, 0, size);
    return;
  }
  stats_.in_use -= size;
  stats_.cached += size;
  free_.emplace(size, block);
}

// A block that no recording has any more is an ordinary one.
void CachingAllocator::release(Recording& recording) noexcept {
  const std::lock_guard lock(mutex_);
  for (const auto& [block, size] : recording.blocks_) {
    if (--reserved_[block].recordings > 0) continue;
    reserved_.erase(block);
    if (live_.contains(block)) continue;
    const auto [first, last] = idle_.equal_range(size);
    idle_.erase(std::find_if(first, last, [&, b = block](const auto& entry) { return entry.second == b; }));
    if (host_memory_) mark_used(block, 0, size);
    stats_.in_use -= size;
    stats_.cached += size;
    free_.emplace(size, block);
  }
}

CachingAllocator::Recording::Recording(CachingAllocator& allocator, OnUse on_use)
    : allocator_(allocator), on_use_(std::move(on_use)) {
  SHRIKE_CHECK(recording_of_thread == nullptr, "a recording of device memory inside another one");
  recording_of_thread = this;
}

CachingAllocator::Recording::~Recording() {
  end();
  allocator_.release(*this);
}

void CachingAllocator::Recording::end() noexcept {
  if (recording_of_thread == this) recording_of_thread = nullptr;
}

CachingAllocator::Recording* CachingAllocator::Recording::of_this_thread(const CachingAllocator& allocator) {
  return recording_of_thread != nullptr && &recording_of_thread->allocator_ == &allocator ? recording_of_thread : nullptr;
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
  if (release_ != nullptr) {
    release_(data_);
  } else {
    dispatch(device_, [&](auto d) { allocator(d).deallocate(data_); });
  }
}

}  // namespace shrike
