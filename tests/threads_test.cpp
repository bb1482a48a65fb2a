// The pool of threads.
#include "shrike/core/threads.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>
#include <vector>

#include "catch.hpp"
#include "error_of.hpp"
#include "loops.hpp"
#include "shrike/core/check.hpp"

using namespace shrike;
using namespace loops;
using Catch::Matchers::Contains;

TEST_CASE("a loop covers every element once, in parts that do not depend on the threads") {
  for (const std::int64_t n : {0, 1, 2, 5, 63, 1000, 4099}) {
    for (const std::int64_t grain : {-1, 0, 1, 3, 64, 5000}) {
      std::vector<std::pair<std::int64_t, std::int64_t>> expected;
      for (const int threads : {1, 2, 3, 5, 8}) {
        const Threads number(threads);
        std::vector<std::atomic<int>> hits(static_cast<std::size_t>(n));
        std::vector<std::pair<std::int64_t, std::int64_t>> parts;
        std::mutex mutex;
        parallel_for(n, grain, [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t i = begin; i < end; ++i) ++hits[static_cast<std::size_t>(i)];
          const std::lock_guard lock(mutex);
          parts.emplace_back(begin, end);
        });
        INFO("n " << n << ", grain " << grain << ", threads " << threads);
        CHECK(std::all_of(hits.begin(), hits.end(), [](const auto& hit) { return hit == 1; }));
        std::sort(parts.begin(), parts.end());
        const std::int64_t least = std::max<std::int64_t>(grain, 1);
        for (const auto& [begin, end] : parts) {
          CHECK((end - begin >= least || parts.size() == 1));
          CHECK(end - begin < 2 * least);
        }
        if (threads == 1) expected = parts;
        CHECK(parts == expected);
      }
    }
  }
}

TEST_CASE("threads run at the same time") {
  for (const int threads : {2, 3, 8}) {
    const Threads number(threads);
    for (int i = 0; i < 3; ++i) CHECK(run_together(threads));
  }
}

TEST_CASE("a slot belongs to one thread at a time") {
  for (const int threads : {1, 2, 3, 8}) {
    const Threads number(threads);
    for (const std::int64_t chunks : {1, 2, 7, 300}) {
      CHECK(thread_slots(chunks) == std::min<std::int64_t>(chunks, threads));
      // Also fewer slots than threads.
      const int slots = chunks == 300 ? std::min(threads, 2) : thread_slots(chunks);
      std::vector<std::atomic<int>> users(static_cast<std::size_t>(slots)), hits(static_cast<std::size_t>(chunks));
      std::atomic<bool> good{true};
      parallel_chunks(chunks, slots, [&](std::int64_t chunk, int slot) {
        if (slot < 0 || slot >= slots || chunk < 0 || chunk >= chunks) {
          good = false;
          return;
        }
        if (users[static_cast<std::size_t>(slot)]++ != 0) good = false;
        ++hits[static_cast<std::size_t>(chunk)];
        std::this_thread::sleep_for(std::chrono::microseconds(10));
        --users[static_cast<std::size_t>(slot)];
      });
      CHECK(good);
      CHECK(std::all_of(hits.begin(), hits.end(), [](const auto& hit) { return hit == 1; }));
    }
  }
  const Threads number(2);
  CHECK(thread_slots(0) == 1);
  CHECK(thread_slots(std::int64_t{1} << 40) == 2);
}

TEST_CASE("no more threads than asked for, up and down") {
  for (const int threads : {1, 4, 2, 8, 3, 1}) {
    const Threads number(threads);
    CHECK(num_threads() == threads);
    std::atomic<int> now{0}, most{0};
    std::atomic<bool> good{true};
    const auto caller = std::this_thread::get_id();
    parallel_chunks(200, 8, [&](std::int64_t, int) {
      const int running = ++now;
      for (int seen = most; seen < running && !most.compare_exchange_weak(seen, running);) {
      }
      if (threads == 1 && std::this_thread::get_id() != caller) good = false;
      std::this_thread::sleep_for(std::chrono::microseconds(20));
      --now;
    });
    CHECK(most <= threads);
    CHECK(good);
    if (threads > 1) CHECK(run_together(threads));
  }
}

TEST_CASE("a number of threads that is none") {
  set_num_threads(3);
  CHECK(error_of([] { set_num_threads(-1); }) == "threads -1: expected 0 (automatic) to 1024");
  CHECK(error_of([] { set_num_threads(1025); }) == "threads 1025: expected 0 (automatic) to 1024");
  CHECK(num_threads() == 3);
  set_num_threads(1024);
  CHECK(num_threads() == 1024);
  set_num_threads(0);
  CHECK(num_threads() >= 1);
}

TEST_CASE("loops within a chunk run on its thread") {
  const Threads number(4);
  std::vector<std::int64_t> sums(40);
  std::atomic<bool> good{true};
  parallel_for(40, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const auto thread = std::this_thread::get_id();
      if (thread_slots(100) != 1) good = false;
      parallel_chunks(10, 4, [&](std::int64_t chunk, int slot) {
        if (slot != 0 || std::this_thread::get_id() != thread) good = false;
        parallel_for(10, 1, [&](std::int64_t from, std::int64_t to) {
          for (std::int64_t k = from; k < to; ++k) sums[static_cast<std::size_t>(i)] += i * (10 * chunk + k);
        });
      });
    }
  });
  CHECK(good);
  for (std::int64_t i = 0; i < 40; ++i) CHECK(sums[static_cast<std::size_t>(i)] == i * 99 * 50);
}

TEST_CASE("an exception reaches the caller, ends the loop, and the pool goes on") {
  const Threads number(3);
  for (int round = 0; round < 20; ++round) {
    std::atomic<int> done{0};
    const std::string error = error_of([&] {
      parallel_chunks(10000, 3, [&](std::int64_t chunk, int) {
        if (chunk == 5) fail("chunk ", chunk, " of round ", round);
        std::this_thread::sleep_for(std::chrono::microseconds(20));
        ++done;
      });
    });
    CHECK(error == message("chunk 5 of round ", round));
    CHECK(done < 9000);
    CHECK(sum_to(100) == 4950);
  }
  CHECK(run_together(3));
}

TEST_CASE("exceptions of several chunks at once, on workers and the caller, and in nested loops") {
  const Threads number(3);
  for (int round = 0; round < 20; ++round) {
    std::atomic<int> there{0};
    CHECK_THAT(error_of([&] {
                 parallel_chunks(3, 3, [&](std::int64_t chunk, int) {
                   ++there;
                   while (there < 3) std::this_thread::yield();  // all three throw
                   fail("chunk ", chunk);
                 });
               }),
               Contains("chunk "));
    CHECK_THROWS_AS(parallel_for(100, 1, [](std::int64_t, std::int64_t) { throw 7; }), int);
    CHECK_THAT(error_of([] {
                 parallel_for(100, 1, [](std::int64_t, std::int64_t) {
                   parallel_for(100, 1, [](std::int64_t begin, std::int64_t) { fail("inner ", begin); });
                 });
               }),
               Contains("inner 0"));
    // An error that a chunk deals with by itself does not end the loop, nor what the thread is in.
    std::atomic<int> caught{0};
    std::atomic<bool> good{true};
    parallel_for(50, 1, [&](std::int64_t, std::int64_t) {
      try {
        parallel_for(10, 1, [](std::int64_t, std::int64_t) { fail("inner"); });
      } catch (const Error&) {
        ++caught;
      }
      if (thread_slots(100) != 1) good = false;
    });
    CHECK(caught == 50);
    CHECK(good);
    CHECK(run_together(3));  // also that no thread believes to be within a chunk
  }
}

TEST_CASE("eight threads of the program at once") {
  const Threads number(3);
  std::vector<std::thread> users;
  std::atomic<int> wrong{0};
  for (int user = 0; user < 8; ++user) {
    users.emplace_back([&, user] {
      for (int round = 0; round < 200; ++round) {
        const std::int64_t n = 1 + (37 * user + round) % 150;
        if (sum_to(n) != n * (n - 1) / 2) ++wrong;
        if (round % 10 != user % 10) continue;
        const std::string expected = message("user ", user, " round ", round);
        try {
          parallel_for(50, 1, [&](std::int64_t begin, std::int64_t) {
            if (begin == 17) fail(expected);
          });
          ++wrong;
        } catch (const Error& error) {
          if (error.what() != expected) ++wrong;
        }
      }
    });
  }
  for (std::thread& user : users) user.join();
  CHECK(wrong == 0);
  CHECK(run_together(3));
}
