// Candidates that take turns, in a process that holds more than one pool of threads.
#pragma once

#include <functional>
#include <thread>

#include "benchmarks/support/timing.hpp"

namespace shrike::timing {

// Waits until no other thread of this process runs, but no longer than 1 s. OpenMP's and OpenBLAS's threads spin for some
// milliseconds after their work, and the next candidate would share the cores with them. The kernel may count what other
// threads use only at its ticks, every 10 ms at the latest.
inline void wait_until_idle() {
  const double end = seconds() + 1;
  while (seconds() < end) {
    const double used = seconds(true);
    std::this_thread::sleep_for(std::chrono::milliseconds(12));
    if (seconds(true) - used < 2e-4) return;
  }
}

// The median milliseconds of a call of each candidate over `runs` turns.
//
// Each side keeps the settings that suit it: OMP_WAIT_POLICY=passive would let ours alone, but a peer whose threads sleep
// between its own loops is slower than it has to be. So a turn waits until all threads sleep, makes calls that are not counted,
// at least 20 ms of them, after which the candidate's own threads are awake and its data in the caches, and then times calls
// one after the other, as a network's layers follow each other: one, or as many short ones as take 4 ms together, which then
// count by their mean. A virtual processor that has slept wakes within 35 us, or within 5 ms: a peer's first call waits for it
// and ours is finished without it, so that one call before the clock starts would leave the delay to ours alone.
inline std::vector<double> medians_in_turn(const std::vector<std::function<void()>>& candidates, int runs, bool cpu_time) {
  std::vector<std::vector<double>> times(candidates.size());
  for (int run = 0; run < runs; ++run) {
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      wait_until_idle();
      for (const double end = seconds() + 20e-3; seconds() < end;) candidates[i]();
      const double start = seconds(cpu_time);
      double taken = 0;
      int calls = 0;
      do {
        candidates[i]();
        ++calls;
        taken = seconds(cpu_time) - start;
      } while (taken < 4e-3 && calls < 1000);
      times[i].push_back(1e3 * taken / calls);
    }
  }
  std::vector<double> medians;
  for (const std::vector<double>& values : times) medians.push_back(median(values));
  return medians;
}

}  // namespace shrike::timing
