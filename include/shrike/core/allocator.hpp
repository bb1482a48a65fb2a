// Caching allocators: tensors come and go at every operation, memory from the system does so rarely.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>

#include "shrike/core/device.hpp"

namespace shrike {

struct MemoryStats {
  std::size_t in_use = 0;  // bytes held by live tensors
  std::size_t cached = 0;  // bytes kept for reuse
  std::size_t peak = 0;    // greatest in_use + cached so far
};

// Best-fit cache of freed blocks over a source of raw memory. Requests are rounded up to size classes at most 1/8 apart, so
// images of a thousand different sizes share blocks. When live and cached bytes would exceed their earlier peak, cached blocks
// are given back first: the cache never makes the peak much greater than the live tensors need. Thread-safe.
class CachingAllocator {
 public:
  virtual ~CachingAllocator() = default;

  // At least `bytes` bytes, aligned to 64; throws Error naming the bytes asked for when the source has no more.
  void* allocate(std::size_t bytes);
  void deallocate(void* block, std::size_t bytes) noexcept;

  // Returns every cached block to the source.
  void release_cache() noexcept;

  MemoryStats stats() const;
  void reset_peak();

  static std::size_t size_class(std::size_t bytes);

 protected:
  virtual void* raw_allocate(std::size_t bytes) = 0;  // nullptr when exhausted
  virtual void raw_deallocate(void* block, std::size_t bytes) noexcept = 0;

 private:
  void trim(std::size_t room) noexcept;

  mutable std::mutex mutex_;
  std::multimap<std::size_t, void*> free_;  // by size class
  MemoryStats stats_;
  std::size_t peak_in_use_ = 0;
};

// The allocator of each device; lives as long as the process.
CachingAllocator& allocator(Cpu);
CachingAllocator& allocator(Cuda);

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

 private:
  std::size_t bytes_;
  Device device_;
  void* data_;
};

}  // namespace shrike
