// The pool behind parallel_for: workers that watch for loops to help with.
#include "shrike/core/threads.hpp"

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "cpu_limit.hpp"
#include "shrike/core/check.hpp"

#if defined(__unix__)
#include <pthread.h>
#include <signal.h>
#endif

namespace shrike {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int most_threads = 1024;
// How long a thread that waits keeps its processor before it sleeps. The next loop mostly comes sooner; and waking a thread takes
// about as long.
constexpr std::chrono::microseconds patience{50};

// The number of threads

std::atomic<int> asked_for{0};  // by set_num_threads
std::atomic<int> automatic{0};  // what 0 stands for; 0: not looked up yet
std::atomic<std::int64_t> next_look{0};

std::int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now().time_since_epoch()).count();
}

int look_up_threads() {
  const char* text = std::getenv("SHRIKE_THREADS");
  if (text == nullptr || *text == '\0') return std::min(cpu_limit(), most_threads);
  int value = 0;
  const auto [end, error] = std::from_chars(text, text + std::strlen(text), value);
  SHRIKE_CHECK(error == std::errc() && *end == '\0' && value >= 1 && value <= most_threads, "SHRIKE_THREADS is '", text,
               "': expected a whole number from 1 to ", most_threads);
  return value;
}

// Quotas change while a process runs: they are read again, but not often.
void look_again() {
  constexpr std::int64_t interval_ms = 10000;
  if (asked_for.load(std::memory_order_relaxed) != 0) return;
  const std::int64_t now = now_ms();
  std::int64_t due = next_look.load(std::memory_order_relaxed);
  if (now < due || !next_look.compare_exchange_strong(due, now + interval_ms, std::memory_order_relaxed)) return;
  automatic.store(look_up_threads(), std::memory_order_relaxed);
}

// Waiting

void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

// Whether the condition holds before patience ends.
template <class F> bool spin_until(const F& condition) {
  const auto start = Clock::now();
  do {
    for (int i = 0; i < 16; ++i) {
      if (condition()) return true;
      relax();
    }
  } while (Clock::now() - start < patience);
  return condition();
}

// Set on a thread while it runs chunks: loops within them run on that thread alone.
thread_local bool inside = false;

// One loop. It lives on its caller's stack, until no worker is in it.
struct Job {
  const void* context;
  void (*call)(const void*, std::int64_t, int);
  std::int64_t chunks;
  int slots;
  std::atomic<std::int64_t> next{0};  // chunk to be claimed
  std::atomic<int> workers{0};        // that are in it, besides the caller
  int joined = 1;                     // slots given out; guarded by the pool's mutex
  std::exception_ptr error = nullptr;  // the first one; guarded by the pool's mutex

  bool open() const { return joined < slots && next.load(std::memory_order_relaxed) < chunks; }
};

class Pool {
 public:
  void run(Job& job);
  void stop();

 private:
  void work(Job& job, int slot);
  void worker();
  Job* open_job();
  void grow(int threads);

  std::mutex mutex_;
  std::condition_variable news_;  // a job was posted, or the pool stops
  std::condition_variable done_;  // a worker left a job
  std::vector<Job*> jobs_;
  std::vector<std::thread> workers_;
  std::atomic<std::uint64_t> posted_{0};  // counts what news_ tells: what an idle worker watches
  int computing_ = 0;                     // threads that run chunks, callers included
  int sleeping_ = 0;                      // workers that wait for news_
  bool stopped_ = false;
  bool complained_ = false;
};

// Claims chunks until there are none.
void Pool::work(Job& job, int slot) {
  inside = true;
  try {
    for (std::int64_t chunk; (chunk = job.next.fetch_add(1, std::memory_order_relaxed)) < job.chunks;) {
      job.call(job.context, chunk, slot);
    }
  } catch (...) {
    job.next.store(job.chunks, std::memory_order_relaxed);
    const std::lock_guard lock(mutex_);
    if (job.error == nullptr) job.error = std::current_exception();
  }
  inside = false;
}

Job* Pool::open_job() {
  if (computing_ >= num_threads()) return nullptr;
  const auto found = std::find_if(jobs_.begin(), jobs_.end(), [](const Job* job) { return job->open(); });
  return found == jobs_.end() ? nullptr : *found;
}

void Pool::worker() {
  std::unique_lock lock(mutex_);
  while (!stopped_) {
    if (Job* const job = open_job(); job != nullptr) {
      const int slot = job->joined++;
      job->workers.fetch_add(1, std::memory_order_relaxed);
      ++computing_;
      lock.unlock();
      work(*job, slot);
      lock.lock();
      --computing_;
      // The last that this thread does with the job: its caller may return from here on.
      if (job->workers.fetch_sub(1, std::memory_order_release) == 1) done_.notify_all();
      continue;
    }
    const std::uint64_t seen = posted_.load(std::memory_order_relaxed);
    lock.unlock();
    const bool news = spin_until([&] { return posted_.load(std::memory_order_relaxed) != seen; });
    lock.lock();
    if (news) continue;
    ++sleeping_;
    news_.wait(lock, [&] { return stopped_ || posted_.load(std::memory_order_relaxed) != seen; });
    --sleeping_;
  }
}

// Starts threads that are missing; where the system gives no more, those that there are will do.
void Pool::grow(int threads) {
  while (static_cast<int>(workers_.size()) < threads - 1 && !complained_) {
#if defined(__unix__)
    // Signals are for the threads of the program.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
#endif
    try {
      workers_.emplace_back([this] { worker(); });
    } catch (const std::system_error& error) {
      complained_ = true;
      std::fprintf(stderr, "threads: the system gave %zu of %d threads (%s): going on with these\n", workers_.size() + 1, threads,
                   error.what());
    }
#if defined(__unix__)
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
#endif
  }
}

void Pool::run(Job& job) {
  {
    std::unique_lock lock(mutex_);
    const int threads = num_threads();
    if (!stopped_) grow(threads);
    ++computing_;
    jobs_.push_back(&job);
    posted_.fetch_add(1, std::memory_order_relaxed);
    const int wanted = std::min({job.slots - 1, sleeping_, threads - computing_});
    lock.unlock();
    for (int i = 0; i < wanted; ++i) news_.notify_one();
  }
  work(job, 0);
  {
    const std::lock_guard lock(mutex_);
    --computing_;
    std::erase(jobs_, &job);  // no worker joins from here on
    if (!jobs_.empty() && sleeping_ > 0) {
      posted_.fetch_add(1, std::memory_order_relaxed);
      news_.notify_one();  // another caller can do with what this one leaves
    }
  }
  const auto left = [&] { return job.workers.load(std::memory_order_acquire) == 0; };
  if (!spin_until(left)) {
    std::unique_lock lock(mutex_);
    done_.wait(lock, left);
  }
  if (job.error != nullptr) std::rethrow_exception(job.error);
}

void Pool::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    posted_.fetch_add(1, std::memory_order_relaxed);
  }
  news_.notify_all();
  for (std::thread& thread : workers_) {
    thread.get_id() == std::this_thread::get_id() ? thread.detach() : thread.join();  // a worker may have called exit()
  }
  workers_.clear();
}

// Never destroyed, so that loops of other static objects' destructors still run, on their own threads. After a fork the child has
// none of the parent's workers: it begins anew.
std::atomic<Pool*> the_pool{nullptr};

struct StopAtExit {
  ~StopAtExit() {
    if (Pool* const pool = the_pool.load()) pool->stop();
  }
};

Pool& pool() {
  static const StopAtExit at_exit;
  static const bool prepared = [] {
    the_pool.store(new Pool);
#if defined(__unix__)
    pthread_atfork(nullptr, nullptr, [] { the_pool.store(new Pool); });
#endif
    return true;
  }();
  static_cast<void>(prepared);
  return *the_pool.load();
}

}  // namespace

void set_num_threads(int threads) {
  SHRIKE_CHECK(threads >= 0 && threads <= most_threads, "threads ", threads, ": expected 0 (automatic) to ", most_threads);
  asked_for.store(threads, std::memory_order_relaxed);
}

int num_threads() {
  if (const int threads = asked_for.load(std::memory_order_relaxed); threads != 0) return threads;
  if (automatic.load(std::memory_order_relaxed) == 0) automatic.store(look_up_threads(), std::memory_order_relaxed);
  return automatic.load(std::memory_order_relaxed);
}

int available_threads() { return cpu_limit(); }

void run_chunks(std::int64_t chunks, int slots, const void* context, void (*call)(const void*, std::int64_t, int)) {
  if (chunks > 1 && slots > 1 && !inside) {
    look_again();
    Job job{context, call, chunks, slots};
    return pool().run(job);
  }
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) call(context, chunk, 0);
}

}  // namespace shrike
