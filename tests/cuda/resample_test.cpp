// Upsampling on the device beside the CPU.
#include "shrike/ops/resample.hpp"
#include "cuda/pointwise.hpp"

using namespace shrike;

TEST_CASE("nearest upsampling on the device is the CPU's, to the bit") {
  std::uint64_t number = 0;
  for (const Shape& shape : {Shape{2, 3, 5, 4}, Shape{1, 1, 1, 3}, Shape{1, 7, 4, 1}, Shape{0, 2, 2, 4}}) {
    for (const auto& [height, width] : {std::pair{6, 10}, {3, 5}, {7, 11}, {2, 3}, {25, 1}}) {
      INFO(message(shape) << " to " << height << " by " << width);
      Random random(7, RandomStream::test, number++);
      const Tensor x = reference::random_tensor(shape, random);
      x.set_requires_grad(true);
      pointwise::check([&, h = height, w = width](const Tensors& in) { return upsample_nearest(in[0], h, w); }, {x},
                       reference::random_tensor({shape[0], height, width, shape[3]}, random));
    }
  }
}
