// The stream that copies to the device, and when its copies are complete.
#pragma once

#include <cstddef>
#include <memory>

#include "shrike/core/allocator.hpp"

namespace shrike::cuda {

// Some copies from pinned memory to the device. They run on a stream of their own, which the device's copy engine works off
// while kernels run.
class Transfer {
 public:
  Transfer();
  ~Transfer();
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;

  // Begins a copy. It comes after all that stream() has been given so far: `to` may be memory that this used.
  void add(void* to, const void* from, std::size_t bytes);
  // What stream() is given from now on comes after the copies.
  void join();
  // Whether the copies are complete; does not wait.
  bool done() const;

  // The same of what stream() has been given so far.
  void follow_stream();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Host memory that the device reads by itself. Its blocks go back at once: see Staging.
CachingAllocator& pinned_memory();

}  // namespace shrike::cuda
