// Batch norm on the device beside the CPU.
#include "shrike/ops/batch_norm.hpp"
#include "cuda/pointwise.hpp"

using namespace shrike;

TEST_CASE("batch norm on the device is the CPU's") {
  std::uint64_t number = 0;
  for (const Shape& shape : {Shape{2, 3, 5, 4}, Shape{1, 4, 4, 17}, Shape{700, 3}, Shape{300, 64}, Shape{60, 260}, Shape{1, 8},
                             Shape{2, 1, 1, 1}, Shape{0, 4}}) {
    for (const bool training : {false, true}) {
      for (const bool relu : {false, true}) {
        INFO(message(shape) << " training " << training << " relu " << relu);
        Random random(2, RandomStream::test, number++);
        const Shape c{shape[-1]};
        const Tensors in = {reference::random_tensor(shape, random, 99, 103), reference::random_tensor(c, random),
                            reference::random_tensor(c, random), reference::random_tensor(c, random, 100, 102),
                            reference::random_tensor(c, random, 0.1f, 2.0f)};
        for (std::size_t i = 0; i < 3; ++i) in[i].set_requires_grad(true);
        pointwise::check(
            [&](const Tensors& x) { return batch_norm(x[0], x[1], x[2], x[3], x[4], {.training = training, .relu = relu}); },
            in, reference::random_tensor(shape, random), 1e-3);
        for (const std::size_t which : {3u, 4u}) {  // the running statistics as they are left
          pointwise::check(
              [&](const Tensors& x) {
                batch_norm(x[0], x[1], x[2], x[3], x[4], {.training = training});
                return x[which];
              },
              in, {}, 1e-5);
        }
      }
    }
  }
}
