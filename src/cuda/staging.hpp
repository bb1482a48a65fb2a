// Pinned memory that is handed out again only when the device has read it.
#pragma once

#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "transfer.hpp"

namespace shrike::cuda {

// Thread-safe.
class Staging {
 public:
  void* allocate(std::size_t bytes);
  // The block is free once the transfers that read it are done.
  void deallocate(void* block) noexcept;

  bool owns(const void* block) const;
  // `transfer` has begun to read this block of ours.
  void read_by(const void* block, std::shared_ptr<const Transfer> transfer);

  std::size_t waiting() const;  // blocks that were given back and are still read

 private:
  using Readers = std::vector<std::shared_ptr<const Transfer>>;

  void collect();

  mutable std::mutex mutex_;
  std::unordered_map<const void*, Readers> live_;
  std::vector<std::pair<void*, Readers>> waiting_;
};

// That of this process; lives as long as it.
Staging& staging();

// After an ordinary copy from host memory to the device on stream(): if the memory is ours, it is read until the copy is done.
void read_by_stream(const void* from);

}  // namespace shrike::cuda
