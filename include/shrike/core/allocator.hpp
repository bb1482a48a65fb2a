// Caching allocators: tensors come and go at every operation, memory from the system does so rarely.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "shrike/core/device.hpp"

namespace shrike {

struct MemoryStats {
  std::size_t in_use = 0;  // bytes held by live tensors, and reserved by recorded work
  std::size_t cached = 0;  // bytes kept for reuse
  std::size_t peak = 0;    // greatest in_use + cached so far
};

// Best-fit cache of freed blocks over a source of raw memory. Requests are rounded up to size classes at most 1/8 apart and may
// be served by a block up to 1/4 larger, so images of a thousand different sizes share blocks. Blocks that no request fits are
// given back before live and cached bytes together pass 5/4 of what live tensors have needed at their peak (and 64 MiB): the
// cache never makes a process much larger than its tensors. Thread-safe.
class CachingAllocator {
 public:
  class Recording;

  // `host_memory`: blocks can be read here, so that the address sanitizer is told which bytes of them are in use: it sees an
  // access past the bytes asked for, or to a cached block.
  explicit CachingAllocator(bool host_memory = false) : host_memory_(host_memory) {}
  virtual ~CachingAllocator() = default;

  // At least `bytes` bytes, aligned to 64; throws Error naming the bytes asked for when the source has no more.
  void* allocate(std::size_t bytes);
  void deallocate(void* block) noexcept;

  // Returns every cached block to the source.
  void release_cache() noexcept;

  MemoryStats stats() const;
  void reset_peak();

  static std::size_t size_class(std::size_t bytes);

  // Tells the address sanitizer, where there is one, that the first `used` of a block's `size` bytes may be touched.
  static void mark_used(void* block, std::size_t used, std::size_t size);

 protected:
  virtual void* raw_allocate(std::size_t bytes) = 0;  // nullptr when exhausted
  virtual void raw_deallocate(void* block, std::size_t bytes) noexcept = 0;
  // The last resort before an error: has others give back what they can do without; false when there was nothing. Called
  // without the allocator's lock, and not while this thread records.
  virtual bool reclaim() { return false; }
  virtual std::string describe_memory() const { return {}; }  // what else an out-of-memory error should say

 private:
  using BySize = std::multimap<std::size_t, void*>;
  struct Reserved {
    std::size_t size = 0;
    int recordings = 0;  // that have the block's address
  };

  static void* take(BySize& from, std::size_t& size);
  void* fresh(std::size_t size, bool recording);
  void trim(std::size_t room) noexcept;
  void release(Recording& recording) noexcept;

  const bool host_memory_;
  mutable std::mutex mutex_;
  BySize free_;
  BySize idle_;                                  // reserved blocks that no tensor holds: for recordings alone
  std::unordered_map<void*, std::size_t> live_;  // sizes of the blocks handed out
  std::unordered_map<void*, Reserved> reserved_;
  MemoryStats stats_;
  std::size_t peak_in_use_ = 0;
};

// The memory of work that is recorded now and run later, again and again (a CUDA graph). From construction to end() whatever
// this thread allocates is reserved, as long as this object is there: no other work gets it. Within the recording, and among
// all recordings of an allocator, a block is handed on as soon as it is free: they run one after the other in one stream, and
// nothing stays in their memory between runs, so that many need hardly more than the one that needs most. A block that a tensor
// still holds at the end is the tensor's alone, but other recordings may have written it before.
class CachingAllocator::Recording {
 public:
  // Called during the recording with each reserved block that is handed out (`used` bytes of `size`) or taken back (0).
  using OnUse = std::function<void(void* block, std::size_t used, std::size_t size)>;

  // Throws Error when this thread records already.
  explicit Recording(CachingAllocator& allocator, OnUse on_use = {});
  ~Recording();
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

  void end() noexcept;
  std::size_t bytes() const { return bytes_; }  // of its blocks, shared ones included

 private:
  friend class CachingAllocator;
  static Recording* of_this_thread(const CachingAllocator& allocator);

  CachingAllocator& allocator_;
  const OnUse on_use_;
  std::unordered_map<void*, std::size_t> blocks_;  // and their sizes
  std::size_t bytes_ = 0;
};

// The allocator of each device; lives as long as the process.
CachingAllocator& allocator(Cpu);
CachingAllocator& allocator(Cuda);

// What a backend made of a tensor's elements and keeps beside them, such as packed weights, and a count of the occasions on
// which the elements may have changed: it tells whether what was made is still true. Thread-safe.
class Companion {
 public:
  std::shared_ptr<const void> get() const {
    const std::lock_guard lock(mutex_);
    return value_;
  }
  void set(std::shared_ptr<const void> value) {
    const std::lock_guard lock(mutex_);
    value_.swap(value);
  }

  // Two threads that change elements at once are an error of theirs, so that a count lost between them does no harm.
  void elements_may_change() { version_.store(version() + 1, std::memory_order_relaxed); }
  std::uint64_t version() const { return version_.load(std::memory_order_relaxed); }

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<const void> value_;
  std::atomic<std::uint64_t> version_{0};
};

// One block of device memory, returned to where it came from on destruction.
class Storage {
 public:
  Storage(std::size_t bytes, Device device);
  // Memory of another source, to which release(data) returns it.
  Storage(std::size_t bytes, Device device, void* data, void (*release)(void*) noexcept)
      : bytes_(bytes), device_(device), data_(data), release_(release) {}
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  Device device() const { return device_; }
  Companion& companion() { return companion_; }

 private:
  std::size_t bytes_;
  Device device_;
  void* data_;
  void (*release_)(void*) noexcept = nullptr;  // null: the device's allocator has it back
  Companion companion_;
};

}  // namespace shrike
