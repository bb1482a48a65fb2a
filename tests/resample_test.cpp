#include "shrike/ops/resample.hpp"

#include "golden.hpp"
#include "reference.hpp"
#include "threads.hpp"

using namespace shrike;
using reference::Doubles;

TEST_CASE("upsample_nearest reads the pixels that torch's interpolate reads") {
  const Golden golden("loss_golden.txt");
  for (int i = 0; i < golden.values<int>("nearest.cases")[0]; ++i) {
    const std::string name = "nearest." + std::to_string(i);
    const auto size = golden.values<std::int64_t>(name + ".size");
    INFO(size[0] << " by " << size[1] << " to " << size[2] << " by " << size[3]);
    const Tensor x({1, size[0], size[1], 1});
    for (std::int64_t k = 0; k < x.numel(); ++k) x.data<float>()[k] = static_cast<float>(k);
    CHECK(upsample_nearest(x, size[2], size[3]).to_vector<float>() == golden.values<float>(name + ".y"));
  }
}

TEST_CASE("each pixel's gradient is the sum over its readers") {
  Random random(1, RandomStream::test);
  for (const Shape& shape : {Shape{1, 1, 1, 1}, Shape{2, 3, 4, 3}, Shape{1, 5, 2, 18}}) {
    for (const auto& [height, width] : {std::pair{shape[1] * 2, shape[2] * 2}, std::pair{shape[1] + 3, shape[2] * 3 + 1},
                                        std::pair{shape[1], shape[2]}, std::pair{std::int64_t{2}, std::int64_t{1}}}) {
      const auto plain = [&, h = height, w = width](const std::vector<Doubles>& in) {
        Doubles y;
        for (std::int64_t n = 0; n < shape[0]; ++n) {
          for (std::int64_t i = 0; i < h * w; ++i) {
            const std::int64_t row = nearest_source(i / w, shape[1], h), column = nearest_source(i % w, shape[2], w);
            const auto at = static_cast<std::size_t>(((n * shape[1] + row) * shape[2] + column) * shape[3]);
            for (std::size_t c = 0; c < static_cast<std::size_t>(shape[3]); ++c) y.push_back(in[0][at + c]);
          }
        }
        return y;
      };
      const auto operation = [h = height, w = width](const Tensors& in) { return upsample_nearest(in[0], h, w); };
      reference::check_gradients(operation, plain, {reference::random_tensor(shape, random)}, random);
    }
  }
  const Tensor x = reference::random_tensor({2, 19, 23, 64}, random);
  CHECK(same_on_any_threads([&] {
    const Tensor leaf = x.clone().set_requires_grad(true);
    const Tensor y = upsample_nearest(leaf, 38, 45);
    backward({y}, {y.detach()});
    return leaf.grad();
  }));
}

TEST_CASE("maps of no image or no pixel") {
  CHECK(upsample_nearest(zeros({0, 3, 3, 2}), 6, 6).shape() == Shape{0, 6, 6, 2});
  CHECK_THROWS_WITH(upsample_nearest(zeros({1, 0, 3, 2}), 6, 6), Catch::Matchers::Contains("[1, 0, 3, 2]"));
  CHECK_THROWS_WITH(upsample_nearest(zeros({1, 3, 3, 2}), 0, 6), Catch::Matchers::Contains("0 by 6"));
}
