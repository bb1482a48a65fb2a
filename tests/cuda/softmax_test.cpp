// Softmax on the device beside the CPU.
#include "shrike/ops/softmax.hpp"
#include "cuda/pointwise.hpp"

using namespace shrike;

TEST_CASE("softmax on the device is the CPU's") {
  std::uint64_t number = 0;
  for (const Shape& shape : {Shape{1}, Shape{300, 2}, Shape{65, 3}, Shape{7, 5}, Shape{33, 16}, Shape{40, 21}, Shape{3, 91},
                             Shape{2, 1024}, Shape{2, 1025}, Shape{1, 3000}, Shape{0, 4}}) {
    INFO(message(shape));
    Random random(3, RandomStream::test, number++);
    const Tensor x = reference::random_tensor(shape, random, -20, 20);
    x.set_requires_grad(true);
    pointwise::check([](const Tensors& in) { return softmax(in[0]); }, {x}, reference::random_tensor(shape, random), 2e-6);
  }
}

TEST_CASE("softmax on the device treats what is not finite as the CPU does") {
  for (const float value : {NAN, INFINITY, -INFINITY}) {
    for (const std::int64_t columns : {3, 40, 1100}) {
      for (const std::int64_t at : {std::int64_t{0}, columns - 1}) {
        const Tensor x = full({2, columns}, 1.0f);
        x.data<float>()[at] = value;
        pointwise::check([](const Tensors& in) { return softmax(in[0]); }, {x}, {}, 2e-6);
      }
    }
  }
  pointwise::check([](const Tensors& in) { return softmax(in[0]); }, {full({1, 5}, -INFINITY)}, {});
}
