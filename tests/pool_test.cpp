#include "shrike/ops/pool.hpp"
#include "reference.hpp"

using namespace shrike;
using reference::Doubles;

namespace {

struct Case {
  std::int64_t n, h, w, c;
  PoolOptions options;
  std::int64_t p, q;  // what PyTorch 1.13 gives
};

const std::vector<Case> cases = {
    {1, 4, 6, 8, {}, 2, 3},
    {2, 5, 7, 3, {}, 2, 3},
    {2, 5, 7, 3, {.ceil_mode = true}, 3, 4},
    {1, 1, 1, 17, {.ceil_mode = true}, 1, 1},
    {1, 9, 8, 16, {.kernel = 3, .stride = 2, .padding = 1}, 5, 4},
    {1, 9, 8, 16, {.kernel = 3, .stride = 2, .padding = 1, .ceil_mode = true}, 5, 5},
    {3, 6, 5, 5, {.kernel = 3, .stride = 1}, 4, 3},
    {1, 5, 6, 4, {.kernel = 2, .stride = 3, .ceil_mode = true}, 2, 2},
    {1, 7, 4, 2, {.kernel = 2, .stride = 3, .padding = 1, .ceil_mode = true}, 3, 2},
    {1, 7, 7, 33, {.kernel = 7, .stride = 1}, 1, 1},
    {1, 3, 2, 1, {.kernel = 1, .stride = 1}, 3, 2},
    {0, 4, 4, 3, {}, 2, 2},
};

// Mean or maximum over the windows; a mean divides by the window's part within the padded input.
Doubles plain_pool(const Case& z, bool max, const Doubles& x) {
  const auto& o = z.options;
  Doubles y;
  for (std::int64_t n = 0; n < z.n; ++n)
    for (std::int64_t p = 0; p < z.p; ++p)
      for (std::int64_t q = 0; q < z.q; ++q)
        for (std::int64_t c = 0; c < z.c; ++c) {
          double best = -HUGE_VAL, sum = 0;
          int count = 0;
          for (std::int64_t i = 0; i < o.kernel; ++i)
            for (std::int64_t j = 0; j < o.kernel; ++j) {
              const std::int64_t h = p * o.stride - o.padding + i, w = q * o.stride - o.padding + j;
              if (h < z.h + o.padding && w < z.w + o.padding) ++count;
              if (h < 0 || w < 0 || h >= z.h || w >= z.w) continue;
              const double value = x[static_cast<std::size_t>(((n * z.h + h) * z.w + w) * z.c + c)];
              best = std::max(best, value);
              sum += value;
            }
          y.push_back(max ? best : sum / count);
        }
  return y;
}

}  // namespace

TEST_CASE("max and average pooling, and their gradients, follow the definition") {
  for (std::size_t number = 0; number < cases.size(); ++number) {
    const Case& z = cases[number];
    INFO("case " << number);
    Random random(1, RandomStream::test, number);
    const Tensor x = reference::random_tensor({z.n, z.h, z.w, z.c}, random);
    REQUIRE(max_pool2d(x, z.options).shape() == Shape{z.n, z.p, z.q, z.c});
    CHECK(reference::doubles(max_pool2d(x, z.options)) == plain_pool(z, true, reference::doubles(x)));
    reference::check_gradients([&](const Tensors& in) { return max_pool2d(in[0], z.options); },
                               [&](const std::vector<Doubles>& in) { return plain_pool(z, true, in[0]); }, {x}, random,
                               {.step = 1e-9});
    reference::check_gradients([&](const Tensors& in) { return avg_pool2d(in[0], z.options); },
                               [&](const std::vector<Doubles>& in) { return plain_pool(z, false, in[0]); }, {x}, random);
  }
}

TEST_CASE("the first of equal elements gets max pooling's gradient") {
  const Tensor x = full({1, 2, 4, 1}, 3.0f);
  x.set_requires_grad(true);
  backward({max_pool2d(x)}, {tensor<float>({1, 1, 2, 1}, {1.0f, 2.0f})});
  CHECK(x.grad().to_vector<float>() == std::vector<float>{1, 0, 2, 0, 0, 0, 0, 0});
}

TEST_CASE("max pooling lets NaN through") {
  const float nan = std::nanf("");
  for (int at = 0; at < 4; ++at) {
    std::vector<float> values{1, -2, 3, 4};
    values[static_cast<std::size_t>(at)] = nan;
    const Tensor x = tensor<float>({1, 2, 2, 1}, values);
    CHECK(std::isnan(max_pool2d(x).item()));
  }
  CHECK(max_pool2d(full({1, 2, 2, 1}, -INFINITY)).item() == -INFINITY);
}

TEST_CASE("pooling refuses what does not fit") {
  using Catch::Matchers::Contains;
  CHECK_THROWS_WITH(max_pool2d(Tensor({4, 4, 3})), Contains("[N, H, W, C]"));
  CHECK_THROWS_WITH(max_pool2d(Tensor({1, 1, 4, 3})), Contains("smaller than the kernel") && Contains("[1, 1, 4, 3]"));
  CHECK_THROWS_WITH(avg_pool2d(Tensor({1, 4, 4, 3}), {.kernel = 0}), Contains("kernel is 0"));
  CHECK_THROWS_WITH(avg_pool2d(Tensor({1, 4, 4, 3}), {.stride = 0}), Contains("stride is 0"));
  CHECK_THROWS_WITH(max_pool2d(Tensor({1, 4, 4, 3}), {.padding = 2}), Contains("padding is 2"));
}
