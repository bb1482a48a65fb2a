#include "src/cuda/autotune.hpp"

#include <cstdlib>
#include <filesystem>
#include <thread>

#include "catch.hpp"
#include "error_of.hpp"
#include "shrike/io/file.hpp"
#include "temporary_folder.hpp"

using namespace shrike;
using namespace shrike::cuda;
using Catch::Matchers::Contains;

namespace {

// Candidates that take as long as they say, on a clock that only they move.
struct Fake {
  std::vector<std::string> names;
  std::vector<double> seconds;
  std::vector<int> runs = std::vector<int>(names.size());
  double now = 0;

  void run(std::size_t i) {
    ++runs[i];
    SHRIKE_CHECK(seconds[i] >= 0, names[i], ": not supported");
    now += seconds[i];
  }
  Stopwatch stopwatch() {
    return [this](const std::function<void()>& f) {
      const double start = now;
      f();
      return now - start;
    };
  }
  std::string winner(Autotuner& tuner, const TuneKey& key, bool may_measure = true) {
    return names[tuner.choose(
        key, names, [this](std::size_t i) { run(i); }, may_measure)];
  }
  int total() const {
    int sum = 0;
    for (const int n : runs) sum += n;
    return sum;
  }
};

TuneKey key(std::int64_t height, std::int64_t width, std::int64_t channels = 64) {
  return {"conv2d_forward", {channels, 64, 3, 3}, {height, width}};
}

}  // namespace

TEST_CASE("the fastest candidate wins and is measured once") {
  Fake fake{{"native", "wide", "cudnn 1"}, {3e-3, 1e-3, 2e-3}};
  Autotuner tuner("", "card", fake.stopwatch());
  CHECK(fake.winner(tuner, key(75, 100)) == "wide");
  CHECK(fake.runs == std::vector<int>(3, Autotuner::rounds + 1));
  CHECK(fake.winner(tuner, key(75, 100)) == "wide");
  CHECK(fake.total() == 3 * (Autotuner::rounds + 1));
  CHECK(tuner.size() == 1);
}

TEST_CASE("a candidate alone is not measured; none is an error") {
  Fake one{{"native"}, {1e-3}};
  Autotuner tuner("", "card", one.stopwatch());
  CHECK(one.winner(tuner, key(75, 100)) == "native");
  CHECK(one.total() == 0);
  CHECK_THAT(error_of([&] { tuner.choose(key(1, 1), {}, [](std::size_t) {}); }), Contains("conv2d_forward"));
}

TEST_CASE("equals do not take the first one's place") {
  Fake fake{{"native", "cudnn 1"}, {1.00e-3, 0.99e-3}};
  Autotuner tuner("", "card", fake.stopwatch());
  CHECK(fake.winner(tuner, key(75, 100)) == "native");
}

TEST_CASE("one slow run in five does not decide") {
  Fake fake{{"native", "cudnn 1"}, {2e-3, 1e-3}};
  Autotuner tuner("", "card", fake.stopwatch());
  int calls = 0;
  CHECK(tuner.choose(key(75, 100), fake.names, [&](std::size_t i) {
    fake.run(i);
    if (i == 1 && ++calls == 3) fake.now += 1;
  }) == 1);
}

TEST_CASE("a candidate that fails drops out; if all fail, the first reason is given") {
  Fake fake{{"native", "cudnn 1", "cudnn 6"}, {3e-3, -1, 2e-3}};
  Autotuner tuner("", "card", fake.stopwatch());
  CHECK(fake.winner(tuner, key(75, 100)) == "cudnn 6");
  CHECK(fake.runs[1] == 1);
  Fake hopeless{{"native", "cudnn 1"}, {-1, -1}};
  Autotuner other("", "card", hopeless.stopwatch());
  CHECK_THAT(error_of([&] { hopeless.winner(other, key(75, 100)); }), Contains("native: not supported"));

  // Also where the first fails last.
  int calls = 0;
  CHECK_THAT(error_of([&] {
               other.choose(key(75, 100), hopeless.names, [&](std::size_t i) {
                 if (i == 1 || ++calls > 1) hopeless.run(i);
               });
             }),
             Contains("native: not supported"));
}

TEST_CASE("what may not be measured is the first candidate, and stays unknown") {
  Fake fake{{"native", "cudnn 1"}, {2e-3, 1e-3}};
  Autotuner tuner("", "card", fake.stopwatch());
  CHECK(fake.winner(tuner, key(75, 100), false) == "native");
  CHECK(fake.total() == 0);
  CHECK(fake.winner(tuner, key(75, 100)) == "cudnn 1");
  CHECK(fake.winner(tuner, key(75, 100), false) == "cudnn 1");
}

TEST_CASE("choices are remembered, for the same environment and candidates only") {
  const TemporaryFolder folder;
  const std::string path = folder / "deep/er/tune.json";
  {
    Fake fake{{"native", "cudnn 1"}, {2e-3, 1e-3}};
    Autotuner tuner(path, "H100 \"quoted\", driver 13", fake.stopwatch());
    CHECK(fake.winner(tuner, key(75, 100)) == "cudnn 1");
  }
  Fake changed{{"native", "cudnn 1"}, {1e-3, 2e-3}};
  {
    Autotuner tuner(path, "H100 \"quoted\", driver 13", changed.stopwatch());
    CHECK(tuner.size() == 1);
    CHECK(changed.winner(tuner, key(75, 100)) == "cudnn 1");
    CHECK(changed.total() == 0);
  }
  {
    Autotuner tuner(path, "H100, driver 14", changed.stopwatch());
    CHECK(tuner.size() == 0);
    CHECK(changed.winner(tuner, key(75, 100)) == "native");
  }
  Fake renamed{{"native", "cudnn 6"}, {2e-3, 1e-3}};
  Autotuner tuner(path, "H100 \"quoted\", driver 13", renamed.stopwatch());
  CHECK(tuner.size() == 1);  // the other environment's entry did not take its place
  CHECK(renamed.winner(tuner, key(75, 100)) == "cudnn 6");
}

TEST_CASE("what another process has chosen since is taken over and kept") {
  const TemporaryFolder folder;
  const std::string path = folder / "tune.json";
  Fake fast{{"native", "cudnn 1"}, {2e-3, 1e-3}}, slow{{"native", "cudnn 1"}, {1e-3, 2e-3}};
  Autotuner first(path, "card", slow.stopwatch()), second(path, "card", fast.stopwatch());
  CHECK(fast.winner(second, key(75, 100)) == "cudnn 1");
  CHECK(slow.winner(first, key(75, 100)) == "cudnn 1");
  CHECK(slow.total() == 0);
  CHECK(slow.winner(first, key(600, 800)) == "native");
  Autotuner third(path, "card", fast.stopwatch());
  CHECK(third.size() == 2);
}

TEST_CASE("extents of one class share a choice") {
  CHECK(Autotuner::bucket(key(75, 100)).extent == std::array<std::int64_t, 2>{80, 104});
  CHECK(Autotuner::bucket(key(1, 8)).extent == std::array<std::int64_t, 2>{1, 8});
  CHECK(Autotuner::bucket(key(0, 1024)).extent == std::array<std::int64_t, 2>{1, 1024});
  for (std::int64_t extent = 1; extent < 5000; ++extent) {
    const std::int64_t rounded = Autotuner::bucket(key(extent, 1)).extent[0];
    REQUIRE(rounded >= extent);
    REQUIRE(rounded * 8 <= extent * 9);  // no more than 1/8 larger
    REQUIRE(Autotuner::bucket(key(rounded, 1)).extent[0] == rounded);
  }
  Fake fake{{"native", "cudnn 1"}, {2e-3, 1e-3}};
  Autotuner tuner("", "card", fake.stopwatch());
  fake.winner(tuner, key(73, 97));
  const int once = fake.total();
  fake.winner(tuner, key(80, 104));
  CHECK(fake.total() == once);
  fake.winner(tuner, key(81, 104));
  CHECK(fake.total() == 2 * once);
}

TEST_CASE("a family is measured so many times, then the nearest extent's choice serves") {
  const TemporaryFolder folder;
  const std::string path = folder / "tune.json";
  Fake fake{{"native", "cudnn 1"}, {2e-3, 1e-3}};
  {
    Autotuner tuner(path, "card", fake.stopwatch());
    for (std::int64_t i = 0; i < 1000; ++i) {  // a thousand image sizes
      if (i == 500) fake.seconds = {1e-3, 2e-3};
      fake.winner(tuner, key(16 + 3 * i, 2000 - i));
    }
    CHECK(tuner.size() == Autotuner::family_limit);
    CHECK(fake.total() == static_cast<int>(2 * (Autotuner::rounds + 1) * Autotuner::family_limit));
    fake.winner(tuner, key(16, 2000, 128));  // another family is another matter
    CHECK(tuner.size() == Autotuner::family_limit + 1);
  }
  // The file is full from the beginning of the next run: the same answers, nothing measured.
  Autotuner again(path, "card", fake.stopwatch());
  const int before = fake.total();
  CHECK(fake.winner(again, key(4000, 1000)) == "cudnn 1");
  CHECK(fake.total() == before);
}

TEST_CASE("the nearest is nearest by ratio") {
  Fake fake{{"native", "cudnn 1"}, {2e-3, 1e-3}};
  Autotuner tuner("", "card", fake.stopwatch());
  for (std::size_t i = 0; i < Autotuner::family_limit; ++i) {
    const bool small = i < Autotuner::family_limit / 2;
    fake.seconds = small ? std::vector<double>{2e-3, 1e-3} : std::vector<double>{1e-3, 2e-3};
    fake.winner(tuner, key((small ? 8 : 1024) + 256 * static_cast<std::int64_t>(i) * (small ? 0 : 1),
                           1 + static_cast<std::int64_t>(i) % 8 + (small ? static_cast<std::int64_t>(i) / 8 * 8 : 0)));
  }
  if (tuner.size() == Autotuner::family_limit) {
    CHECK(fake.winner(tuner, key(12, 5)) == "cudnn 1");
    CHECK(fake.winner(tuner, key(100000, 5)) == "native");
  } else {
    FAIL("only " << tuner.size() << " classes were measured");
  }
}

TEST_CASE("a damaged file is measured anew and replaced, a foreign one is left alone") {
  const TemporaryFolder folder;
  const std::string path = folder / "tune.json";
  Fake fake{{"native", "cudnn 1"}, {2e-3, 1e-3}};
  const std::vector<std::string> damaged = {
      R"({"format":"shrike tuning 1","environments":{"card":[{"pass":"conv2d_forw)",
      R"({"format":"shrike tuning 1","environments":{"card":[{"pass":"a","fixed":[],"extent":[0,1],"winner":"x","microseconds":{}}]}})",
      R"({"format":"shrike tuning 1"})", R"({"format":"shrike tuning 1","environments":{"card":3}})"};
  for (const std::string& text : damaged) {
    write_file_atomically(path, text);
    Autotuner tuner(path, "card", fake.stopwatch());
    CHECK(tuner.size() == 0);
    CHECK(fake.winner(tuner, key(75, 100)) == "cudnn 1");
    Autotuner again(path, "card", fake.stopwatch());
    CHECK(again.size() == 1);
  }
  for (const std::string text : {"", "my diary", "{\"format\":\"shrike tuning 2\"}"}) {
    write_file_atomically(path, text);
    Autotuner tuner(path, "card", fake.stopwatch());
    CHECK(fake.winner(tuner, key(75, 100)) == "cudnn 1");
    CHECK(read_file(path, 1000) == text);
  }
}

TEST_CASE("a file that cannot be written costs nothing but the memory of it") {
  const TemporaryFolder folder;
  write_file_atomically(folder / "file", "x");
  Fake fake{{"native", "cudnn 1"}, {2e-3, 1e-3}};
  Autotuner tuner(folder / "file/tune.json", "card", fake.stopwatch());
  CHECK(fake.winner(tuner, key(75, 100)) == "cudnn 1");
  CHECK(fake.winner(tuner, key(600, 800)) == "cudnn 1");
}

TEST_CASE("where choices are kept") {
  ::setenv("SHRIKE_TUNE_CACHE", "/somewhere/t.json", 1);
  CHECK(tune_cache_path() == "/somewhere/t.json");
  ::setenv("SHRIKE_TUNE_CACHE", "", 1);
  CHECK(tune_cache_path().empty());
  ::unsetenv("SHRIKE_TUNE_CACHE");
  ::setenv("XDG_CACHE_HOME", "/cache", 1);
  CHECK(tune_cache_path() == "/cache/shrike/tune.json");
  ::setenv("XDG_CACHE_HOME", "relative", 1);
  ::setenv("HOME", "/home/me", 1);
  CHECK(tune_cache_path() == "/home/me/.cache/shrike/tune.json");
}

TEST_CASE("threads agree") {
  Fake fake{{"native", "cudnn 1"}, {2e-3, 1e-3}};
  Autotuner tuner("", "card", fake.stopwatch());
  std::vector<std::string> winners(4);
  std::vector<std::thread> threads;
  for (std::string& winner : winners) threads.emplace_back([&] { winner = fake.winner(tuner, key(75, 100)); });
  for (std::thread& thread : threads) thread.join();
  CHECK(winners == std::vector<std::string>(4, "cudnn 1"));
  CHECK(fake.total() == 2 * (Autotuner::rounds + 1));
}
