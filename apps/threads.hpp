// How many threads a program computes with.
#pragma once

#include <cstdio>

#include "shrike/core/check.hpp"
#include "shrike/core/threads.hpp"

namespace shrike::apps {

inline constexpr const char* threads_help =
    "threads for computing; 0: SHRIKE_THREADS, else the processors that this process may use";

// Puts --threads into force; more than there are processors, by affinity and quotas, become as many as there are, after one
// line that says so. Throws Error where the number is negative, and where it is 0 and SHRIKE_THREADS is no number of threads.
inline void use_threads(int threads) {
  SHRIKE_CHECK(threads >= 0, "threads ", threads, ": expected 0 (automatic) or more");
  const int most = available_threads();
  if (threads > most) {
    std::fprintf(stderr, "--threads %d: this process may use %d processor(s): going on with %d\n", threads, most, most);
    threads = most;
  }
  set_num_threads(threads);
}

}  // namespace shrike::apps
