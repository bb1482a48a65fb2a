#include "shrike/ops/softmax.hpp"

#include "golden.hpp"
#include "reference.hpp"
#include "threads.hpp"

using namespace shrike;
using reference::Doubles;

TEST_CASE("softmax is torch's") {
  const Golden golden("loss_golden.txt");
  CHECK(reference::difference(softmax(golden.f32("cross_entropy.logits")), golden.values("softmax.y")) < 2e-7);
}

TEST_CASE("softmax and its gradient fit the definition in double, over the last dimension of any rank") {
  Random random(1, RandomStream::test);
  for (const Shape& shape : {Shape{1}, Shape{6}, Shape{1, 1}, Shape{5, 3}, Shape{2, 1, 3, 4}}) {
    const auto columns = static_cast<std::size_t>(shape[-1]);
    const auto plain = [&](const std::vector<Doubles>& in) {
      Doubles y = in[0];
      for (std::size_t row = 0; row < y.size(); row += columns) {
        double sum = 0;
        for (std::size_t i = row; i < row + columns; ++i) sum += std::exp(in[0][i]);
        for (std::size_t i = row; i < row + columns; ++i) y[i] = std::exp(in[0][i]) / sum;
      }
      return y;
    };
    reference::check_gradients([](const Tensors& in) { return softmax(in[0]); }, plain,
                               {reference::random_tensor(shape, random, -4, 4)}, random, {1e-5});
  }
}

TEST_CASE("softmax of large numbers, of nothing and of a scalar") {
  CHECK(softmax(tensor<float>({3}, {3e38f, -3e38f, 3e38f})).to_vector<float>() == std::vector<float>{0.5f, 0.0f, 0.5f});
  CHECK(softmax(zeros({0, 4})).shape() == Shape{0, 4});
  CHECK(softmax(zeros({4, 0})).shape() == Shape{4, 0});
  CHECK_THROWS_WITH(softmax(zeros(Shape{})), Catch::Matchers::Contains("scalar"));
  const Tensor x = full({1000, 21}, 1.5f);
  CHECK(same_on_any_threads([&] { return softmax(x); }));
}
