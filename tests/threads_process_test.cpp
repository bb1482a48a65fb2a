// The pool of threads and processes: forks, exits, the environment, what the system refuses. Tests whose tags begin with
// [.child are programs of their own, which others run.
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>

#include "catch.hpp"
#include "error_of.hpp"
#include "loops.hpp"
#include "run_command.hpp"
#include "shrike/core/check.hpp"

using namespace shrike;
using namespace loops;
using Catch::Matchers::Contains;

namespace {

#if defined(__SANITIZE_THREAD__)
constexpr bool tsan = true;  // it has a thread of its own, and cannot follow a fork whose child starts threads
#else
constexpr bool tsan = false;
#endif

// Runs this program's test `tag` with these settings of the environment, as a shell writes them.
Outcome run_child(const std::string& tag, const std::string& environment = "") {
  const std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
  return run_command("env " + environment + " timeout 60 '" + self + "' '" + tag + "'");
}

int count(const std::string& text, const std::string& part) {
  int found = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

int threads_of_process() {
  const std::filesystem::directory_iterator all("/proc/self/task");
  return static_cast<int>(std::distance(begin(all), end(all)));
}

}  // namespace

TEST_CASE("both processes of a fork go on") {
  if (tsan) return;
  const Threads number(3);
  for (int round = 0; round < 6; ++round) {
    REQUIRE(run_together(3));
    std::fflush(nullptr);
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      signal(SIGALRM, SIG_DFL);
      alarm(60);  // ends a child that hangs
      const bool good = sum_to(1000) == 499500 && (round % 3 == 2 || run_together(3));
      round % 2 == 0 ? std::_Exit(good ? 21 : 1) : std::exit(good ? 21 : 1);
    }
    CHECK(run_together(3));
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 21);
    CHECK(sum_to(1000) == 499500);
  }
}

namespace {

// Lives longer than the pool, whose first use comes later: no thread of the pool is left at its end.
struct CountAtExit {
  int before = threads_of_process();
  ~CountAtExit() { std::printf("threads before %d after %d\n", before, threads_of_process()); }
};

}  // namespace

TEST_CASE("a program with threads", "[.child-exit]") {
  static const CountAtExit at_exit;
  const Threads number(8);
  CHECK(run_together(8));
  std::printf("threads within %d\n", threads_of_process());
  std::fflush(stdout);
}

TEST_CASE("no thread is left at exit") {
  const auto start = std::chrono::steady_clock::now();
  const Outcome outcome = run_child("[.child-exit]");
  INFO(outcome.text);
  CHECK(outcome.status == 0);
  int before = 0, after = 0, within = 0;
  REQUIRE(std::sscanf(outcome.text.c_str() + outcome.text.find("threads within"), "threads within %d", &within) == 1);
  const std::size_t last = outcome.text.find("threads before");
  REQUIRE(last != std::string::npos);
  REQUIRE(std::sscanf(outcome.text.c_str() + last, "threads before %d after %d", &before, &after) == 2);
  CHECK(within == before + 7 + tsan);
  CHECK(after == before + tsan);
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(30));
}

TEST_CASE("a program that ends within a chunk", "[.child-exit-in-chunk]") {
  const Threads number(4);
  std::atomic<int> there{0};
  parallel_chunks(4, 4, [&](std::int64_t, int slot) {
    ++there;
    while (there < 4) std::this_thread::yield();
    if (slot == 2) std::exit(23);
  });
}

TEST_CASE("exit() within a chunk ends the program") { CHECK(run_child("[.child-exit-in-chunk]").status == 23); }

TEST_CASE("a program that says how many threads it uses", "[.child-number]") {
  std::printf("first: %s\n", error_of([] { std::printf("number %d\n", num_threads()); }).c_str());
  std::printf("loop: %s\n", error_of([] { sum_to(100); }).c_str());
  std::printf("reset: %s\n", error_of([] { set_num_threads(0); }).c_str());
  const int before = std::getenv("BAD") == nullptr ? num_threads() : 0;
  setenv("SHRIKE_THREADS", "nonsense", 1);
  if (before != 0) CHECK(num_threads() == before);
  if (before != 0) CHECK(sum_to(100) == 4950);
  set_num_threads(2);
  CHECK(sum_to(100) == 4950);
  CHECK(run_together(2));
}

TEST_CASE("SHRIKE_THREADS") {
  for (const char* good : {"3", "1", "1024", "0007"}) {
    const Outcome outcome = run_child("[.child-number]", message("SHRIKE_THREADS=", good));
    INFO(outcome.text);
    CHECK(outcome.status == 0);
    CHECK_THAT(outcome.text, Contains(message("number ", std::atoi(good), "\n")));
    CHECK(count(outcome.text, ": no error\n") == 3);
  }
  for (const char* none : {"-u SHRIKE_THREADS", "SHRIKE_THREADS="}) {
    const Outcome outcome = run_child("[.child-number]", none);
    INFO(outcome.text);
    CHECK(outcome.status == 0);
    CHECK_THAT(outcome.text, Contains(message("number ", available_threads(), "\n")));
    CHECK(count(outcome.text, ": no error\n") == 3);
  }
  for (const char* bad : {"0", "-1", "1025", "2x", "x", " 3", "3 ", "+3", "1.5", "99999999999999999999", "0x10"}) {
    const Outcome outcome = run_child("[.child-number]", message("BAD=1 'SHRIKE_THREADS=", bad, "'"));
    INFO(outcome.text);
    CHECK(outcome.status == 0);
    const std::string expected = message(": SHRIKE_THREADS is '", bad, "': expected a whole number from 1 to 1024\n");
    CHECK(count(outcome.text, expected) == 3);
  }
}

TEST_CASE("a program on fewer processors than it began with", "[.child-affinity]") {
  CHECK(num_threads() == available_threads());
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(sched_getcpu(), &one);
  REQUIRE(sched_setaffinity(0, sizeof one, &one) == 0);
  CHECK(available_threads() == 1);
  parallel_chunks(2, 2, [](std::int64_t, int) {});  // looks again, for the first time at once
  CHECK(num_threads() == 1);
}

TEST_CASE("the number of threads follows what the process may use") {
  const Outcome outcome = run_child("[.child-affinity]", "-u SHRIKE_THREADS");
  INFO(outcome.text);
  CHECK(outcome.status == 0);
}

#if defined(__GLIBC__)
TEST_CASE("a program that gets few threads", "[.child-few-threads]") {
  set_num_threads(2);
  CHECK(run_together(2));
  pthread_attr_t attributes;  // no address space has room for such a stack
  REQUIRE(pthread_attr_init(&attributes) == 0);
  REQUIRE(pthread_attr_setstacksize(&attributes, std::size_t{1} << 50) == 0);
  REQUIRE(pthread_setattr_default_np(&attributes) == 0);
  for (const int threads : {4, 8}) {
    set_num_threads(threads);
    for (int i = 0; i < 3; ++i) CHECK(sum_to(1000) == 499500);
    CHECK(run_together(2));
  }
}

TEST_CASE("where a thread cannot be created, loops go on with those that there are, after one line") {
  const Outcome outcome = run_child("[.child-few-threads]");
  INFO(outcome.text);
  CHECK(outcome.status == 0);
  CHECK(count(outcome.text, "threads: ") == 1);
  CHECK_THAT(outcome.text, Contains("threads: the system gave 2 of 4 threads ("));
}
#endif
