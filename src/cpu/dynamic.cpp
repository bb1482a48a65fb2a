#include "shrike/ops/dynamic.hpp"

#include <algorithm>
#include <bit>
#include <mutex>

#include "shrike/core/threads.hpp"

namespace shrike::kernels {

// The bits of floats that are not negative, read as integers, are in the order of the floats; those of negative floats are
// negative integers. So whole vectors are compared at once.
void dynamic_scale(Cpu, std::int64_t n, int low, int high, const float* x, float* scale) {
  constexpr std::int32_t infinite = 0x7f800000, magnitude = 0x7fffffff;
  const Dtype dtype = low < 0 ? Dtype::s8 : Dtype::u8;
  SHRIKE_CHECK(high == code_range(dtype).high, "scales for codes ", low, " to ", high);
  const std::int32_t kept = low < 0 ? magnitude : -1;
  std::mutex mutex;  // guards greatest, which comes out the same in any order
  std::int32_t greatest = 0;
  parallel_for(n, 1 << 15, [&](std::int64_t begin, std::int64_t end) {
    std::int32_t own = 0;
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int32_t bits = std::bit_cast<std::int32_t>(x[i]) & kept;
      own = std::max(own, bits < infinite ? bits : 0);
    }
    const std::lock_guard lock(mutex);
    greatest = std::max(greatest, own);
  });
  *scale = scale_from_range(0, std::bit_cast<float>(greatest), dtype);
}

}  // namespace shrike::kernels
