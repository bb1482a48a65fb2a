#include "shrike/ops/batch_norm.hpp"
#include "reference.hpp"

using namespace shrike;
using reference::Doubles;

namespace {

constexpr double eps = 1e-5;

struct Moments {
  double mean, var;
};

Moments moments(const Doubles& x, std::size_t c, std::size_t channel) {
  const auto rows = static_cast<double>(x.size() / c);
  double mean = 0, var = 0;
  for (std::size_t i = channel; i < x.size(); i += c) mean += x[i] / rows;
  for (std::size_t i = channel; i < x.size(); i += c) var += (x[i] - mean) * (x[i] - mean) / rows;
  return {mean, var};
}

// inputs: x, weight, bias, running_mean, running_var
Doubles plain_batch_norm(std::size_t c, bool training, bool relu, const std::vector<Doubles>& in) {
  Doubles y(in[0].size());
  for (std::size_t k = 0; k < c; ++k) {
    const Moments m = training ? moments(in[0], c, k) : Moments{in[3][k], in[4][k]};
    for (std::size_t i = k; i < y.size(); i += c) {
      y[i] = (in[0][i] - m.mean) / std::sqrt(m.var + eps) * in[1][k] + in[2][k];
      if (relu) y[i] = std::max(y[i], 0.0);
    }
  }
  return y;
}

Tensors random_inputs(const Shape& shape, Random& random) {
  const Shape c{shape[-1]};
  return {reference::random_tensor(shape, random, -1, 3), reference::random_tensor(c, random),
          reference::random_tensor(c, random), reference::random_tensor(c, random),
          reference::random_tensor(c, random, 0.1f, 2.0f)};
}

}  // namespace

TEST_CASE("batch norm and its gradients, training and not, with and without relu") {
  std::uint64_t number = 0;
  for (const Shape& shape : {Shape{2, 3, 5, 4}, Shape{1, 4, 4, 17}, Shape{7, 3}, Shape{2, 1, 1, 1}}) {
    for (const bool training : {false, true}) {
      for (const bool relu : {false, true}) {
        INFO(message(shape) << " training " << training << " relu " << relu);
        Random random(1, RandomStream::test, number++);
        const Tensors inputs = random_inputs(shape, random);
        const auto c = static_cast<std::size_t>(shape[-1]);
        reference::check_gradients(
            [&](const Tensors& in) {
              return batch_norm(in[0], in[1], in[2], in[3].clone(), in[4].clone(),
                                {.training = training, .eps = eps, .relu = relu});
            },
            [&](const std::vector<Doubles>& in) { return plain_batch_norm(c, training, relu, in); }, inputs, random,
            {.tolerance = 1e-3, .wanted = {true, true, true, false, false}});
      }
    }
  }
}

TEST_CASE("batch norm's statistics of many rows far from zero stay accurate") {
  Random random(2, RandomStream::test);
  const Tensor x({100, 300, 5});
  for (std::int64_t i = 0; i < x.numel(); ++i) x.data<float>()[i] = 100.0f * static_cast<float>(i % 5) + random.normal();
  const Tensor mean = full({5}, 1.0f), var = full({5}, 2.0f);
  const Tensor y = batch_norm(x, full({5}, 1.0f), full({5}, 0.0f), mean, var, {.training = true, .momentum = 0.25});
  const Doubles values = reference::doubles(x);
  for (std::size_t k = 0; k < 5; ++k) {
    const Moments m = moments(values, 5, k);
    CHECK(static_cast<double>(mean.data<float>()[k]) == Approx(0.75 * 1 + 0.25 * m.mean).epsilon(1e-6));
    CHECK(static_cast<double>(var.data<float>()[k]) == Approx(0.75 * 2 + 0.25 * m.var * 30000 / 29999).epsilon(1e-5));
  }
  CHECK(reference::difference(y, plain_batch_norm(5, true, false, {values, Doubles(5, 1), Doubles(5, 0), {}, {}})) < 2e-4);
}

TEST_CASE("frozen batch norm passes gradients to x alone and leaves its statistics") {
  Random random(3, RandomStream::test);
  const Tensors in = random_inputs({1, 3, 3, 6}, random);
  const auto before = in[3].to_vector<float>();
  in[0].set_requires_grad(true);
  const Tensor y = batch_norm(in[0], in[1], in[2], in[3], in[4], {.relu = true});
  backward({y}, {full(y.shape(), 1.0f)});
  CHECK(in[0].grad().defined());
  CHECK_FALSE(in[1].grad().defined());
  CHECK(in[3].to_vector<float>() == before);
}

TEST_CASE("batch norm of no rows is empty and leaves the running statistics") {
  const Tensor x({0, 2, 2, 3});
  const Tensor one = full({3}, 1.0f), mean = full({3}, 5.0f), var = full({3}, 6.0f);
  x.set_requires_grad(true);
  const Tensor y = batch_norm(x, one, one, mean, var, {.training = true});
  CHECK(y.shape() == x.shape());
  backward({y}, {Tensor(y.shape())});
  CHECK(x.grad().shape() == x.shape());
  CHECK(mean.to_vector<float>() == std::vector<float>(3, 5.0f));
  CHECK(var.to_vector<float>() == std::vector<float>(3, 6.0f));
}

TEST_CASE("batch norm refuses what does not fit") {
  using Catch::Matchers::Contains;
  const Tensor c3({3}), c4({4});
  CHECK_THROWS_WITH(batch_norm(Tensor({1, 2, 2, 3}), c4, c3, c3, c3), Contains("weight") && Contains("[4]"));
  CHECK_THROWS_WITH(batch_norm(Tensor({1, 2, 2, 3}), c3, c3, c3, c4), Contains("running_var"));
  CHECK_THROWS_WITH(batch_norm(Tensor(Shape{}), c3, c3, c3, c3), Contains("batch_norm"));
}
