// The pool behind parallel_for: workers that watch for loops to help with.
#include "shrike/core/threads.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "thread_count.hpp"

#if defined(__unix__)
#include <pthread.h>
#include <signal.h>
#endif

namespace shrike {
namespace {

using Clock = std::chrono::steady_clock;

// How long a thread that waits keeps its processor before it sleeps. The next loop mostly comes sooner; and waking a thread
// takes about as long.
constexpr std::chrono::microseconds patience{50};

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
  std::atomic<std::int64_t> next{0};   // chunk to be claimed
  std::atomic<int> workers{0};         // that are in it, besides the caller
  int joined = 1;                      // slots given out; guarded by the pool's mutex
  std::exception_ptr error = nullptr;  // the first one; guarded by the pool's mutex

  bool open() const { return joined < slots && next.load(std::memory_order_relaxed) < chunks; }
};

class Pool {
 public:
  // After a fork, `parents` is the pool of the parent process: without threads here, and in an unknown state.
  explicit Pool(const Pool* parents = nullptr) : parents_(parents) {}
  void run(Job& job);
  void stop();

 private:
  void work(Job& job, int slot);
  void worker() noexcept;
  Job* open_job();
  void grow(int threads);

  std::mutex mutex_;
  std::condition_variable news_;  // a job was posted, or the pool stops
  std::condition_variable done_;  // a worker left a job
  std::vector<Job*> jobs_;
  std::vector<std::thread> workers_;
  std::atomic<std::uint64_t> posted_{0};  // counts what news_ tells: what an idle worker watches
  int limit_ = 1;                         // num_threads() when the last job was posted
  int computing_ = 0;                     // threads that run chunks, callers included
  int sleeping_ = 0;                      // workers that wait for news_
  bool stopped_ = false;
  bool complained_ = false;
  const Pool* const parents_;  // kept, so that nothing counts as leaked
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
  if (computing_ >= limit_) return nullptr;
  const auto found = std::find_if(jobs_.begin(), jobs_.end(), [](const Job* job) { return job->open(); });
  return found == jobs_.end() ? nullptr : *found;
}

void Pool::worker() noexcept {
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

// Threads that are started while one of these lives get no signals but those that their own instructions raise: the others are
// for the threads of the program.
class SignalsBlocked {
 public:
#if defined(__unix__)
  SignalsBlocked() {
    sigset_t most;
    sigfillset(&most);
    for (const int own : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS, SIGPROF}) sigdelset(&most, own);
    pthread_sigmask(SIG_BLOCK, &most, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
#endif
};

// Starts threads that are missing; where the system gives no more, those that there are will do.
void Pool::grow(int threads) {
  if (stopped_ || complained_ || static_cast<int>(workers_.size()) >= threads - 1) return;
  const SignalsBlocked blocked;
  try {
    while (static_cast<int>(workers_.size()) < threads - 1) workers_.emplace_back([this] { worker(); });
  } catch (const std::exception& error) {  // std::system_error, std::bad_alloc
    complained_ = true;
    std::fprintf(stderr, "threads: the system gave %zu of %d threads (%s): going on with these\n", workers_.size() + 1, threads,
                 error.what());
  }
}

void Pool::run(Job& job) {
  const int threads = num_threads();
  {
    std::unique_lock lock(mutex_);
    limit_ = threads;
    grow(threads);
    jobs_.push_back(&job);
    ++computing_;
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
    if (!jobs_.empty()) {     // another caller can do with what this one leaves
      posted_.fetch_add(1, std::memory_order_relaxed);
      news_.notify_one();
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

// Never destroyed, so that loops of other static objects' destructors still run, on their own threads. After a fork the child
// has none of the parent's workers: it begins anew.
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
    pthread_atfork(nullptr, nullptr, [] { the_pool.store(new Pool(the_pool.load())); });
#endif
    return true;
  }();
  static_cast<void>(prepared);
  return *the_pool.load();
}

}  // namespace

int thread_slots(std::int64_t chunks) {
  return inside ? 1 : static_cast<int>(std::clamp<std::int64_t>(chunks, 1, num_threads()));
}

void run_chunks(std::int64_t chunks, int slots, const void* context, void (*call)(const void*, std::int64_t, int)) {
  if (chunks > 1 && slots > 1 && !inside) {
    look_again_at_threads();
    Job job{context, call, chunks, slots};
    return pool().run(job);
  }
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) call(context, chunk, 0);
}

}  // namespace shrike
