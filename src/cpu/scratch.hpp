// Working memory from Shrike's allocator, so that it is counted and reused.
#pragma once

#include <cstdint>
#include <utility>

#include "shrike/core/allocator.hpp"

namespace shrike {

class Scratch {
 public:
  Scratch() = default;
  explicit Scratch(std::size_t bytes) : data_(bytes > 0 ? allocator(Cpu{}).allocate(bytes) : nullptr) {}
  ~Scratch() {
    if (data_ != nullptr) allocator(Cpu{}).deallocate(data_);
  }
  Scratch(Scratch&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
  Scratch& operator=(Scratch&& other) noexcept {
    std::swap(data_, other.data_);
    return *this;
  }

  // Aligned to 64 bytes; null where there are none.
  float* data() const { return static_cast<float*>(data_); }

 private:
  void* data_ = nullptr;
};

inline Scratch scratch_bytes(std::int64_t count) { return Scratch(static_cast<std::size_t>(count)); }
inline Scratch scratch_floats(std::int64_t count) { return Scratch(static_cast<std::size_t>(count) * sizeof(float)); }

}  // namespace shrike
