#include "shrike/ops/elementwise.hpp"

#include "reference.hpp"
#include "threads.hpp"

using namespace shrike;
using reference::Doubles;

TEST_CASE("relu and add and their gradients fit their definitions") {
  Random random(1, RandomStream::test);
  const auto positive = [](double v) { return std::max(v, 0.0); };
  for (const Shape& shape : {Shape{}, Shape{1}, Shape{0, 3}, Shape{2, 3, 5, 7}}) {
    const Tensor a = reference::random_tensor(shape, random), b = reference::random_tensor(shape, random);
    const auto plain_relu = [&](const std::vector<Doubles>& in) {
      Doubles y;
      for (const double v : in[0]) y.push_back(positive(v));
      return y;
    };
    reference::check_gradients([](const Tensors& in) { return relu(in[0]); }, plain_relu, {a}, random);
    for (const bool with_relu : {false, true}) {
      const auto plain_add = [&](const std::vector<Doubles>& in) {
        Doubles y;
        for (std::size_t i = 0; i < in[0].size(); ++i) {
          y.push_back(with_relu ? positive(in[0][i] + in[1][i]) : in[0][i] + in[1][i]);
        }
        return y;
      };
      reference::check_gradients([&](const Tensors& in) { return add(in[0], in[1], with_relu); }, plain_add, {a, b}, random);
    }
  }
}

TEST_CASE("relu keeps NaN and has no gradient at 0") {
  const Tensor x = tensor<float>({4}, {NAN, 0.0f, -0.0f, -HUGE_VALF}).set_requires_grad(true);
  const Tensor y = relu(x);
  CHECK(std::isnan(y.data<float>()[0]));
  CHECK(y.data<float>()[3] == 0.0f);
  backward({y}, {full({4}, 1.0f)});
  CHECK(x.grad().to_vector<float>() == std::vector<float>(4, 0.0f));
}

TEST_CASE("large tensors are computed alike on any number of threads") {
  Random random(2, RandomStream::test);
  const Tensor a = reference::random_tensor({300'001}, random), b = reference::random_tensor({300'001}, random);
  CHECK(same_on_any_threads([&] { return relu(a); }));
  CHECK(same_on_any_threads([&] { return add(a, b, true); }));
}

TEST_CASE("operations print their fields, and differing shapes are refused") {
  Add op;
  op.relu = true;
  CHECK(to_string(op) == "add relu=true");
  CHECK_THROWS_WITH(add(zeros({2, 3}), zeros({3, 2})), Catch::Matchers::Contains("[2, 3] and [3, 2]"));
}
