// Pooling on the device beside the CPU.
#include "shrike/ops/pool.hpp"
#include "cuda/pointwise.hpp"

using namespace shrike;

TEST_CASE("pooling on the device is the CPU's") {
  struct Case {
    Shape shape;
    PoolOptions options;
  };
  std::uint64_t number = 0;
  for (const Case& z : std::vector<Case>{{{1, 4, 6, 8}, {}},
                                         {{2, 5, 7, 3}, {.ceil_mode = true}},
                                         {{1, 1, 1, 17}, {.ceil_mode = true}},
                                         {{1, 9, 8, 16}, {.kernel = 3, .stride = 2, .padding = 1}},
                                         {{3, 6, 5, 5}, {.kernel = 3, .stride = 1}},
                                         {{1, 7, 4, 2}, {.kernel = 2, .stride = 3, .padding = 1, .ceil_mode = true}},
                                         {{1, 16, 17, 1}, {.kernel = 16, .stride = 1, .padding = 8}},
                                         {{0, 4, 4, 3}, {}}}) {
    Random random(1, RandomStream::test, number++);
    const Tensor x = reference::random_integers(z.shape, random, 2);  // many ties
    x.set_requires_grad(true);
    const Tensor dy = reference::random_integers(max_pool2d(x.detach(), z.options).shape(), random);
    INFO("case " << number);
    pointwise::check([&](const Tensors& in) { return max_pool2d(in[0], z.options); }, {x}, dy);
    pointwise::check([&](const Tensors& in) { return avg_pool2d(in[0], z.options); }, {x}, dy, 1e-6);
  }
}

TEST_CASE("max pooling on the device lets NaN and infinity through as the CPU does") {
  for (int at = 0; at < 5; ++at) {
    std::vector<float> values{1, -INFINITY, 3, NAN, -INFINITY, -INFINITY, NAN, 2, INFINITY, 0, 0, NAN, NAN, NAN, 1, 1};
    std::rotate(values.begin(), values.begin() + at, values.end());
    const Tensor x = tensor<float>({1, 4, 4, 1}, values);
    x.set_requires_grad(true);
    pointwise::check([](const Tensors& in) { return max_pool2d(in[0]); }, {x}, full({1, 2, 2, 1}, 1.0f));
  }
}
