// Runs the CPU's kernels of every instruction set that this machine has.
#pragma once

#include <cstdlib>
#include <string>

#include "catch.hpp"

// SHRIKE_CPU_ISA for the time that this lives.
class PinnedIsa {
 public:
  explicit PinnedIsa(const std::string& name) {
    if (const char* before = std::getenv("SHRIKE_CPU_ISA")) before_ = before;
    setenv("SHRIKE_CPU_ISA", name.c_str(), 1);
  }
  ~PinnedIsa() { before_.empty() ? unsetenv("SHRIKE_CPU_ISA") : setenv("SHRIKE_CPU_ISA", before_.c_str(), 1); }
  PinnedIsa(const PinnedIsa&) = delete;
  PinnedIsa& operator=(const PinnedIsa&) = delete;

 private:
  std::string before_;
};

// Calls f() with the float kernels of each instruction set.
template <class F> void for_each_isa(const F& f) {
  for (const std::string name : {"plain", "avx2", "avx512"}) {
#if defined(__x86_64__)
    if (name != "plain" && !(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))) continue;
    if (name == "avx512" && !(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                              __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))) {
      continue;
    }
#else
    if (name != "plain") continue;
#endif
    const PinnedIsa pinned(name);
    INFO("SHRIKE_CPU_ISA=" << name);
    f();
  }
}
