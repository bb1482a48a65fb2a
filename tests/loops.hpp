// Loops that tests of the pool run.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

#include "shrike/core/threads.hpp"

namespace loops {

using namespace shrike;

// A number of threads for a time.
struct Threads {
  explicit Threads(int threads) { set_num_threads(threads); }
  ~Threads() { set_num_threads(0); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;
};

// Whether `count` chunks run at the same time, each waiting for the others.
inline bool run_together(int count) {
  std::atomic<int> there{0};
  std::atomic<bool> all{true};
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  parallel_chunks(count, count, [&](std::int64_t, int) {
    ++there;
    while (there < count && std::chrono::steady_clock::now() < end) std::this_thread::yield();
    if (there < count) all = false;
  });
  return all;
}

inline std::int64_t sum_to(std::int64_t n) {
  std::atomic<std::int64_t> sum{0};
  parallel_for(n, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) sum += i;
  });
  return sum;
}

}  // namespace loops
