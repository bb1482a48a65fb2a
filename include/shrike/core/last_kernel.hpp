// Which kernel did the work, for benchmarks.
#pragma once

#include <string>

namespace shrike {

// Set on the calling thread by operations that choose between kernels: convolutions and linear layers, float and int8, on every
// device. Clear it before an operation to see what that operation took.
inline std::string& last_kernel() {
  thread_local std::string name;
  return name;
}

}  // namespace shrike
