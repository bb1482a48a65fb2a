// Anchors made on the device against the CPU's.
#include "shrike/detection/anchors.hpp"

#include "catch.hpp"
#include "compare.hpp"

using namespace shrike;

TEST_CASE("anchors on the device are the CPU's to the bit") {
  const AnchorOptions options[] = {{}, {{16}, {1}, 0.5f}, {{13, 57.5f}, {0.3f, 1, 2.7f, 5}, 0.25f}};
  for (const AnchorOptions& o : options) {
    const std::int64_t maps[][4] = {{16, 16, 37, 50}, {7, 9, 1, 1}, {4, 8, 0, 5}, {8, 4, 3, 257}};
    for (const auto& m : maps) {
      const Tensor cpu = anchors(o, m[0], m[1], m[2], m[3]);
      for (int again = 0; again < 2; ++again) CHECK(same_bits(anchors(o, m[0], m[1], m[2], m[3], Device::cuda), cpu));
    }
  }
}
