// Dropout on the device beside the CPU.
#include "shrike/ops/dropout.hpp"
#include "cuda/pointwise.hpp"

using namespace shrike;

TEST_CASE("dropout on the device has the CPU's mask, to the bit") {
  for (const std::int64_t n : {0, 1, 3, 4, 5, 1023, 5000}) {
    Random random(6, RandomStream::test, static_cast<std::uint64_t>(n));
    const Tensor x = reference::random_tensor({n}, random);
    x.set_requires_grad(true);
    for (const double p : {0.0, 0.1, 0.5, 1.0}) {
      INFO(n << " elements, p " << p);
      pointwise::check([=](const Tensors& in) { return dropout(in[0], p, 0x123456789abcdef0u, (7ull << 33) + 5); }, {x},
                       reference::random_tensor({n}, random));
    }
  }
}
