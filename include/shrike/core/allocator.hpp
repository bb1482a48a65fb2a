// Caching allocators: tensors come and go at every operation, memory from the system does so rarely.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "shrike/core/device.hpp"

namespace shrike {

struct MemoryStats {
  std::size_t in_use = 0;  // bytes held by live tensors
  std::size_t cached = 0;  // bytes kept for reuse
  std::size_t peak = 0;    // greatest in_use + cached so far
};

// Best-fit cache of freed blocks over a source of raw memory. Requests are rounded up to size classes at most 1/8 apart and may
// be served by a block up to 1/4 larger, so images of a thousand different sizes share blocks. Blocks that no request fits are
// given back before live and cached bytes together pass 5/4 of what live tensors have needed at their peak (and 64 MiB): the
// cache never makes a process much larger than its tensors. Thread-safe.
class CachingAllocator {
 public:
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

 protected:
  virtual void* raw_allocate(std::size_t bytes) = 0;  // nullptr when exhausted
  virtual void raw_deallocate(void* block, std::size_t bytes) noexcept = 0;
  virtual std::string describe_memory() const { return {}; }  // what else an out-of-memory error should say

 private:
  void trim(std::size_t room) noexcept;

  const bool host_memory_;
  mutable std::mutex mutex_;
  std::multimap<std::size_t, void*> free_;       // by size
  std::unordered_map<void*, std::size_t> live_;  // sizes of the blocks handed out
  MemoryStats stats_;
  std::size_t peak_in_use_ = 0;
};

// The allocator of each device; lives as long as the process.
CachingAllocator& allocator(Cpu);
CachingAllocator& allocator(Cuda);

// What a backend made of a tensor's elements and keeps beside them, such as packed weights. Thread-safe.
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

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<const void> value_;
};

// One block of device memory, returned to its allocator on destruction.
class Storage {
 public:
  Storage(std::size_t bytes, Device device);
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
  Companion companion_;
};

}  // namespace shrike
