// How many threads loops use.
#include "thread_count.hpp"

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <exception>

#include "cpu_limit.hpp"
#include "shrike/core/check.hpp"
#include "shrike/core/threads.hpp"

namespace shrike {
namespace {

constexpr int most_threads = 1024;

std::atomic<int> asked_for{0};  // by set_num_threads
std::atomic<int> automatic{0};  // what 0 stands for; 0: not looked up yet
std::atomic<std::int64_t> next_look{0};

std::int64_t now_ms() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
}

// SHRIKE_THREADS, or 0 where it is not set. What was valid once is kept: nothing that happens to the environment later stops a
// process that computes.
int environment_threads() {
  static const int value = [] {
    const char* text = std::getenv("SHRIKE_THREADS");
    if (text == nullptr || *text == '\0') return 0;
    int number = 0;
    const auto [end, error] = std::from_chars(text, text + std::strlen(text), number);
    SHRIKE_CHECK(error == std::errc() && *end == '\0' && number >= 1 && number <= most_threads, "SHRIKE_THREADS is '", text,
                 "': expected a whole number from 1 to ", most_threads);
    return number;
  }();
  return value;
}

int look_up_threads() {
  const int told = environment_threads();
  return told > 0 ? told : std::min(cpu_limit(), most_threads);
}

}  // namespace

void look_again_at_threads() {
  constexpr std::int64_t interval_ms = 10000;
  if (asked_for.load(std::memory_order_relaxed) != 0 || automatic.load(std::memory_order_relaxed) == 0) return;
  const std::int64_t now = now_ms();
  std::int64_t due = next_look.load(std::memory_order_relaxed);
  if (now < due || !next_look.compare_exchange_strong(due, now + interval_ms, std::memory_order_relaxed)) return;
  try {
    automatic.store(look_up_threads(), std::memory_order_relaxed);
  } catch (const std::exception&) {  // out of memory
  }
}

void set_num_threads(int threads) {
  SHRIKE_CHECK(threads >= 0 && threads <= most_threads, "threads ", threads, ": expected 0 (automatic) to ", most_threads);
  if (threads == 0) environment_threads();  // throws here rather than in an operation
  asked_for.store(threads, std::memory_order_relaxed);
}

int num_threads() {
  if (const int threads = asked_for.load(std::memory_order_relaxed); threads != 0) return threads;
  if (automatic.load(std::memory_order_relaxed) == 0) automatic.store(look_up_threads(), std::memory_order_relaxed);
  return automatic.load(std::memory_order_relaxed);
}

int available_threads() { return cpu_limit(); }

}  // namespace shrike
