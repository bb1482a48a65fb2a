#include "shrike/ops/dropout.hpp"

#include "catch.hpp"
#include "threads.hpp"

using namespace shrike;

TEST_CASE("dropout's mask is the stream of its seed and index") {
  for (const int n : {0, 1, 63, 64, 65, 1000}) {
    for (const double p : {0.0, 0.1, 0.5, 0.9, 1.0}) {
      INFO(n << " elements, p = " << p);
      const Tensor y = dropout(full({n}, 3.0f), p, 0xfedcba9876543210u, 1u << 20);
      Random random(0xfedcba9876543210u, RandomStream::dropout, 1u << 20);
      for (int i = 0; i < n; ++i) {
        const bool keep = static_cast<double>(random.uniform()) >= p;
        REQUIRE(y.data<float>()[i] == (keep ? 3.0f * static_cast<float>(1.0 / (1.0 - p)) : 0.0f));
      }
    }
  }
}

TEST_CASE("the gradient passes where the value passed, by the same factor") {
  const Tensor x = full({41, 27}, 1.0f).set_requires_grad(true);
  const Tensor y = dropout(x, 0.3, 5, 6);
  backward({y}, {full({41, 27}, 1.0f)});
  CHECK(x.grad().to_vector<float>() == y.to_vector<float>());
}

TEST_CASE("dropout keeps the expected share and mean, and differs by index and seed") {
  const Tensor x = full({200'000}, 1.0f);
  const std::vector<float> y = dropout(x, 0.25, 1, 1).to_vector<float>();
  double sum = 0;
  for (const float value : y) sum += value;
  CHECK(sum / 200'000 == Approx(1.0).epsilon(0.006));  // four standard deviations
  CHECK(dropout(x, 0.25, 1, 2).to_vector<float>() != y);
  CHECK(dropout(x, 0.25, 2, 1).to_vector<float>() != y);
  CHECK(dropout(x, 0.25, 1, 1).to_vector<float>() == y);
  CHECK(same_on_any_threads([&] { return dropout(x, 0.25, 1, 1); }));
}

TEST_CASE("a probability outside [0, 1] is refused") {
  CHECK_THROWS_WITH(dropout(zeros({1}), 1.5, 1, 1), Catch::Matchers::Contains("1.5"));
  CHECK_THROWS_AS(dropout(zeros({1}), std::nan(""), 1, 1), Error);
}
