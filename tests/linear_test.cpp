#include "shrike/ops/linear.hpp"
#include "isa.hpp"
#include "reference.hpp"
#include "threads.hpp"

using namespace shrike;
using reference::Doubles;

namespace {

Doubles plain_linear(std::int64_t rows, std::int64_t in, std::int64_t out, bool relu, const std::vector<Doubles>& inputs) {
  Doubles y;
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < out; ++j) {
      double sum = inputs.size() > 2 ? inputs[2][static_cast<std::size_t>(j)] : 0;
      for (std::int64_t k = 0; k < in; ++k) {
        sum += inputs[0][static_cast<std::size_t>(i * in + k)] * inputs[1][static_cast<std::size_t>(j * in + k)];
      }
      y.push_back(relu ? std::max(sum, 0.0) : sum);
    }
  }
  return y;
}

}  // namespace

TEST_CASE("linear and its gradients are exact on small integers") {
  std::uint64_t number = 0;
  for (const auto& [rows, in, out] : std::vector<std::array<std::int64_t, 3>>{
           {1, 1, 1}, {3, 5, 7}, {128, 49, 33}, {17, 256, 64}, {1, 1000, 21}, {300, 130, 84}, {64, 512, 4}}) {
    for (const bool relu : {false, true}) {
      INFO(rows << " rows, " << in << " to " << out << " relu " << relu);
      Random random(1, RandomStream::test, number++);
      const Tensor x = reference::random_integers({rows, in}, random);
      const Tensor weight = reference::random_integers({out, in}, random);
      const Tensor bias = reference::random_integers({out}, random);
      for (const Tensor& tensor : {x, weight, bias}) tensor.set_requires_grad(true);
      const Tensor y = linear(x, weight, bias, relu);
      const std::vector<Doubles> inputs{reference::doubles(x), reference::doubles(weight), reference::doubles(bias)};
      const Doubles expected = plain_linear(rows, in, out, relu, inputs);
      REQUIRE(reference::doubles(y) == expected);
      CHECK(reference::doubles(linear(x, weight, {}, relu)) == plain_linear(rows, in, out, relu, {inputs[0], inputs[1]}));
      const Tensor dy = reference::random_integers(y.shape(), random);
      backward({y}, {dy});
      Doubles dx(inputs[0].size()), dweight(inputs[1].size()), dbias(inputs[2].size());
      for (std::int64_t i = 0; i < rows; ++i) {
        for (std::int64_t j = 0; j < out; ++j) {
          const auto at = static_cast<std::size_t>(i * out + j);
          const double g = relu && expected[at] <= 0 ? 0 : static_cast<double>(dy.data<float>()[at]);
          dbias[static_cast<std::size_t>(j)] += g;
          for (std::int64_t k = 0; k < in; ++k) {
            const auto of_x = static_cast<std::size_t>(i * in + k), of_weight = static_cast<std::size_t>(j * in + k);
            dx[of_x] += g * inputs[1][of_weight];
            dweight[of_weight] += g * inputs[0][of_x];
          }
        }
      }
      CHECK(reference::doubles(x.grad()) == dx);
      CHECK(reference::doubles(weight.grad()) == dweight);
      CHECK(reference::doubles(bias.grad()) == dbias);
    }
  }
}

TEST_CASE("linear of odd sizes is exact with each instruction set, forward and backward") {
  Random random(4, RandomStream::test);
  const std::vector<std::int64_t> rows{1, 2, 5, 6, 7, 13, 97, 193, 520},
      sizes{1, 15, 16, 17, 31, 33, 63, 64, 65, 130, 513, 1030};
  const auto pick = [&](const std::vector<std::int64_t>& of) {
    return of[random.below(static_cast<std::uint32_t>(of.size()))];
  };
  for (int number = 0; number < 40; ++number) {
    std::int64_t n = pick(rows), in = pick(sizes), out = pick(sizes);
    if (n * in * out > 4000000) n = 3;  // the plain reference is slow
    const bool relu = number % 2 != 0;
    INFO(n << " rows, " << in << " to " << out << " relu " << relu);
    const Tensor x = reference::random_integers({n, in}, random), weight = reference::random_integers({out, in}, random),
                 bias = reference::random_integers({out}, random), dy = reference::random_integers({n, out}, random);
    const Doubles expected =
        plain_linear(n, in, out, relu, {reference::doubles(x), reference::doubles(weight), reference::doubles(bias)});
    // dx = dy weight and dweight = dy^T x, as the same product of transposed matrices; dy counts where y > 0.
    const auto transposed = [](const Doubles& a, std::int64_t height, std::int64_t width) {
      Doubles result(a.size());
      for (std::int64_t i = 0; i < height; ++i) {
        for (std::int64_t j = 0; j < width; ++j) {
          result[static_cast<std::size_t>(j * height + i)] = a[static_cast<std::size_t>(i * width + j)];
        }
      }
      return result;
    };
    Doubles g = reference::doubles(dy), dbias(static_cast<std::size_t>(out));
    for (std::size_t i = 0; i < g.size(); ++i) {
      if (relu && expected[i] <= 0) g[i] = 0;
      dbias[i % static_cast<std::size_t>(out)] += g[i];
    }
    const Doubles dx = plain_linear(n, out, in, false, {g, transposed(reference::doubles(weight), out, in)});
    const Doubles dweight = plain_linear(out, n, in, false, {transposed(g, n, out), transposed(reference::doubles(x), n, in)});
    for_each_isa([&] {
      for (const Tensor& tensor : {x, weight, bias}) tensor.clear_grad(), tensor.set_requires_grad(true);
      const Tensor y = linear(x, weight, bias, relu);
      REQUIRE(reference::doubles(y) == expected);
      backward({y}, {dy});
      CHECK(reference::doubles(x.grad()) == dx);
      CHECK(reference::doubles(weight.grad()) == dweight);
      CHECK(reference::doubles(bias.grad()) == dbias);
    });
  }
}

TEST_CASE("linear gives the same bits with any number of threads") {
  Random random(5, RandomStream::test);
  for (const auto& [n, in, out] : std::vector<std::array<std::int64_t, 3>>{{70, 700, 1100}, {600, 90, 130}, {1, 300, 200}}) {
    const Tensor x = reference::random_tensor({n, in}, random), weight = reference::random_tensor({out, in}, random),
                 bias = reference::random_tensor({out}, random);
    for (int wanted = 0; wanted < 4; ++wanted) {
      CHECK(same_on_any_threads([&] {
        for (const Tensor& tensor : {x, weight, bias}) tensor.clear_grad(), tensor.set_requires_grad(true);
        const Tensor y = linear(x, weight, bias, true);
        if (wanted == 0) return y;
        backward({y}, {y.clone()});
        return wanted == 1 ? x.grad() : wanted == 2 ? weight.grad() : bias.grad();
      }));
    }
  }
}

TEST_CASE("linear's gradients are those of central differences") {
  Random random(2, RandomStream::test);
  for (const bool relu : {false, true}) {
    reference::check_gradients([&](const Tensors& in) { return linear(in[0], in[1], in[2], relu); },
                               [&](const std::vector<Doubles>& in) { return plain_linear(5, 9, 6, relu, in); },
                               {reference::random_tensor({5, 9}, random), reference::random_tensor({6, 9}, random),
                                reference::random_tensor({6}, random)},
                               random);
  }
}

TEST_CASE("linear of no rows is empty, with gradients of zero") {
  const Tensor x({0, 4});
  const Tensor weight = full({3, 4}, 1.0f);
  const Tensor bias = full({3}, 1.0f);
  for (const Tensor& tensor : {x, weight, bias}) tensor.set_requires_grad(true);
  const Tensor y = linear(x, weight, bias, true);
  REQUIRE(y.shape() == Shape{0, 3});
  backward({y}, {Tensor(y.shape())});
  CHECK(x.grad().shape() == x.shape());
  CHECK(weight.grad().to_vector<float>() == std::vector<float>(12, 0.0f));
  CHECK(bias.grad().to_vector<float>() == std::vector<float>(3, 0.0f));
}

TEST_CASE("linear refuses what does not fit") {
  using Catch::Matchers::Contains;
  CHECK_THROWS_WITH(linear(Tensor({2, 3}), Tensor({4, 5}), {}), Contains("[4, 5]") && Contains("[2, 3]"));
  CHECK_THROWS_WITH(linear(Tensor({2, 3, 1}), Tensor({4, 3}), {}), Contains("[N, in]"));
  CHECK_THROWS_WITH(linear(Tensor({2, 3}), Tensor({4, 3}), Tensor({3})), Contains("bias") && Contains("[4]"));
}
