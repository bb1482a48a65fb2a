// The loops that measure the arithmetic units do the arithmetic that they are counted for.
#include "kernels/ceiling.hpp"

#include "catch.hpp"
#include "kernels/cuda.hpp"

using namespace shrike;

TEST_CASE("every unit's sums are exact, and its rate is a rate") {
  for (const auto unit : {cuda::Unit::ffma, cuda::Unit::mma_tf32, cuda::Unit::mma_f16, cuda::Unit::dp4a, cuda::Unit::mma_s8}) {
    const int capability = cuda::properties().compute_capability;
    if (unit == cuda::Unit::mma_tf32 && capability < 80) continue;
    INFO(static_cast<int>(unit));
    const cuda::Ceiling found = cuda::ceiling(unit, SHRIKE_CUDA_HOST ? 3 : 4096);
    CHECK(found.exact);
    CHECK(found.operations_per_second > 0);
  }
}
