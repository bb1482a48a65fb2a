#include "catch.hpp"
#include "shrike/ops/elementwise.hpp"

using namespace shrike;

TEST_CASE("a tensor used twice collects both gradients") {
  const Tensor x = tensor<float>({3}, {1.0f, -2.0f, 3.0f});
  x.set_requires_grad(true);
  const Tensor y = add(x, add(x, relu(x)));
  backward({y}, {tensor<float>({3}, {1.0f, 10.0f, 100.0f})});
  REQUIRE(x.grad().to_vector<float>() == std::vector<float>{3.0f, 20.0f, 300.0f});
  CHECK_THROWS_WITH(backward({y}, {y.detach()}), Catch::Matchers::Contains("second time"));
}

TEST_CASE("gradients add up over backward passes and leaves keep their own sums") {
  const Tensor a = full({2}, 1.0f);
  const Tensor b = full({2}, 2.0f);
  a.set_requires_grad(true);
  b.set_requires_grad(true);
  for (int i = 0; i < 3; ++i) backward({add(a, b)}, {full({2}, 1.0f)});
  backward({a}, {full({2}, 1.0f)});
  REQUIRE(a.grad().to_vector<float>() == std::vector<float>{4.0f, 4.0f});
  REQUIRE(b.grad().to_vector<float>() == std::vector<float>{3.0f, 3.0f});
}

TEST_CASE("nothing is recorded without a gradient to compute") {
  const Tensor x = full({2}, 1.0f);
  CHECK_FALSE(relu(x).requires_grad());
  x.set_requires_grad(true);
  CHECK(relu(x).requires_grad());
  const NoGrad no_grad;
  CHECK_FALSE(relu(x).requires_grad());
}

TEST_CASE("a tape of a million operations is walked and freed without recursion") {
  const Tensor x = full({1}, 1.0f);
  x.set_requires_grad(true);
  Tensor y = x;
  for (int i = 0; i < 1'000'000; ++i) y = relu(y);
  SECTION("backward") {
    backward(y);
    REQUIRE(x.grad().item() == 1.0f);
  }
  SECTION("dropped") { y = Tensor(); }
}
