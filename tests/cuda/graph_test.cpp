// Graphs of recorded work, and the memory they keep.
#include "src/cuda/graph.hpp"

#include <cstdlib>
#include <thread>

#include "cuda/compare.hpp"
#include "error_of.hpp"
#include "reference.hpp"
#include "shrike/ops/elementwise.hpp"
#include "shrike/ops/nms.hpp"
#include "src/cuda/providers.hpp"

using namespace shrike;
using Catch::Matchers::Contains;

namespace {

std::size_t in_use() { return allocator(Cuda{}).stats().in_use; }

std::vector<float> repeated(std::size_t n, float value) { return std::vector<float>(n, value); }

}  // namespace

TEST_CASE("recorded work runs when the graph is launched, in order, with its arguments as they were") {
  const Tensor x = full({1001}, 1.0f, Device::cuda), y = full({1001}, 5.0f, Device::cuda);
  float value = 2;
  const cuda::Graph graph([&] {
    CHECK(cuda::capturing());
    kernels::fill_f32(Cuda{}, 1001, value, y.data<float>());
    accumulate(y, x);
    const Tensor sum = add(x, y);
    y.copy_from(sum);
    x.zero();
  });
  CHECK_FALSE(cuda::capturing());
  CHECK(graph.nodes() == 5);
  CHECK(x.to_vector<float>() == repeated(1001, 1));
  CHECK(y.to_vector<float>() == repeated(1001, 5));
  value = 100;
  graph.launch();
  CHECK(x.to_vector<float>() == repeated(1001, 0));
  CHECK(y.to_vector<float>() == repeated(1001, 4));
  x.copy_from(full({1001}, 10.0f));
  graph.launch();
  graph.launch();
  CHECK(y.to_vector<float>() == repeated(1001, 2));
}

TEST_CASE("sorting is recorded like everything else") {
  Random random(3, RandomStream::test);
  const Tensor scores({777}, Dtype::f32, Device::cuda);
  Tensor best;
  const cuda::Graph graph([&] { best = top_k(scores, 50); });
  for (int i = 0; i < 3; ++i) {
    const Tensor values = reference::random_tensor({777}, random);
    scores.copy_from(values);
    graph.launch();
    CHECK(same_bits(best, top_k(values, 50)));
  }
}

TEST_CASE("what a graph cannot contain is an error that leaves everything as it was") {
  const Tensor x = full({10}, 1.0f, Device::cuda), host = full({10}, 2.0f);
  x.to_vector<float>();
  const std::size_t before = in_use();
  const auto refused = [&](const std::function<void()>& work) {
    const std::string text = error_of([&] {
      cuda::Graph graph([&] {
        const Tensor temporary = add(x, x);
        work();
      });
    });
    CHECK_FALSE(cuda::capturing());
    CHECK(in_use() == before);
    CHECK(x.to_vector<float>() == repeated(10, 1));
    return text;
  };
  CHECK_THAT(refused([&] { x.to_vector<float>(); }), Contains("copy to the host while a graph is recorded"));
  CHECK_THAT(refused([&] { x.copy_from(host); }), Contains("copy from the host while a graph is recorded"));
  CHECK_THAT(refused([&] { cuda::synchronize(); }), Contains("cudaErrorStreamCaptureUnsupported"));
  CHECK_THAT(refused([&] { fail("the work's own"); }), Contains("the work's own"));
  CHECK_THAT(refused([&] { cuda::Graph inner([] {}); }), Contains("inside another"));
  CHECK_THAT(refused([&] { allocator(Cuda{}).allocate(std::size_t{1} << 50); }), Contains("out of memory"));
  const cuda::Graph other([&] { accumulate(x, x); });
  CHECK_THAT(refused([&] { other.launch(); }), Contains("launch of a graph"));
  other.launch();
  CHECK(x.to_vector<float>() == repeated(10, 2));
}

TEST_CASE("a graph's memory is its own while it lives, and other work's afterwards") {
  const Tensor x = full({5000}, 1.0f, Device::cuda);
  const std::size_t before = in_use();
  Tensor result;
  {
    const cuda::Graph graph([&] {
      Tensor sum = x;
      for (int i = 0; i < 40; ++i) sum = add(sum, x);
      result = sum;
    });
    CHECK(graph.bytes() >= 2 * x.bytes());
    CHECK(graph.bytes() <= 4 * x.bytes());  // 40 tensors, each in the place of the one before the last
    CHECK(in_use() == before + graph.bytes());
    // Whatever others write now, it is not there.
    Tensors others;
    for (int i = 0; i < 20; ++i) others.push_back(full({5000 - 64 * (i % 3)}, 7.0f, Device::cuda));
    graph.launch();
    CHECK(result.to_vector<float>() == repeated(5000, 41));
    for (const Tensor& other : others) {
      CHECK(other.to_vector<float>() == repeated(static_cast<std::size_t>(other.numel()), 7));
    }
    others.clear();
    CHECK(in_use() == before + graph.bytes());
  }
  CHECK(in_use() == before + CachingAllocator::size_class(x.bytes()));
  CHECK(result.to_vector<float>() == repeated(5000, 41));
  result = Tensor();
  CHECK(in_use() == before);
}

TEST_CASE("graphs share the memory of what they compute on the way") {
  const Tensor x = full({3000}, 1.0f, Device::cuda), a({3000}, Dtype::f32, Device::cuda), b({3000}, Dtype::f32, Device::cuda);
  const std::size_t before = in_use();
  const auto work = [&](const Tensor& to, int times) {
    return [=] {
      Tensor sum = x;
      for (int i = 0; i < times; ++i) sum = add(sum, x);
      to.copy_from(sum);
    };
  };
  auto first = std::make_unique<cuda::Graph>(work(a, 5));
  const std::size_t one = in_use();
  auto second = std::make_unique<cuda::Graph>(work(b, 9));
  CHECK(one > before);
  CHECK(in_use() == one);
  for (int i = 0; i < 3; ++i) {
    first->launch();
    second->launch();
    CHECK(a.to_vector<float>() == repeated(3000, 6));
    CHECK(b.to_vector<float>() == repeated(3000, 10));
    x.copy_from(full({3000}, 1.0f));
  }
  first.reset();
  CHECK(in_use() == one);
  second->launch();
  CHECK(b.to_vector<float>() == repeated(3000, 10));
  second.reset();
  CHECK(in_use() == before);
}

TEST_CASE("other threads' work goes on while one records") {
  const Tensor x = full({100}, 1.0f, Device::cuda);
  Tensor theirs, mine;
  const cuda::Graph graph([&] {
    mine = add(x, x);
    std::thread([&] {
      CHECK_FALSE(cuda::capturing());
      theirs = add(x, x);
      CHECK(theirs.to_vector<float>() == repeated(100, 2));
    }).join();
  });
  CHECK(graph.nodes() == 1);
  x.copy_from(full({100}, 4.0f));
  graph.launch();
  CHECK(mine.to_vector<float>() == repeated(100, 8));
  CHECK(theirs.to_vector<float>() == repeated(100, 2));
}

TEST_CASE("the autotuner measures nothing while a graph is recorded") {
  setenv("SHRIKE_TUNE_CACHE", "", 1);  // nothing is kept, and on the host nothing is measured: so ask the tuner itself
  const std::size_t known = cuda::autotuner().size();
  std::vector<int> runs(2);
  const cuda::TuneKey key{"graph_test", {1}, {3, 5}};
  const cuda::Graph graph([&] {
    cuda::run_best(key, {{"first", [&] { ++runs[0]; }}, {"second", [&] { ++runs[1]; }}});
    CHECK(cuda::autotuner().choose(
              key, {"first", "second"}, [&](std::size_t i) { ++runs[i]; }, !cuda::capturing()) == 0);
  });
  CHECK(runs == std::vector<int>{1, 0});
  CHECK(cuda::autotuner().size() == known);
}
