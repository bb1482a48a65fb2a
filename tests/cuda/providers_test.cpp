// Whose kernel computes: the provider asked for, and the measured choice, which is remembered.
#include "src/cuda/providers.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>

#include "error_of.hpp"
#include "reference.hpp"
#include "shrike/core/cuda.hpp"
#include "shrike/core/last_kernel.hpp"
#include "shrike/io/file.hpp"
#include "shrike/ops/conv.hpp"
#include "src/cuda/graph.hpp"
#include "temporary_folder.hpp"

using namespace shrike;
using namespace shrike::cuda;
using Catch::Matchers::Contains;
using Provider = CudaSettings::Provider;

namespace {

// The file of choices of this program's autotuner, which opens it when it is first used.
struct Cache {
  TemporaryFolder folder;
  const std::string path = folder / "tune.json";

  Cache() { name(); }
  void name() const { ::setenv("SHRIKE_TUNE_CACHE", path.c_str(), 1); }
  std::string text() const { return std::filesystem::exists(path) ? read_file(path, 1u << 20) : ""; }
};
const Cache cache;

// Ways that fill memory as many times as they say, and count their runs. `slow` takes at least ten times what `fast` takes, on
// a GPU too.
struct Ways {
  static constexpr std::size_t large = 16 << 20, small = 4096;
  const Tensor memory = zeros({static_cast<std::int64_t>(large)}, Dtype::u8, Device::cuda);
  std::vector<std::string> ran;

  Way way(const std::string& name, bool fast, bool vendor) {
    const auto fill = [this, name, fast] {
      ran.push_back(name);
      for (int i = 0; i < (fast ? 1 : 4); ++i) kernels::fill_bytes(Cuda{}, memory.raw(), 7, fast ? small : large);
    };
    return {name, fill, vendor};
  }
  std::vector<Way> ours_and_theirs(bool fast_vendor = true) {
    return {way("ours", false, false), way("ours wide", !fast_vendor, false), way("theirs", false, true),
            way("theirs too", fast_vendor, true)};
  }
};

// What runs under a provider.
std::vector<std::string> run(Provider provider, const TuneKey& key, const std::vector<Way>& ways, Ways& log) {
  cuda_settings().provider = provider;
  log.ran.clear();
  run_best(key, ways);
  cuda_settings().provider = Provider::automatic;
  return log.ran;
}

using Names = std::vector<std::string>;

std::size_t choices() { return autotuner().size(); }

// What f() writes to standard error.
template <class F> std::string standard_error_of(const F& f) {
  const TemporaryFolder folder;
  const std::string path = folder / "stderr";
  std::fflush(stderr);
  const int before = ::dup(STDERR_FILENO), file = ::open(path.c_str(), O_WRONLY | O_CREAT, 0600);
  ::dup2(file, STDERR_FILENO);
  f();
  std::fflush(stderr);
  ::dup2(before, STDERR_FILENO);
  ::close(before);
  ::close(file);
  return read_file(path, 1u << 20);
}

}  // namespace

TEST_CASE("a provider that is asked for is the first of its ways, and nothing is measured") {
  Ways log;
  const auto ways = log.ours_and_theirs();
  const TuneKey key{"asked for", {1}};
  CHECK(run(Provider::native, key, ways, log) == Names{"ours"});
  CHECK(run(Provider::vendor, key, ways, log) == Names{"theirs"});
  // Who has none leaves it to the other.
  CHECK(run(Provider::vendor, key, {ways[0], ways[1]}, log) == Names{"ours"});
  CHECK(run(Provider::native, key, {ways[2], ways[3]}, log) == Names{"theirs"});
  for (const Provider provider : {Provider::native, Provider::vendor, Provider::automatic}) {
    CHECK(run(provider, key, {ways[3]}, log) == Names{"theirs too"});
    cuda_settings().provider = provider;
    CHECK_THAT(error_of([&] { run_best(key, {}); }), Contains("asked for: no kernel can compute this"));
  }
  cuda_settings().provider = Provider::automatic;
  CHECK(cache.text().empty());
}

TEST_CASE("the automatic choice is measured once and remembered, here and in the next run") {
  for (const bool fast_vendor : {true, false}) {
    Ways log;
    const auto ways = log.ours_and_theirs(fast_vendor);
    const TuneKey key{"measured", {64, fast_vendor}, {75, 100}};
    const std::string winner = fast_vendor ? "theirs too" : "ours wide";
    const std::size_t before = choices();
    const Names first = run(Provider::automatic, key, ways, log);
    REQUIRE(first.size() == 4 * (Autotuner::rounds + 1) + 1);
    for (const Way& way : ways) {
      CHECK(std::count(first.begin(), first.end(), way.name) == Autotuner::rounds + 1 + (way.name == winner ? 1 : 0));
    }
    CHECK(first.back() == winner);  // the last run is what the result is made by
    CHECK(choices() == before + 1);
    CHECK(run(Provider::automatic, key, ways, log) == Names{winner});
    CHECK(run(Provider::native, key, ways, log) == Names{"ours"});  // a choice binds only who did not ask
    CHECK(run(Provider::vendor, key, ways, log) == Names{"theirs"});
    CHECK(run(Provider::automatic, {key.pass, key.fixed, {76, 99}}, ways, log) == Names{winner});  // of the same class

    Autotuner next(cache.path, tune_environment(), [](const std::function<void()>&) -> double { throw Error("measured"); });
    const Names names = {"ours", "ours wide", "theirs", "theirs too"};
    CHECK(names[next.choose(key, names, [](std::size_t) {})] == winner);
  }
}

TEST_CASE("a way that fails while it is measured is not taken, and is not tried again in the next run") {
  Ways log;
  auto ways = log.ours_and_theirs();
  int tried = 0;
  ways[3].run = [&] {
    ++tried;
    throw Error("this algorithm is not for this shape");
  };
  const TuneKey key{"failing", {1}};
  std::string winner;
  const std::string said = standard_error_of([&] { winner = run(Provider::automatic, key, ways, log).back(); });
  CHECK(winner != "theirs too");
  CHECK(tried == 1);
  CHECK(said == "shrike: theirs too is left out: this algorithm is not for this shape\n");
  CHECK(run(Provider::automatic, key, ways, log) == Names{winner});
  const Names names = {"ours", "ours wide", "theirs", "theirs too"};
  Autotuner next(cache.path, tune_environment(), [](const std::function<void()>&) -> double { throw Error("measured"); });
  CHECK(names[next.choose(key, names, [](std::size_t) {})] == winner);
  CHECK(tried == 1);

  ways[0].run = [] { throw Error("ours is broken"); };
  ways[1].run = ways[2].run = ways[3].run;
  CHECK_THAT(error_of([&] { run_best({"failing", {2}}, ways); }), Contains("ours is broken"));
}

TEST_CASE("a vendor's way that fails leaves the work to the next, at last to ours, and is said once") {
  Ways log;
  auto ways = log.ours_and_theirs();
  int first = 0, second = 0;
  ways[2].name = "their graph";
  ways[2].run = [&] {
    ++first;
    throw Error("CUDNN_STATUS_NOT_SUPPORTED");
  };
  const TuneKey key{"fallback", {1}}, other{"fallback", {2}};
  const std::string said = standard_error_of([&] {
    CHECK(run(Provider::vendor, key, ways, log) == Names{"theirs too"});
    CHECK(run(Provider::vendor, key, ways, log) == Names{"theirs too"});
    CHECK(first == 1);
    CHECK(run(Provider::vendor, other, ways, log) == Names{"theirs too"});
    CHECK(first == 2);  // other sizes are another matter
    ways[3].name = "their second";
    ways[3].run = [&] {
      ++second;
      throw Error("CUDNN_STATUS_EXECUTION_FAILED");
    };
    for (int i = 0; i < 2; ++i) {
      CHECK(run(Provider::vendor, key, ways, log) == Names{"ours"});
      CHECK(last_kernel() == "ours");
    }
    CHECK(first == 2);
    CHECK(second == 1);
  });
  CHECK(said ==
        "shrike: their graph is left out: CUDNN_STATUS_NOT_SUPPORTED\n"
        "shrike: their second is left out: CUDNN_STATUS_EXECUTION_FAILED\n");

  ways[0].run = [] { throw Error("ours is broken"); };
  cuda_settings().provider = Provider::vendor;
  CHECK_THAT(error_of([&] { run_best(key, ways); }), Contains("ours is broken"));
  CHECK_THAT(error_of([&] { run_best(key, {ways[3]}); }), Contains("CUDNN_STATUS_EXECUTION_FAILED"));  // there is no other
  cuda_settings().provider = Provider::automatic;
}

TEST_CASE("a vendor's way that cannot be recorded is not recorded as ours, and is tried again") {
  Ways log;
  auto ways = log.ours_and_theirs();
  const auto runs = ways[2].run;
  ways[2].run = [&] {
    check_not_capturing("waiting for the device");
    runs();
  };
  const TuneKey key{"recorded", {1}};
  cuda_settings().provider = Provider::vendor;
  CHECK_THAT(error_of([&] { Graph([&] { run_best(key, ways); }); }), Contains("waiting for the device"));
  CHECK(log.ran.empty());
  CHECK(run(Provider::vendor, key, ways, log) == Names{"theirs"});
}

TEST_CASE("a measured choice that fails later leaves the work to ours") {
  Ways log;
  auto ways = log.ours_and_theirs();
  const auto runs = ways[3].run;
  int count = 0;
  ways[3].run = [&] {
    if (++count > Autotuner::rounds + 2) throw Error("out of memory");
    runs();
  };
  const TuneKey key{"failing later", {1}};
  CHECK(run(Provider::automatic, key, ways, log).back() == "theirs too");
  for (int i = 0; i < 2; ++i) CHECK(run(Provider::automatic, key, ways, log) == Names{"ours"});
  CHECK(count == Autotuner::rounds + 3);
}

TEST_CASE("only who compares looks further than the first way") {
  cuda_settings().provider = Provider::native;
  CHECK_FALSE(looks_further());
  cuda_settings().provider = Provider::vendor;
  CHECK(looks_further());
  cuda_settings().provider = Provider::automatic;
  CHECK(looks_further());
  ::setenv("SHRIKE_TUNE_CACHE", "", 1);
  CHECK(looks_further() == !SHRIKE_CUDA_HOST);
  cache.name();
}

TEST_CASE("on the host nothing is measured unless a file is named") {
  if (!SHRIKE_CUDA_HOST) return;
  Ways log;
  const auto ways = log.ours_and_theirs();
  const std::size_t before = choices();
  ::unsetenv("SHRIKE_TUNE_CACHE");
  CHECK(run(Provider::automatic, {"not measured", {1}}, ways, log) == Names{"ours"});
  ::setenv("SHRIKE_TUNE_CACHE", "", 1);
  CHECK(run(Provider::automatic, {"not measured", {1}}, ways, log) == Names{"ours"});
  cache.name();
  CHECK(choices() == before);
}

TEST_CASE("a convolution whose kernel is measured is the convolution") {
  cuda_settings().tf32 = false;
  Random random(3, RandomStream::test);
  const Tensor x = reference::random_tensor({1, 7, 9, 8}, random), weight = reference::random_tensor({12, 3, 3, 8}, random);
  const Tensor expected = conv2d(x, weight, Tensor(), {.padding = 1});
  const std::size_t before = choices();
  for (int i = 0; i < 2; ++i) {  // measured, remembered
    const Tensor got = conv2d(x.to(Device::cuda), weight.to(Device::cuda), Tensor(), {.padding = 1});
    CHECK(reference::difference(got, reference::doubles(expected)) < 1e-5);
    CHECK(choices() == before + 1);
  }
  CHECK_THAT(cache.text(), Contains("conv2d_forward") && Contains("fp32_128x128") && Contains("fp32_64x64"));
  cuda_settings().tf32 = true;
}
